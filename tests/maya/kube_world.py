"""A cluster in memory with Maya in it, under a clock that jumps."""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from structlog.testing import capture_logs

from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.resource import CLAIMS, EVENTS, JIVA_VOLUMES, NAMESPACES, STORAGE_CLASSES
from pyjiva.maya.provisioner.decide import Provisioned
from pyjiva.maya.provisioner.provisioner_io import Provisioner
from pyjiva.maya.volume import JivaVolume, JivaVolumeSpec
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.snapshot_operator_io import SnapshotOperator
from pyjiva.testing.kube import FakeCluster, Fault, ProcessDied, no_fault
from pyjiva.testing.kube_controllers import FakeControllers
from pyjiva.testing.kube_store import Store
from tests.maya.fake_volumes import FakeVolumes

NAMESPACE = "openebs"
PROVISIONER = "openebs.io/provisioner-iscsi"
GIB = 1 << 30
SETTINGS = Settings(namespace=NAMESPACE, image="pyjiva:test", version="test")


@attrs.define(eq=False)
class KubeWorld:
    """The cluster, and Maya's processes in it."""

    store: Store
    controllers: FakeControllers
    volumes: FakeVolumes
    nursery: trio.Nursery
    writes_at_most: int = 0
    """Of one process of the reconciler that has ended, or the present one."""
    operators: list[FakeCluster] = attrs.field(factory=list)
    """What each process of the reconciler has asked with."""

    def now_s(self) -> float:
        return self.store.now().timestamp()

    def volume(self, name: str = "v", namespace: str = NAMESPACE) -> JivaVolume:
        value = self.store.get(JIVA_VOLUMES, namespace, name)
        assert value is not None, f"no JivaVolume {name}"
        return JivaVolume.of(value)

    def make_volume(self, name: str = "v", **spec: Any) -> None:
        made = JivaVolumeSpec(
            pv=name,
            capacity_bytes=GIB,
            volume_id=hashlib.md5(name.encode()).hexdigest(),
            desired_replication_factor=3,
        )
        volume = JivaVolume(NAMESPACE, name, attrs.evolve(made, **spec))
        self.store.create(JIVA_VOLUMES, volume.to_object())

    def change(self, name: str = "v", **spec: Any) -> None:
        self.store.merge(JIVA_VOLUMES, NAMESPACE, name, {"spec": spec})

    def events(self, name: str | None = None) -> list[tuple[str, str]]:
        """(reason, message) of all, or of one object's."""
        return [
            (event["reason"], event["message"])
            for event in self.store.select(EVENTS)
            if name in (None, event["involvedObject"]["name"])
        ]

    def objects(self) -> list[str]:
        """Kind and name of all there is, but for nodes, namespaces and events."""
        left = ("Node", "Namespace", "Event", "Lease", "StorageClass")
        return sorted(
            f"{resource.kind} {name}"
            for resource, (_, name) in self.store.everything()
            if resource.kind not in left
        )

    async def until(self, what: Callable[[], object], within_s: float = 120.0) -> None:
        """Wait until it is so, in the clock's time."""
        with trio.move_on_after(within_s):
            while not what():
                await trio.sleep(0.25)
            return
        raise AssertionError(f"not within {within_s} s: {self.objects()}, {self.events()}")

    async def run_operator(self, fault: Fault = no_fault) -> None:
        """As a process: restarted when it dies."""
        while True:
            cluster = FakeCluster(self.store, fault=fault)
            self.operators.append(cluster)
            operator = self.make_operator(cluster)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._count, cluster)
                    nursery.start_soon(SnapshotOperator(operator, operator.recorder).run)
                    await operator.run()
            except* ProcessDied:
                fault = no_fault
                await trio.sleep(1)

    def make_operator(self, cluster: FakeCluster) -> VolumeOperator:
        """That does not run yet."""
        return VolumeOperator(
            cluster,
            self.volumes,
            SETTINGS,
            Recorder(cluster, "pyjiva-maya-operator", now=self.store.now),
            now_s=self.now_s,
        )

    async def _count(self, cluster: FakeCluster) -> None:
        while True:
            self.writes_at_most = max(self.writes_at_most, len(cluster.writes))
            await trio.sleep(1)


@asynccontextmanager
async def open_world(
    nodes: int = 3, operator: bool = True, fault: Fault = no_fault
) -> AsyncIterator[KubeWorld]:
    """With nodes n1…, and the reconciler running."""
    store = Store(protects_storage=True)
    controllers = FakeControllers(store, start_s=1.0, node_grace_s=5.0, delay_s=0.1)
    for number in range(1, nodes + 1):
        controllers.add_node(f"n{number}")
    if store.get(NAMESPACES, "", NAMESPACE) is None:
        store.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    with capture_logs() as logs:
        async with _running(store, controllers, operator, fault) as world:
            yield world
    bugs = [str(entry["exc_info"]) for entry in logs if "exc_info" in entry]
    assert not bugs, bugs


@asynccontextmanager
async def _running(
    store: Store, controllers: FakeControllers, operator: bool, fault: Fault
) -> AsyncIterator[KubeWorld]:
    async with trio.open_nursery() as nursery:
        world = KubeWorld(store, controllers, FakeVolumes(store, controllers), nursery)
        nursery.start_soon(controllers.run)
        if operator:
            nursery.start_soon(world.run_operator, fault)
        yield world
        nursery.cancel_scope.cancel()


def make_class(store: Store, name: str = "jiva", **more: Any) -> None:
    """A StorageClass of ours."""
    value = {
        "metadata": {"name": name, **more.pop("metadata", {})},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        **more,
    }
    store.create(STORAGE_CLASSES, value)


def make_claim(store: Store, name: str = "data", size: str = "1Gi", **more: Any) -> str:
    """A claim as the PersistentVolume controller hands it to us; the name of its volume."""
    metadata = {
        "name": name,
        "namespace": "default",
        "annotations": {
            "volume.kubernetes.io/storage-provisioner": PROVISIONER,
            "volume.kubernetes.io/selected-node": "n2",
        },
    }
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "jiva",
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": size}},
        **more,
    }
    made = store.create(CLAIMS, {"metadata": metadata, "spec": spec})
    return f"pvc-{made['metadata']['uid']}"


async def run_provisioner(
    world: KubeWorld,
    fault: Fault = no_fault,
    make: Callable[..., FakeCluster] = FakeCluster,
    clusters: list[FakeCluster] | None = None,
    **us: Any,
) -> None:
    """As a process: restarted when it dies.  `clusters`: gets what each process had asked with."""
    while True:
        cluster = make(world.store, fault=fault)
        if clusters is not None:
            clusters.append(cluster)
        provisioner = Provisioner(
            cluster,
            Provisioned(PROVISIONER, NAMESPACE, "node-1", **us),
            Recorder(cluster, "pyjiva-maya-provisioner", now=world.store.now),
            now_s=world.now_s,
        )
        try:
            await provisioner.run()
        except* ProcessDied:
            fault = no_fault
            await trio.sleep(1)
