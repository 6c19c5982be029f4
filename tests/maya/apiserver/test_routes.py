"""`maya.apiserver.routes_io`: Maya's API does what its OpenAPI document says, whatever it is asked."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import trio
from hypothesis import given, note, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pyjiva.maya.apiserver.api_document import OPERATIONS, maya_document
from pyjiva.maya.apiserver.routes_io import OPEN_PATHS, health_application
from pyjiva.transport.bearer import Token
from pyjiva.transport.http_io import Guard, serve_http
from pyjiva.transport.openapi import Operation, Schema
from tests.controller.served_api import routes_of
from tests.maya.apiserver.fake_backend import FAMILIES, MayaApi, serving
from tests.maya.apiserver.maya_page import made, written
from tests.suites.openapi import check_by_document

TOKEN = Token.parse("0123456789abcdef")
VOLUMES, VOLUME = "/latest/volumes/", "/latest/volumes/{name}"
SNAPSHOTS, SNAPSHOT = "/latest/snapshots/", "/latest/snapshots/{name}"


def body(name: str, capacity: str = "5Gi", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"capacity": capacity}, **more}


async def test_the_document_has_every_route_and_no_other() -> None:
    async with serving() as api:
        assert routes_of(api.app) == {(each.method, each.path) for each in OPERATIONS}
        served = (await api.ask("GET", "/latest/openapi.json")).json()
    assert served["paths"] == maya_document("0")["paths"]


def test_its_schemas_are_schemas() -> None:
    ids = [each.id for each in OPERATIONS]
    assert len(set(ids)) == len(ids)
    for operation in OPERATIONS:
        schemas = [*(p.schema for p in operation.parameters), *(a.schema for a in operation.answers)]
        for schema in [*schemas, *([operation.body] if operation.body else [])]:
            jsonschema.Draft202012Validator.check_schema(schema)
        in_path = {part[1:-1] for part in operation.path.split("/") if part.startswith("{")}
        assert in_path <= {each.name for each in operation.parameters}
        assert operation.open == (operation.path in OPEN_PATHS)


#: What stands in several places of a request must agree, of which no schema can tell.
ACROSS = """
[[operations]]
include-path-regex = "."
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.real
async def test_schemathesis_finds_nothing_that_its_document_does_not_say(tmp_path: Path) -> None:
    async with serving() as api:
        tested = await check_by_document(
            api.app, maya_document("0"), tmp_path, open_paths=OPEN_PATHS, exceptions=ACROSS
        )
        assert not [each for each in api.logged if "exc_info" in each]
    assert not tested.found, tested.found
    assert tested.operations == len(OPERATIONS)


