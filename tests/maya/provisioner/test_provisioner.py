"""The provisioner and the reconciler in a cluster in memory: a claim becomes a volume, and leaves nothing."""

from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from pyjiva.maya.kube import Listing, Object, Resource
from pyjiva.maya.kube.resource import CLAIMS, JIVA_SNAPSHOTS, JIVA_VOLUMES, NAMESPACES, PV
from pyjiva.testing.kube import FakeCluster, Moment, die_at, no_fault
from tests.maya.kube_world import (
    GIB,
    NAMESPACE,
    KubeWorld,
    make_claim,
    make_class,
    open_world,
    run_provisioner,
)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def claim_of(world: KubeWorld, name: str = "data") -> Object:
    value = world.store.get(CLAIMS, "default", name)
    assert value is not None
    return value


def is_bound(world: KubeWorld, name: str = "data") -> bool:
    return bool((claim_of(world, name).get("status") or {}).get("phase") == "Bound")


def pv_of(world: KubeWorld, name: str) -> Object:
    value = world.store.get(PV, "", name)
    assert value is not None
    return value


async def test_a_claim_is_bound_to_a_volume_that_initiators_find(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store, mountOptions=["noatime"])
        name = make_claim(world.store)
        began = trio.current_time()
        await world.until(lambda: is_bound(world))
        assert trio.current_time() - began < 20
        volume = world.volume(name)
        spec = pv_of(world, name)["spec"]
        assert volume.status.iscsi is not None
        assert spec["iscsi"] == {
            "targetPortal": volume.status.iscsi.target_portal,
            "iqn": f"iqn.2016-09.com.openebs.jiva:{name}",
            "lun": 0,
            "readOnly": False,
            "fsType": "ext4",
            "chapAuthSession": True,
            "secretRef": {"name": f"{name}-chap", "namespace": NAMESPACE},
        }
        assert (spec["capacity"], spec["mountOptions"]) == ({"storage": "1Gi"}, ["noatime"])
        assert volume.status.replicas[0].node == "n2", "one copy is where the pod will be"
        reasons = [reason for reason, _ in world.events("data")]
        assert reasons[0] == "Provisioning"
        assert reasons[-1] == "ProvisioningSucceeded"


