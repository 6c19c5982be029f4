"""The controller's API over HTTP (port 9501): the volume's status, whether it takes I/O, and scrubs.

The keys are documented in docs/reference/status.md.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError
from pyjiva.transport.http_io import serve_http
from pyjiva.units import parse_size

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
        body = attrs.asdict(volume.status(), value_serializer=_plain)
        body |= {"iqn": iqn, "portals": list(portals()), "sessions": list(sessions())}
        return JSONResponse(body)

    async def get_health(_: Request) -> Response:
        ready = volume.status().state is not VolumeState.PARKED
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def get_events(_: Request) -> Response:
        return JSONResponse([attrs.asdict(event) for event in volume.history.events])

    async def post_scrub(request: Request) -> Response:
        try:
            rate = parse_size(text) if (text := request.query_params.get("rate")) else None
        except ConfigError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        if rate == 0:
            return JSONResponse({"error": "rate 0: at least 1 byte per second"}, status_code=400)
        if not volume.start_scrub(rate):
            return JSONResponse({"error": "a scrub is under way, or the volume is parked"}, status_code=409)
        return JSONResponse({}, status_code=202)

    app = Starlette(
        routes=[
            Route("/v1/volume", get_volume),
            Route("/v1/health", get_health),
            Route("/v1/events", get_events),
            Route("/v1/scrub", post_scrub, methods=["POST"]),
        ]
    )
    await serve_http(app, host, port, task_status=task_status)


def _plain(_instance: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
