"""The reconciler in a cluster in memory: volumes are made, live through failures, and leave nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from pyjiva.maya.kube.resource import CONFIG_MAPS, DEPLOYMENTS, JIVA_VOLUMES, PODS, SECRETS
from pyjiva.maya.policy import VolumePolicy
from pyjiva.maya.volume import Phase, ReplicaState, VolumeSource, operator_io
from pyjiva.maya.volume.observed import Observed
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.reconcile import Plan, reconcile
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.step import AddFinalizer, SaveStatus, Tell
from pyjiva.testing.kube import FakeCluster, Moment, die_at
from tests.maya.kube_world import GIB, NAMESPACE, KubeWorld, open_world

POLICY = VolumePolicy(replace_after_s=30.0)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


@pytest.fixture(autouse=True)
def every_plan_saves_once_and_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every look in every test: what must not be forgotten is saved before anything is made of it."""

    def checked(observed: Observed, settings: Settings) -> Plan:
        plan = reconcile(observed, settings)
        saves = [number for number, step in enumerate(plan.steps) if isinstance(step, SaveStatus)]
        assert len(saves) <= 1, plan.steps
        for number, step in enumerate(plan.steps if saves else ()):
            farewell = isinstance(step, Tell) and step.reason == "DataLeft"
            first = farewell or isinstance(step, AddFinalizer)
            assert first == (number < saves[0]), step
        return plan

    monkeypatch.setattr(operator_io, "reconcile", checked)


def is_whole(world: KubeWorld, name: str = "v", copies: int = 3) -> bool:
    """Whether the volume takes I/O, with all copies."""
    status = world.volume(name).status
    return (
        status.phase is Phase.READY
        and [place.state for place in status.replicas] == [ReplicaState.MEMBER] * copies
        and all(place.mode in ("in-sync", "witness") for place in status.replicas)
    )


def conditions(world: KubeWorld, name: str = "v") -> dict[str, tuple[str, str]]:
    return {each.type: (each.status, each.reason) for each in world.volume(name).status.conditions}


def members(world: KubeWorld, name: str = "v") -> set[int]:
    return set(world.volumes.volumes[world.volume(name).spec.volume_id].members)


async def whole(world: KubeWorld, name: str = "v", copies: int = 3, within_s: float = 200.0) -> None:
    await world.until(lambda: is_whole(world, name, copies), within_s)


