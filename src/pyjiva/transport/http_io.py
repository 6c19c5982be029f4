"""Serve an ASGI application on hypercorn's trio worker to those who know its token, and `/metrics`: what the
controller's API and the replica's health page share.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

import attrs
import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from pyjiva.errors import ConfigError, StorageError
from pyjiva.transport.bearer import OPEN_PATHS, Token
from pyjiva.transport.exposition import BuildCollector
from pyjiva.transport.problem import PROBLEM_TYPE, Problem, ProblemError, Reason, of_status
from pyjiva.transport.tls_sys import Tls
from pyjiva.transport.token_file_sys import check_reach

__all__ = [
    "Around",
    "Guard",
    "document_route",
    "http_application",
    "metrics_route",
    "problem_response",
    "serve_http",
]

_log = structlog.get_logger(__name__)

Around = Callable[[Starlette, ASGIApp], ASGIApp]
"""What stands around an application as it is served: given both, it answers in their place."""


async def serve_http(
    app: Starlette,
    host: str,
    port: int,
    *,
    token: Token | None = None,
    tls: Tls | None = None,
    open_paths: frozenset[str] = OPEN_PATHS,
    for_all: bool = False,
    around: Around | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `host`:`port` until cancelled; reports the port.

    `token`: what requests have to carry, but for `open_paths`; None: nothing.  `tls`: by HTTPS; without a
    token who asks must have a certificate of the authority, also for these.  `for_all`: nothing that it says
    or does needs either.  `around` sees also what the token keeps out.  Raises ConfigError: the address is
    taken, or is not this machine's alone and there is neither.
    """
    if tls is None and not for_all:
        await trio.to_thread.run_sync(check_reach, host, token)
    listener = (await _listen(host, port))[0]
    bound = int(listener.socket.getsockname()[1])
    config = Config() if tls is None else _SecureConfig(tls, client_certificates=token is None)
    # hypercorn takes the descriptor over, so that nobody can take the port in between.
    config.bind = [f"fd://{listener.socket.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.5
    config.h11_max_incomplete_size = 16 * 1024
    task_status.started(bound)
    # hypercorn spells ASGI out in types of its own, starlette in others.
    served: ASGIApp = app if token is None else Guard(app, token, open_paths)
    if around is not None:
        served = around(app, served)
    await serve(cast(Any, served), config, shutdown_trigger=trio.sleep_forever)


class _SecureConfig(Config):
    """With our TLS in place of what hypercorn would make of the same files."""

    def __init__(self, tls: Tls, *, client_certificates: bool) -> None:
        super().__init__()
        self.certfile, self.keyfile = str(tls.files.certificate), str(tls.files.key)  # these say: by HTTPS
        self._context = tls.always(lambda now: now.server if client_certificates else now.open_server)

    def create_ssl_context(self) -> ssl.SSLContext:
        """What the connections are taken with."""
        return self._context


@attrs.frozen(eq=False)
class Guard:
    """An ASGI application that answers only who knows the token.

    It looks before the router does: which routes there are is not told either.
    """

    app: ASGIApp
    token: Token
    open_paths: frozenset[str] = OPEN_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        kind = scope["type"]
        if (
            kind == "lifespan"
            or (kind == "http" and scope["path"] in self.open_paths)
            or self._is_admitted(scope)
        ):
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await WebSocketClose(code=1008)(scope, receive, send)
        else:
            problem = Problem.of(Reason.TOKEN_NEEDED, "a token is needed, and the right one")
            challenge = {"WWW-Authenticate": 'Bearer realm="pyjiva"'}
            await problem_response(problem, challenge)(scope, receive, send)

    def _is_admitted(self, scope: Scope) -> bool:
        return self.token.admits([value for name, value in scope["headers"] if name == b"authorization"])


def http_application(routes: Sequence[Route]) -> Starlette:
    """An application of these routes, which answers whatever goes wrong with problem details."""
    app = Starlette(routes=routes, exception_handlers=_HANDLERS)
    app.router.redirect_slashes = False  # one name for each thing
    return app


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells of it."""
    return JSONResponse(problem.body(), status_code=problem.status, headers=headers, media_type=PROBLEM_TYPE)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(error.problem)


async def _cannot_be(_: Request, error: Exception) -> Response:
    return problem_response(Problem.of(Reason.REFUSED, str(error)))


async def _could_not(_: Request, error: Exception) -> Response:
    assert isinstance(error, StorageError)
    return problem_response(Problem.of_storage(error))


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    detail = {404: f"there is no {path}", 405: f"{path} has no {request.method}"}
    problem = of_status(error.status_code, detail.get(error.status_code, error.detail))
    headers = {"Allow": _methods_of(request)} if error.status_code == 405 else error.headers
    return problem_response(problem, headers)


def _methods_of(request: Request) -> str:
    """All that the path has (RFC 9110 section 10.2.1): each may have a route of its own."""
    there: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            there |= route.methods or set()
    return ", ".join(sorted(there))


async def _failed(request: Request, error: Exception) -> Response:
    # Not the headers: one of them is the token.
    _log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
    detail = f"{type(error).__name__}: the log has more"
    return problem_response(Problem.of(Reason.INTERNAL_ERROR, detail))


_HANDLERS: Final[dict[Any, Callable[[Request, Exception], Awaitable[Response]]]] = {
    ProblemError: _refuse,
    ConfigError: _cannot_be,
    StorageError: _could_not,
    HTTPException: _not_routed,
    Exception: _failed,
}


def metrics_route(collector: Collector) -> Route:
    """`GET /metrics`: what `collector` says at that moment, and which program it is, in Prometheus' text
    format.
    """
    registry = CollectorRegistry()
    registry.register(BuildCollector())
    registry.register(collector)

    async def get_metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Route("/metrics", get_metrics)


def document_route(document: Mapping[str, Any], path: str = "/v1/openapi.json") -> Route:
    """`GET` of the OpenAPI document."""

    async def get_document(_: Request) -> Response:
        return JSONResponse(document)

    return Route(path, get_document)


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
