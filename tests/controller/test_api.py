"""The controller's API does what its OpenAPI document says, whatever it is asked."""

import json
import resource
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import trio
from hypothesis import given, note, settings
from hypothesis import strategies as st

from pyjiva.controller.api_document import OPERATIONS, controller_document
from pyjiva.transport.bearer import OPEN_PATHS, Token
from pyjiva.transport.event_stream import EVENT_STREAM, ServerSentEvent, decode_events
from pyjiva.transport.http_io import Guard, serve_http
from pyjiva.transport.openapi import Operation, Schema
from tests.controller.api_page import made, written
from tests.controller.served_api import SESSION, Asked, routes_of, serving
from tests.suites.block_device import Driver, noise

DOCUMENT = controller_document("0")
TOKEN = Token.parse("0123456789abcdef")
#: What is asked for what never ends.
ENDLESS = [each for each in OPERATIONS if each.answers[0].media_type == EVENT_STREAM]
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")


async def test_the_document_has_every_route_and_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path, replicas=1) as api:
        assert routes_of(api.app) == {(each.method, each.path) for each in OPERATIONS}
        served = await api.get("/v1/openapi.json")
    assert served["paths"] == DOCUMENT["paths"]
    assert served["openapi"] == "3.1.0"


def test_its_schemas_are_schemas() -> None:
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"]["Problem"])
    ids = [each.id for each in OPERATIONS]
    assert len(set(ids)) == len(ids)
    for operation in OPERATIONS:
        for schema in (*(p.schema for p in operation.parameters), *(a.schema for a in operation.answers)):
            jsonschema.Draft202012Validator.check_schema(schema)
        in_path = {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
        assert in_path <= {each.name for each in operation.parameters}
        assert operation.open == (operation.path in OPEN_PATHS)


async def test_events_are_heard_as_they_happen(tmp_path: Path) -> None:
    async with serving(tmp_path) as api, trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_http, api.app, "127.0.0.1", 0))

        async def ask(last: str = "") -> trio.SocketStream:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            head = f"GET /v1/events/stream HTTP/1.1\r\nHost: here\r\nLast-Event-ID: {last}\r\n\r\n"
            await stream.send_all(head.encode())
            return stream

        async def hear(until: str, last: str = "") -> list[ServerSentEvent]:
            """All up to the one whose text has `until` in it.  Sizes of chunks are no fields of an event."""
            async with await ask(last) as stream:
                received = b""
                with trio.fail_after(20):
                    async for data in stream:
                        received += data
                        answered, _, text = received.decode().partition("\r\n\r\n")
                        events = list(decode_events(text.replace("\r", "").split("\n")))
                        if events and until in events[-1].data:
                            assert "content-type: text/event-stream" in answered.lower()
                            return events
            raise AssertionError(f"it ended: {received!r}")

        known = await hear("→ healthy")
        assert [json.loads(event.data) for event in known] == (await api.get("/v1/events"))[: len(known)]
        await api.ask(Asked("POST", "/v1/snapshots/{name}", {"name": "one"}))
        (new,) = await hear("create one", known[-1].id)
        assert (new.kind, new.id) == ("snapshot", f"{api.volume.controller_id}-{len(known) + 1}")
        async with await ask(new.id) as stream:
            received = await stream.receive_some()
            api.volume.history.close()
            with trio.fail_after(20):
                while not received.endswith(b"0\r\n\r\n"):  # the answer's end, not only the connection's
                    received += (data := await stream.receive_some())
                    assert data, received
        nursery.cancel_scope.cancel()


