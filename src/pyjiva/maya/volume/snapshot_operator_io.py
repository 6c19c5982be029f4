"""Keeps all JivaSnapshots as they are to be: asks their volumes, and does what `decide_snapshot` says.

It stands beside the VolumeOperator, whose caches it reads.
"""

from typing import Final

import attrs
import trio

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.cluster import Cluster, Object
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.informer_io import Informer
from pyjiva.maya.kube.queue_io import Workers
from pyjiva.maya.kube.resource import JIVA_SNAPSHOTS
from pyjiva.maya.volume.jiva_snapshot import (
    SNAPSHOT_FINALIZER,
    CreateSnapshot,
    DeleteSnapshot,
    JivaSnapshot,
    KeepSnapshot,
    SnapshotGone,
    SnapshotStatus,
    decide_snapshot,
)
from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.labels import claim_namespace
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.volume_api import Refused, Silent, SnapshotReport

__all__ = ["SnapshotOperator"]

AGAIN_S: Final = 5.0
Key = tuple[str, str]


@attrs.define(eq=False)
class SnapshotOperator:
    """Run it with its VolumeOperator."""

    volumes: VolumeOperator
    recorder: Recorder
    informer: Informer = attrs.field(init=False)
    workers: Workers[Key] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.informer = Informer(self.cluster, JIVA_SNAPSHOTS)
        self.workers = Workers("jivasnapshot", self.handle)

    @property
    def cluster(self) -> Cluster:
        """The API server."""
        return self.volumes.cluster

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.informer.run)
            await self.volumes.synced()
            await self.informer.synced.wait()
            self.informer.subscribe(lambda *key: self.workers.add(key))
            self.volumes.volumes.subscribe(self._volume_changed)
            await self.workers.run()

    def _volume_changed(self, _: str, name: str) -> None:
        for value in self.informer.items():
            waits = not (value.get("status") or {}).get("readyToUse")
            if value["spec"].get("volumeName") == name and (
                waits or "deletionTimestamp" in value["metadata"]
            ):
                self.workers.add((value["metadata"]["namespace"], value["metadata"]["name"]))

    async def handle(self, key: Key) -> None:
        """Look at one, and do what there is to do.  Raises PyjivaError: it did not work."""
        value = await self.cluster.get(JIVA_SNAPSHOTS, *key)
        if value is None:
            return
        try:
            snapshot = JivaSnapshot.of(value)
        except ConfigError as error:
            await self.recorder.event(value, "Warning", "NotUnderstood", str(error))
            return
        if not snapshot.deleting and SNAPSHOT_FINALIZER not in snapshot.finalizers:
            value = await self._set_finalizers(value, [*snapshot.finalizers, SNAPSHOT_FINALIZER])
        volume = self._volume_of(snapshot)
        clones = self._clones(snapshot, volume)
        step = decide_snapshot(snapshot, volume, await self._there(volume), clones)
        try:
            await self._carry_out(step, value, snapshot, volume)
        except (Silent, Refused) as error:
            await self.recorder.event(value, "Warning", "VolumeRefused", str(error))
            status = attrs.evolve(snapshot.status, message=str(error))
            await self._save(value, snapshot, status)
            self.workers.add_after(key, AGAIN_S)

    async def _carry_out(
        self,
        step: KeepSnapshot | CreateSnapshot | DeleteSnapshot | SnapshotGone,
        value: Object,
        snapshot: JivaSnapshot,
        volume: JivaVolume | None,
    ) -> None:
        key = (snapshot.namespace, snapshot.name)
        match step:
            case KeepSnapshot(status, again):
                await self._save(value, snapshot, status)
                if again:
                    self.workers.add_after(key, AGAIN_S)
                return
            case CreateSnapshot():
                assert volume is not None
                at = self.volumes.address_of(volume.namespace, volume.name)
                if at is not None:
                    # Its own uid as the key: who asks again, after losing the answer, makes no other one.
                    await self.volumes.api.create_snapshot(at, snapshot.snapshot_name, snapshot.uid)
                self.workers.add(key)
                return
            case DeleteSnapshot():
                assert volume is not None
                at = self.volumes.address_of(volume.namespace, volume.name)
                if at is None:
                    self.workers.add_after(key, AGAIN_S)
                    return
                await self.volumes.api.delete_snapshot(at, snapshot.snapshot_name)
            case SnapshotGone():
                pass
        kept = [each for each in snapshot.finalizers if each != SNAPSHOT_FINALIZER]
        if len(kept) < len(snapshot.finalizers):
            await self._set_finalizers(value, kept)

    async def _set_finalizers(self, value: Object, finalizers: list[str]) -> Object:
        metadata = value["metadata"]
        change = {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}
        return await self.cluster.merge(
            JIVA_SNAPSHOTS, metadata["namespace"], metadata["name"], {"metadata": change}
        )

    async def _save(self, value: Object, snapshot: JivaSnapshot, status: SnapshotStatus) -> None:
        if status == snapshot.status and value.get("status"):
            return
        changed = {**value, "status": status.to_json()}
        await self.cluster.update(JIVA_SNAPSHOTS, changed, subresource="status")
        if status.phase != snapshot.status.phase:
            kind = "Warning" if status.phase == "Error" else "Normal"
            await self.recorder.event(value, kind, f"Snapshot{status.phase}", status.message or status.phase)

    def _volume_of(self, snapshot: JivaSnapshot) -> JivaVolume | None:
        for value in self.volumes.volumes.items():
            if value["metadata"]["name"] != snapshot.volume_name:
                continue
            volume = JivaVolume.of(value)
            if snapshot.namespace in (volume.namespace, claim_namespace(volume)):
                return volume
        return None

    def _clones(self, snapshot: JivaSnapshot, volume: JivaVolume | None) -> list[str]:
        if volume is None:
            return []
        return list(self.volumes.clones_being_filled(volume, snapshot.snapshot_name))

    async def _there(self, volume: JivaVolume | None) -> tuple[SnapshotReport, ...] | None:
        at = self.volumes.address_of(volume.namespace, volume.name) if volume is not None else None
        if at is None:
            return None
        try:
            return await self.volumes.api.snapshots(at)
        except (Silent, Refused):
            return None
