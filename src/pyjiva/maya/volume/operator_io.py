"""Keeps all JivaVolumes as they are to be: looks, has `reconcile` say what to do, and does it.

One key of the queue is one JivaVolume.  It is looked at when it, one of its objects or a node changes, and
again after the time that its plan says, as a volume's own state comes from asking it.  A step that fails
ends the look; the queue tries again, later each time.

What is looked at comes from caches.  A JivaVolume that is old must lead to nothing: it could give an id
twice, or have blank replicas taken for a beginning.  So a look that does anything begins with a proof that
the JivaVolume is still what was looked at: by a first step that has its version as the condition, or else by
reading it from the API server.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, assert_never

import attrs
import structlog
import trio

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.cluster import AlreadyExists, Cluster, Conflict, KubeError, NotFound, Object
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.informer_io import Informer
from pyjiva.maya.kube.queue_io import Workers
from pyjiva.maya.kube.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JIVA_VOLUMES,
    JOBS,
    NODES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from pyjiva.maya.volume.jiva_volume import FINALIZER, JivaVolume
from pyjiva.maya.volume.labels import PERSISTENT_VOLUME, chap_secret_name, secrets_name, service_name
from pyjiva.maya.volume.members import Pod
from pyjiva.maya.volume.objects import VolumeObjects
from pyjiva.maya.volume.observed import Observed, Source, cluster_ip_of, is_of_a_daemon, pod_of
from pyjiva.maya.volume.own_writes import OwnWrites, version_of
from pyjiva.maya.volume.placement import Node, node_of
from pyjiva.maya.volume.reconcile import Plan, reconcile
from pyjiva.maya.volume.report import VolumeReport
from pyjiva.maya.volume.secret_values import chap_password_of, token_of
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.step import (
    AddFinalizer,
    AddMember,
    Apply,
    Delete,
    DropFinalizer,
    Grow,
    MakeSecrets,
    RemoveMember,
    SaveStatus,
    Step,
    Tell,
)
from pyjiva.maya.volume.volume_api import Refused, Silent, VolumeAddress, VolumeApi

__all__ = ["VolumeOperator"]

OWNED: Final = (
    *(SERVICES, DEPLOYMENTS, CONFIG_MAPS, SECRETS, JOBS, DISRUPTION_BUDGETS),
    *(SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS),
)
KEY_BYTES: Final = 32
CHAP_USER: Final = "pyjiva"

_log = structlog.get_logger(__name__)
Key = tuple[str, str]


@attrs.define(eq=False)
class VolumeOperator:
    """Run it on one process at a time (`run_elected`); two would only get in each other's way."""

    cluster: Cluster
    api: VolumeApi
    settings: Settings
    recorder: Recorder
    now_s: Callable[[], float] = time.time
    """POSIX time."""
    workers_count: int = 8
    volumes: Informer = attrs.field(init=False)
    caches: dict[str, Informer] = attrs.field(factory=dict, init=False)
    """By kind, of what volumes own."""
    pods: Informer = attrs.field(init=False)
    nodes: Informer = attrs.field(init=False)
    workers: Workers[Key] = attrs.field(init=False)
    written: OwnWrites = attrs.field(factory=OwnWrites, init=False)
    """Of JivaVolumes."""

    def __attrs_post_init__(self) -> None:
        ours = {"openebs.io/cas-type": "jiva"}
        self.volumes = Informer(self.cluster, JIVA_VOLUMES)
        where = "" if self.settings.all_namespaces else self.settings.namespace
        self.caches = {each.kind: Informer(self.cluster, each, where, ours) for each in OWNED}
        self.pods = Informer(self.cluster, PODS, where, ours)
        self.nodes = Informer(self.cluster, NODES)
        self.workers = Workers("jivavolume", self.handle, self.workers_count)

    @property
    def _informers(self) -> list[Informer]:
        return [self.volumes, self.pods, self.nodes, *self.caches.values()]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled; started once everything was listed."""
        async with trio.open_nursery() as nursery:
            for informer in self._informers:
                nursery.start_soon(informer.run)
            await self.synced()
            self.volumes.subscribe(lambda *key: self.workers.add(key))
            self.pods.subscribe(self._owner_changed(self.pods))
            for informer in self.caches.values():
                informer.subscribe(self._owner_changed(informer))
            self.nodes.subscribe(lambda *_: self._all_changed())
            task_status.started()
            await self.workers.run()

    async def synced(self) -> None:
        """Wait until everything was listed."""
        for informer in self._informers:
            await informer.synced.wait()

    def _owner_changed(self, informer: Informer) -> Callable[[str, str], None]:
        """Of an object that is gone the owner is not known: its name is part of the object's."""

        def changed(namespace: str, name: str) -> None:
            there = informer.get(namespace, name)
            labels = (there or {}).get("metadata", {}).get("labels") or {}
            if PERSISTENT_VOLUME in labels:
                self.workers.add((namespace, labels[PERSISTENT_VOLUME]))
                return
            for volume in self.volumes.items():
                owner = volume["metadata"]
                if owner["namespace"] == namespace and name.startswith(
                    (owner["name"], f"sjr-{owner['name']}")
                ):
                    self.workers.add((namespace, owner["name"]))

        return changed

    def _all_changed(self) -> None:
        for volume in self.volumes.items():
            self.workers.add((volume["metadata"]["namespace"], volume["metadata"]["name"]))

    # --- one look

    async def handle(self, key: Key) -> None:
        """Look at one volume, and do what there is to do.  Raises PyjivaError: a step failed."""
        looked = await self._look(self.written.latest(key, self.volumes.get(*key)))
        if looked is None:
            return
        if not looked.plan.is_conditional:
            now = await self.cluster.get(JIVA_VOLUMES, *key)
            if now is None:
                return
            if version_of(now) != version_of(looked.value):
                self.written.remember(key, version_of(looked.value), now)
                looked = await self._look(now)
        try:
            await self._carry_out(looked)
        except _IsOld:
            await self._carry_out(await self._look(await self.cluster.get(JIVA_VOLUMES, *key)))

    async def _look(self, value: Object | None) -> "_Looked | None":
        """What there is to do; None: it is not there, or it is not for us to say."""
        if value is None:
            return None
        try:
            volume = JivaVolume.of(value)
        except ConfigError as error:
            await self.recorder.event(value, "Warning", "NotUnderstood", str(error))
            return None
        if not self.settings.all_namespaces and volume.namespace != self.settings.namespace:
            text = f"volumes are made in {self.settings.namespace} alone: start Maya with --all-namespaces"
            await self.recorder.event(value, "Warning", "NotOurNamespace", text)
            return None
        return _Looked(value, volume, reconcile(await self._observe(volume), self.settings))

    async def _carry_out(self, looked: "_Looked | None") -> None:
        """Raises _IsOld: it is not what was looked at any more, and nothing was done."""
        if looked is None:
            return
        writer = _Writer(self, looked.value, looked.volume)
        for number, step in enumerate(looked.plan.steps):
            try:
                await writer.carry_out(step)
            except (Conflict, NotFound) as error:
                if number == 0 and looked.plan.is_conditional:
                    raise _IsOld(str(error)) from error
                raise
        self.workers.add_after((looked.volume.namespace, looked.volume.name), looked.plan.again_after_s)

    async def _observe(self, volume: JivaVolume) -> Observed:
        owned = {
            (kind, value["metadata"]["name"]): value
            for kind, informer in self.caches.items()
            for value in _of(informer, volume)
        }
        report, silence = await self._ask(volume, owned)
        return Observed(
            volume,
            now_s=self.now_s(),
            objects=owned,
            pods=self._pods_of(volume),
            nodes=self.all_nodes(),
            load=self._load(),
            of_its_group=tuple(self._of_its_group(volume)),
            report=report,
            silence=silence,
            source=await self._source(volume),
            clones_being_filled=tuple(self.clones_being_filled(volume)),
        )

    def all_nodes(self) -> list[Node]:
        """Of the cluster."""
        return [node_of(value) for value in self.nodes.items()]

    def _load(self) -> dict[str, int]:
        load: dict[str, int] = {}
        for value in self.volumes.items():
            for place in (value.get("status") or {}).get("replicas") or ():
                if node := place.get("node"):
                    load[node] = load.get(node, 0) + 1
        return load

    def _of_its_group(self, volume: JivaVolume) -> Iterator[str]:
        group = volume.spec.policy.replica_anti_affinity_group
        for value in self.volumes.items() if group else ():
            theirs = value["spec"].get("policy", {}).get("replicaAntiAffinityGroup")
            if theirs == group and value["metadata"]["name"] != volume.name:
                yield from (place.get("node", "") for place in value.get("status", {}).get("replicas", ()))

    async def _ask(
        self, volume: JivaVolume, owned: Mapping[tuple[str, str], Object]
    ) -> tuple[VolumeReport | None, str]:
        """How the volume is; else why nobody says."""
        address = self.address_of(volume.namespace, volume.name)
        pods = [pod for pod in self._pods_of(volume) if pod.replica_id is None]
        if address is None or not any(pod.running for pod in pods):
            said = next((pod.message for pod in pods if pod.message), "")
            return None, said or "its controller does not run yet"
        try:
            return await self.api.report(address), ""
        except (Silent, Refused) as error:
            return None, str(error)

    def _pods_of(self, volume: JivaVolume) -> list[Pod]:
        """Those of its daemons: not of its scrub jobs."""
        return [pod_of(value) for value in _of(self.pods, volume) if is_of_a_daemon(value)]

    def address_of(self, namespace: str, name: str) -> VolumeAddress | None:
        """Where the API of a volume is; None: it has no Service or no Secret."""
        service = self.caches[SERVICES.kind].get(namespace, service_name(name))
        secret = self.caches[SECRETS.kind].get(namespace, secrets_name(name))
        host = cluster_ip_of(service)
        return VolumeAddress(host, token_of(secret)) if host and secret is not None else None

    async def _source(self, volume: JivaVolume) -> Source | None:
        """What a clone begins with, as long as it reads there."""
        source = volume.spec.source
        if source is None or volume.status.filled:
            return None
        address = self.address_of(volume.namespace, source.volume)
        if address is None or self.volumes.get(volume.namespace, source.volume) is None:
            return Source("", snapshot_ready=False)
        if volume.status.born:  # it has read there before
            return Source(address.host, snapshot_ready=True)
        try:
            names = {each.name for each in await self.api.snapshots(address)}
        except (Silent, Refused):
            return Source(address.host, snapshot_ready=False)
        return Source(address.host, snapshot_ready=source.snapshot in names)

    def clones_being_filled(self, volume: JivaVolume, snapshot: str = "") -> Iterator[str]:
        """Volumes that still read one of its snapshots, or this one."""
        for value in self.volumes.items():
            metadata, source = value["metadata"], value["spec"].get("source")
            filled = (value.get("status") or {}).get("filled", False)
            if metadata["namespace"] != volume.namespace or "deletionTimestamp" in metadata or filled:
                continue
            if source and source["volume"] == volume.name and snapshot in ("", source["snapshot"]):
                yield metadata["name"]


