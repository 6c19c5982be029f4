"""The controller's API over HTTP (port 9501): the volume's status and metrics, whether it takes I/O, scrubs.

The keys are documented in docs/reference/status.md, the metrics in docs/reference/metrics.md.
"""

import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.block import Limiter, Limits, Meters
from pyjiva.controller.api_parameters import count, flag, limit_number, limit_size, number, optional_size
from pyjiva.controller.metrics import VolumeCollector
from pyjiva.controller.options import ReplicaAddress
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.snapshot_api_io import snapshot_routes
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import http_application, metrics_route, serve_http
from pyjiva.transport.problem import ProblemError, Reason

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

    app = http_application(
        [
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
        rate = optional_size(request.query_params, "rate")
        if rate == 0:
            raise ProblemError(Reason.INVALID_PARAMETER, "rate 0: at least 1 byte per second")
        if not volume.start_scrub(rate):
            why_not = "a scrub is under way, or the volume is parked or being filled"
            raise ProblemError(Reason.REFUSED, why_not)
        return JSONResponse({}, status_code=202)

    async def post_replica(request: Request) -> Response:
        replica_id, text = _replica_id(request), request.query_params.get("address", "")
        address = ReplicaAddress.parse(replica_id, text, witness=flag(request.query_params, "witness"))
        if address is None:
            raise ProblemError(Reason.INVALID_PARAMETER, f"address {text!r}: write HOST:PORT")
        return _begun(volume.add_replica(address))

    async def delete_replica(request: Request) -> Response:
        return _begun(volume.remove_replica(_replica_id(request)))

    return [
        Route("/v1/scrub", post_scrub, methods=["POST"]),
        Route("/v1/replicas/{id}", post_replica, methods=["POST"]),
        Route("/v1/replicas/{id}", delete_replica, methods=["DELETE"]),
    ]


def _limits(limiter: Limiter) -> dict[str, Any]:
    return {
        **attrs.asdict(limiter.limits),
        "waiting": limiter.waiting,
        "delayed": limiter.delayed,
    }


async def _post_limits(limiter: Limiter, request: Request) -> Response:
    """What is not given stays."""
    given = request.query_params
    try:
        changes: dict[str, Any] = {
            field: read(given, name)
            for name, field, read in (
                ("iops", "iops", limit_number),
                ("rate", "bytes_per_s", limit_size),
                ("burst", "burst_s", number),
            )
            if name in given
        }
        limits: Limits = attrs.evolve(limiter.limits, **changes)
    except ConfigError as error:
        raise ProblemError(Reason.INVALID_PARAMETER, str(error)) from error
    limiter.change(limits)
    return JSONResponse({"limits": _limits(limiter)})


def _replica_id(request: Request) -> int:
    return count(request.path_params, "id", least=1)


def _begun(why_not: str) -> Response:
    if why_not:
        raise ProblemError(Reason.REFUSED, why_not)
    return JSONResponse({}, status_code=202)


def _plain(_instance: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