async def test_a_life_of_a_volume() -> None:
    """`ask` compares every answer with the document."""
    async with serving() as api:

        async def ask(method: str, path: str, status: int, **more: Any) -> Any:
            answer = await api.ask(method, path, **more)
            assert answer.status_code == status, answer.text
            return answer.json()

        made = await ask("POST", VOLUMES, 200, body=body("a"), headers={"namespace": "shop"})
        assert (made["metadata"]["namespace"], made["spec"]["capacity"]) == ("shop", "5Gi")
        assert await ask("POST", VOLUMES, 200, body=body("a"), headers={"namespace": "shop"}) == made
        differs = await ask("POST", VOLUMES, 409, body=body("a", "6Gi"), headers={"namespace": "shop"})
        assert differs["reason"] == "already-exists"
        assert "capacity: it has 5Gi, asked for was 6Gi" in differs["detail"]
        text = b"metadata:\n  name: b\nspec:\n  capacity: 1Gi\n"
        await ask("POST", VOLUMES, 200, content=text, headers={"Content-Type": "application/yaml"})
        assert await ask("GET", VOLUME, 200, name="a") == made
        assert await ask("GET", VOLUME, 200, name="a", query=[("namespace", "shop")]) == made
        gone = await ask("GET", VOLUME, 404, name="a", headers={"namespace": "other"})
        assert (gone["reason"], gone["detail"]) == (
            "no-such-volume",
            "there is no volume a in namespace other",
        )
        names = [each["metadata"]["name"] for each in (await ask("GET", VOLUMES, 200))["items"]]
        assert names == ["a", "b"]
        assert len((await ask("GET", VOLUMES, 200, headers={"namespace": "shop"}))["items"]) == 1
        assert await ask("GET", "/latest/volumes/stats/{name}", 200, name="a") == FAMILIES

        new = {"metadata": {"name": "s_1"}, "spec": {"casType": "jiva", "volumeName": "a"}}
        snapshot = await ask("POST", SNAPSHOTS, 200, body=new)
        assert (
            await ask("GET", SNAPSHOT, 200, name="s_1", query=[("volume", "a"), ("casType", "jiva")])
            == snapshot
        )
        assert (await ask("GET", SNAPSHOTS, 200, query=[("volume", "a")]))["items"] == [snapshot]
        assert (await ask("GET", SNAPSHOTS, 200, query=[("namespace", "none")]))["items"] == []
        clone = {"name": "c", "snapshotName": "s_1"}
        cloned = await ask("POST", "/latest/volumes/{name}/clones", 200, name="a", body=clone)
        assert cloned["cloneSpec"]["sourceVolume"] == "a"
        spec = {"isClone": True, "sourceVolume": "a", "snapshotName": "none"}
        assert (await ask("POST", VOLUMES, 404, body=body("d", cloneSpec=spec)))[
            "reason"
        ] == "no-such-snapshot"
        larger = await ask("PUT", "/latest/volumes/{name}/size", 200, name="a", body={"capacity": "8Gi"})
        assert larger["spec"]["capacity"] == "8Gi"
        smaller = await ask("PUT", "/latest/volumes/{name}/size", 409, name="a", body={"capacity": "1Gi"})
        assert smaller["reason"] == "refused"
        await ask("DELETE", SNAPSHOT, 200, name="s_1", query=[("volume", "a")])
        await ask("DELETE", SNAPSHOT, 404, name="s_1", query=[("volume", "a")])
        await ask("DELETE", SNAPSHOT, 400, name="s_1")
        assert (await ask("DELETE", VOLUME, 200, name="a"))["metadata"] == {"name": "a"}
        await ask("DELETE", VOLUME, 404, name="a")
        (pool,) = (await ask("GET", "/latest/pools/", 200))["items"]
        assert await ask("GET", "/latest/pools/{name}", 200, name="default") == pool
        assert (await ask("GET", "/latest/pools/{name}", 404, name="x"))["reason"] == "no-such-pool"


async def test_policies_that_cannot_be_are_answered_all_at_once() -> None:
    async with serving() as api:
        config = json.dumps([{"name": "ReplicaCount", "value": "9"}, {"name": "Replicas", "value": "3"}])
        wanted = {"metadata": {"name": "a", "annotations": {"cas.openebs.io/config": config}}}
        answer = await api.ask("POST", VOLUMES, body={**wanted, "spec": {"capacity": "1Gi"}})
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad-policy")
        assert "a whole number from 1 to 6" in answer.json()["detail"]
        assert "is no policy's name" in answer.json()["detail"]


async def test_nothing_is_read_two_ways() -> None:
    async with serving() as api:
        for more in (
            {"headers": {"namespace": "a"}, "query": [("namespace", "b")]},
            {"query": [("namespace", "a"), ("namespace", "b")]},
            {"query": [("namespace", "A")]},
        ):
            answer = await api.ask("GET", VOLUMES, **more)
            assert (answer.status_code, answer.json()["reason"]) == (400, "invalid-parameter")
        answer = await api.ask("GET", SNAPSHOTS, query=[("casType", "cstor")])
        assert (answer.status_code, answer.json()["detail"]) == (400, "casType 'cstor': expected jiva")


