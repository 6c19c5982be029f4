"""Maya's API over HTTP: reads requests, asks the backend, writes answers.

What each route takes and answers is in `api_document`; no GET changes anything.
"""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyjiva import __version__
from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver.api_document import DOCUMENT_PATH, HEALTH_PATH, OPERATIONS, maya_document
from pyjiva.maya.apiserver.backend import (
    AlreadyExists,
    Backend,
    BackendError,
    CloneSource,
    NewVolume,
    NotFound,
    Refused,
    Unavailable,
    VolumeName,
)
from pyjiva.maya.apiserver.body import BODY_BYTES_MAX, Fields, capacity, read_body
from pyjiva.maya.apiserver.cas_snapshot import (
    new_snapshot,
    pool_json,
    pools_json,
    snapshot_json,
    snapshot_list_json,
    snapshot_name,
)
from pyjiva.maya.apiserver.cas_volume import NAME, deleted_json, list_json, new_volume, volume_json
from pyjiva.maya.apiserver.request_times import RequestTimes
from pyjiva.maya.policy.fault import PoliciesRefused
from pyjiva.transport.http_io import document_route, http_application, metrics_route
from pyjiva.transport.idempotent_io import Idempotent
from pyjiva.transport.problem import ProblemError, Reason

__all__ = ["OPEN_PATHS", "health_application", "maya_application"]

OPEN_PATHS: Final = frozenset({HEALTH_PATH})
"""What is answered without a token: the kubelet asks for it."""
VOLUME_HEALTH_PATH: Final = "/v1/health"
JIVA: Final = ("", "jiva")

Handler = Callable[[Backend, Request], Awaitable[Any]]
"""Answers with JSON.  Raises ConfigError: the request makes no sense."""

_REASONS: Final[dict[type[BackendError], Reason]] = {
    AlreadyExists: Reason.ALREADY_EXISTS,
    Refused: Reason.REFUSED,
    Unavailable: Reason.UNAVAILABLE,
}
_NOT_FOUND: Final = {
    "volume": Reason.NO_SUCH_VOLUME,
    "snapshot": Reason.NO_SUCH_SNAPSHOT,
    "pool": Reason.NO_SUCH_POOL,
}


def maya_application(backend: Backend) -> Starlette:
    """What is served."""
    times = RequestTimes()
    named: dict[str, Route] = {
        "metrics": metrics_route(times),
        "openapi": document_route(maya_document(__version__), DOCUMENT_PATH),
        "health": Route(HEALTH_PATH, partial(_health, backend)),
    }
    routes = [
        named.get(each.id)
        or Route(each.path, partial(_answer, backend, _HANDLERS[each.id]), methods=[each.method])
        for each in OPERATIONS
    ]
    app = http_application(routes)
    app.add_middleware(Idempotent, headers=(b"namespace",))
    app.add_middleware(_Timed, routes=routes, times=times)
    return app


def health_application(app: Starlette) -> Starlette:
    """What of `app` everybody may be told, under the path that a volume's health has too: for an address of
    its own, where kubelets and Prometheus reach it.
    """
    routes = {route.path: route for route in app.routes if isinstance(route, Route)}
    health = routes[HEALTH_PATH]
    return http_application([health, Route(VOLUME_HEALTH_PATH, health.endpoint), routes["/metrics"]])


async def _answer(backend: Backend, handler: Handler, request: Request) -> Response:
    try:
        return JSONResponse(await handler(backend, request))
    except PoliciesRefused as error:
        raise ProblemError(Reason.BAD_POLICY, str(error)) from error
    except ConfigError as error:
        raise ProblemError(Reason.INVALID_PARAMETER, str(error)) from error
    except NotFound as error:
        raise ProblemError(_NOT_FOUND[error.what], str(error)) from error
    except BackendError as error:
        raise ProblemError(_REASONS[type(error)], str(error)) from error


async def _health(backend: Backend, _: Request) -> Response:
    reason = await backend.why_unhealthy()
    return JSONResponse({"ready": not reason, "reason": reason}, status_code=503 if reason else 200)


# Volumes


async def _create_volume(backend: Backend, request: Request) -> Any:
    wanted = new_volume(await _body(request), _namespace(request))
    return volume_json(await backend.create(wanted))


async def _volumes(backend: Backend, request: Request) -> Any:
    return list_json(await backend.list(_namespace(request)))


async def _volume(backend: Backend, request: Request) -> Any:
    return volume_json(await backend.get(_volume_name(request)))


async def _delete_volume(backend: Backend, request: Request) -> Any:
    volume = _volume_name(request)
    await backend.delete(volume)
    return deleted_json(volume)


async def _stats(backend: Backend, request: Request) -> Any:
    return await backend.stats(_volume_name(request))


async def _expand_volume(backend: Backend, request: Request) -> Any:
    body = await _body(request)
    size_bytes = capacity(body.text("capacity"), "capacity")
    body.end()
    return volume_json(await backend.expand(_volume_name(request), size_bytes))


