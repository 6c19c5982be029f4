"""Lives of claims with a real API server, while provisioner and reconciler are killed.

A life is a claim that is made, bound, deleted and gone.  It has a namespace, a StorageClass, a provisioner
and a reconciler of its own, so that many live in one cluster and each has its own misfortune (`Death`).
Kubernetes binds, schedules and collects; pods are only said to run (`many_claims.Kubelets`); a volume is what
its controller's ConfigMap and Secret said when its pod ran first (`FormedVolumes`).

What stands for a process is a task with a client of its own (`Mortal`).  When it dies, all of it is cancelled
at that moment, requests that are under way are broken off, and its client asks nothing any more; then another
one starts that knows nothing of it.  Left out: the Lease by which real processes follow each other.
"""

import base64
import tomllib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from pyjiva.maya.kube import Cluster as KubeCluster
from pyjiva.maya.kube import Informer, KubeError, Object, Recorder, Resource
from pyjiva.maya.kube.resource import (
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    EVENTS,
    JIVA_VOLUMES,
    JOBS,
    PODS,
    PV,
    SECRETS,
    SERVICES,
    STORAGE_CLASSES,
)
from pyjiva.maya.provisioner.decide import Provisioned
from pyjiva.maya.provisioner.provisioner_io import Provisioner
from pyjiva.maya.volume.jiva_volume import JivaVolume, Phase, ReplicaState
from pyjiva.maya.volume.operator_io import VolumeOperator
from pyjiva.maya.volume.report import MemberReport, VolumeReport
from pyjiva.maya.volume.secret_values import chap_password_of
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.volume_api import Refused, Silent, SnapshotReport, VolumeAddress
from pyjiva.testing.kube import Moment, ProcessDied

__all__ = ["OPERATOR", "PROVISIONER", "Call", "Death", "Life", "Seen", "left", "open_seen"]

PROVISIONER: Final = "provisioner"
OPERATOR: Final = "operator"
CLAIM: Final = "data"
READS: Final = ("get", "list", "watch")
REPLICA_SETS: Final = Resource("apps/v1", "ReplicaSet", "replicasets")
SLICES: Final = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
#: Of what a life may leave nothing.
KINDS: Final = (
    *(CLAIMS, PV, JIVA_VOLUMES, DEPLOYMENTS, REPLICA_SETS, PODS, JOBS),
    *(SERVICES, SLICES, SECRETS, CONFIG_MAPS, DISRUPTION_BUDGETS),
)
POLICIES: Final = """
- name: ReplicaCount
  value: "1"
- name: VolumeMonitor
  enabled: "false"
"""


# --- what there is


@attrs.define(eq=False)
class Seen:
    """All objects of volumes' kinds in all namespaces, as the API server tells of them."""

    informers: dict[str, Informer]
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def tell(self, *_: str) -> None:
        """Something is otherwise."""
        self.changed.unpark_all()

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object, or None."""
        return self.informers[resource.kind].get(namespace, name)

    def within(self, namespace: str) -> list[str]:
        """Kind and name of what belongs to a life, but for what Kubernetes puts into every namespace."""
        return sorted(_names(namespace, {kind: each.items() for kind, each in self.informers.items()}))

    async def until(self, what: Callable[[], Any]) -> None:
        """Wait until it is so."""
        while not what():
            await self.changed.park()


def _names(namespace: str, found: Mapping[str, list[Object]]) -> Iterator[str]:
    for kind, values in found.items():
        for value in values:
            metadata = value["metadata"]
            of = (value["spec"].get("claimRef") or {}) if kind == PV.kind else metadata
            if of.get("namespace") == namespace and metadata["name"] != "kube-root-ca.crt":
                yield f"{kind} {metadata['name']}"


@asynccontextmanager
async def open_seen(cluster: KubeCluster) -> Any:
    """Followed as long as this lasts."""
    seen = Seen({each.kind: Informer(cluster, each) for each in KINDS})
    async with trio.open_nursery() as nursery:
        for informer in seen.informers.values():
            nursery.start_soon(informer.run)
            await informer.synced.wait()
            informer.subscribe(seen.tell)
        yield seen
        nursery.cancel_scope.cancel()


async def left(cluster: KubeCluster, namespace: str) -> list[str]:
    """The same, asked now."""
    found = {each.kind: list((await cluster.list(each, _scope(each, namespace))).items) for each in KINDS}
    return sorted(_names(namespace, found))


def _scope(resource: Resource, namespace: str) -> str:
    return namespace if resource.namespaced else ""


# --- what a volume answers


@attrs.frozen
class Formed:
    """What a volume was when its controller ran first; later controllers find it at the replicas."""

    members: Mapping[int, str]
    token: str


@attrs.define
class FormedVolumes:
    """A VolumeApi: volumes whose controller's pod is said to run have all copies of those they began with."""

    seen: Seen
    formed: dict[str, Formed] = attrs.field(factory=dict)
    """By volume id."""

    async def report(self, at: VolumeAddress) -> VolumeReport:
        """Raises Silent, Refused."""
        await trio.lowlevel.checkpoint()
        namespace, name = self._find(at)
        data = (self.seen.get(CONFIG_MAPS, namespace, f"{name}-ctrl") or {}).get("data")
        secret = self.seen.get(SECRETS, namespace, f"{name}-secrets")
        if data is None or secret is None:
            raise Silent("its pod waits for what it mounts")
        volume = self._volume(data, base64.b64decode(secret["data"]["api.token"]).decode())
        if volume.token != at.token:
            raise Refused("the token is not its own", status=401, reason="token-needed")
        members = tuple(MemberReport(id_, address, "in-sync", "") for id_, address in volume.members.items())
        return VolumeReport("healthy", "", 1 << 30, 1, members)

    def _find(self, at: VolumeAddress) -> tuple[str, str]:
        for service in self.seen.informers[SERVICES.kind].items():
            if service["spec"].get("clusterIP") == at.host:
                metadata = service["metadata"]
                return metadata["namespace"], metadata["labels"]["openebs.io/persistent-volume"]
        raise Silent("no route to host")

    def _volume(self, data: Mapping[str, str], token: str) -> Formed:
        settings = tomllib.loads(data["controller.toml"])
        id_ = settings["volume-id"]
        if id_ not in self.formed:
            if "new-volume" not in data:
                raise Silent("no replica knows the volume")
            members = dict(word.split("=") for word in settings["replica"])
            self.formed[id_] = Formed({int(number): address for number, address in members.items()}, token)
        return self.formed[id_]

    async def snapshots(self, at: VolumeAddress) -> tuple[SnapshotReport, ...]:
        """None."""
        await trio.lowlevel.checkpoint()
        return ()

    def __getattr__(self, verb: str) -> Any:
        raise AssertionError(f"{verb}: nobody asks for that here")


