"""`maya.kube.informer_io`: an informer is up to date again after whatever happens to its watches."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from pyjiva.maya.kube import Gone, KubeError
from pyjiva.maya.kube.informer_io import BACK_OFF_MAX_S, Informer
from pyjiva.maya.kube.resource import CONFIG_MAPS
from pyjiva.testing.kube import Call, FakeCluster, Moment, no_fault
from tests.suites.kube_cluster import config_map

NS = "default"
Heard = list[str]


@asynccontextmanager
async def informer_on(cluster: FakeCluster, **options: object) -> AsyncIterator[tuple[Informer, Heard]]:
    """A synced informer and the names it tells of."""
    informer = Informer(cluster, CONFIG_MAPS, random=Random(1), **options)  # type: ignore[arg-type]
    heard: Heard = []
    informer.subscribe(lambda _, name: heard.append(name))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(informer.run)
        await informer.synced.wait()
        yield informer, heard
        nursery.cancel_scope.cancel()


def verbs(cluster: FakeCluster) -> list[str]:
    return [call.verb for call in cluster.calls]


async def test_it_knows_what_was_there_and_what_happens() -> None:
    world = FakeCluster()
    await world.create(CONFIG_MAPS, config_map(NS, "a"))
    async with informer_on(world.client()) as (informer, heard):
        assert heard == ["a"]
        await world.create(CONFIG_MAPS, config_map("kube-system", "b", x="1"))
        await wait_all_tasks_blocked()
        await world.merge(CONFIG_MAPS, "kube-system", "b", {"data": {"x": "2"}})
        await world.delete(CONFIG_MAPS, NS, "a")
        await wait_all_tasks_blocked()
        assert heard == ["a", "b", "b", "a"]
        found = informer.get("kube-system", "b")
        assert found is not None and found["data"] == {"x": "2"}
        assert [item["metadata"]["name"] for item in informer.items()] == ["b"]
        late: Heard = []
        informer.subscribe(lambda _, name: late.append(name))
        assert late == ["b"]
        informer.resync()
        assert late == ["b", "b"]


async def test_it_keeps_to_its_namespace_and_labels() -> None:
    world = FakeCluster()
    async with informer_on(world.client(), namespace=NS, labels={"l": "1"}) as (informer, heard):
        await world.create(CONFIG_MAPS, config_map("kube-system", "a", labels={"l": "1"}))
        await world.create(CONFIG_MAPS, config_map(NS, "b", labels={"l": "2"}))
        await world.create(CONFIG_MAPS, config_map(NS, "c", labels={"l": "1"}))
        await world.merge(CONFIG_MAPS, NS, "c", {"metadata": {"labels": {"l": "2"}}})
        await wait_all_tasks_blocked()
        assert heard == ["c", "c"]
        assert informer.items() == []


async def test_a_watch_that_the_server_ends_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    client = world.client()
    async with informer_on(client) as (_, heard):
        await wait_all_tasks_blocked()
        client.break_watches()
        await world.create(CONFIG_MAPS, config_map(NS, "a"))
        await trio.sleep(10)
        assert heard == ["a"]
        assert verbs(client) == ["list", "watch", "watch"]


async def test_bookmarks_save_a_list(autojump_clock: MockClock) -> None:
    """Others' writes compact the history away; a bookmark has told us that we have missed nothing."""
    for bookmarks, expected in (
        (True, ["list", "watch", "watch"]),
        (False, ["list", "watch", "watch", "list", "watch"]),
    ):
        world = FakeCluster()
        client = world.client()
        async with informer_on(client, namespace=NS):
            await world.create(CONFIG_MAPS, config_map("kube-system"))
            await wait_all_tasks_blocked()
            if bookmarks:
                client.send_bookmarks()
                await wait_all_tasks_blocked()
            world.compact()
            client.break_watches()
            await trio.sleep(10)
            assert verbs(client) == expected


async def test_after_gone_it_tells_of_what_differs_only(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    client = world.client()
    for name in "abc":
        await world.create(CONFIG_MAPS, config_map(NS, name))
    async with informer_on(client) as (informer, heard):
        await wait_all_tasks_blocked()
        heard.clear()
        client.pause_watches()
        await world.merge(CONFIG_MAPS, NS, "a", {"data": {"x": "1"}})
        await world.delete(CONFIG_MAPS, NS, "b")
        await world.create(CONFIG_MAPS, config_map(NS, "d"))
        client.break_watches(Gone("too old", status=410))
        client.resume_watches()
        await trio.sleep(10)
        assert heard == ["a", "b", "d"]
        assert [item["metadata"]["name"] for item in informer.items()] == ["a", "c", "d"]


async def test_it_tries_less_and_less_often_and_says_why(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    client = world.client()

    async def away(_: Call, __: Moment) -> None:
        raise KubeError("the API server is away")

    async with informer_on(client) as (informer, heard):
        await wait_all_tasks_blocked()
        client.fault = away
        client.break_watches(KubeError("reset"))
        await trio.sleep(600)
        tries = len(client.calls)
        assert 600 / (2 * BACK_OFF_MAX_S) < tries < 30
        assert informer.trouble == "the API server is away"
        client.fault = no_fault
        await world.create(CONFIG_MAPS, config_map(NS, "a"))
        await trio.sleep(2 * BACK_OFF_MAX_S)
        assert heard == ["a"]
        assert informer.trouble == ""
        await trio.sleep(600)
        client.break_watches(KubeError("reset"))
        await world.create(CONFIG_MAPS, config_map(NS, "b"))
        await trio.sleep(0.1)  # it had been well for long: at once
        assert heard == ["a", "b"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "delete", "end", "break", "gone", "compact", "pause", "resume", "wait"]),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps=STEPS)
def test_whatever_happens_it_knows_what_is_there_in_the_end(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        world = FakeCluster()
        client = world.client()
        async with informer_on(client) as (informer, _):
            told: dict[str, str] = {}

            def tell(namespace: str, name: str) -> None:
                value = informer.get(namespace, name)
                told[name] = value["metadata"]["resourceVersion"] if value else ""

            informer.subscribe(tell)
            for number, (verb, name) in enumerate(steps):
                match verb:
                    case "write":
                        await world.apply(CONFIG_MAPS, config_map(NS, name, n=str(number)))
                    case "delete":
                        await world.delete(CONFIG_MAPS, NS, name)
                    case "end":
                        client.break_watches()
                    case "break":
                        client.break_watches(KubeError("reset"))
                    case "gone":
                        client.break_watches(Gone("too old", status=410))
                    case "compact":
                        world.compact()
                    case "pause":
                        client.pause_watches()
                    case "resume":
                        client.resume_watches()
                    case "wait":
                        await trio.sleep(1)
            client.resume_watches()
            await trio.sleep(4 * BACK_OFF_MAX_S)
            there = (await world.list(CONFIG_MAPS)).items
            assert informer.items() == list(there)
            versions = {value["metadata"]["name"]: value["metadata"]["resourceVersion"] for value in there}
            assert {name: version for name, version in told.items() if version} == versions

    trio.run(run, clock=MockClock(autojump_threshold=0))
