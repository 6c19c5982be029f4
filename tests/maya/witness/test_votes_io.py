"""`maya.witness.votes_io`: the register over an API server, alone and against others who write the object."""

from typing import Any

import attrs
import pytest
from trio.testing import MockClock

from pyjiva.maya.kube import KubeError, Object, Resource
from pyjiva.maya.kube.resource import JIVA_VOLUMES, NAMESPACES
from pyjiva.maya.volume.witness_objects import rights
from pyjiva.maya.witness import JivaVolumeVotes, VoteOf
from pyjiva.maya.witness.kept import blank
from pyjiva.testing.kube import Call, FakeCluster, Fault, Moment, fail_at
from pyjiva.testing.kube_store import Store
from pyjiva.vote import Vote, VoteUnknown
from tests.maya.kube_world import NAMESPACE, SETTINGS, KubeWorld, open_world

FIRST = Vote(1, "a", None, 1)
SECOND = Vote(2, "b", None, 2)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def votes_in(store: Store, *, fault: Fault | None = None, **who: Any) -> JivaVolumeVotes:
    """Of the volume `v` there, made if it is not."""
    if store.get(NAMESPACES, "", NAMESPACE) is None:
        store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    value = store.get(JIVA_VOLUMES, NAMESPACE, "v")
    if value is None:
        made = {"metadata": {"name": "v", "namespace": NAMESPACE}, "spec": {}}
        value = store.create(JIVA_VOLUMES, made)
        status = {"phase": "Ready", "witness": blank(value["metadata"]["uid"], 3)}
        store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": status}, subresource="status")
    cluster = FakeCluster(store, "pyjiva-witness")
    if fault is not None:
        cluster.fault = fault
    whose = VoteOf(NAMESPACE, "v", value["metadata"]["uid"], 3)
    return JivaVolumeVotes(cluster, attrs.evolve(whose, **who))


async def test_a_replacement_is_read_by_everybody(autojump_clock: MockClock) -> None:
    store = Store()
    one, other = votes_in(store), votes_in(store)
    kept = await one.replace(await one.read(), FIRST)
    assert kept is not None
    assert (await other.read()).vote == FIRST
    assert await one.replace(kept, SECOND) is not None
    assert (await other.read()).vote == SECOND


async def test_of_two_that_replace_the_same_one_succeeds(autojump_clock: MockClock) -> None:
    store = Store()
    one, other = votes_in(store), votes_in(store)
    before, same = await one.read(), await other.read()
    assert await one.replace(before, FIRST) is not None
    assert await other.replace(same, SECOND) is None
    assert (await other.read()).vote == FIRST


async def test_whoever_writes_another_part_makes_it_read_again(autojump_clock: MockClock) -> None:
    store = Store()
    votes = votes_in(store)
    before = await votes.read()
    store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": {"phase": "Unknown"}}, subresource="status")
    assert await votes.replace(before, FIRST) is None
    assert await votes.replace(await votes.read(), FIRST) is not None
    value = store.get(JIVA_VOLUMES, NAMESPACE, "v")
    assert value is not None
    assert value["status"]["phase"] == "Unknown"


@pytest.mark.parametrize("moment", list(Moment))
async def test_a_broken_connection_leaves_it_open_whether_it_is_kept(
    autojump_clock: MockClock, moment: Moment
) -> None:
    store = Store()
    votes = votes_in(store, fault=fail_at(1, moment))
    with pytest.raises(VoteUnknown, match="did not keep it, or did not say so: the connection broke"):
        await votes.replace(await votes.read(), FIRST)
    assert (await votes.read()).vote == (FIRST if moment is Moment.AFTER else Vote())


async def test_an_api_server_that_cannot_be_asked_says_nothing(autojump_clock: MockClock) -> None:
    async def away(call: Call, moment: Moment) -> None:
        raise KubeError("connection refused")

    with pytest.raises(VoteUnknown, match="the API server cannot be asked: connection refused"):
        await votes_in(Store(), fault=away).read()


class Pruning(FakeCluster):
    """Its definition does not know the field."""

    async def update(self, resource: Resource, value: Object, *, subresource: str = "") -> Object:
        status = {key: each for key, each in value["status"].items() if key != "witness"}
        return await super().update(resource, {**value, "status": status}, subresource=subresource)


async def test_what_the_api_server_does_not_keep_is_noticed(autojump_clock: MockClock) -> None:
    store = Store()
    votes = votes_in(store)
    votes.cluster = Pruning(store)
    with pytest.raises(VoteUnknown, match=r"has lost its status\.witness"):
        await votes.replace(await votes.read(), FIRST)


async def test_a_deleted_volume_has_no_vote(autojump_clock: MockClock) -> None:
    store = Store()
    votes = votes_in(store)
    before = await votes.read()
    store.delete(JIVA_VOLUMES, NAMESPACE, "v")
    assert await votes.replace(before, FIRST) is None
    with pytest.raises(VoteUnknown, match="there is no JivaVolume openebs/v"):
        await votes.read()


async def test_its_role_is_enough_and_lets_it_touch_nothing_else(autojump_clock: MockClock) -> None:
    async with open_world(operator=False) as world:
        world.make_volume()
        _, role, _ = rights(world.volume(), SETTINGS)
        votes = votes_in(world.store)
        status = {"witness": blank(votes.whose.uid, 3)}
        world.store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": status}, subresource="status")
        assert isinstance(votes.cluster, FakeCluster)
        votes.cluster.rules = role["rules"]
        assert await votes.replace(await votes.read(), FIRST) is not None
        world.make_volume("w")
        await refused(world, votes.cluster)


async def refused(world: KubeWorld, cluster: FakeCluster) -> None:
    other = world.store.get(JIVA_VOLUMES, NAMESPACE, "w")
    own = world.store.get(JIVA_VOLUMES, NAMESPACE, "v")
    assert other is not None
    assert own is not None
    with pytest.raises(KubeError, match="not allowed"):
        await cluster.get(JIVA_VOLUMES, NAMESPACE, "w")
    with pytest.raises(KubeError, match="not allowed"):
        await cluster.update(JIVA_VOLUMES, other, subresource="status")
    with pytest.raises(KubeError, match="not allowed"):
        await cluster.update(JIVA_VOLUMES, own)
    with pytest.raises(KubeError, match="not allowed"):
        await cluster.list(JIVA_VOLUMES, NAMESPACE)