async def test_what_a_volume_answers_is_what_the_document_says(tmp_path: Path) -> None:
    """`ask` compares every answer with it."""
    async with serving(tmp_path, sessions=(SESSION,)) as api:
        await Driver(api.volume, api.batch).write(0, noise(8192))

        async def ask(method: str, path: str, status: int, *query: tuple[str, str], **places: str) -> Any:
            answer = await api.ask(Asked(method, path, places, query))
            assert answer.status_code == status, answer.text
            return answer

        created = await ask(
            "POST", "/v1/snapshots/{name}", 201, ("label", "a=b"), ("label", "c=d"), name="one"
        )
        assert created.json()["labels"] == {"a": "b", "c": "d"}
        await ask("POST", "/v1/snapshots/{name}", 409, name="one")
        await ask("POST", "/v1/snapshots/{name}", 400, name="-one")
        await ask("POST", "/v1/snapshots/{name}", 201, name="two")
        data = ("/v1/snapshots/{name}/data", ("offset", "4096"), ("length", "4096"))
        assert (await ask("GET", data[0], 200, *data[1:], name="one")).content == noise(8192)[4096:]
        await ask("GET", data[0], 404, *data[1:], name="none")
        await ask("GET", data[0], 409, ("offset", "4194304"), ("length", "1"), name="one")
        await ask("GET", data[0], 404, ("offset", "4194304"), ("length", "1"), name="none")
        changed = await ask("GET", "/v1/snapshots/{name}/changed", 200, name="one")
        assert changed.json()["extents"]
        await ask("GET", "/v1/snapshots/{name}/changed", 404, ("since", "none"), name="one")
        await ask("POST", "/v1/snapshots/{name}/revert", 200, ("keep_newer", "1"), name="one")
        await ask("DELETE", "/v1/snapshots/{name}", 200, name="one")
        await ask("DELETE", "/v1/snapshots/{name}", 404, name="one")
        assert (await ask("POST", "/v1/size", 200, ("size", "8MiB"))).json() == {"size_bytes": 8 << 20}
        await ask("POST", "/v1/size", 409, ("size", "4MiB"))
        await ask("POST", "/v1/size", 400, ("size", "more"))
        await ask("POST", "/v1/limits", 200, ("iops", "500"), ("rate", "none"))
        await ask("POST", "/v1/limits", 400, ("iops", "0"))
        merges = [each["id"] for each in await api.get("/v1/operations") if each["kind"] == "merge"]
        begun = await ask("POST", "/v1/scrub", 202, ("rate", "64KiB"))
        id_ = begun.headers["Location"].rpartition("/")[2]
        scrub = (await ask("GET", "/v1/operations/{id}", 200, id=id_)).json()
        assert (scrub["kind"], scrub["state"], scrub["total_bytes"]) == ("scrub", "running", 8 << 20)
        assert (await ask("DELETE", "/v1/operations/{id}", 200, id=id_)).json()["state"] == "cancelled"
        await ask("DELETE", "/v1/operations/{id}", 409, id=id_)
        await ask("DELETE", "/v1/operations/{id}", 409, id=merges[0])
        await ask("GET", "/v1/operations/{id}", 404, id="4711")
        assert [each["id"] for each in await api.get("/v1/operations")] == [*merges, id_]
        await ask("POST", "/v1/scrub", 202, ("rate", "50MiB"))
        await ask("POST", "/v1/replicas/{id}", 400, ("address", "nowhere"), id="3")
        await ask("DELETE", "/v1/replicas/{id}", 409, id="3")
        begun = await ask("POST", "/v1/replicas/{id}", 202, ("address", "127.0.0.1:1"), id="3")
        id_ = begun.headers["Location"].rpartition("/")[2]
        adding = (await ask("GET", "/v1/operations/{id}", 200, id=id_)).json()
        assert (adding["kind"], adding["replica"], adding["state"]) == ("add-replica", 3, "running")
        cancelled = (await ask("DELETE", "/v1/operations/{id}", 200, id=id_)).json()
        assert (cancelled["id"], cancelled["state"]) == (id_, "cancelled")
        assert [each["id"] for each in (await api.get("/v1/volume"))["replicas"]] == [1, 2]
        again = await ask("POST", "/v1/replicas/{id}", 202, ("address", "127.0.0.1:1"), id="3")
        given_up = await ask("DELETE", "/v1/replicas/{id}", 202, id="3")
        assert given_up.headers["Location"] == again.headers["Location"] != begun.headers["Location"]
        for path in ("/v1/volume", "/v1/events", "/v1/health", "/v1/snapshots", "/v1/stats"):
            assert await api.get(path)
        assert "pyjiva_volume_size_bytes" in (await ask("GET", "/metrics", 200)).text