async def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    async with serving() as api, trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve_http, api.app, "127.0.0.1", 0))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            head = f"POST {VOLUMES} HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000000\r\n\r\n"
            await stream.send_all(head.encode() + b" " * (1 << 17))
            received = b""
            with trio.fail_after(20):
                while b"body: at most 65536 bytes" not in received:
                    received += (data := await stream.receive_some())
                    assert data, received
        assert received.startswith(b"HTTP/1.1 400 ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "path", ["/latest/volumes", "/latest/meta-data/instance-id", "/latest/backups/", "/"]
)
async def test_what_there_is_not_is_not_found(path: str) -> None:
    async with serving() as api:
        answer = await api.client.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "not-found")


async def test_a_get_changes_nothing() -> None:
    """Also with the header that once made m-apiserver pin replicas to their nodes, and the path of 0.5."""
    async with serving() as api:
        await api.ask("POST", VOLUMES, body=body("a"))
        before = dict(api.backend.volumes)
        await api.ask("GET", VOLUME, name="a", headers={"Is-Patch-Jiva-Replica-Node-Affinity": "enabled"})
        assert (await api.client.get("/latest/volumes/delete/a")).status_code == 404
        assert api.backend.volumes == before


async def test_a_request_that_is_sent_again_with_its_key_is_one() -> None:
    async with serving() as api:
        key = {"Idempotency-Key": "k"}
        first = await api.ask("POST", VOLUMES, body=body("a"), headers=key)
        await api.ask("DELETE", VOLUME, name="a")
        again = await api.ask("POST", VOLUMES, body=body("a"), headers=key)
        assert again.json() == first.json()
        assert api.backend.creations == 1
        other = await api.ask("POST", VOLUMES, body=body("b"), headers=key)
        assert (other.status_code, other.json()["reason"]) == (422, "idempotency-key-of-another-request")


async def test_health_and_what_cannot_be_done_now() -> None:
    async with serving() as api:
        assert (await api.ask("GET", "/healthz")).json() == {"ready": True, "reason": ""}
        api.backend.unhealthy = "the cluster does not answer"
        answer = await api.ask("GET", "/healthz")
        assert (answer.status_code, answer.json()["reason"]) == (503, "the cluster does not answer")
        answer = await api.ask("GET", VOLUMES)
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")


