"""A request that is sent again with its key is not carried out again."""

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from trio.testing import MockClock

from pyjiva.transport.idempotency import KEY_LIFE_S, KEYS_MAX, KeyTable, StoredAnswer, Verdict
from pyjiva.transport.idempotent_io import Idempotent

ANSWER = StoredAnswer(200, (), b"done")


class TestTable:
    def test_what_was_done_is_answered_again(self) -> None:
        table = KeyTable()
        assert table.begin("k", "POST /a?", 0.0) is Verdict.CARRY_OUT
        assert table.begin("k", "POST /a?", 1.0) is Verdict.BUSY
        table.done("k", ANSWER)
        assert table.begin("k", "POST /a?", 2.0) == ANSWER
        assert table.begin("k", "POST /b?", 3.0) is Verdict.ANOTHER

    def test_what_was_not_done_may_be_asked_for_again(self) -> None:
        table = KeyTable()
        table.begin("k", "POST /a?", 0.0)
        table.failed("k")
        assert table.begin("k", "POST /b?", 0.0) is Verdict.CARRY_OUT

    def test_after_an_hour_a_key_is_new(self) -> None:
        table = KeyTable()
        table.begin("k", "POST /a?", 0.0)
        table.done("k", ANSWER)
        assert table.begin("k", "POST /a?", KEY_LIFE_S - 1) == ANSWER
        assert table.begin("k", "POST /b?", KEY_LIFE_S) is Verdict.CARRY_OUT

    def test_the_oldest_are_forgotten_first(self) -> None:
        table = KeyTable()
        for n in range(KEYS_MAX + 1):
            table.begin(str(n), "POST /a?", float(n))
            table.done(str(n), ANSWER)
        assert len(table) == KEYS_MAX
        assert table.begin("1", "POST /a?", 300.0) == ANSWER
        assert table.begin("0", "POST /a?", 300.0) is Verdict.CARRY_OUT
        table.done("gone", ANSWER)
        table.failed("gone")

    def test_what_is_under_way_is_not_forgotten(self) -> None:
        table = KeyTable()
        table.begin("slow", "POST /a?", 0.0)
        for n in range(2 * KEYS_MAX):
            table.begin(str(n), "POST /a?", 1.0)
            table.done(str(n), ANSWER)
        assert table.begin("slow", "POST /a?", 2.0) is Verdict.BUSY
        assert len(table) <= KEYS_MAX + 1

    @given(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.sampled_from(["done", "failed", ""]))
        )
    )
    def test_no_request_is_carried_out_twice(self, steps: list[tuple[str, str, str]]) -> None:
        table = KeyTable()
        carried_out: dict[str, str] = {}
        for at, (key, request, end) in enumerate(steps):
            verdict = table.begin(key, request, float(at))
            if verdict is Verdict.CARRY_OUT:
                assert carried_out.get(key) is None
                carried_out[key] = request
                if end == "done":
                    table.done(key, StoredAnswer(200, (), request.encode()))
                if end == "failed":
                    table.failed(key)
                    del carried_out[key]
            elif isinstance(verdict, StoredAnswer):
                assert verdict.body == request.encode() == carried_out[key].encode()
            else:
                assert (verdict is Verdict.ANOTHER) == (carried_out[key] != request)


class Counter:
    """An application that counts what it does; what has `no` in its query it refuses."""

    def __init__(self, headers: tuple[bytes, ...] = ()) -> None:
        self.done = 0
        self.go_on = trio.Event()
        self.begun = trio.Event()
        app = Starlette(routes=[Route("/{what}", self.do, methods=["GET", "POST", "DELETE"])])
        app.add_middleware(Idempotent, headers=headers)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")

    async def do(self, request: Request) -> Response:
        if "no" in request.query_params:
            return JSONResponse({}, status_code=409)
        self.done += 1
        if "wait" in request.query_params:
            self.begun.set()
            await self.go_on.wait()
        return JSONResponse({"done": self.done}, status_code=202, headers={"Location": "/here"})