async def test_a_size_that_no_file_can_have_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    """What the file system says of it comes late, as which sizes it has nobody can ask.  Not 503: a client
    would ask for it again and again.
    """
    async with serving(tmp_path) as api:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, hard))  # stands for that of the file system
        try:
            answer = await api.ask(Asked("POST", "/v1/size", query=(("size", "1GiB"),)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (answer.status_code, answer.json()["reason"]) == (409, "refused")
        assert "size of 1GiB: replica " in answer.json()["detail"]
        volume = await api.get("/v1/volume")
        assert (volume["state"], volume["size_bytes"]) == ("healthy", 4 << 20)
        assert (await api.ask(Asked("POST", "/v1/size", query=(("size", "8MiB"),)))).status_code == 200


async def test_the_removal_of_a_replica_is_an_operation(tmp_path: Path) -> None:
    async with serving(tmp_path, replicas=3) as api:
        begun = await api.ask(Asked("DELETE", "/v1/replicas/{id}", {"id": "3"}))
        id_ = begun.headers["Location"].rpartition("/")[2]
        found = await api.get("/v1/operations/{id}", id=id_)
        assert (found["kind"], found["replica"], found["state"]) == ("remove-replica", 3, "running")
        refused = await api.ask(Asked("DELETE", "/v1/operations/{id}", {"id": id_}))
        assert (refused.status_code, refused.json()["reason"]) == (409, "refused")
        with trio.fail_after(20):
            while found["state"] == "running":
                await trio.sleep(0.05)
                found = await api.get("/v1/operations/{id}", id=id_)
        assert found["state"] == "done"


async def test_without_the_token_nothing_but_health_is_answered(tmp_path: Path) -> None:
    """Every route, with every method, also those that it has not."""
    async with serving(tmp_path, replicas=1) as api:
        transport = httpx.ASGITransport(Guard(api.app, TOKEN), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            for operation in OPERATIONS:
                path = operation.path.format(id="1", name="one")
                for method in METHODS:
                    if operation.open:
                        assert (await client.request(method, path)).status_code != 401
                        continue
                    for headers in ({}, {"Authorization": "Bearer 0123456789abcdeg"}):
                        answer = await client.request(method, path, headers=headers)
                        assert answer.status_code == 401, (method, path)
                if operation not in ENDLESS:
                    known = await client.request(operation.method, path, headers=TOKEN.headers())
                    assert known.status_code != 401, path


# --- any request


KNOWN = {"name": ["one", "two"], "since": ["one"], "id": ["1", "3"], "address": ["127.0.0.1:1", "[::1]:2"]}
WRONG = st.text(max_size=40) | st.from_regex(r"[0-9]{1,40}[kMGTi]{0,2}", fullmatch=True)


def texts(name: str, schema: Schema, *, careful: bool) -> st.SearchStrategy[str]:
    """What a parameter may be; or also what it almost may, and anything."""
    may_be = st.sampled_from(KNOWN[name]) if name in KNOWN else right(schema)
    return may_be if careful else may_be | right(schema) | WRONG


def right(schema: Schema) -> st.SearchStrategy[str]:
    """What the schema allows."""
    if "anyOf" in schema:
        return st.one_of(*map(right, schema["anyOf"]))
    if "const" in schema:
        return st.just(str(schema["const"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "integer":
            least = schema.get("minimum", 0)
            most = schema.get("maximum", 2**63 - 1)
            return (st.integers(least, min(most, least + 8192)) | st.integers(least, most)).map(str)
        case "number":
            return st.floats(allow_nan=True).map(str)
        case "array":
            return right(schema["items"])
        case _:
            return (
                st.from_regex(schema["pattern"], alphabet=st.characters(codec="ascii"))
                if "pattern" in schema
                else st.text()
            )


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """One of the document's operations, with its parameters, or without, or with others."""
    operation: Operation = draw(st.sampled_from([o for o in OPERATIONS if o not in ENDLESS]))
    places, query, careful = {}, [], draw(st.booleans())
    for parameter in operation.parameters:
        text = texts(parameter.name, parameter.schema, careful=careful)
        if f"{{{parameter.name}}}" in operation.path:
            places[parameter.name] = draw(text.filter(lambda t: t not in ("", ".", "..") and "/" not in t))
        else:
            times = 1 if careful and parameter.required else draw(st.integers(0, 2))
            query += [(parameter.name, draw(text)) for _ in range(times)]
    if not draw(st.integers(0, 9)):
        query.append((draw(st.text(max_size=5)), draw(st.text(max_size=5))))
    return Asked(operation.method, operation.path, places, tuple(query))


@settings(max_examples=15)
@given(asked=st.lists(requests(), min_size=10, max_size=40))
def test_no_request_fails_or_hangs(asked: list[Asked]) -> None:
    """Each is answered in time, as the document says, and the volume takes I/O afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        trio.run(partial(ask_all, Path(directory), asked))


async def ask_all(directory: Path, asked: list[Asked]) -> None:
    async with serving(directory) as api:
        for each in (Asked("POST", "/v1/snapshots/{name}", {"name": "one"}), *asked):
            answer = await api.ask(each)
            note(f"{each.method} {each.target} {each.query}: {answer.status_code}")
        await Driver(api.volume, api.batch).write(0, noise(4096))
        assert (await api.get("/v1/volume"))["state"] != "parked"


@pytest.mark.parametrize("digits", [5000])
async def test_numbers_of_many_digits_are_refused(digits: int, tmp_path: Path) -> None:
    """Python raises for those beyond 4300."""
    async with serving(tmp_path, replicas=1) as api:
        for asked in (
            Asked("DELETE", "/v1/replicas/{id}", {"id": "9" * digits}),
            Asked("POST", "/v1/size", query=(("size", "9" * digits),)),
            Asked("POST", "/v1/scrub", query=(("rate", "9" * digits),)),
            Asked("POST", "/v1/limits", query=(("rate", "9" * digits),)),
        ):
            assert (await api.ask(asked)).status_code == 400


def test_the_page_is_made_of_the_documents() -> None:
    """`python -m tests.controller.api_page` writes it."""
    assert written()[1] == made()