# --- processes that die


@attrs.frozen
class Call:
    """A request of one of our processes."""

    who: str
    verb: str
    kind: str
    name: str

    @property
    def step(self) -> str:
        """What it is a step of, in every life: `apply Service`."""
        return f"{self.who}: {self.verb} {self.kind}"

    @property
    def matters(self) -> bool:
        """Whether it changes what others go by."""
        return self.verb not in READS and self.kind != EVENTS.kind


@attrs.frozen
class Death:
    """A process's, when it does a step for the `nth` time (from 1) in this half of a life."""

    step: str
    nth: int
    moment: Moment
    claim_goes: bool = False
    """Somebody deletes the claim before another process has started."""


@attrs.define(eq=False)
class Mortal:
    """A Cluster for one process of a life: it sees that life's namespace, and may end its process."""

    life: "Life"
    who: str
    dead: bool = False

    def __getattr__(self, verb: str) -> Any:
        ask = getattr(self.life.cluster, verb)
        if verb == "watch":
            return lambda kind, *_, labels=None, since: ask(
                kind, _scope(kind, self.life.name), labels, since=since
            )
        if verb == "list":
            return lambda kind, _="", labels=None: ask(kind, _scope(kind, self.life.name), labels)

        async def call(resource: Resource, *rest: Any, **more: Any) -> Any:
            if self.dead:
                raise ProcessDied("it is dead")
            part = f"{resource.kind}/{more['subresource']}" if more.get("subresource") else resource.kind
            made = Call(self.who, verb, part, _name_of(rest))
            nth = self.life.count(made)
            self._die_at(nth, Moment.BEFORE, made)
            try:
                answer = await ask(resource, *rest, **more)
            except KubeError:
                self._die_at(nth, Moment.AFTER, made)
                raise
            self._die_at(nth, Moment.AFTER, made)
            return answer

        return call

    def _die_at(self, nth: int, moment: Moment, call: Call) -> None:
        death = self.life.death
        if death is not None and (death.step, death.nth, death.moment) == (call.step, nth, moment):
            self.dead = True
            self.life.death = None
            self.life.died.append(death)
            raise ProcessDied(f"{moment.value} {call}")


def _name_of(rest: tuple[Any, ...]) -> str:
    if isinstance(rest[0], dict):
        metadata = rest[0]["metadata"]
        return str(metadata.get("name") or metadata.get("generateName"))
    return str(rest[1])


# --- a life


