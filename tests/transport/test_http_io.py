"""The HTTP server: whom it answers, and where it listens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import jsonschema
import pytest
import structlog.testing
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import http_application, serve_http
from pyjiva.transport.problem import PROBLEM_SCHEMA, ProblemError, Reason, detail_of

TOKEN = Token.parse("0123456789abcdef")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")


async def hello(_: Request) -> Response:
    return JSONResponse("hello")


async def fail(request: Request) -> Response:
    """As its query says."""
    raise ERRORS[request.query_params["how"]]


ERRORS: dict[str, Exception] = {
    "refused": ConfigError("it cannot be"),
    "not-ready": StorageError(StorageFailure.NOT_READY, "the volume is parked"),
    "no-space": StorageError(StorageFailure.NO_SPACE, "the disk is full"),
    "invalid-parameter": ProblemError(Reason.INVALID_PARAMETER, "size 'x'"),
    "no-such-snapshot": ProblemError(Reason.NO_SUCH_SNAPSHOT, "there is no snapshot 'x'"),
    "internal-error": RuntimeError("a bug"),
}


@asynccontextmanager
async def serving(token: Token | None) -> AsyncIterator[httpx.AsyncClient]:
    routes = [Route(path, hello) for path in ("/v1/health", "/v1/secret", "/v1/two/{id}")]
    other = Route("/v1/two/{id}", hello, methods=["DELETE"])
    app = http_application([*routes, other, Route("/v1/fail", fail)])
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_http(app, "127.0.0.1", 0, token=token, task_status=task_status)

        port = await nursery.start(serve)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        nursery.cancel_scope.cancel()


def check_problem(answer: httpx.Response, reason: str) -> str:
    """It is problem details of this reason; what it says to people."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    body = answer.json()
    jsonschema.validate(body, PROBLEM_SCHEMA)
    assert (body["status"], body["reason"]) == (answer.status_code, reason)
    return detail_of(body)


@pytest.mark.parametrize(
    ("reason", "status", "detail"),
    [
        ("refused", 409, "it cannot be"),
        ("not-ready", 503, "the volume is parked"),
        ("no-space", 503, "the disk is full"),
        ("invalid-parameter", 400, "size 'x'"),
        ("no-such-snapshot", 404, "there is no snapshot 'x'"),
        ("internal-error", 500, "RuntimeError: the log has more"),
    ],
)
async def test_what_goes_wrong_is_answered_with_its_reason(reason: str, status: int, detail: str) -> None:
    with structlog.testing.capture_logs() as logged:
        async with serving(TOKEN) as client:
            answer = await client.get("/v1/fail", params={"how": reason}, headers=TOKEN.headers())
    assert answer.status_code == status
    assert check_problem(answer, reason) == detail
    assert [str(each["exc_info"]) for each in logged] == (["a bug"] if status == 500 else [])
    assert "0123456789abcdef" not in str(logged)


async def test_what_is_not_there_is_said_so() -> None:
    async with serving(None) as client:
        assert check_problem(await client.get("/v1/nothing"), "not-found") == "there is no /v1/nothing"
        wrong = await client.delete("/v1/secret")
        assert wrong.status_code == 405
        assert set(wrong.headers["Allow"].split(", ")) == {"GET", "HEAD"}
        assert check_problem(wrong, "method-not-allowed") == "/v1/secret has no DELETE"
        assert (await client.get("/v1/secret/")).status_code == 404


async def test_all_methods_of_a_path_are_told() -> None:
    async with serving(None) as client:
        wrong = await client.put("/v1/two/1")
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, "DELETE, GET, HEAD")


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
                if method != "HEAD":
                    check_problem(answer, "token-needed")


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
