"""A node that is none: its object, its heartbeat, and its pods."""

import datetime
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from tests.kube.api import LEASES, NODES, Api, ApiError, Mirror, Object, key_of
from tests.kube.images import Image, find_image, name_of
from tests.kube.pod import Pod
from tests.kube.pod_network import PodNetwork
from tests.kube.pod_status import now
from tests.kube.services import ServiceProxy

__all__ = ["Node", "NodeSpec", "Site"]

HEARTBEAT_S: Final = 1.0
LEASES_NAMESPACE: Final = "kube-node-lease"


@attrs.frozen
class NodeSpec:
    """A node to be made."""

    name: str
    zone: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    cpu: str = "8"
    memory: str = "16Gi"
    pods: str = "110"


@attrs.define(eq=False)
class Site:
    """What all nodes share."""

    api: Api
    top: Path
    images: Mapping[str, Image]
    services: ServiceProxy
    pods: Mirror
    notes: list[str]

    def log(self, namespace: str, pod: str, container: str) -> Path:
        """What a container has printed, over all its restarts."""
        return self.top / "logs" / f"{namespace}_{pod}_{container}.log"


@attrs.define(eq=False)
class Node:
    """A node; while it lives, `run` is running.  It is the `Host` of its pods."""

    spec: NodeSpec
    number: int
    site: Site
    memory: Path
    """A folder in memory for the data of its pods."""
    pods: dict[str, Pod] = attrs.field(factory=dict)
    """By uid, while the node lives."""
    unavailable: set[str] = attrs.field(factory=set)
    life: trio.CancelScope | None = None
    _dead: trio.Event = attrs.field(factory=trio.Event)
    _nursery: trio.Nursery | None = None
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.cycle(range(2, 255)))
    _taken: set[str] = attrs.field(factory=set)

    @property
    def name(self) -> str:
        """Of the Node object."""
        return self.spec.name

    @property
    def address(self) -> str:
        """Its InternalIP."""
        return f"10.244.0.{100 + self.number}"

    @property
    def root(self) -> Path:
        """What hostPath volumes are of."""
        return self.top / "root"

    @property
    def boot_id(self) -> Path:
        """A file with what the kernel would say."""
        return self.top / "boot_id"

    @property
    def top(self) -> Path:
        """What outlives its death."""
        return self.site.top / "nodes" / self.name

    @property
    def api(self) -> Api:
        """As whoever may do everything."""
        return self.site.api

    # --- what pods need

    def image(self, reference: str) -> Image | None:
        """The image, if it is known and was not made unavailable here."""
        gone = name_of(reference) in self.unavailable
        return None if gone else find_image(self.site.images, reference)

    def folder(self, uid: str) -> tuple[Path, Path]:
        """On disk and in memory."""
        return self.top / "pods" / uid, self.memory / uid

    def log(self, key: tuple[str, str], container: str) -> Path:
        """Beside those of all nodes."""
        return self.site.log(*key, container)

    async def network(self) -> PodNetwork:
        """With the next address that is free."""
        address = next(
            address
            for number in self._numbers
            if (address := f"10.244.{self.number}.{number}") not in self._taken
        )
        self._taken.add(address)
        return await PodNetwork.make(address)

    async def leave(self, network: PodNetwork) -> None:
        """Nobody is to wait for an answer from there."""
        self.site.services.reset(network.address)
        await network.close()
        self._taken.discard(network.address)

    def note(self, pod: Object, what: str) -> None:
        """For whoever looks at a failed test."""
        self.site.notes.append(f"{'/'.join(key_of(pod))} on {self.name}: {what}")

    # --- life

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """From power on until `die`."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.memory.mkdir(exist_ok=True)
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        self._dead = trio.Event()
        try:
            with trio.CancelScope() as self.life:
                async with trio.open_nursery() as self._nursery:
                    await self._register()
                    self._nursery.start_soon(self._beat)
                    for pod in list(self.site.pods.objects.values()):
                        self.see(pod, False)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.life = self._nursery = None
            self.pods.clear()
            self._dead.set()

    async def die(self) -> None:
        """All its processes are gone when this returns; its files stay."""
        if self.life is not None:
            for pod in self.pods.values():
                self.site.services.reset(pod.address)  # before the ends of its processes are seen as TCP's
            self.life.cancel()
            await self._dead.wait()
            for folder in self.memory.iterdir():
                shutil.rmtree(folder)

    def see(self, thing: Object, gone: bool) -> None:
        """A pod of this node is new, changed or gone."""
        if self._nursery is None or thing["spec"].get("nodeName") != self.name:
            return
        uid = thing["metadata"]["uid"]
        pod = self.pods.get(uid)
        if gone:
            if pod is not None:
                pod.vanish()
        elif pod is not None:
            pod.update(thing)
        elif thing.get("status", {}).get("phase") not in ("Succeeded", "Failed") or (
            "deletionTimestamp" in thing["metadata"]
        ):
            self.pods[uid] = Pod(self, thing)
            self._nursery.start_soon(self._run_pod, self.pods[uid])

    def refresh(self, plural: str, thing: Object) -> None:
        """A ConfigMap or Secret has changed."""
        namespace, name = key_of(thing)
        for pod in self.pods.values():
            if pod.thing["metadata"]["namespace"] == namespace:
                pod.refresh(plural, name)

    async def _run_pod(self, pod: Pod) -> None:
        await pod.run()
        self.pods.pop(pod.uid, None)

    async def _register(self) -> None:
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", **self.spec.labels}
        if self.spec.zone:
            labels["topology.kubernetes.io/zone"] = self.spec.zone
        made: Object = {"metadata": {"name": self.name, "labels": labels}, "status": self._status()}
        try:
            await self.api.create(NODES, made)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            status = {"status": self._status()}
            await self.api.patch(NODES, ("", self.name), status, part="status", strategic=True)

    def _status(self) -> Object:
        resources = {"cpu": self.spec.cpu, "memory": self.spec.memory, "pods": self.spec.pods}
        moment = now()
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "pod runner"}
        ready |= {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
        machine = os.uname()
        info = dict.fromkeys(("machineID", "systemUUID", "kubeProxyVersion"), "")
        info |= {"bootID": self.boot_id.read_text().strip(), "kernelVersion": machine.release}
        info |= {"osImage": "pod runner", "operatingSystem": "linux", "architecture": "amd64"}
        info |= {"containerRuntimeVersion": "pod-runner://1", "kubeletVersion": "v1.0.0-pod-runner"}
        return {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [ready],
            "addresses": [
                {"type": "InternalIP", "address": self.address},
                {"type": "Hostname", "address": self.name},
            ],
            "nodeInfo": info,
        }

    async def _beat(self) -> None:
        """The lease, by which the node lifecycle controller sees that the node lives."""
        key = (LEASES_NAMESPACE, self.name)
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 8}
        while True:
            lease = {"spec": {**spec, "renewTime": _micro_now()}}
            try:
                await self.api.patch(LEASES, key, lease)
            except ApiError as error:
                if error.status == 404:
                    meta = {"namespace": LEASES_NAMESPACE, "name": self.name}
                    await self.api.create(LEASES, {"metadata": meta, **lease})
                else:
                    self.site.notes.append(f"{self.name}: heartbeat: {error}")
            except httpx.TransportError as error:
                self.site.notes.append(f"{self.name}: heartbeat: {error!r}")
            await trio.sleep(HEARTBEAT_S)


def _micro_now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