async def test_a_volume_becomes_ready_with_everything_that_it_needs(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        began = trio.current_time()
        await whole(world)
        assert trio.current_time() - began < 15
        assert [each for each in world.objects() if not each.startswith("Pod ")] == [
            "ConfigMap v-ctrl",
            *(f"Deployment v-{each}" for each in ("ctrl", "rep-1", "rep-2", "rep-3")),
            "JivaVolume v",
            "PodDisruptionBudget v-pdb",
            *("Secret v-chap", "Secret v-secrets"),
            *(f"Service v-{each}" for each in ("ctrl-svc", "rep-1", "rep-2", "rep-3")),
        ]
        status = world.volume().status
        assert (status.status, status.replica_count, status.capacity_bytes) == ("RW", 3, GIB)
        assert status.iscsi is not None
        assert status.iscsi.iqn == "iqn.2016-09.com.openebs.jiva:v"
        assert len({place.node for place in status.replicas}) == 3
        assert conditions(world) == {
            "Ready": ("True", "TakesIO"),
            "InSync": ("True", "AllCopies"),
            "Placed": ("True", "Placed"),
        }
        assert ("TakesIO", "host I/O is answered") in world.events("v")


async def test_blank_replicas_are_taken_for_a_volume_only_until_it_is_born(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        await world.until(lambda: "new-volume" not in config(world))
        # All disks are replaced, and the controller starts again: that is a loss, and no beginning.
        world.volumes.volumes.clear()
        await world.until(lambda: world.volume().status.phase is Phase.UNKNOWN)
        assert not world.volumes.volumes
        assert conditions(world)["Ready"] == ("False", "NotAnswering")


def config(world: KubeWorld) -> dict[str, str]:
    value = world.store.get(CONFIG_MAPS, NAMESPACE, "v-ctrl")
    assert value is not None
    return dict(value["data"])


async def test_nothing_is_written_or_asked_once_all_is_as_it_is_to_be(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        await trio.sleep(60)
        [cluster] = world.operators
        before, asked = world.store.version, len(cluster.calls)
        await trio.sleep(300)
        assert world.store.version == before
        assert [str(call) for call in cluster.calls[asked:]] == []


@asynccontextmanager
async def cached(world: KubeWorld) -> AsyncIterator[tuple[VolumeOperator, FakeCluster]]:
    """A reconciler that looks only when it is told to, with caches that hear nothing for now."""
    cluster = FakeCluster(world.store)
    operator = world.make_operator(cluster)
    async with trio.open_nursery() as nursery:
        for informer in operator._informers:
            nursery.start_soon(informer.run)
        await operator.synced()
        await trio.sleep(1)
        cluster.pause_watches()
        cluster.calls.clear()
        yield operator, cluster
        nursery.cancel_scope.cancel()


async def test_a_look_at_an_old_jivavolume_takes_no_blank_replicas_for_a_beginning(
    autojump_clock: MockClock,
) -> None:
    """Its first step is to make the ConfigMap anew; meanwhile another process has seen the volume born."""
    async with open_world(operator=False) as world:
        world.controllers.start_s = 10_000.0
        world.make_volume()
        with trio.move_on_after(60):
            await world.run_operator()
        assert "new-volume" in config(world)
        world.store.delete(CONFIG_MAPS, NAMESPACE, "v-ctrl")
        async with cached(world) as (operator, cluster):
            world.store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": {"born": True}}, subresource="status")
            await operator.handle((NAMESPACE, "v"))
            assert str(cluster.calls[0]) == f"get jivavolumes {NAMESPACE}/v"
        assert "new-volume" not in config(world)


async def test_a_look_at_an_old_jivavolume_begins_again_before_it_has_done_anything(
    autojump_clock: MockClock,
) -> None:
    async with open_world(operator=False) as world:
        world.make_volume()
        async with cached(world) as (operator, cluster):
            world.store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"metadata": {"labels": {"by": "another"}}})
            await operator.handle((NAMESPACE, "v"))
            assert [call.verb for call in cluster.calls[:3]] == ["merge", "get", "merge"]
            assert [place.id for place in world.volume().status.replicas] == [1, 2, 3]


async def test_a_look_at_a_jivavolume_that_is_gone_makes_nothing(autojump_clock: MockClock) -> None:
    async with open_world(operator=False) as world:
        world.make_volume()
        async with cached(world) as (operator, _):
            world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
            await operator.handle((NAMESPACE, "v"))
        assert not world.objects()


async def test_what_somebody_changes_or_deletes_is_put_right(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        world.store.delete(DEPLOYMENTS, NAMESPACE, "v-rep-2")
        world.store.merge(DEPLOYMENTS, NAMESPACE, "v-ctrl", {"spec": {"replicas": 0}})
        await trio.sleep(5)
        await whole(world)


async def test_a_node_that_dies_takes_no_io_away_and_its_replica_is_made_anew(
    autojump_clock: MockClock,
) -> None:
    async with open_world(nodes=5) as world:
        world.make_volume(policy=POLICY)
        await whole(world)
        lost = world.volume().status.replicas[0]
        world.controllers.kill_node(lost.node)
        await world.until(lambda: conditions(world)["InSync"][0] == "False")
        assert world.volume().status.phase is not Phase.SYNCING
        await world.until(lambda: 1 not in members(world), 300)
        await world.until(lambda: {2, 3, 4} == members(world))
        # Its node is there, though away: its data is not forgotten.
        await world.until(lambda: world.volume().status.replicas[0].state is ReplicaState.REMOVING)
        assert world.volume().status.replicas[0].node == lost.node
        world.controllers.revive_node(lost.node)
        await whole(world)
        assert not [each for each in world.volumes.disks if each[0] == lost.node]


async def test_a_node_that_is_gone_for_good_is_forgotten_and_that_is_said(autojump_clock: MockClock) -> None:
    async with open_world(nodes=5) as world:
        world.make_volume(policy=POLICY)
        await whole(world)
        lost = world.volume().status.replicas[0]
        world.controllers.kill_node(lost.node)
        world.controllers.remove_node(lost.node)
        await trio.sleep(40)
        await whole(world)
        assert members(world) == {2, 3, 4}
        assert any(reason == "DataLeft" and lost.node in text for reason, text in world.events("v"))


async def test_more_and_fewer_copies(autojump_clock: MockClock) -> None:
    async with open_world(nodes=4) as world:
        world.make_volume()
        await whole(world)
        world.change(desiredReplicationFactor=4)
        await trio.sleep(5)
        await whole(world, copies=4)
        world.change(desiredReplicationFactor=2)
        await trio.sleep(5)
        await whole(world, copies=2)
        assert members(world) == {1, 2}
        await world.until(lambda: len(world.volumes.disks) == 2)


async def test_it_grows(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        pods = {pod["metadata"]["name"] for pod in world.store.select(PODS, NAMESPACE)}
        world.change(capacity="3Gi")
        await world.until(lambda: world.volume().status.capacity_bytes == 3 * GIB)
        await trio.sleep(30)
        assert {pod["metadata"]["name"] for pod in world.store.select(PODS, NAMESPACE)} == pods, "restarted"


async def test_deleting_leaves_nothing_and_no_data(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        assert len(world.volumes.disks) == 3
        world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
        await world.until(lambda: not world.objects())
        assert not world.volumes.disks


async def test_deleting_leaves_data_where_it_is_to_be_kept(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume(policy=VolumePolicy(retain_replica_data=True))
        await whole(world)
        world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
        await world.until(lambda: not world.objects())
        assert len(world.volumes.disks) == 3


async def test_deleting_waits_for_a_node_that_is_away(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        away = world.volume().status.replicas[1].node
        world.controllers.kill_node(away)
        await trio.sleep(10)
        world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
        await trio.sleep(100)
        assert "JivaVolume v" in world.objects()
        assert world.volume().status.phase is Phase.DELETING
        assert [each[0] for each in world.volumes.disks] == [away] or len(world.volumes.disks) == 3
        world.controllers.revive_node(away)
        await world.until(lambda: not world.objects())
        assert not world.volumes.disks


async def test_secrets_that_are_lost_are_not_made_anew(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        kept = world.store.get(SECRETS, NAMESPACE, "v-secrets")
        assert kept is not None
        world.store.delete(SECRETS, NAMESPACE, "v-secrets")
        await world.until(lambda: world.volume().status.phase is Phase.FAILED)
        assert conditions(world)["Ready"] == ("False", "SecretLost")
        assert world.store.get(SECRETS, NAMESPACE, "v-secrets") is None
        back = {key: value for key, value in kept.items() if key != "metadata"}
        metadata = {key: kept["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
        world.store.create(SECRETS, back | {"metadata": metadata})
        await whole(world)


async def test_a_lost_status_is_read_back_from_what_runs(autojump_clock: MockClock) -> None:
    """As after a restore that left the status out: nobody is moved, nothing is taken for new."""
    async with open_world(nodes=6) as world:
        world.make_volume()
        await whole(world)
        await world.until(lambda: "new-volume" not in config(world))
        before = {place.id: place.node for place in world.volume().status.replicas}
        world.store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": None}, subresource="status")
        await whole(world)
        assert {place.id: place.node for place in world.volume().status.replicas} == before
        assert "new-volume" not in config(world)
        world.change(desiredReplicationFactor=4)
        await trio.sleep(5)
        await whole(world, copies=4)
        assert members(world) == {1, 2, 3, 4}


async def test_a_clone_waits_for_its_snapshot_and_is_filled_from_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume("v")
        await whole(world)
        world.volumes.holds_filling = True
        world.make_volume("w", source=VolumeSource("v", "nightly"))
        await world.until(lambda: conditions(world, "w").get("Filled") == ("False", "SnapshotNotReady"))
        source = world.volumes.volumes[world.volume().spec.volume_id]
        source.snapshots.append("nightly")
        await whole(world, "w")
        clone = world.volumes.volumes[world.volume("w").spec.volume_id]
        service = world.volume().status.iscsi
        assert service is not None
        assert clone.fill_from == f"http://{service.target_portal.split(':')[0]}:9501/v1/snapshots/nightly"
        # What it reads from stays until it has everything.
        world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
        await trio.sleep(30)
        assert world.volume().status.phase is Phase.DELETING
        assert source.members
        world.volumes.holds_filling = False
        await world.until(lambda: conditions(world, "w").get("Filled") == ("True", "Filled"))
        await world.until(lambda: "JivaVolume v" not in world.objects())
        await whole(world, "w")


async def test_a_volume_without_room_says_so_and_goes_on_when_there_is_some(
    autojump_clock: MockClock,
) -> None:
    async with open_world(nodes=2) as world:
        world.make_volume()
        await world.until(lambda: conditions(world).get("Placed") == ("False", "NoNode"))
        await trio.sleep(60)
        assert world.volume().status.phase is Phase.READY, "two of three are a majority"
        world.controllers.add_node("n3")
        await whole(world)


async def test_a_new_version_starts_one_after_the_other_again(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.make_volume()
        await whole(world)
        parked = trio.Event()

        async def watch() -> None:
            while True:
                if world.volume().status.status == "RO":
                    parked.set()
                await trio.sleep(0.2)

        world.nursery.start_soon(watch)
        world.change(policy={"replicaImage": "pyjiva:next", "controllerImage": "pyjiva:next"})

        def is_new() -> bool:
            images = [
                container["image"]
                for pod in world.store.select(PODS, NAMESPACE)
                for container in pod["spec"]["containers"]
                if container["name"] != "maya-volume-exporter"
            ]
            return len(images) == 4 and set(images) == {"pyjiva:next"}

        await world.until(is_new, 300)
        await whole(world)
        assert not parked.is_set()


@pytest.mark.parametrize(("moment", "first"), [(Moment.BEFORE, 1), (Moment.AFTER, 2)])
async def test_the_reconciler_may_die_at_writes_of_a_life(
    moment: Moment, first: int, autojump_clock: MockClock
) -> None:
    """Creation, growth, one copy more, deletion.  Every third write, to be quick: all have been tried."""
    number, writes = first, first
    while number <= writes:
        async with open_world(nodes=4, operator=False) as world:
            world.nursery.start_soon(world.run_operator, die_at(number, moment))
            world.make_volume()
            await whole(world)
            world.change(desiredReplicationFactor=4, capacity="2Gi")
            await world.until(lambda: world.volume().status.capacity_bytes == 2 * GIB, 200)
            await whole(world, copies=4)
            world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
            await world.until(lambda: not world.objects(), 200)
            assert not world.volumes.disks
            writes = max(writes, world.writes_at_most)
        number += 3
    assert writes > 30
