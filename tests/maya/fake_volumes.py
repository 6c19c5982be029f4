"""Volumes as the reconciler meets them: what their controllers answer, from the pods that run in memory.

A volume is formed by the first controller that is told `new-volume`; without it blank replicas are none of
its own.  What lies on nodes is kept by path, and goes when a scrub job ends.  Time is trio's.
"""

import base64
import tomllib
from typing import Any

import attrs
import trio

from pyjiva.maya.kube import Object
from pyjiva.maya.kube.resource import CONFIG_MAPS, JIVA_VOLUMES, PODS, SECRETS, SERVICES
from pyjiva.maya.volume.report import MemberReport, VolumeReport
from pyjiva.maya.volume.volume_api import Refused, Silent, SnapshotReport, VolumeAddress
from pyjiva.maya.volume.witness_objects import WITNESS_ADDRESS, witness_id_in
from pyjiva.testing.kube_controllers import FakeControllers
from pyjiva.testing.kube_store import Store

REBUILD_S = 3.0


@attrs.define
class FakeVolume:
    """What a volume's replicas remember together."""

    size_bytes: int
    members: dict[int, str] = attrs.field(factory=dict)
    """Id → address."""
    behind: dict[int, float] = attrs.field(factory=dict)
    """Members that are not in sync → when they will be; infinite: while they are away."""
    witnesses: set[int] = attrs.field(factory=set)
    adding: int | None = None
    adding_address: str = ""
    added_at: float = 0.0
    snapshots: list[str] = attrs.field(factory=list)
    fill_from: str = ""
    filled: float | None = None
    epoch: int = 1