def _of(informer: Informer, volume: JivaVolume) -> Iterator[Object]:
    for value in informer.items():
        metadata = value["metadata"]
        labels = metadata.get("labels") or {}
        if metadata.get("namespace") == volume.namespace and labels.get(PERSISTENT_VOLUME) == volume.name:
            yield value


class _IsOld(KubeError):
    """A JivaVolume has changed since it was looked at."""


@attrs.frozen
class _Looked:
    value: Object
    volume: JivaVolume
    plan: Plan


@attrs.define
class _Writer:
    """Carries the steps of one look out."""

    operator: VolumeOperator
    value: Object
    """The JivaVolume as last written."""
    volume: JivaVolume

    @property
    def cluster(self) -> Cluster:
        return self.operator.cluster

    async def carry_out(self, step: Step) -> None:
        """Raises PyjivaError: it did not work."""
        volume = self.volume
        match step:
            case AddFinalizer():
                await self._finalizers([*volume.finalizers, FINALIZER])
            case DropFinalizer():
                await self._finalizers([each for each in volume.finalizers if each != FINALIZER])
            case SaveStatus(status):
                changed = {**self.value, "status": attrs.evolve(volume, status=status).status_object()}
                self._written(await self.cluster.update(JIVA_VOLUMES, changed, subresource="status"))
            case MakeSecrets():
                await self._make_secrets(step)
            case Apply(resource, wanted):
                await self.cluster.apply(resource, dict(wanted))
            case Delete(resource, name):
                await self.cluster.delete(resource, volume.namespace, name)
            case AddMember() | RemoveMember() | Grow():
                await self._have_the_volume(step)
            case Tell():
                await self.operator.recorder.event(
                    self.value, "Warning" if step.warning else "Normal", step.reason, step.message
                )
            case _:
                assert_never(step)

    def _written(self, value: Object) -> None:
        key = (self.volume.namespace, self.volume.name)
        self.operator.written.remember(key, version_of(self.value), value)
        self.value = value
        self.volume = JivaVolume.of(value)

    async def _finalizers(self, finalizers: list[str]) -> None:
        metadata = {"finalizers": finalizers, "resourceVersion": self.volume.resource_version}
        change = {"metadata": metadata}
        self._written(await self.cluster.merge(JIVA_VOLUMES, self.volume.namespace, self.volume.name, change))

    async def _make_secrets(self, step: MakeSecrets) -> None:
        objects = VolumeObjects(self.volume, self.operator.settings)
        password = secrets.token_hex(16)
        source_token = ""
        if step.with_source and self.volume.spec.source is not None:
            source = self.operator.address_of(self.volume.namespace, self.volume.spec.source.volume)
            source_token = source.token if source is not None else ""
        if step.chap:
            await self._create(SECRETS, objects.chap_secret(CHAP_USER, password))
            password = await self._chap_password(password)
        await self._create(
            SECRETS,
            objects.secrets(
                key=secrets.token_hex(KEY_BYTES),
                token=secrets.token_hex(KEY_BYTES),
                chap=f"{CHAP_USER} {password}\n" if step.chap else "",
                source_token=source_token,
            ),
        )

    async def _chap_password(self, drawn: str) -> str:
        """The one that is in the Secret: we may have ended between the two before."""
        there = await self.cluster.get(SECRETS, self.volume.namespace, chap_secret_name(self.volume.name))
        return drawn if there is None else chap_password_of(there)

    async def _create(self, resource: Resource, value: dict[str, Any]) -> None:
        try:
            await self.cluster.create(resource, value)
        except AlreadyExists:
            _log.info("made before", kind=resource.kind, name=value["metadata"]["name"])

    async def _have_the_volume(self, step: AddMember | RemoveMember | Grow) -> None:
        """What it refuses now it may do later; nothing else waits for it."""
        at = self.operator.address_of(self.volume.namespace, self.volume.name)
        if at is None:
            return
        api = self.operator.api
        try:
            match step:
                case AddMember(replica_id, address, witness):
                    await api.add_replica(at, replica_id, address, witness=witness)
                case RemoveMember(replica_id):
                    await api.remove_replica(at, replica_id)
                case Grow(size_bytes):
                    await api.grow(at, size_bytes)
        except (Silent, Refused) as error:
            await self.operator.recorder.event(self.value, "Warning", type(step).__name__, str(error))