async def test_the_same_answer_with_its_headers() -> None:
    counter = Counter()
    answers = [await counter.client.post("/a", headers={"Idempotency-Key": "one"}) for _ in range(3)]
    assert [(a.status_code, a.json(), a.headers["location"]) for a in answers] == [
        (202, {"done": 1}, "/here")
    ] * 3
    await counter.client.delete("/a", headers={"Idempotency-Key": "two"})
    assert counter.done == 2


async def test_without_a_key_and_for_reads_each_request_is_one() -> None:
    counter = Counter()
    for _ in range(2):
        await counter.client.post("/a")
        await counter.client.get("/a", headers={"Idempotency-Key": "one"})
    assert counter.done == 4


async def test_what_was_refused_is_asked_again() -> None:
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    assert (await counter.client.post("/a?no", headers=key)).status_code == 409
    assert (await counter.client.post("/a", headers=key)).status_code == 202


@pytest.mark.parametrize(("name", "status"), [("Namespace", 422), ("User-Agent", 202)])
async def test_another_header_is_another_request_where_it_says_what_is_asked(name: str, status: int) -> None:
    counter = Counter(headers=(b"namespace",))
    await counter.client.post("/a", headers={"Idempotency-Key": "one", name: "x"})
    again = await counter.client.post("/a", headers={"Idempotency-Key": "one", name: "x"})
    assert (again.status_code, again.json()) == (202, {"done": 1})
    other = await counter.client.post("/a", headers={"Idempotency-Key": "one", name: "y"})
    assert (other.status_code, counter.done) == (status, 1)


async def test_another_body_is_another_request() -> None:
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    first = await counter.client.post("/a", headers=key, content=b"x")
    assert (await counter.client.post("/a", headers=key, content=b"x")).json() == first.json() == {"done": 1}
    assert (await counter.client.post("/a", headers=key, content=b"y")).status_code == 422


@pytest.mark.parametrize("length", [0, 5, (1 << 20) + 5])
async def test_the_application_is_given_all_of_the_body(length: int) -> None:
    async def echo(request: Request) -> Response:
        return JSONResponse({"length": len(await request.body())})

    app = Starlette(routes=[Route("/", echo, methods=["POST"])])
    app.add_middleware(Idempotent)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        answer = await client.post("/", headers={"Idempotency-Key": "one"}, content=b"x" * length)
    assert answer.json() == {"length": length}


async def test_another_request_with_the_same_key_is_refused() -> None:
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    await counter.client.post("/a", headers=key)
    for answer in (
        await counter.client.post("/b", headers=key),
        await counter.client.delete("/a", headers=key),
    ):
        assert (answer.status_code, answer.json()["reason"]) == (422, "idempotency-key-of-another-request")


@pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/a", 405), ("POST", "/a/b", 404)])
async def test_what_is_not_there_is_not_there_with_a_used_key_either(
    method: str, path: str, status: int
) -> None:
    """It could not be carried out, so it is not another request; and takes no key from one that could."""
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    assert (await counter.client.request(method, path, headers=key)).status_code == status
    first = await counter.client.post("/a", headers=key)
    assert (await counter.client.request(method, path, headers=key)).status_code == status
    assert (await counter.client.post("/a", headers=key)).json() == first.json() == {"done": 1}


async def test_while_the_first_is_under_way_the_second_is_refused() -> None:
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: counter.client.post("/a?wait", headers=key))
        await counter.begun.wait()
        answer = await counter.client.post("/a?wait", headers=key)
        assert (answer.status_code, answer.json()["reason"]) == (409, "idempotency-key-busy")
        counter.go_on.set()
    assert (await counter.client.post("/a?wait", headers=key)).json() == {"done": 1}


async def test_an_hour_later_it_is_another_request(autojump_clock: MockClock) -> None:
    counter = Counter()
    key = {"Idempotency-Key": "one"}
    await counter.client.post("/a", headers=key)
    await trio.sleep(KEY_LIFE_S)
    assert (await counter.client.post("/a", headers=key)).json() == {"done": 2}


@pytest.mark.parametrize("keys", [[""], ["x" * 256], ["a", "b"]])
async def test_an_odd_key_is_refused(keys: list[str]) -> None:
    counter = Counter()
    answer = await counter.client.post("/a", headers=[("Idempotency-Key", key) for key in keys])
    assert (answer.status_code, counter.done) == (400, 0)