@attrs.define
class FakeVolumes:
    """A VolumeApi; see VolumeApi for what its verbs mean."""

    store: Store
    controllers: FakeControllers
    volumes: dict[str, FakeVolume] = attrs.field(factory=dict)
    """By volume id: a volume is its replicas' memory, not its objects."""
    disks: set[tuple[str, str]] = attrs.field(factory=set)
    """(node, path) where there is data."""
    refuses: dict[str, str] = attrs.field(factory=dict)
    """Name of a verb → why it is refused."""
    holds_filling: bool = False

    def __attrs_post_init__(self) -> None:
        self.controllers.job_result = self._scrub

    # --- what is in the cluster

    def _scrub(self, pod: Object) -> bool | None:
        command = " ".join(pod["spec"]["containers"][0]["command"])
        root = pod["spec"]["volumes"][0]["hostPath"]["path"]
        path = command.split("rm -rf ")[1].split(" ")[0].replace("/pool", root, 1)
        self.disks.discard((pod["spec"]["nodeName"], path))
        return True

    def _is_alive(self, pod: Object) -> bool:
        running = pod.get("status", {}).get("phase") == "Running"
        return running and pod["spec"].get("nodeName") not in self.controllers._dead

    def _pods(self, namespace: str, labels: dict[str, str]) -> list[Object]:
        return [
            pod
            for pod in self.store.select(PODS, namespace)
            if labels.items() <= pod["metadata"].get("labels", {}).items() and self._is_alive(pod)
        ]

    def _find(self, at: VolumeAddress) -> tuple[str, str, FakeVolume, dict[str, Any]]:
        """Namespace, name, volume and configuration of the controller at an address.  Raises Silent."""
        service = next(
            (s for s in self.store.select(SERVICES) if s["spec"].get("clusterIP") == at.host), None
        )
        if service is None or not service["metadata"]["name"].endswith("-ctrl-svc"):
            raise Silent("no route to host")
        namespace, name = (
            service["metadata"]["namespace"],
            service["metadata"]["name"].removesuffix("-ctrl-svc"),
        )
        if not self._pods(namespace, service["spec"]["selector"]):
            raise Silent("connection refused")
        secret = self.store.get(SECRETS, namespace, f"{name}-secrets")
        configuration = self.store.get(CONFIG_MAPS, namespace, f"{name}-ctrl")
        if secret is None or configuration is None:
            raise Silent("its pod waits for what it mounts")
        if base64.b64decode(secret["data"]["api.token"]).decode() != at.token:
            raise Refused("the token is not its own", status=401, reason="token-needed")
        settings = tomllib.loads(configuration["data"]["controller.toml"])
        return namespace, name, self._volume(settings, configuration["data"]), settings

    def _volume(self, settings: dict[str, Any], data: dict[str, str]) -> FakeVolume:
        id_ = settings["volume-id"]
        if id_ not in self.volumes:
            if "new-volume" not in data:
                raise Silent("no replica knows the volume")
            members = dict(
                word.split("=") for key in ("replica", "witness") for word in settings.get(key, ())
            )
            witnesses = {int(word.split("=")[0]) for word in settings.get("witness", ())}
            made = FakeVolume(settings["size"], {int(i): a for i, a in members.items()}, witnesses=witnesses)
            made.fill_from = settings.get("fill-from", "")
            made.filled = 0.0 if made.fill_from else None
            self.volumes[id_] = made
        return self.volumes[id_]

    def _path_of(self, pod: Object) -> tuple[str, str]:
        [path] = [each["hostPath"]["path"] for each in pod["spec"]["volumes"] if "hostPath" in each]
        return pod["spec"]["nodeName"], path

    # --- what a controller does

    def _step(self, namespace: str, name: str, volume: FakeVolume) -> set[int]:
        """Let time have its effect; the replicas that are reached."""
        now, here = trio.current_time(), set()
        for id_, address in [*volume.members.items(), *self._added(volume)]:
            labels = {"openebs.io/persistent-volume": name, "openebs.io/replica-id": str(id_)}
            if address == WITNESS_ADDRESS:
                here |= {id_} if self._is_beside(namespace, name, id_) else set()
                continue
            service = self.store.get(SERVICES, namespace, f"{name}-rep-{id_}")
            if service is None or f"{service['spec']['clusterIP']}:9502" != address:
                continue
            for pod in self._pods(namespace, labels):
                here.add(id_)
                if self._path_of(pod) not in self.disks:  # it is blank: new, or somebody has wiped it
                    self.disks.add(self._path_of(pod))
                    if volume.epoch > 1 and id_ in volume.members:
                        volume.behind[id_] = now + REBUILD_S
        for id_ in volume.members:
            if id_ not in here:
                volume.behind[id_] = float("inf")
            elif volume.behind.get(id_, 0.0) == float("inf"):
                volume.behind[id_] = now + REBUILD_S
            elif volume.behind.get(id_, now) < now:
                del volume.behind[id_]
        if volume.adding in here and now >= volume.added_at + REBUILD_S:
            assert volume.adding is not None
            volume.members[volume.adding], volume.adding = volume.adding_address, None
        if volume.fill_from and not self.holds_filling:
            volume.filled = 1.0 if volume.filled == 0.5 else 0.5 if not volume.filled else 1.0
        volume.epoch += 1
        return here

    def _is_beside(self, namespace: str, name: str, id_: int) -> bool:
        """Whether a witness runs beside the controller that has its vote in the JivaVolume."""
        value = self.store.get(JIVA_VOLUMES, namespace, name) or {}
        vote = (value.get("status") or {}).get("witness") or {}
        labels = {"openebs.io/persistent-volume": name, "openebs.io/controller": "jiva-controller"}
        running = [witness_id_in(pod["spec"]["containers"]) for pod in self._pods(namespace, labels)]
        return running == [id_] and vote.get("replicaID") == id_

    def _added(self, volume: FakeVolume) -> list[tuple[int, str]]:
        return [] if volume.adding is None else [(volume.adding, volume.adding_address)]

    async def _ask(self, at: VolumeAddress, verb: str) -> tuple[str, str, FakeVolume]:
        await trio.lowlevel.checkpoint()
        namespace, name, volume, _ = self._find(at)
        if verb in self.refuses:
            raise Refused(self.refuses[verb], status=409, reason="refused")
        return namespace, name, volume

    async def report(self, at: VolumeAddress) -> VolumeReport:
        namespace, name, volume = await self._ask(at, "report")
        here = self._step(namespace, name, volume)
        members = [
            MemberReport(
                id_,
                address,
                self._mode(volume, id_, here),
                "" if id_ in here else "no connection",
            )
            for id_, address in volume.members.items()
        ]
        members += [MemberReport(id_, address, "rebuilding", "") for id_, address in self._added(volume)]
        reached = [id_ for id_ in here if id_ in volume.members]
        good = [id_ for id_ in reached if id_ not in volume.behind and id_ not in volume.witnesses]
        parked = 2 * len(reached) <= len(volume.members) or not good
        healthy = len(reached) == len(volume.members) and not volume.behind and volume.adding is None
        state = "parked" if parked else "healthy" if healthy else "degraded"
        return VolumeReport(
            state,
            "" if state == "healthy" else "some replicas are not in sync",
            volume.size_bytes,
            volume.epoch,
            tuple(members),
            adding=volume.adding,
            filled=volume.filled,
        )

    def _mode(self, volume: FakeVolume, id_: int, here: set[int]) -> str:
        if id_ not in here:
            return "out"
        if id_ in volume.witnesses:
            return "witness"
        return "rebuilding" if id_ in volume.behind else "in-sync"

    async def add_replica(self, at: VolumeAddress, replica_id: int, address: str, *, witness: bool) -> None:
        _, _, volume = await self._ask(at, "add_replica")
        if volume.adding is not None or replica_id in volume.members:
            raise Refused(f"replica {replica_id} is there already", status=409, reason="refused")
        volume.adding, volume.adding_address, volume.added_at = replica_id, address, trio.current_time()
        if witness:
            volume.witnesses.add(replica_id)

    async def remove_replica(self, at: VolumeAddress, replica_id: int) -> None:
        _, _, volume = await self._ask(at, "remove_replica")
        if volume.adding == replica_id:
            volume.adding = None
        elif replica_id not in volume.members:
            raise Refused(f"there is no replica {replica_id}", status=409, reason="refused")
        elif set(volume.members) - set(volume.behind) - {replica_id} == set():
            raise Refused(f"replica {replica_id} is the last one in sync", status=409, reason="refused")
        else:
            del volume.members[replica_id]
            volume.behind.pop(replica_id, None)

    async def grow(self, at: VolumeAddress, size_bytes: int) -> None:
        _, _, volume = await self._ask(at, "grow")
        assert size_bytes > volume.size_bytes
        volume.size_bytes = size_bytes

    async def snapshots(self, at: VolumeAddress) -> tuple[SnapshotReport, ...]:
        _, _, volume = await self._ask(at, "snapshots")
        return tuple(SnapshotReport(each, "2026-01-01T00:00:00Z", 4096) for each in volume.snapshots)

    async def create_snapshot(self, at: VolumeAddress, name: str, key: str) -> None:
        _, _, volume = await self._ask(at, "create_snapshot")
        if name not in volume.snapshots:
            volume.snapshots.append(name)

    async def delete_snapshot(self, at: VolumeAddress, name: str) -> None:
        _, _, volume = await self._ask(at, "delete_snapshot")
        if name in volume.snapshots:
            volume.snapshots.remove(name)
