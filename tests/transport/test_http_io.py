"""The HTTP server: whom it answers, and where it listens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import serve_http

TOKEN = Token.parse("0123456789abcdef")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")


async def hello(_: Request) -> Response:
    return JSONResponse("hello")


@asynccontextmanager
async def serving(token: Token | None) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route(path, hello) for path in ("/v1/health", "/v1/secret")])
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_http(app, "127.0.0.1", 0, token=token, task_status=task_status)

        port = await nursery.start(serve)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_who_knows_the_token_is_answered() -> None:
    async with serving(TOKEN) as client:
        assert (await client.get("/v1/secret", headers=TOKEN.headers())).status_code == 200
        assert (await client.get("/v1/nothing", headers=TOKEN.headers())).status_code == 404


async def test_health_is_for_everybody() -> None:
    async with serving(TOKEN) as client:
        assert (await client.get("/v1/health")).json() == "hello"


@pytest.mark.parametrize(
    "path", ["/v1/secret", "/v1/nothing", "/", "/v1/health/", "//v1/health", "/V1/health"]
)
async def test_nothing_else_is_with_any_method(path: str) -> None:
    """What is there and what is not cannot be told apart."""
    async with serving(TOKEN) as client:
        for method in METHODS:
            for headers in ({}, {"Authorization": "Bearer 0123456789abcdeg"}):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401, method
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="pyjiva"'


async def test_a_web_socket_is_refused_without_it() -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with serving(TOKEN) as client:
        assert (await client.get("/v1/secret", headers=upgrade)).status_code == 403


async def test_without_a_token_everybody_is_answered() -> None:
    async with serving(None) as client:
        assert (await client.get("/v1/secret")).json() == "hello"


async def test_without_a_token_it_listens_on_loopback_only() -> None:
    with trio.fail_after(5), pytest.raises(ConfigError, match="needs --api-token-file"):
        await serve_http(Starlette(), "0.0.0.0", 0)