async def test_an_address_for_health_alone_has_nothing_else() -> None:
    async with serving() as api:
        transport = httpx.ASGITransport(health_application(api.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            for path in ("/healthz", "/v1/health"):
                assert (await client.get(path)).json() == {"ready": True, "reason": ""}
            assert "pyjiva_build_info" in (await client.get("/metrics")).text
            for path in (VOLUMES, "/latest/openapi.json", "/latest/pools/"):
                assert (await client.get(path)).status_code == 404


async def test_without_the_token_nothing_but_health_is_answered() -> None:
    async with serving() as api:
        guard = Guard(api.app, TOKEN, OPEN_PATHS)
        transport = httpx.ASGITransport(guard, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
            for operation in OPERATIONS:
                path = operation.path.format(name="a")
                for headers in ({}, {"Authorization": "Bearer 0123456789abcdeg"}):
                    answer = await client.request(operation.method, path, headers=headers)
                    assert (answer.status_code == 401) != operation.open, path
                known = await client.request(operation.method, path, headers=TOKEN.headers())
                assert known.status_code != 401
            assert (await client.get("/v1/health")).status_code == 401


async def test_each_request_is_counted_under_its_own_status() -> None:
    """m-apiserver's success was labelled with the last error."""
    async with serving() as api:
        for name in ("none", "none"):
            await api.ask("GET", VOLUME, name=name)
        await api.ask("GET", VOLUMES)
        await api.ask("POST", VOLUMES, body=body("a"))
        await api.ask("GET", VOLUME, name="a")
        await api.client.request("BREW", "/latest/volumes/")
        await api.client.get("/strangers/path")
        counted = await _counts(api)
    assert counted == {
        (VOLUME, "GET", "404"): 2.0,
        (VOLUMES, "GET", "200"): 1.0,
        (VOLUMES, "POST", "200"): 1.0,
        (VOLUME, "GET", "200"): 1.0,
        (VOLUMES, "other", "405"): 1.0,
        ("other", "GET", "404"): 1.0,
    }


async def _counts(api: MayaApi) -> dict[tuple[str, str, str], float]:
    text = (await api.ask("GET", "/metrics")).text
    return {
        (sample.labels["route"], sample.labels["method"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "pyjiva_maya_request_duration_seconds_count"
    }


async def test_what_was_asked_at_once_is_counted_apart() -> None:
    async with serving() as api:
        async with trio.open_nursery() as nursery:
            for path in (VOLUME, VOLUMES) * 10:
                nursery.start_soon(partial(api.ask, "GET", path, name="none"))
        assert await _counts(api) == {(VOLUME, "GET", "404"): 10.0, (VOLUMES, "GET", "200"): 10.0}


# --- any request

KNOWN = {
    "name": ["a", "b", "one"],
    "volume": ["a"],
    "namespace": ["shop", "openebs"],
    "casType": ["jiva", ""],
}
WRONG = st.text(max_size=40)


def texts(name: str, schema: Schema) -> st.SearchStrategy[str]:
    """What a parameter may be, and anything."""
    known = st.sampled_from(KNOWN[name]) if name in KNOWN else st.just("1")
    return known | known | known | WRONG


def of_schema(schema: Schema) -> st.SearchStrategy[Any]:
    """What the schema lets through, often with names that are there."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object" if "properties" in schema:
            needed = {n: of_schema(s) for n, s in schema["properties"].items() if n in schema["required"]}
            more = {n: of_schema(s) for n, s in schema["properties"].items() if n not in schema["required"]}
            return st.fixed_dictionaries(needed, optional=more)
        case "object":
            return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
        case "boolean":
            return st.booleans()
        case _ if "examples" in schema:
            return st.sampled_from(schema["examples"]) | st.text(max_size=5)
        case _ if "pattern" in schema:
            return st.sampled_from(["a", "b", "one"]) | st.from_regex(schema["pattern"])
        case _:
            return st.sampled_from(["", "a", "one"]) | st.text(max_size=5)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """One of the document's operations, with its parameters, or without, or with others."""
    operation: Operation = draw(st.sampled_from(OPERATIONS))
    places: dict[str, str] = {}
    query, headers = [], {}
    for parameter in operation.parameters:
        text = texts(parameter.name, parameter.schema)
        if f"{{{parameter.name}}}" in operation.path:
            places[parameter.name] = draw(text.filter(lambda t: t not in ("", ".", "..") and "/" not in t))
        elif parameter.header and draw(st.booleans()):
            headers[parameter.name] = draw(st.sampled_from(["shop", "openebs", "x", "A", ""]))
        elif not parameter.header:
            query += [(parameter.name, draw(text)) for _ in range(draw(st.sampled_from([0, 1, 1, 2])))]
    content = None
    if operation.body is not None:
        value = draw(of_schema(operation.body) | of_schema(operation.body) | ANYTHING)
        content = draw(st.just(json.dumps(value).encode()) | st.binary(max_size=20))
        headers["Content-Type"] = draw(
            st.sampled_from(["application/json", "application/yaml", "text/plain"])
        )
    return {
        "method": operation.method,
        "path": operation.path,
        "query": query,
        "headers": headers,
        "content": content,
        **places,
    }


@settings(max_examples=40)
@given(asked=st.lists(requests(), min_size=5, max_size=40))
def test_no_request_fails_or_hangs(asked: list[dict[str, Any]]) -> None:
    """Each is answered in time and as the document says."""
    trio.run(ask_all, asked)


async def ask_all(asked: list[dict[str, Any]]) -> None:
    async with serving() as api:
        await api.ask("POST", VOLUMES, body=body("a"), headers={"namespace": "shop"})
        new = {"metadata": {"name": "one"}, "spec": {"volumeName": "a"}}
        await api.ask("POST", SNAPSHOTS, body=new)
        for each in asked:
            answer = await api.ask(**each)
            note(f"{each}: {answer.status_code}")


def test_the_page_is_up_to_date() -> None:
    """`python -m tests.maya.apiserver.maya_page` writes it."""
    assert written()[1] == made()
