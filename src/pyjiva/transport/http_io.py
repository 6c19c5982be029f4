"""Serve an ASGI application on hypercorn's trio worker to those who know its token, and `/metrics`: what the
controller's API and the replica's health page share.
"""

from typing import Any, cast

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import OPEN_PATHS, Token
from pyjiva.transport.exposition import BuildCollector
from pyjiva.transport.token_file_sys import check_reach

__all__ = ["Guard", "metrics_route", "serve_http"]


async def serve_http(
    app: Starlette,
    host: str,
    port: int,
    *,
    token: Token | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `host`:`port` until cancelled; reports the port.

    `token`: what requests have to carry, but for OPEN_PATHS; None: nothing.  Raises ConfigError: the address
    is taken, or is not this machine's alone and there is no token.
    """
    await trio.to_thread.run_sync(check_reach, host, token)
    listener = (await _listen(host, port))[0]
    bound = int(listener.socket.getsockname()[1])
    config = Config()
    # hypercorn takes the descriptor over, so that nobody can take the port in between.
    config.bind = [f"fd://{listener.socket.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.5
    config.h11_max_incomplete_size = 16 * 1024
    task_status.started(bound)
    # hypercorn spells ASGI out in types of its own, starlette in others.
    served = app if token is None else Guard(app, token)
    await serve(cast(Any, served), config, shutdown_trigger=trio.sleep_forever)


@attrs.frozen(eq=False)
class Guard:
    """An ASGI application that answers only who knows the token.

    It looks before the router does: which routes there are is not told either.
    """

    app: ASGIApp
    token: Token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        kind = scope["type"]
        if kind == "lifespan" or (kind == "http" and scope["path"] in OPEN_PATHS) or self._is_admitted(scope):
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await WebSocketClose(code=1008)(scope, receive, send)
        else:
            answer = JSONResponse(
                {"error": "a token is needed, and the right one"},
                status_code=401,
                headers={"WWW-Authenticate": 'Bearer realm="pyjiva"'},
            )
            await answer(scope, receive, send)

    def _is_admitted(self, scope: Scope) -> bool:
        return self.token.admits([value for name, value in scope["headers"] if name == b"authorization"])


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


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
