"""The exporter before controllers that answer, refuse, hang, and are not there."""

import functools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pyjiva.block import Meters
from pyjiva.maya.exporter.exporter_io import (
    ANSWER_BYTES_MAX,
    ControllerClient,
    Exporter,
    exporter_application,
)
from pyjiva.maya.exporter.scrape import Outcome, Scrape
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import http_application, serve_http
from tests.controller.test_metrics import EXAMPLE, samples_of, text_of
from tests.maya.exporter.test_scrape import stats_of, volume_json

LONG_S = 30.0
ANSWERS: dict[str, bytes] = {
    "/v1/volume": json.dumps(volume_json(EXAMPLE)).encode(),
    "/v1/stats": json.dumps(stats_of(EXAMPLE, Meters(lambda: 0))).encode(),
    "/metrics": text_of(EXAMPLE).encode(),
}
TOKEN = Token.parse("the-token-of-the-volume")


class Controller:
    """Answers what a test wants; `before` is awaited first."""

    def __init__(self, answers: dict[str, bytes] | None = None) -> None:
        self.answers = ANSWERS | (answers or {})
        self.asked: list[str] = []
        self.before: Callable[[], Any] = trio.lowlevel.checkpoint

    def application(self) -> Starlette:
        async def answer(request: Request) -> Response:
            self.asked.append(request.url.path)
            await self.before()
            return Response(self.answers[request.url.path])

        return http_application([Route(path, answer) for path in ANSWERS])


