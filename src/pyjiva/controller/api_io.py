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
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pyjiva import __version__
from pyjiva.block import Limiter, Limits, Meters
from pyjiva.controller.api_document import controller_document
from pyjiva.controller.api_parameters import (
    address,
    count,
    limit_number,
    limit_size,
    number,
    optional_size,
)
from pyjiva.controller.listening_io import listen
from pyjiva.controller.metrics import VolumeCollector
from pyjiva.controller.operations import ADD, REMOVE, RUNNING, SCRUB, Operation
from pyjiva.controller.path_metrics import HostPath
from pyjiva.controller.snapshot_api_io import snapshot_routes
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.stats import jiva_stats
from pyjiva.controller.status import VolumeState
from pyjiva.controller.volume_io import Volume
from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.event_stream import EVENT_STREAM
from pyjiva.transport.http_io import Around, document_route, http_application, metrics_route, serve_http
from pyjiva.transport.idempotent_io import Idempotent
from pyjiva.transport.problem import ProblemError, Reason
from pyjiva.transport.query import flag
from pyjiva.transport.tls_sys import Tls

__all__ = ["ApiOf", "api_application", "serve_api"]


@attrs.frozen(kw_only=True)
class ApiOf:
    """What the API tells of, and changes."""

    volume: Volume
    snapshots: Snapshots
    iqn: str
    portals: Callable[[], Sequence[str]]
    """Of the iSCSI target, which this package does not know; so are the sessions."""
    sessions: Callable[[], Sequence[dict[str, Any]]]
    limiter: Limiter
    meters: Meters
    """Of what it submits to."""
    old_metric_names: bool = False


async def serve_api(
    of: ApiOf,
    host: str,
    port: int,
    *,
    token: Token | None = None,
    tls: Tls | None = None,
    around: Around | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `api_application` until cancelled; reports the port.  For the rest see `serve_http`."""
    app = api_application(of)
    await serve_http(app, host, port, token=token, tls=tls, around=around, task_status=task_status)


def api_application(of: ApiOf) -> Starlette:
    """What is served."""
    volume, limiter = of.volume, of.limiter

    async def get_volume(_: Request) -> Response:
        status = volume.status()
        body = attrs.asdict(status, value_serializer=_plain)
        body |= {"iqn": of.iqn, "portals": list(of.portals()), "sessions": list(of.sessions())}
        body["filled"] = None if status.filling is None else status.filling.share
        body["limits"] = _limits(limiter)
        return JSONResponse(body)

    async def get_stats(request: Request) -> Response:
        url, sessions = str(request.url), len(of.sessions())
        return JSONResponse(jiva_stats(volume.status(), of.meters, url=url, sessions=sessions))

    async def get_health(request: Request) -> Response:
        live = flag(request.query_params, "live")
        ready = volume.status().state is not VolumeState.PARKED
        return JSONResponse({"ready": ready}, status_code=200 if ready or live else 503)

    async def get_events(_: Request) -> Response:
        return JSONResponse([attrs.asdict(event) for event in volume.history.events])

    async def get_event_stream(request: Request) -> Response:
        text = listen(volume.history, volume.controller_id, request.headers.get("last-event-id", ""))
        return StreamingResponse(text, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})

    app = http_application(
        [
            Route("/v1/volume", get_volume),
            Route("/v1/stats", get_stats),
            Route("/v1/health", get_health),
            Route("/v1/events", get_events),
            Route("/v1/events/stream", get_event_stream, methods=["GET"]),
            document_route(controller_document(__version__)),
            metrics_route(
                VolumeCollector(
                    volume.status,
                    lambda: len(of.sessions()),
                    HostPath(of.meters, limiter, volume.times, lambda: volume.window_reads),
                    old_names=of.old_metric_names,
                )
            ),
            *_operations(volume),
            *_changes(volume),
            Route("/v1/limits", partial(_post_limits, limiter), methods=["POST"]),
            *snapshot_routes(of.snapshots),
        ]
    )
    app.add_middleware(Idempotent)
    return app


def _operations(volume: Volume) -> list[Route]:
    """What is under way, and its end."""

    def find(request: Request) -> Operation:
        id_ = request.path_params["id"]
        if (found := volume.operations.find(id_)) is None:
            raise ProblemError(Reason.NO_SUCH_OPERATION, f"there is no operation {id_}, or it ended long ago")
        return found

    async def get_operations(_: Request) -> Response:
        return JSONResponse([attrs.asdict(each) for each in volume.operations])

    async def get_operation(request: Request) -> Response:
        return JSONResponse(attrs.asdict(find(request)))

    async def delete_operation(request: Request) -> Response:
        found = find(request)
        if found.state != RUNNING:
            raise ProblemError(Reason.REFUSED, f"operation {found.id} has ended: it is {found.state}")
        if why_not := _cancel(volume, found):
            raise ProblemError(Reason.REFUSED, why_not)
        return JSONResponse(attrs.asdict(find(request)))

    return [
        Route("/v1/operations", get_operations),
        Route("/v1/operations/{id}", get_operation),
        Route("/v1/operations/{id}", delete_operation, methods=["DELETE"]),
    ]


def _cancel(volume: Volume, operation: Operation) -> str:
    """Give up one that is under way; why not, or "" when it was."""
    if operation.kind == SCRUB and volume.stop_scrub():
        return ""
    if operation.kind == ADD and operation.replica is not None:
        return volume.remove_replica(operation.replica)
    return f"operation {operation.id}, {operation.kind}, goes on until its end"


def _changes(volume: Volume) -> list[Route]:
    """What changes something: each is begun, and the status shows how it goes."""

    async def post_scrub(request: Request) -> Response:
        rate = optional_size(request.query_params, "rate")
        if not volume.start_scrub(rate):
            why_not = "a scrub is under way, or the volume is parked or being filled"
            raise ProblemError(Reason.REFUSED, why_not)
        return _begun("", volume.operations.running(SCRUB))

    async def post_replica(request: Request) -> Response:
        replica_id, given = _replica_id(request), request.query_params
        why_not = volume.add_replica(address(given, "address", replica_id, witness=flag(given, "witness")))
        return _begun(why_not, volume.operations.running(ADD, replica_id))

    async def delete_replica(request: Request) -> Response:
        replica_id = _replica_id(request)
        adding = volume.operations.running(ADD, replica_id)  # this ends it
        why_not = volume.remove_replica(replica_id)
        return _begun(why_not, adding or volume.operations.running(REMOVE, replica_id))

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


def _begun(why_not: str, operation: Operation | None) -> Response:
    if why_not:
        raise ProblemError(Reason.REFUSED, why_not)
    assert operation is not None, "what was begun is seen at once"
    return JSONResponse({}, status_code=202, headers={"Location": f"/v1/operations/{operation.id}"})


def _plain(_instance: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value