@attrs.define(eq=False)
class Life:
    """One claim's.  `name` is its namespace, which has to be there."""

    cluster: KubeCluster
    seen: Seen
    volumes: FormedVolumes
    name: str
    death: Death | None = None
    """That is to come."""
    died: list[Death] = attrs.field(factory=list)
    calls: list[Call] = attrs.field(factory=list)
    """Of the present half of its life."""
    provisioned: list[Call] | None = None
    """Those of the first half, when that is over."""
    _nursery: trio.Nursery = attrs.field(init=False)

    def count(self, call: Call) -> int:
        """For which time its process does that."""
        self.calls.append(call)
        return sum(each.step == call.step for each in self.calls)

    async def live(self, first: Death | None, second: Death | None) -> None:
        """Until nothing is left.  The deaths come in the halves before and after the claim is deleted."""
        async with trio.open_nursery() as self._nursery:
            self.death = first
            self._nursery.start_soon(self._process, PROVISIONER, self._provision)
            self._nursery.start_soon(self._process, OPERATOR, self._operate)
            await self._make_claim()
            if first is None or not first.claim_goes:
                await self.seen.until(self._is_bound)
                await self._check_one()
            else:
                await self.seen.until(lambda: self.death is None or self._is_bound())
            self.provisioned, self.calls = self.calls, []
            self.death = second
            await self.cluster.delete(CLAIMS, self.name, CLAIM)
            await self.seen.until(lambda: not self.seen.within(self.name))
            self._nursery.cancel_scope.cancel()

    def is_over(self) -> bool:
        """Whether only Kubernetes has still something to do."""
        kinds = {each.split()[0] for each in self.seen.within(self.name)}
        return self.provisioned is not None and not kinds & {JIVA_VOLUMES.kind, PV.kind, CLAIMS.kind}

    async def _make_claim(self) -> None:
        metadata = {"name": self.name, "annotations": {"cas.openebs.io/config": POLICIES}}
        made = {"metadata": metadata, "provisioner": f"openebs.io/{self.name}", "reclaimPolicy": "Delete"}
        await self.cluster.create(STORAGE_CLASSES, made)
        spec = {
            "storageClassName": self.name,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        }
        value = {"metadata": {"name": CLAIM, "namespace": self.name}, "spec": spec}
        await self.cluster.create(CLAIMS, value)

    async def _process(self, who: str, run: Callable[[Any], Awaitable[None]]) -> None:
        while True:
            try:
                await run(Mortal(self, who))
            except* ProcessDied:
                if self.died[-1].claim_goes:
                    await self.cluster.delete(CLAIMS, self.name, CLAIM)
                self.seen.tell()

    async def _provision(self, cluster: Any) -> None:
        us = Provisioned(f"openebs.io/{self.name}", self.name, "here")
        await Provisioner(cluster, us, Recorder(cluster, "provisioner")).run()

    async def _operate(self, cluster: Any) -> None:
        settings = Settings(namespace=self.name, image="pyjiva")
        await VolumeOperator(cluster, self.volumes, settings, Recorder(cluster, "operator")).run()

    # --- what has become of it

    def _claim(self) -> Object:
        return self.seen.get(CLAIMS, self.name, CLAIM) or {"metadata": {}, "spec": {}}

    def _is_bound(self) -> bool:
        """With a volume that is whole, and whose controller takes no blank replicas any more."""
        claim = self._claim()
        name = claim["spec"].get("volumeName", "")
        value = self.seen.get(JIVA_VOLUMES, self.name, name)
        configuration = self.seen.get(CONFIG_MAPS, self.name, f"{name}-ctrl") or {}
        if value is None or (claim.get("status") or {}).get("phase") != "Bound":
            return False
        status = JivaVolume.of(value).status
        return (
            status.phase is Phase.READY
            and all(condition.status == "True" for condition in status.conditions)
            and [place.state for place in status.replicas] == [ReplicaState.MEMBER]
            and "new-volume" not in configuration["data"]
        )

    async def _check_one(self) -> None:
        """There is one of everything, and never was there another.  What is followed may be late: ask."""
        claim = self._claim()
        name = f"pvc-{claim['metadata']['uid']}"
        assert claim["spec"]["volumeName"] == name
        there = await left(self.cluster, self.name)
        found = [each for each in there if each.split()[0] not in _OF_OTHERS]
        assert found == [
            f"ConfigMap {name}-ctrl",
            *(f"Deployment {name}-{each}" for each in ("ctrl", "rep-1")),
            f"JivaVolume {name}",
            f"PersistentVolume {name}",
            f"PersistentVolumeClaim {CLAIM}",
            f"PodDisruptionBudget {name}-pdb",
            *(f"Secret {name}-{each}" for each in ("chap", "secrets")),
            *(f"Service {name}-{each}" for each in ("ctrl-svc", "rep-1")),
        ], found
        persistent = await self.cluster.get(PV, "", name) or {}
        assert persistent["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
        chap = await self.cluster.get(SECRETS, self.name, f"{name}-chap") or {}
        keys = await self.cluster.get(SECRETS, self.name, f"{name}-secrets") or {}
        password = base64.b64decode(keys["data"]["chap"]).decode().split()[1]
        assert chap_password_of(chap) == password, "hosts have another password than the controller"
        made = {call.name for call in self.calls if call.verb in ("create", "apply") and call.matters}
        assert {each for each in made if "rep-" in each} == {f"{name}-rep-1"}, "a second replica was made"


_OF_OTHERS: Final = (REPLICA_SETS.kind, PODS.kind, SLICES.kind)
