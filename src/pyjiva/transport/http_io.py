"""Serve an ASGI application on hypercorn's trio worker, and `/metrics`: what the controller's API and the
replica's health page share.
"""

from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pyjiva.errors import ConfigError
from pyjiva.transport.exposition import BuildCollector

__all__ = ["metrics_route", "serve_http"]


async def serve_http(
    app: Starlette, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve `app` on `host`:`port` until cancelled; reports the port.  Raises ConfigError: it is taken."""
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
    await serve(cast(Any, app), config, shutdown_trigger=trio.sleep_forever)


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