@asynccontextmanager
async def served(app: Starlette, token: Token | None = None) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(functools.partial(serve_http, token=token), app, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def exporter_of(
    url: str, deadline_s: float = LONG_S, token: Token | None = None
) -> AsyncIterator[Exporter]:
    client = ControllerClient(url, deadline_s, token)
    try:
        yield Exporter(client)
    finally:
        await client.aclose()


async def test_a_controller_that_answers() -> None:
    async with served(Controller().application()) as url, exporter_of(url) as exporter:
        scrape = await exporter.scrape()
    assert (scrape.outcome, scrape.detail) == (Outcome.OK, "")
    assert scrape.figures is not None
    assert scrape.figures.volume == exporter.tally.volume == "demo"
    assert scrape.passed_on


async def test_one_that_is_not_there() -> None:
    with trio.socket.socket() as nobody:  # bound, and never listening: connections to it are refused
        await nobody.bind(("127.0.0.1", 0))
        async with exporter_of(f"http://127.0.0.1:{nobody.getsockname()[1]}") as exporter:
            scrape = await exporter.scrape()
    assert scrape.outcome is Outcome.UNREACHABLE
    assert scrape.detail


async def test_one_that_comes_back_is_seen_at_the_next_look() -> None:
    controller = Controller()
    controller.answers["/v1/stats"] = b"{}"
    async with served(controller.application()) as url, exporter_of(url) as exporter:
        assert (await exporter.scrape()).outcome is Outcome.NOT_UNDERSTOOD
        controller.answers = ANSWERS
        assert (await exporter.scrape()).outcome is Outcome.OK
    assert exporter.tally.errors().parse == 1


async def test_one_that_hangs_is_given_up_at_the_deadline() -> None:
    controller = Controller()
    controller.before = trio.sleep_forever
    async with served(controller.application()) as url, exporter_of(url, deadline_s=0.2) as exporter:
        with trio.fail_after(LONG_S):
            scrape = await exporter.scrape()
    assert scrape == Scrape(Outcome.TIMEOUT, "no answer within 0.2 s")


@pytest.mark.parametrize(
    ("token", "outcome"), [(TOKEN, Outcome.OK), (None, Outcome.REFUSED)], ids=["its own", "none"]
)
async def test_one_that_asks_for_a_token(token: Token | None, outcome: Outcome) -> None:
    async with served(Controller().application(), TOKEN) as url, exporter_of(url, token=token) as exporter:
        assert (await exporter.scrape()).outcome is outcome


@pytest.mark.parametrize(
    "answers",
    [
        {"/v1/volume": b"<html>"},
        {"/v1/volume": b"[]"},
        {"/metrics": b"a{ 1\n"},
        {"/metrics": b"#" * (ANSWER_BYTES_MAX + 1)},
    ],
    ids=["no JSON", "another JSON", "no metrics", "too long"],
)
async def test_something_else_that_answers_there(answers: dict[str, bytes]) -> None:
    controller = Controller(answers)
    async with served(controller.application()) as url, exporter_of(url) as exporter:
        assert (await exporter.scrape()).outcome is Outcome.NOT_UNDERSTOOD


async def test_who_comes_during_a_look_gets_what_it_brings() -> None:
    controller = Controller()
    begun, go_on = trio.Event(), trio.Event()

    async def hold() -> None:
        begun.set()
        await go_on.wait()

    controller.before = hold
    found: list[Scrape] = []
    async with served(controller.application()) as url, exporter_of(url) as exporter:

        async def look() -> None:
            found.append(await exporter.scrape())

        with trio.fail_after(LONG_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await begun.wait()
                nursery.start_soon(look)
                nursery.start_soon(look)
                await trio.testing.wait_all_tasks_blocked(0.05)
                go_on.set()
    assert len(found) == 3
    assert all(each is found[0] for each in found)
    assert controller.asked == ["/v1/volume", "/v1/stats", "/metrics"]


async def test_who_waits_for_one_that_goes_away_looks_itself() -> None:
    controller = Controller()
    begun, go_on = trio.Event(), trio.Event()

    async def hold() -> None:
        begun.set()
        await go_on.wait()

    controller.before = hold
    found: list[Scrape] = []
    async with served(controller.application()) as url, exporter_of(url) as exporter:

        async def look() -> None:
            found.append(await exporter.scrape())

        with trio.fail_after(LONG_S):
            async with trio.open_nursery() as outer:
                async with trio.open_nursery() as first:
                    first.start_soon(look)
                    await begun.wait()
                    outer.start_soon(look)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    first.cancel_scope.cancel()
                go_on.set()
    assert [each.outcome for each in found] == [Outcome.OK]


REPLICA_TEXT = (
    "# TYPE pyjiva_replica_used_bytes gauge\npyjiva_replica_used_bytes 7\n"
    "# TYPE pyjiva_replica_disk_seconds histogram\n"
    'pyjiva_replica_disk_seconds_bucket{operation="read",le="+Inf"} 1\n'
    'pyjiva_replica_disk_seconds_sum{operation="read"} 0.5\n'
    'pyjiva_replica_disk_seconds_count{operation="read"} 1\n'
    "# TYPE pyjiva_build_info gauge\npyjiva_build_info 1\n"
)


def volume_at(*hosts: str) -> dict[str, bytes]:
    """`/v1/volume` of a volume with replicas there."""
    replicas = [
        attrs.evolve(EXAMPLE.replicas[0], id=number, address=f"{host}:9502")
        for number, host in enumerate(hosts, 1)
    ]
    status = attrs.evolve(EXAMPLE, replicas=tuple(replicas))
    return {"/v1/volume": json.dumps(volume_json(status)).encode()}


async def test_what_replicas_say_is_told_with_their_numbers_and_who_is_silent_is_left_out() -> None:
    hang = trio.Event()

    async def metrics(request: Request) -> Response:
        if request.url.hostname == "127.0.0.2":
            await hang.wait()
        return Response(REPLICA_TEXT)

    replica = http_application([Route("/metrics", metrics)])
    controller = Controller(volume_at("127.0.0.1", "[::1]", "127.0.0.2", "localhost"))
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_http, for_all=True)
        port = await nursery.start(serve, replica, "0.0.0.0", 0)  # not at ::1
        async with served(controller.application()) as url:
            client = ControllerClient(url, 5.0, replica_health_port=port)
            exporter = Exporter(client)
            app = exporter_application(exporter, "/metrics", old_names=False)
            async with served(app) as ours, httpx.AsyncClient(base_url=ours, trust_env=False) as asking:
                answer = await asking.get("/metrics", timeout=LONG_S)
            await client.aclose()
        nursery.cancel_scope.cancel()
    found = samples_of(answer.text)
    up = {dict(labels)["replica"]: v for (name, labels), v in found.items() if name.endswith("replica_up")}
    assert up == {"1": 1, "2": 0, "3": 0, "4": 1}
    used = {labels: v for (name, labels), v in found.items() if name == "pyjiva_replica_used_bytes"}
    assert used == {(("replica", number), ("volume", "demo")): 7 for number in ("1", "4")}
    took = (("operation", "read"), ("replica", "4"), ("volume", "demo"))
    assert found["pyjiva_replica_disk_seconds_sum", took] == 0.5
    assert answer.text.count("# TYPE pyjiva_replica_used_bytes ") == 1
    assert answer.text.count("# TYPE pyjiva_build_info ") == 1


async def test_what_is_served() -> None:
    async with served(Controller().application()) as url, exporter_of(url) as exporter:
        app = exporter_application(exporter, "/metrics", old_names=False)
        async with served(app) as ours, httpx.AsyncClient(base_url=ours, trust_env=False) as asking:
            for path in ("/metrics", "/metrics/"):
                answer = await asking.get(path)
                assert samples_of(answer.text)["openebs_volume_status", (("volume", "demo"),)] == 2
            for path in ("/metrics?format=json", "/metrics/?format=json"):
                families = {each["name"] for each in (await asking.get(path)).json()}
                assert {"openebs_reads", "openebs_volume_status"} <= families
            assert (await asking.get("/v1/health")).json() == {"ready": True}
            assert (await asking.get("/other")).status_code == 404


async def test_a_controller_that_is_away_is_no_error_of_ours() -> None:
    async def gone(_: Request) -> Response:
        return JSONResponse({}, status_code=500)

    app = http_application([Route("/v1/volume", gone)])
    async with served(app) as url, exporter_of(url) as exporter:
        ours = exporter_application(exporter, "/m", old_names=True)
        async with served(ours) as at, httpx.AsyncClient(base_url=at, trust_env=False) as asking:
            answer = await asking.get("/m")
    assert answer.status_code == 200
    found = samples_of(answer.text)
    assert found["pyjiva_exporter_scrapes_total", (("outcome", "refused"),)] == 1
    assert found["openebs_volume_status", ()] == 4
