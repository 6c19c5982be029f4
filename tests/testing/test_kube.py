"""`testing.kube`: the API server in memory keeps to the contract, and lets things go wrong as told."""

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from pyjiva.maya.kube import Conflict, Forbidden, Gone, KubeError, NotFound, Object, Resource, WatchKind
from pyjiva.maya.kube.resource import CONFIG_MAPS, DEPLOYMENTS, JIVA_VOLUMES, NAMESPACES, PODS, PV, SECRETS
from pyjiva.testing.kube import FakeCluster, Moment, ProcessDied, die_at, fail_at, latency
from pyjiva.testing.kube_store import Store
from tests.suites.kube_cluster import CASES, Case, case_name, config_map, deployment

NOTHING = Resource("none.example.com/v1", "Nothing", "nothings")
NS = "default"


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract(case: Case) -> None:
    cluster = FakeCluster()
    cluster.store.not_served.add(NOTHING)
    await cluster.create(NAMESPACES, {"metadata": {"name": "ns"}})
    await case(cluster, "ns")
    cluster.store.self_check()


def owned_by(owner: Object, name: str, namespace: str = NS) -> Object:
    value = config_map(namespace, name)
    reference = {key: owner["metadata"][key] for key in ("name", "uid")}
    reference |= {"apiVersion": owner["apiVersion"], "kind": owner["kind"]}
    value["metadata"]["ownerReferences"] = [reference]
    return value


async def names(cluster: FakeCluster, resource: Resource = CONFIG_MAPS) -> list[str]:
    return [item["metadata"]["name"] for item in (await cluster.list(resource)).items]


# --- garbage and namespaces


async def test_what_has_lost_its_owner_is_collected_with_what_it_owns() -> None:
    cluster = FakeCluster()
    owner = await cluster.create(CONFIG_MAPS, config_map(NS, "a"))
    child = await cluster.create(CONFIG_MAPS, owned_by(owner, "b"))
    await cluster.create(CONFIG_MAPS, owned_by(child, "c"))
    await cluster.delete(CONFIG_MAPS, NS, "a")
    assert await names(cluster) == []


async def test_garbage_waits_for_the_collector() -> None:
    cluster = FakeCluster(Store(collects_garbage=False))
    owner = await cluster.create(CONFIG_MAPS, config_map(NS, "a"))
    await cluster.create(CONFIG_MAPS, owned_by(owner, "b"))
    await cluster.delete(CONFIG_MAPS, NS, "a")
    await cluster.create(CONFIG_MAPS, config_map(NS, "a"))  # of this name, not the same
    assert await names(cluster) == ["a", "b"]
    cluster.store.collect()
    assert await names(cluster) == ["a"]


async def test_an_owner_in_another_namespace_is_none() -> None:
    cluster = FakeCluster()
    owner = await cluster.create(CONFIG_MAPS, config_map("kube-system", "a"))
    await cluster.create(CONFIG_MAPS, owned_by(owner, "b"))
    assert await names(cluster) == ["a"]


async def test_one_of_two_owners_is_enough() -> None:
    cluster = FakeCluster()
    one = await cluster.create(CONFIG_MAPS, config_map(NS, "one"))
    two = await cluster.create(CONFIG_MAPS, config_map(NS, "two"))
    value = owned_by(one, "b")
    value["metadata"]["ownerReferences"] += owned_by(two, "b")["metadata"]["ownerReferences"]
    await cluster.create(CONFIG_MAPS, value)
    await cluster.delete(CONFIG_MAPS, NS, "one")
    left = await cluster.get(CONFIG_MAPS, NS, "b")
    assert left is not None and [r["name"] for r in left["metadata"]["ownerReferences"]] == ["two"]
    await cluster.delete(CONFIG_MAPS, NS, "two")
    assert await names(cluster) == []


async def test_a_namespace_goes_when_all_in_it_has_gone() -> None:
    cluster = FakeCluster()
    await cluster.create(NAMESPACES, {"metadata": {"name": "ns"}})
    value = config_map("ns", "held")
    value["metadata"]["finalizers"] = ["a/b"]
    await cluster.create(CONFIG_MAPS, value)
    await cluster.create(CONFIG_MAPS, config_map("ns", "free"))
    await cluster.delete(NAMESPACES, "", "ns")
    assert await names(cluster) == ["held"]
    with pytest.raises(Forbidden) as raised:
        await cluster.create(CONFIG_MAPS, config_map("ns", "more"))
    assert raised.value.status == 403
    await cluster.merge(CONFIG_MAPS, "ns", "held", {"metadata": {"finalizers": []}})
    assert await cluster.get(NAMESPACES, "", "ns") is None


