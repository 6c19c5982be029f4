"""The controller's API over HTTP (port 9501): the volume's status and metrics, whether it takes I/O, scrubs.

The keys are documented in docs/reference/status.md, the metrics in docs/reference/metrics.md.
"""

import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.block import Limiter, Limits, Meters
from pyjiva.controller.metrics import VolumeCollector
from pyjiva.controller.options import ReplicaAddress
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.snapshot_api_io import snapshot_routes
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import metrics_route, serve_http
from pyjiva.units import parse_size

__all__ = ["serve_api"]


async def serve_api(
    volume: Volume,
    snapshots: Snapshots,
    host: str,
    port: int,
    *,
    iqn: str,
    portals: Callable[[], Sequence[str]],
    sessions: Callable[[], Sequence[dict[str, Any]]],
    limiter: Limiter,
    meters: Meters,
    old_metric_names: bool = False,
    filled: Callable[[], float | None] = lambda: None,
    token: Token | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the API until cancelled; reports the port.  Raises ConfigError: see `serve_http`.

    `portals` and `sessions` come from the iSCSI target, which this package does not know, `meters` from what
    it submits to; `filled` is the share that is there of a volume that is filled from elsewhere.
    """

    async def get_volume(_: Request) -> Response:
        body = attrs.asdict(volume.status(), value_serializer=_plain)
        body |= {"iqn": iqn, "portals": list(portals()), "sessions": list(sessions())}
        body["filled"] = filled()
        body["limits"] = _limits(limiter)
        return JSONResponse(body)

    async def get_health(_: Request) -> Response:
        ready = volume.status().state is not VolumeState.PARKED
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def get_events(_: Request) -> Response:
        return JSONResponse([attrs.asdict(event) for event in volume.history.events])

    app = Starlette(
        routes=[
            Route("/v1/volume", get_volume),
            Route("/v1/health", get_health),
            Route("/v1/events", get_events),
            metrics_route(
                VolumeCollector(
                    volume.status,
                    lambda: len(sessions()),
                    HostPath(meters, limiter, volume.times),
                    old_names=old_metric_names,
                )
            ),
            *_changes(volume),
            Route("/v1/limits", partial(_post_limits, limiter), methods=["POST"]),
            *snapshot_routes(snapshots),
        ]
    )
    await serve_http(app, host, port, token=token, task_status=task_status)


def _changes(volume: Volume) -> list[Route]:
    """What changes something: each is begun, and the status shows how it goes."""

    async def post_scrub(request: Request) -> Response:
        try:
            rate = parse_size(text) if (text := request.query_params.get("rate")) else None
        except ConfigError as error:
            return _refused(str(error), 400)
        if rate == 0:
            return _refused("rate 0: at least 1 byte per second", 400)
        if not volume.start_scrub(rate):
            return _refused("a scrub is under way, or the volume is parked or being filled", 409)
        return JSONResponse({}, status_code=202)

    async def post_replica(request: Request) -> Response:
        replica_id, text = request.path_params["id"], request.query_params.get("address", "")
        witness = request.query_params.get("witness", "0") == "1"
        address = ReplicaAddress.parse(replica_id, text, witness=witness)
        if address is None or replica_id < 1:
            return _refused(f"address {text!r}: write HOST:PORT, and a number from 1", 400)
        why_not = volume.add_replica(address)
        return _refused(why_not, 409) if why_not else JSONResponse({}, status_code=202)

    async def delete_replica(request: Request) -> Response:
        why_not = volume.remove_replica(request.path_params["id"])
        return _refused(why_not, 409) if why_not else JSONResponse({}, status_code=202)

    return [
        Route("/v1/scrub", post_scrub, methods=["POST"]),
        Route("/v1/replicas/{id:int}", post_replica, methods=["POST"]),
        Route("/v1/replicas/{id:int}", delete_replica, methods=["DELETE"]),
    ]


def _limits(limiter: Limiter) -> dict[str, Any]:
    return {
        **attrs.asdict(limiter.limits),
        "waiting": limiter.waiting,
        "delayed": limiter.delayed,
    }


async def _post_limits(limiter: Limiter, request: Request) -> Response:
    """What is not given stays."""
    try:
        changes: dict[str, Any] = {}
        for name, field in (("iops", "iops"), ("rate", "bytes_per_s"), ("burst", "burst_s")):
            text = request.query_params.get(name)
            if text is None:
                continue
            if text == "none" and name != "burst":
                changes[field] = None
            else:
                changes[field] = parse_size(text) if name == "rate" else float(text)
        limits: Limits = attrs.evolve(limiter.limits, **changes)
    except (ConfigError, ValueError) as error:
        return _refused(str(error), 400)
    limiter.change(limits)
    return JSONResponse({"limits": _limits(limiter)})


def _refused(why: str, code: int) -> Response:
    return JSONResponse({"error": why}, status_code=code)


def _plain(_instance: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
