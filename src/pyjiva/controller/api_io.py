"""The controller's API over HTTP (port 9501): the volume's status, and whether it takes I/O.

Read only in this version: nothing here changes a volume.  The keys are documented in
docs/reference/status.md.
"""

from collections.abc import Callable, Sequence
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.transport.http_io import serve_http

__all__ = ["serve_api"]


async def serve_api(
    volume: Volume,
    host: str,
    port: int,
    *,
    iqn: str,
    portals: Callable[[], Sequence[str]],
    sessions: Callable[[], Sequence[dict[str, Any]]],
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until cancelled; reports the port.  Raises ConfigError: it is taken.

    `portals` and `sessions` come from the iSCSI target, which this package does not know.
    """

    async def get_volume(_: Request) -> Response:
        status = volume.status()
        body = {
            "name": status.name,
            "volume_id": status.volume_id,
            "size_bytes": status.size_bytes,
            "block_size_bytes": status.block_size_bytes,
            "state": status.state.value,
            "reason": status.reason,
            "epoch": status.epoch,
            "iqn": iqn,
            "portals": list(portals()),
            "replicas": [
                {
                    "id": r.id,
                    "address": r.address,
                    "directory": r.directory,
                    "mode": r.mode,
                    "progress": r.progress,
                    "reason": r.reason,
                }
                for r in status.replicas
            ],
            "sessions": list(sessions()),
        }
        return JSONResponse(body)

    async def get_health(_: Request) -> Response:
        ready = volume.status().state is not VolumeState.PARKED
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    app = Starlette(routes=[Route("/v1/volume", get_volume), Route("/v1/health", get_health)])
    await serve_http(app, host, port, task_status=task_status)