async def test_protected_storage_stays_until_its_controller_lets_it_go() -> None:
    cluster = FakeCluster(Store(protects_storage=True))
    await cluster.create(PV, {"metadata": {"name": "v"}, "spec": {}})
    await cluster.delete(PV, "", "v")
    found = await cluster.get(PV, "", "v")
    assert found is not None and found["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


# --- custom resources


async def test_custom_resources_have_a_status_apart_and_count_generations() -> None:
    cluster = FakeCluster()
    value = {"metadata": {"name": "v", "namespace": NS}, "spec": {"pv": "v"}, "status": {"phase": "Ready"}}
    made = await cluster.create(JIVA_VOLUMES, value)
    assert "status" not in made
    status = await cluster.update(
        JIVA_VOLUMES, {**made, "spec": {}, "status": {"a": 1}}, subresource="status"
    )
    assert (status["spec"], status["status"], status["metadata"]["generation"]) == ({"pv": "v"}, {"a": 1}, 1)
    with pytest.raises(KubeError) as raised:
        await cluster.update(JIVA_VOLUMES, value)
    assert raised.value.status == 422
    changed = await cluster.update(JIVA_VOLUMES, {**status, "spec": {"pv": "w"}, "status": {}})
    assert (changed["status"], changed["metadata"]["generation"]) == ({"a": 1}, 2)


# --- watches


async def test_a_watch_from_before_a_compaction_is_gone_and_an_open_one_goes_on() -> None:
    cluster = FakeCluster()
    since = (await cluster.list(CONFIG_MAPS)).resource_version
    async with cluster.watch(CONFIG_MAPS, since=since) as events:
        await cluster.create(CONFIG_MAPS, config_map(NS))
        cluster.compact()
        assert (await anext(events)).kind is WatchKind.ADDED
    with pytest.raises(Gone) as raised:
        async with cluster.watch(CONFIG_MAPS, since=since) as events:
            await anext(events)
    assert (raised.value.status, raised.value.reason) == (410, "Expired")


async def test_watches_can_be_broken_paused_and_sent_bookmarks() -> None:
    cluster, other = (both := FakeCluster()), both.client()
    since = (await cluster.list(CONFIG_MAPS)).resource_version
    async with (
        cluster.watch(CONFIG_MAPS, since=since) as events,
        other.watch(CONFIG_MAPS, since=since) as others,
    ):
        cluster.pause_watches()
        made = await cluster.create(CONFIG_MAPS, config_map(NS))
        assert (await anext(others)).kind is WatchKind.ADDED
        with trio.move_on_after(0.01) as scope:
            await anext(events)
        assert scope.cancelled_caught
        cluster.resume_watches()
        assert (await anext(events)).kind is WatchKind.ADDED
        cluster.send_bookmarks()
        bookmark = await anext(events)
        assert bookmark.kind is WatchKind.BOOKMARK
        assert bookmark.object["metadata"] == {"resourceVersion": made["metadata"]["resourceVersion"]}
        assert cluster.break_watches() == 1
        assert [event async for event in events] == []
        other.break_watches(KubeError("away"))
        with pytest.raises(KubeError, match="away"):
            await anext(others)


# --- faults


async def test_a_process_dies_before_or_after_its_write_took_effect() -> None:
    for moment, there in ((Moment.BEFORE, ["m1"]), (Moment.AFTER, ["m1", "m2"])):
        cluster = FakeCluster()
        dying = cluster.client()
        dying.fault = die_at(2, moment)
        await dying.create(CONFIG_MAPS, config_map(NS, "m1"))
        await dying.list(CONFIG_MAPS)
        with pytest.raises(ProcessDied, match="create configmaps default/m2"):
            await dying.create(CONFIG_MAPS, config_map(NS, "m2"))
        assert await names(cluster) == there
        with pytest.raises(ProcessDied):  # also what cleans up afterwards
            await dying.list(CONFIG_MAPS)


async def test_an_answer_is_lost_or_a_write_refused() -> None:
    cluster = FakeCluster()
    cluster.fault = fail_at(1, Moment.AFTER)
    with pytest.raises(KubeError) as raised:
        await cluster.create(CONFIG_MAPS, config_map(NS))
    assert raised.value.status == 0
    assert await names(cluster) == ["m"]
    cluster.fault = fail_at(2, Moment.BEFORE, Conflict("changed", status=409, reason="Conflict"))
    with pytest.raises(Conflict):
        await cluster.merge(CONFIG_MAPS, NS, "m", {"data": {"a": "1"}})
    assert (await cluster.merge(CONFIG_MAPS, NS, "m", {"data": {"a": "2"}}))["data"] == {"a": "2"}


async def test_requests_take_their_time(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    cluster.fault = latency(2)
    began = trio.current_time()
    await cluster.get(CONFIG_MAPS, NS, "m")
    assert trio.current_time() - began == 4


async def test_calls_are_written_down() -> None:
    cluster = FakeCluster()
    await cluster.get(CONFIG_MAPS, NS, "m")
    await cluster.apply(DEPLOYMENTS, deployment(NS, env={}))
    await cluster.merge(DEPLOYMENTS, NS, "d", {"status": {}}, subresource="status")
    assert [str(call) for call in cluster.calls] == [
        "get configmaps default/m",
        "apply deployments default/d",
        "merge deployments default/d/status",
    ]
    assert [(call.number, call.write_number) for call in cluster.writes] == [(2, 1), (3, 2)]


async def test_rules_of_a_role_say_what_is_allowed() -> None:
    cluster = FakeCluster()
    cluster.rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"], "resourceNames": ["one"]},
        {"apiGroups": ["apps"], "resources": ["deployments/status"], "verbs": ["patch"]},
    ]
    assert await cluster.get(CONFIG_MAPS, NS, "m") is None
    assert not await cluster.delete(SECRETS, NS, "one")
    refused: list[Any] = [
        lambda: cluster.list(CONFIG_MAPS),
        lambda: cluster.apply(CONFIG_MAPS, config_map(NS)),  # makes one: that is create
        lambda: cluster.get(SECRETS, NS, "two"),
        lambda: cluster.list(SECRETS, NS),
        lambda: cluster.get(PODS, NS, "p"),
        lambda: cluster.merge(DEPLOYMENTS, NS, "d", {}),
    ]
    for attempt in refused:
        with pytest.raises(Forbidden):
            await attempt()
    with pytest.raises(NotFound):  # allowed, and not there
        await cluster.merge(DEPLOYMENTS, NS, "d", {}, subresource="status")


async def test_what_json_cannot_say_is_an_error() -> None:
    cluster = FakeCluster()
    with pytest.raises(TypeError):
        await cluster.create(CONFIG_MAPS, {**config_map(NS), "data": {"a": b"1"}})


async def test_time_is_trios(autojump_clock: MockClock) -> None:
    cluster = FakeCluster()
    await trio.sleep(90)
    made = await cluster.create(CONFIG_MAPS, config_map(NS))
    assert made["metadata"]["creationTimestamp"] == "2024-01-01T00:01:30Z"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 10)
        await wait_all_tasks_blocked()
    assert cluster.now().minute == 1 and cluster.now().second == 40