async def _clone_volume(backend: Backend, request: Request) -> Any:
    body, origin = await _body(request), _volume_name(request)
    name, snapshot = body.text("name"), snapshot_name(body.text("snapshotName"))
    size, annotations = body.text("capacity"), body.texts("annotations")
    body.end()
    if NAME.fullmatch(name) is None:
        raise ConfigError(f"name {name!r}: 1 to 63 lower-case letters, digits and inner dashes")
    source = await backend.get(origin)
    size_bytes = (
        capacity(size, "capacity") if size else (await backend.get_snapshot(origin, snapshot)).size_bytes
    )
    wanted = NewVolume(
        name,
        source.namespace,
        size_bytes or source.capacity_bytes,
        storage_class=source.storage_class,
        annotations=annotations,
        source=CloneSource(source.name, snapshot),
    )
    return volume_json(await backend.create(wanted))


# Snapshots and pools


async def _create_snapshot(backend: Backend, request: Request) -> Any:
    volume, name = new_snapshot(await _body(request), _namespace(request))
    return snapshot_json(await backend.create_snapshot(volume, name))


async def _snapshots(backend: Backend, request: Request) -> Any:
    _check_cas_type(request)
    namespace, name = _namespace(request), _query(request, "volume")
    volume = VolumeName(name, namespace) if name else None
    return snapshot_list_json(await backend.snapshots(volume, namespace))


async def _snapshot(backend: Backend, request: Request) -> Any:
    _check_cas_type(request)
    return snapshot_json(await backend.get_snapshot(_whose(request), request.path_params["name"]))


async def _delete_snapshot(backend: Backend, request: Request) -> Any:
    _check_cas_type(request)
    volume, name = _whose(request), request.path_params["name"]
    found = await backend.get_snapshot(volume, name)
    await backend.delete_snapshot(volume, name)
    return snapshot_json(found)


async def _pools(backend: Backend, _: Request) -> Any:
    return pools_json(await backend.pools())


async def _pool(backend: Backend, request: Request) -> Any:
    name = request.path_params["name"]
    for pool in await backend.pools():
        if pool.name == name:
            return pool_json(pool)
    raise NotFound("pool", f"there is no pool {name!r}")


_HANDLERS: Final[Mapping[str, Handler]] = {
    "createVolume": _create_volume,
    "volumes": _volumes,
    "stats": _stats,
    "volume": _volume,
    "deleteVolume": _delete_volume,
    "expandVolume": _expand_volume,
    "cloneVolume": _clone_volume,
    "createSnapshot": _create_snapshot,
    "snapshots": _snapshots,
    "snapshot": _snapshot,
    "deleteSnapshot": _delete_snapshot,
    "pools": _pools,
    "pool": _pool,
}


# What requests have in common


async def _body(request: Request) -> Fields:
    """Raises ConfigError: it is too large, or no object."""
    data = bytearray()
    try:
        async with contextlib.aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > BODY_BYTES_MAX:
                    raise ConfigError(f"body: at most {BODY_BYTES_MAX} bytes")
    except ClientDisconnect as error:
        raise ConfigError("body: the client went away in the middle of it") from error
    return read_body(bytes(data), request.headers.get("content-type", ""))


def _namespace(request: Request) -> str:
    """Raises ConfigError: header and query name two, or it is none."""
    found = {*request.query_params.getlist("namespace"), *request.headers.getlist("namespace")} - {""}
    if len(found) > 1:
        raise ConfigError(f"namespace: the request names several, {' and '.join(sorted(found))}")
    namespace = next(iter(found), "")
    if namespace and NAME.fullmatch(namespace) is None:
        raise ConfigError(f"namespace {namespace!r}: 1 to 63 lower-case letters, digits and inner dashes")
    return namespace


def _volume_name(request: Request) -> VolumeName:
    return VolumeName(request.path_params["name"], _namespace(request))


def _query(request: Request, name: str) -> str:
    given = request.query_params.getlist(name)
    if len(set(given)) > 1:
        raise ConfigError(f"{name}: the request names several")
    return given[0] if given else ""


def _whose(request: Request) -> VolumeName:
    name = _query(request, "volume")
    if not name:
        raise ConfigError("volume: in the query, the volume that has the snapshot")
    return VolumeName(name, _namespace(request))


def _check_cas_type(request: Request) -> None:
    if (kind := _query(request, "casType")) not in JIVA:
        raise ConfigError(f"casType {kind!r}: expected jiva")


@attrs.frozen(eq=False)
class _Timed:
    """Around everything: how long each request took."""

    app: ASGIApp
    routes: list[Route]
    times: RequestTimes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began_s, status = trio.current_time(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            self.times.add(self._route(scope), scope["method"], status, trio.current_time() - began_s)

    def _route(self, scope: Scope) -> str:
        matches = ((route.path, route.matches(scope)[0]) for route in self.routes)
        found = {match: path for path, match in reversed(list(matches))}
        return found.get(Match.FULL) or found.get(Match.PARTIAL, "")
