"""The provisioner's shell: watches claims, StorageClasses, PersistentVolumes and JivaVolumes, and does what
`decide` says.

One key of the queue is the name of one PersistentVolume.  What is looked at comes from caches; what would
destroy data is decided once more upon what the API server says at that moment.  An Event is only written when
it says something new of an object.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

import attrs
import trio

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.cluster import AlreadyExists, Cluster, NotFound, Object
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.informer_io import Informer
from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.maya.kube.queue_io import Workers
from pyjiva.maya.kube.resource import CLAIMS, JIVA_SNAPSHOTS, JIVA_VOLUMES, PV, STORAGE_CLASSES
from pyjiva.maya.provisioner.decide import (
    KEPT,
    PV_FINALIZER,
    PV_PREFIX,
    DeleteClaimed,
    DeleteVolume,
    Grow,
    KeepVolume,
    LetGo,
    MakePersistentVolume,
    MakeVolume,
    Provisioned,
    SaySize,
    Seen,
    Step,
    TellClaim,
    TellVolume,
    decide,
)
from pyjiva.maya.provisioner.health_io import ProvisionerMetrics
from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.labels import CLAIM, STORAGE_CLASS, claim_namespace
from pyjiva.maya.volume.members import seconds_of

__all__ = ["Provisioner"]

TOLD_MAX: Final = 10_000  # of claims that wait


@attrs.define(eq=False)
class Provisioner:
    """Run it in one process at a time (`run_elected`)."""

    cluster: Cluster
    us: Provisioned
    recorder: Recorder
    metrics: ProvisionerMetrics = attrs.field(factory=ProvisionerMetrics)
    now_s: Callable[[], float] = time.time
    """POSIX time."""
    workers_count: int = 8
    claims: Informer = attrs.field(init=False)
    classes: Informer = attrs.field(init=False)
    persistent_volumes: Informer = attrs.field(init=False)
    volumes: Informer = attrs.field(init=False)
    snapshots: Informer = attrs.field(init=False)
    workers: Workers[str] = attrs.field(init=False)
    _told: dict[str, str] = attrs.field(factory=dict, init=False)
    """Uid → what was told of it last."""

    def __attrs_post_init__(self) -> None:
        self.claims = Informer(self.cluster, CLAIMS)
        self.classes = Informer(self.cluster, STORAGE_CLASSES)
        self.persistent_volumes = Informer(self.cluster, PV)
        self.volumes = Informer(self.cluster, JIVA_VOLUMES)
        self.snapshots = Informer(self.cluster, JIVA_SNAPSHOTS)
        self.workers = Workers("persistentvolume", self.handle, self.workers_count)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started once everything was listed."""
        informers = (self.claims, self.classes, self.persistent_volumes, self.volumes, self.snapshots)
        async with trio.open_nursery() as nursery:
            for informer in informers:
                nursery.start_soon(informer.run)
            for informer in informers:
                await informer.synced.wait()
            self.claims.subscribe(self._claim_changed)
            self.persistent_volumes.subscribe(lambda _, name: self._look(name))
            self.volumes.subscribe(lambda _, name: self._look(name))
            self.classes.subscribe(lambda *_: self._all_claims())
            self.snapshots.subscribe(lambda *_: self._all_claims())
            task_status.started()
            await self.workers.run()

    def _look(self, name: str) -> None:
        if name.startswith(PV_PREFIX):
            self.workers.add(name)

    def _claim_changed(self, namespace: str, name: str) -> None:
        claim = self.claims.get(namespace, name)
        if claim is not None:
            self._look(PV_PREFIX + claim["metadata"]["uid"])
            return
        # It is gone: whose it was is only known by what was made for it.
        for value in self.volumes.items():
            volume = value["metadata"]
            annotations = volume.get("annotations") or {}
            if annotations.get(CLAIM) == name:
                self._look(volume["name"])
        for value in self.persistent_volumes.items():
            of = value["spec"].get("claimRef") or {}
            if (of.get("namespace"), of.get("name")) == (namespace, name):
                self._look(value["metadata"]["name"])

    def _all_claims(self) -> None:
        for claim in self.claims.items():
            if not claim["spec"].get("volumeName"):
                self._look(PV_PREFIX + claim["metadata"]["uid"])

    # --- one look

    async def handle(self, name: str) -> None:
        """Look at one name, and do what there is to do.  Raises PyjivaError: a step failed."""
        seen = self._seen(name)
        steps = decide(seen, self.us)
        if any(isinstance(step, DeleteVolume | DeleteClaimed | KeepVolume | LetGo) for step in steps):
            seen = await self._seen_now(seen)
            steps = decide(seen, self.us)
        for step in steps:
            await self._carry_out(step, seen)

    def _seen(self, name: str) -> Seen:
        uid = name.removeprefix(PV_PREFIX)
        claim = next((each for each in self.claims.items() if each["metadata"]["uid"] == uid), None)
        value = self._volume_object(name)
        return self._with_source(
            Seen(
                name,
                claim,
                self._class_of(claim),
                self.persistent_volumes.get("", name),
                self._read(value),
            )
        )

    async def _seen_now(self, seen: Seen) -> Seen:
        """The same, but from the API server."""
        value = self._volume_object(seen.name)
        if value is not None:
            metadata = value["metadata"]
            value = await self.cluster.get(JIVA_VOLUMES, metadata["namespace"], metadata["name"])
        persistent_volume = await self.cluster.get(PV, "", seen.name)
        claim = None
        of = self._claim_reference(persistent_volume, value)
        if of is not None:
            claim = await self.cluster.get(CLAIMS, *of)
            if claim is not None and PV_PREFIX + claim["metadata"]["uid"] != seen.name:
                claim = None  # another one of the same name
        return self._with_source(
            Seen(seen.name, claim, self._class_of(claim), persistent_volume, self._read(value))
        )

    def _claim_reference(
        self, persistent_volume: Object | None, value: Object | None
    ) -> tuple[str, str] | None:
        if persistent_volume is not None and (of := persistent_volume["spec"].get("claimRef")):
            return of["namespace"], of["name"]
        volume = self._read(value)
        if volume is None:
            return None
        name = volume.annotations.get(CLAIM)
        return (claim_namespace(volume), name) if name else None

    def _volume_object(self, name: str) -> Object | None:
        there = [each for each in self.volumes.items() if each["metadata"]["name"] == name]
        return there[0] if there else None

    def _read(self, value: Object | None) -> JivaVolume | None:
        if value is None:
            return None
        try:
            return JivaVolume.of(value)
        except ConfigError:  # the reconciler tells of it
            return None

    def _class_of(self, claim: Object | None) -> Object | None:
        name = (claim or {}).get("spec", {}).get("storageClassName")
        return self.classes.get("", name) if name else None

    def _with_source(self, seen: Seen) -> Seen:
        """With the snapshot that the claim is to begin with."""
        claim = seen.claim
        if claim is None or seen.volume is not None:
            return seen
        asked = claim["spec"].get("dataSourceRef") or {}
        snapshot = self.snapshots.get(claim["metadata"]["namespace"], asked.get("name", ""))
        if snapshot is None:
            return seen
        source = self._read(self._volume_object(snapshot["spec"].get("volumeName", "")))
        return attrs.evolve(seen, snapshot=snapshot, source=source)

    # --- what is done

    async def _carry_out(self, step: Step, seen: Seen) -> None:
        match step:
            case MakeVolume(volume):
                await self._create(JIVA_VOLUMES, volume.to_object())
            case MakePersistentVolume(value):
                await self._create(PV, dict(value))
                self._count_made(seen)
            case DeleteVolume(uid):
                assert seen.volume is not None
                await self.cluster.delete(JIVA_VOLUMES, seen.volume.namespace, seen.name, uid=uid)
                self.metrics.deleted.labels(seen.volume.annotations.get(STORAGE_CLASS, "")).inc()
            case DeleteClaimed():
                assert seen.persistent_volume is not None
                await self.cluster.delete(PV, "", seen.name, uid=seen.persistent_volume["metadata"]["uid"])
            case LetGo():
                await self._let_go(seen)
            case KeepVolume():
                assert seen.volume is not None
                change: Object = {"metadata": {"annotations": {KEPT: "true"}}}
                await self.cluster.merge(JIVA_VOLUMES, seen.volume.namespace, seen.name, change)
            case Grow(capacity_bytes):
                assert seen.volume is not None
                change = {"spec": {"capacity": format_quantity(capacity_bytes)}}
                await self.cluster.merge(JIVA_VOLUMES, seen.volume.namespace, seen.name, change)
            case SaySize(capacity):
                await self._say_size(seen, capacity)
            case TellClaim():
                await self._tell(seen.claim, step)
            case TellVolume():
                await self._tell(seen.persistent_volume, step)
            case _:
                assert_never(step)

    def _count_made(self, seen: Seen) -> None:
        assert seen.claim is not None
        class_name = seen.claim["spec"].get("storageClassName", "")
        self.metrics.provisioned.labels(class_name).inc()
        asked_s = seconds_of(seen.claim["metadata"]["creationTimestamp"])
        self.metrics.seconds.labels(class_name).observe(max(0.0, self.now_s() - asked_s))

    async def _create(self, resource: Any, value: dict[str, Any]) -> None:
        try:
            await self.cluster.create(resource, value)
        except AlreadyExists:
            return  # by us, before we died, or heard no answer

    async def _let_go(self, seen: Seen) -> None:
        # Deleted a moment ago, it has another version by now.
        value = await self.cluster.get(PV, "", seen.name)
        if value is None:
            return
        metadata = value["metadata"]
        kept = [each for each in metadata.get("finalizers") or () if each != PV_FINALIZER]
        change = {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}
        try:
            await self.cluster.merge(PV, "", seen.name, {"metadata": change})
        except NotFound:
            return

    async def _say_size(self, seen: Seen, capacity: str) -> None:
        assert seen.claim is not None
        amount = {"capacity": {"storage": capacity}}
        await self.cluster.merge(PV, "", seen.name, {"spec": amount})
        metadata = seen.claim["metadata"]
        await self.cluster.merge(
            CLAIMS, metadata["namespace"], metadata["name"], {"status": amount}, subresource="status"
        )

    async def _tell(self, value: Mapping[str, Any] | None, step: TellClaim | TellVolume) -> None:
        if value is None:
            return
        uid, text = value["metadata"]["uid"], f"{step.reason}: {step.message}"
        if self._told.get(uid) == text:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[uid] = text
        if step.reason == "ProvisioningFailed":
            self.metrics.failed.labels(value["spec"].get("storageClassName", "")).inc()
        await self.recorder.event(
            dict(value), "Warning" if step.warning else "Normal", step.reason, step.message
        )