# --- any run of verbs, against a model that is one dictionary of dictionaries

NAMES = st.sampled_from(["a", "b", "c"])
DATA = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"), max_size=3)
STEPS = st.tuples(
    st.sampled_from(["create", "update", "stale update", "merge", "apply", "delete", "hold", "let go"]),
    NAMES,
    DATA,
)


@attrs.define
class Model:
    """What is there by name, and who wrote which key of it last."""

    data: dict[str, dict[str, str]] = attrs.field(factory=dict)
    applied: dict[str, set[str]] = attrs.field(factory=dict)
    """By `apply`, and by nobody else."""
    shared: dict[str, set[str]] = attrs.field(factory=dict)
    """Also, or only, by other verbs."""
    held: set[str] = attrs.field(factory=set)
    going: set[str] = attrs.field(factory=set)

    def remove(self, name: str) -> None:
        for kept in (self.data, self.applied, self.shared):
            kept.pop(name, None)
        self.held.discard(name)
        self.going.discard(name)

    def write(self, name: str, data: dict[str, str]) -> None:
        before = self.data[name]
        changed = {key for key in data if before.get(key) != data[key]}
        self.shared[name] = (self.shared[name] | changed) & set(data)
        self.applied[name] = (self.applied[name] - changed) & set(data)
        self.data[name] = dict(data)

    def apply(self, name: str, data: dict[str, str]) -> None:
        before = self.data[name]
        gone = self.applied[name] - set(data) - self.shared[name]
        kept = {key: text for key, text in before.items() if key not in gone}
        self.shared[name] -= {key for key in data if before.get(key) != data[key]}
        self.applied[name] = set(data)
        self.data[name] = kept | data


