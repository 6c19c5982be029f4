"""`maya.kube.cluster_io`: what it asks, and what it makes of answers that a real server seldom gives.

The contract is run against a real API server: `tests/kube/test_cluster_io.py`.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from pyjiva.maya.kube import Conflict, Gone, KubeError, NotFound
from pyjiva.maya.kube.cluster_io import BUSY_TRIES, SILENCE_S, KubeCluster
from pyjiva.maya.kube.resource import CONFIG_MAPS, PV
from tests.suites.kube_cluster import config_map

Answer = Callable[[httpx.Request], httpx.Response]
OK: dict[str, Any] = {"metadata": {"name": "m", "resourceVersion": "7"}}


class Server:
    """Answers with what it was given, in turn, and keeps what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        transport = httpx.MockTransport(self._answer)
        self.kube = KubeCluster(httpx.AsyncClient(base_url="https://server", transport=transport))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await trio.sleep_forever()
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def status(code: int, reason: str = "", **more: Any) -> httpx.Response:
    return httpx.Response(code, json={"kind": "Status", "reason": reason, "message": "because", **more})


async def lines(*given: str, end: Exception | None = None) -> AsyncIterator[bytes]:
    for line in given:
        yield line.encode()
    if end is not None:
        raise end


def event(kind: str, version: str) -> str:
    return json.dumps({"type": kind, "object": {"metadata": {"resourceVersion": version}}}) + "\n"


# --- what is asked


async def test_each_verb_asks_as_kubernetes_wants_it() -> None:
    server = Server(*[OK] * 6)
    value = config_map("ns", a="1")
    del value["kind"]
    await server.kube.create(CONFIG_MAPS, value)
    await server.kube.apply(CONFIG_MAPS, value)
    await server.kube.update(CONFIG_MAPS, value, subresource="status")
    await server.kube.merge(CONFIG_MAPS, "ns", "m", {"data": {"a": None}})
    await server.kube.delete(CONFIG_MAPS, "ns", "m", uid="u")
    await server.kube.delete(PV, "", "v")
    place, manager = "/api/v1/namespaces/ns/configmaps", "fieldManager=pyjiva-maya"
    assert [(r.method, r.url.raw_path.decode()) for r in server.asked] == [
        ("POST", f"{place}?{manager}"),
        ("PATCH", f"{place}/m?{manager}&force=true"),
        ("PUT", f"{place}/m/status?{manager}"),
        ("PATCH", f"{place}/m?{manager}"),
        ("DELETE", f"{place}/m"),
        ("DELETE", "/api/v1/persistentvolumes/v"),
    ]
    assert [r.headers["content-type"].removeprefix("application/") for r in server.asked] == [
        *("json", "apply-patch+yaml", "json", "merge-patch+json", "json", "json"),
    ]
    bodies = [json.loads(request.content) for request in server.asked]
    assert bodies[0] == bodies[1] == bodies[2] == {**value, "kind": "ConfigMap"}
    assert bodies[3] == {"data": {"a": None}}
    assert bodies[4]["propagationPolicy"] == bodies[5]["propagationPolicy"] == "Background"
    assert bodies[4]["preconditions"] == {"uid": "u"}
    assert "preconditions" not in bodies[5]


async def test_lists_and_watches_ask_for_pages_labels_and_bookmarks() -> None:
    first = {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [OK]}
    last = {"metadata": {"resourceVersion": "5"}, "items": [OK]}
    server = Server(first, last, httpx.Response(200, content=lines()))
    labels = {"a": "1", "b/c": "2"}
    listing = await server.kube.list(CONFIG_MAPS, labels=labels)
    assert listing.resource_version == "5"
    assert [item["kind"] for item in listing.items] == ["ConfigMap", "ConfigMap"]
    async with server.kube.watch(CONFIG_MAPS, "ns", labels, since="5") as events:
        assert [event async for event in events] == []
    parameters = [dict(request.url.params) for request in server.asked]
    assert parameters[0] == {"labelSelector": "a=1,b/c=2", "limit": "500"}
    assert parameters[1] == {**parameters[0], "continue": "more"}
    assert parameters[2] == {
        "labelSelector": "a=1,b/c=2",
        "resourceVersion": "5",
        "timeoutSeconds": "300",
        "watch": "1",
        "allowWatchBookmarks": "true",
    }
    assert server.asked[2].extensions["timeout"]["read"] == SILENCE_S


# --- what is made of answers


async def test_a_list_whose_pages_are_forgotten_is_asked_for_as_a_whole() -> None:
    first = {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [OK]}
    whole = {"metadata": {"resourceVersion": "9"}, "items": [OK, OK]}
    server = Server(first, status(410, "Expired"), whole)
    assert len((await server.kube.list(CONFIG_MAPS)).items) == 2
    assert "limit" not in server.asked[2].url.params and "continue" not in server.asked[2].url.params