async def test_a_claim_that_goes_takes_everything_along(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        make_claim(world.store)
        await world.until(lambda: is_bound(world))
        world.store.delete(CLAIMS, "default", "data")
        await world.until(lambda: not world.objects())
        assert not world.volumes.disks


async def test_retain_leaves_everything_until_somebody_deletes_the_volume(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store, reclaimPolicy="Retain")
        name = make_claim(world.store)
        await world.until(lambda: is_bound(world))
        world.store.delete(CLAIMS, "default", "data")
        await trio.sleep(60)
        assert pv_of(world, name)["status"]["phase"] == "Released"
        world.store.delete(PV, "", name)
        await world.until(lambda: world.store.get(PV, "", name) is None)
        await trio.sleep(60)
        assert world.volume(name).status.status == "RW"
        assert len(world.volumes.disks) == 3
        world.store.delete(JIVA_VOLUMES, NAMESPACE, name)
        await world.until(lambda: not world.objects())


async def test_a_claim_that_goes_before_it_is_bound_leaves_nothing(autojump_clock: MockClock) -> None:
    async with open_world(nodes=0) as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        await world.until(lambda: world.store.get(JIVA_VOLUMES, NAMESPACE, name))
        world.store.delete(CLAIMS, "default", "data")
        await world.until(lambda: not world.objects())


class Deaf(FakeCluster):
    """Lists of claims are empty, as if they had not come yet."""

    async def list(
        self, resource: Resource, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Listing:
        listing = await super().list(resource, namespace, labels)
        return Listing((), listing.resource_version) if resource == CLAIMS else listing


async def test_a_claim_that_is_only_late_in_our_caches_keeps_its_volume(autojump_clock: MockClock) -> None:
    """What destroys data is decided upon what the API server says, not upon what we have heard."""
    async with open_world() as world:
        make_class(world.store)
        name = make_claim(world.store)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_provisioner, world)
            await world.until(lambda: is_bound(world))
            nursery.cancel_scope.cancel()
        hidden = claim_of(world)
        world.nursery.start_soon(run_provisioner, world, no_fault, Deaf)
        await trio.sleep(30)
        assert claim_of(world) == hidden
        assert world.volume(name).status.status == "RW"
        assert not world.volume(name).deleting


async def test_a_claim_that_asks_for_more_gets_it(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        await world.until(lambda: is_bound(world))
        more = {"resources": {"requests": {"storage": "3Gi"}}}
        world.store.merge(CLAIMS, "default", "data", {"spec": more})
        await world.until(lambda: claim_of(world)["status"].get("capacity") == {"storage": "3Gi"})
        assert pv_of(world, name)["spec"]["capacity"] == {"storage": "3Gi"}
        assert world.volume(name).status.capacity_bytes == 3 * GIB
        reasons = [reason for reason, _ in world.events("data")]
        assert reasons[-2:] == ["Resizing", "VolumeResizeSuccessful"]


@pytest.mark.parametrize(
    ("spec", "annotations", "says"),
    [
        (
            {"accessModes": ["ReadWriteMany"]},
            {},
            "access mode ReadWriteMany: an iSCSI volume is for one node",
        ),
        ({"selector": {"matchLabels": {"a": "b"}}}, {}, "a selector chooses among volumes that are there"),
        (
            {"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "x"}},
            {},
            "not with PersistentVolumeClaim x",
        ),
        (
            {"dataSourceRef": {"apiGroup": "openebs.io", "kind": "JivaSnapshot", "name": "x"}},
            {},
            "there is no JivaSnapshot x in default",
        ),
        ({}, {"cas.openebs.io/config": "- name: ReplicaCont\n  value: 2"}, "ReplicaCount"),
        (
            {},
            {"cas.openebs.io/config": '- name: DeployInOpenEBSNamespace\n  enabled: "false"'},
            "needs a Maya that was started with --all-namespaces",
        ),
    ],
)
async def test_what_cannot_be_is_an_event_and_nothing_is_made(
    spec: dict[str, Any], annotations: dict[str, str], says: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store, metadata={"annotations": annotations})
        make_claim(world.store, **spec)
        await world.until(lambda: world.events("data"))
        await trio.sleep(30)
        [(reason, message)] = world.events("data")
        assert reason == "ProvisioningFailed"
        assert says in message
        assert world.objects() == ["PersistentVolumeClaim data"]


async def test_a_claim_that_is_put_right_is_provisioned(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_claim(world.store)
        await world.until(lambda: world.events("data"))
        assert world.events("data") == [("ProvisioningFailed", "there is no StorageClass 'jiva'")]
        make_class(world.store)
        await world.until(lambda: is_bound(world))


async def test_claims_of_others_are_none_of_our_business(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store, "theirs", provisioner="other.example")
        value = {
            "metadata": {"name": "theirs", "namespace": "default"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "theirs",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        world.store.create(CLAIMS, value)
        await trio.sleep(30)
        assert not [text for reason, text in world.events("theirs") if "volume pvc" in text]
        assert world.objects() == ["PersistentVolumeClaim theirs"]


def make_snapshot(world: KubeWorld, name: str, volume: str, namespace: str = "default") -> None:
    value = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"volumeName": volume, "snapshotName": name},
    }
    world.store.create(JIVA_SNAPSHOTS, value)


def snapshot_status(world: KubeWorld, name: str, namespace: str = "default") -> dict[str, Any]:
    value = world.store.get(JIVA_SNAPSHOTS, namespace, name)
    return dict((value or {}).get("status") or {})


FROM_NIGHTLY = {"dataSourceRef": {"apiGroup": "openebs.io", "kind": "JivaSnapshot", "name": "nightly"}}


async def test_snapshot_and_clone(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        make_snapshot(world, "nightly", name)
        await world.until(lambda: snapshot_status(world, "nightly").get("readyToUse"))
        assert snapshot_status(world, "nightly") == {
            "phase": "Ready",
            "readyToUse": True,
            "restoreSize": "1Gi",
            "creationTime": "2026-01-01T00:00:00Z",
        }
        clone = make_claim(world.store, "copy", size="2Gi", **FROM_NIGHTLY)
        await world.until(lambda: is_bound(world, "copy"))
        source = world.volume(clone).spec.source
        assert source is not None
        assert (source.volume, source.snapshot) == (name, "nightly")
        world.store.delete(JIVA_SNAPSHOTS, "default", "nightly")
        await world.until(lambda: world.store.get(JIVA_SNAPSHOTS, "default", "nightly") is None)
        [volume] = [v for v in world.volumes.volumes.values() if not v.fill_from]
        assert volume.snapshots == []
        for each in ("data", "copy"):
            world.store.delete(CLAIMS, "default", each)
        await world.until(lambda: not world.objects())


async def test_a_clone_is_not_smaller_than_its_source(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        make_snapshot(world, "nightly", name)
        await world.until(lambda: snapshot_status(world, "nightly").get("readyToUse"))
        make_claim(world.store, "copy", size="512Mi", **FROM_NIGHTLY)
        await world.until(lambda: world.events("copy"))
        assert "asks for less than" in world.events("copy")[0][1]


async def test_a_snapshot_of_a_strangers_volume_is_refused(autojump_clock: MockClock) -> None:
    """All volumes are in Maya's namespace: who may make a JivaSnapshot somewhere gets no other's data."""
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        await world.until(lambda: is_bound(world))
        world.store.create(NAMESPACES, {"metadata": {"name": "strangers"}})
        make_snapshot(world, "mine", name, "strangers")
        await world.until(lambda: snapshot_status(world, "mine", "strangers").get("phase") == "Error")
        assert (
            f"no volume {name} that strangers may use"
            in snapshot_status(world, "mine", "strangers")["message"]
        )
        assert all(not volume.snapshots for volume in world.volumes.volumes.values())


async def test_a_snapshot_that_is_gone_from_its_volume_is_not_made_again(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world)
        make_class(world.store)
        name = make_claim(world.store)
        make_snapshot(world, "nightly", name)
        await world.until(lambda: snapshot_status(world, "nightly").get("readyToUse"))
        [volume] = world.volumes.volumes.values()
        volume.snapshots.clear()
        world.store.merge(JIVA_SNAPSHOTS, "default", "nightly", {"metadata": {"labels": {"look": "again"}}})
        await world.until(lambda: snapshot_status(world, "nightly")["phase"] == "Error")
        assert snapshot_status(world, "nightly")["readyToUse"] is False
        assert volume.snapshots == []


async def life(world: KubeWorld) -> None:
    """Of a claim: made, bound, larger, deleted."""
    make_class(world.store)
    make_claim(world.store)
    await world.until(lambda: is_bound(world))
    world.store.merge(CLAIMS, "default", "data", {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    await world.until(lambda: claim_of(world)["status"].get("capacity") == {"storage": "2Gi"})
    world.store.delete(CLAIMS, "default", "data")
    await world.until(lambda: not world.objects())
    assert not world.volumes.disks


@pytest.mark.parametrize("moment", list(Moment))
async def test_the_provisioner_may_die_at_any_write_of_a_life(
    moment: Moment, autojump_clock: MockClock
) -> None:
    """Before the API server has seen it, and after it has while the answer is lost."""
    clusters: list[FakeCluster] = []
    async with open_world() as world:
        world.nursery.start_soon(run_provisioner, world, no_fault, FakeCluster, clusters)
        await life(world)
    [whole] = clusters
    assert len(whole.writes) > 10
    for number in range(1, len(whole.writes) + 1):
        clusters = []
        async with open_world() as world:
            world.nursery.start_soon(run_provisioner, world, die_at(number, moment), FakeCluster, clusters)
            await life(world)
        assert len(clusters) == 2, "it did not die"