async def step(cluster: FakeCluster, model: Model, verb: str, name: str, data: dict[str, str]) -> None:
    """Do one step to both, and compare how it ended."""
    there = name in model.data
    value = {**config_map(NS, name), "data": data} if data else config_map(NS, name)
    match verb:
        case "create" if there:
            with pytest.raises(KubeError) as raised:
                await cluster.create(CONFIG_MAPS, value)
            assert raised.value.reason == "AlreadyExists"
        case "create":
            await cluster.create(CONFIG_MAPS, value)
            model.data[name], model.applied[name], model.shared[name] = dict(data), set(), set(data)
        case "apply":
            await cluster.apply(CONFIG_MAPS, value)
            if not there:
                model.data[name], model.applied[name], model.shared[name] = {}, set(), set()
            model.apply(name, data)
        case "delete":
            assert await cluster.delete(CONFIG_MAPS, NS, name) is there
            if name in model.held:
                model.going.add(name)
            else:
                model.remove(name)
        case _ if not there:
            with pytest.raises(NotFound):
                await cluster.merge(CONFIG_MAPS, NS, name, {"data": data})
        case "update" | "stale update":
            found = await cluster.get(CONFIG_MAPS, NS, name)
            assert found is not None
            if verb == "stale update":
                found["metadata"]["resourceVersion"] = "1"
                with pytest.raises(Conflict):
                    await cluster.update(CONFIG_MAPS, {**found, "data": data})
            else:
                await cluster.update(CONFIG_MAPS, {**found, "data": data})
                model.write(name, data)
        case "merge":
            await cluster.merge(CONFIG_MAPS, NS, name, {"data": data})
            model.write(name, model.data[name] | data)
        case "hold" if name not in model.going:
            await cluster.merge(CONFIG_MAPS, NS, name, {"metadata": {"finalizers": ["a/b"]}})
            model.held.add(name)
        case "let go":
            await cluster.merge(CONFIG_MAPS, NS, name, {"metadata": {"finalizers": None}})
            model.held.discard(name)
            if name in model.going:
                model.remove(name)


@given(steps=st.lists(STEPS, max_size=25))
def test_any_run_of_verbs_does_what_a_dictionary_would(steps: list[tuple[str, str, dict[str, str]]]) -> None:
    async def run() -> None:
        cluster, model = FakeCluster(), Model()
        start = (await cluster.list(CONFIG_MAPS)).resource_version
        for verb, name, data in steps:
            await step(cluster, model, verb, name, data)
            listing = await cluster.list(CONFIG_MAPS)
            assert {i["metadata"]["name"]: i.get("data") or {} for i in listing.items} == model.data
            cluster.store.self_check()
        assert await replay(cluster, start) == model.data

    trio.run(run)


async def replay(cluster: FakeCluster, start: str) -> dict[str, dict[str, str]]:
    """What somebody knows who has watched from the beginning."""
    known: dict[str, dict[str, str]] = {}
    async with cluster.watch(CONFIG_MAPS, since=start) as events:
        cluster.send_bookmarks()
        async for event in events:
            if event.kind is WatchKind.BOOKMARK:
                break
            name = event.object["metadata"]["name"]
            if event.kind is WatchKind.DELETED:
                del known[name]
            else:
                assert (name in known) is (event.kind is WatchKind.MODIFIED)
                known[name] = event.object.get("data") or {}
    return known