async def test_missing_objects_and_missing_kinds() -> None:
    missing = {"details": {"name": "m"}}
    server = Server(*[status(404, "NotFound", **more) for more in (missing, {}, missing, {}, missing)])
    assert await server.kube.get(CONFIG_MAPS, "ns", "m") is None
    with pytest.raises(NotFound):
        await server.kube.get(CONFIG_MAPS, "ns", "m")
    assert await server.kube.delete(CONFIG_MAPS, "ns", "m") is False
    with pytest.raises(NotFound):
        await server.kube.delete(CONFIG_MAPS, "ns", "m")
    with pytest.raises(NotFound):
        await server.kube.merge(CONFIG_MAPS, "ns", "m", {})


async def test_a_conflict_at_a_deletion_means_another_uid_only_if_one_was_named() -> None:
    server = Server(status(409, "Conflict"), status(409, "Conflict"))
    assert await server.kube.delete(CONFIG_MAPS, "ns", "m", uid="u") is False
    with pytest.raises(Conflict):
        await server.kube.delete(CONFIG_MAPS, "ns", "m")


@pytest.mark.parametrize(
    "error",
    [
        *(httpx.ConnectError(""), httpx.ReadTimeout("slow")),
        *(httpx.RemoteProtocolError("cut"), httpx.PoolTimeout("")),
    ],
)
async def test_what_the_network_does_has_no_status(error: Exception) -> None:
    server = Server(error, error)
    with pytest.raises(KubeError, match=r"configmaps/m: server cannot be asked: \w") as raised:
        await server.kube.get(CONFIG_MAPS, "ns", "m")
    assert raised.value.status == 0
    with pytest.raises(KubeError):
        async with server.kube.watch(CONFIG_MAPS, since="1"):
            raise AssertionError("it began")


async def test_an_answer_that_does_not_come_is_given_up(autojump_clock: MockClock) -> None:
    server = Server(None)
    with pytest.raises(KubeError, match="no answer within 30 s"):
        await server.kube.list(CONFIG_MAPS)
    assert trio.current_time() == 30


async def test_a_busy_server_is_asked_again_when_it_says(autojump_clock: MockClock) -> None:
    busy = httpx.Response(429, headers={"retry-after": "2"}, json={"message": "busy"})
    server = Server(busy, busy, OK, *[busy] * BUSY_TRIES, httpx.Response(429, json={}))
    assert await server.kube.create(CONFIG_MAPS, config_map("ns")) == OK
    assert trio.current_time() == 4
    with pytest.raises(KubeError, match="busy") as raised:
        await server.kube.get(CONFIG_MAPS, "ns", "m")
    assert raised.value.status == 429
    with pytest.raises(KubeError):
        await server.kube.get(CONFIG_MAPS, "ns", "m")
    assert server.answers == []


async def test_what_is_no_json_is_an_error() -> None:
    server = Server(httpx.Response(200, text="<html>"), httpx.Response(503, text="<html>"))
    for code in (0, 503):
        with pytest.raises(KubeError, match="<html>") as raised:
            await server.kube.get(CONFIG_MAPS, "ns", "m")
        assert raised.value.status == code


async def test_warnings_are_logged_once() -> None:
    warned = httpx.Response(200, headers={"warning": '299 - "going away"'}, json=OK)
    server = Server(warned, warned)
    with capture_logs() as logs:
        for _ in range(2):
            await server.kube.get(CONFIG_MAPS, "ns", "m")
    assert [log["warning"] for log in logs] == ['299 - "going away"']


# --- watches


async def test_a_watch_ends_as_its_stream_does() -> None:
    status_line = json.dumps({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}) + "\n"
    whole, half = event("ADDED", "1"), event("ADDED", "2")[:10]
    endings: list[tuple[AsyncIterator[bytes], type[Exception] | None, str]] = [
        (lines(whole), None, ""),
        (lines(whole, end=httpx.ReadTimeout("")), KubeError, "nothing was heard for 150 s"),
        (lines(whole, end=httpx.RemoteProtocolError("cut")), KubeError, "broken off: cut"),
        (lines(whole, status_line), Gone, "watch"),
        (lines(whole, half), KubeError, "no JSON"),
    ]
    for stream, kind, words in endings:
        server = Server(httpx.Response(200, content=stream))
        async with server.kube.watch(CONFIG_MAPS, since="0") as events:
            assert (await anext(events)).object["metadata"]["resourceVersion"] == "1"
            if kind is None:
                assert [event async for event in events] == []
                continue
            with pytest.raises(kind, match=words):
                await anext(events)


async def test_a_watch_that_is_left_early_leaves_nothing_behind() -> None:
    server = Server(httpx.Response(200, content=lines(*[event("ADDED", str(n)) for n in range(9)])))
    async with server.kube.watch(CONFIG_MAPS, since="0") as events:
        await anext(events)


async def test_a_watch_may_be_refused() -> None:
    server = Server(status(410, "Expired"))
    with pytest.raises(Gone):
        async with server.kube.watch(CONFIG_MAPS, since="1"):
            raise AssertionError("it began")
