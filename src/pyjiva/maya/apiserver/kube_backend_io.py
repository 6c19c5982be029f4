"""Volumes on Kubernetes: each is a JivaVolume, whose reconciler does all else.

Nothing is kept here: a verb is one object that is made, changed or deleted, and the API server is its memory.
Policies are those of the claim and the StorageClass that a request names; where it names no claim, its own
annotations take the claim's place.
"""

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import httpx

from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver.backend import (
    AlreadyExists,
    MetricFamilies,
    NewVolume,
    NotFound,
    PoolView,
    Refused,
    SnapshotView,
    Unavailable,
    VolumeName,
    VolumeView,
    difference,
)
from pyjiva.maya.apiserver.kube_view import (
    is_filled_from,
    new_jiva_volume,
    snapshot_object,
    snapshot_object_name,
    snapshot_view,
    view_of,
)
from pyjiva.maya.kube import cluster as kube
from pyjiva.maya.kube.cluster import Cluster, KubeError, Object
from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.maya.kube.resource import CLAIMS, JIVA_SNAPSHOTS, JIVA_VOLUMES, PODS, STORAGE_CLASSES
from pyjiva.maya.policy.fault import PoliciesRefused, PolicyFault
from pyjiva.maya.policy.marks import CAS_TYPE, CONFIG, Origin
from pyjiva.maya.policy.policies import DEFAULT_POOL, Decided, read_policies
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.labels import CONTROLLER, PERSISTENT_VOLUME, claim_namespace

__all__ = ["KubeBackend", "fetch_families"]

NAME_CHARACTERS_MAX: Final = 54  # with -ctrl-svc a label of DNS
EXPORTER_PORT: Final = 9500
STATS_S: Final = 5.0
STATS_BYTES_MAX: Final = 4 << 20
_NEVER: Final = (400, 422)
"""Statuses of what is not even tried: a label that is none, a namespace that there is not."""
TRIES: Final = 5  # of a change that somebody else's comes before


async def fetch_families(url: str) -> Any:
    """The JSON at `url`.  Raises Unavailable: there is none."""
    try:
        # By HTTP alone, so there is nothing to verify, and no authorities to load each time.
        async with httpx.AsyncClient(trust_env=False, timeout=STATS_S, verify=False) as client:
            answer = await client.get(url)
            answer.raise_for_status()
            if len(answer.content) > STATS_BYTES_MAX:
                raise Unavailable(f"{url}: {len(answer.content)} bytes are no metrics of a volume")
            return answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from error


@attrs.define(eq=False)
class KubeBackend:
    """See Backend."""

    cluster: Cluster
    namespace: str
    """Maya's own."""
    defaults: VolumePolicy = attrs.field(factory=VolumePolicy)
    given_pools: Mapping[str, str] = attrs.field(factory=dict)
    """Name to path on the nodes."""
    fetch: Callable[[str], Awaitable[Any]] = fetch_families
    all_namespaces: bool = True
    """Whether volumes' pods may be in their claim's namespace: Maya's account has to have rights there."""

    # Volumes

    async def create(self, wanted: NewVolume) -> VolumeView:
        """See Backend."""
        if len(wanted.name) > NAME_CHARACTERS_MAX:
            raise Refused(f"volume {wanted.name}: names have at most {NAME_CHARACTERS_MAX} characters")
        with _errors():
            claim = await self._claim(wanted)
            decided = await self._decide(wanted, claim)
            own = decided.policy.deploy_in_openebs_namespace or not wanted.namespace
            namespace = self.namespace if own else wanted.namespace
            if namespace != self.namespace and not self.all_namespaces:
                expected = "true: Maya was not started with --all-namespaces"
                fault = PolicyFault(f"volume {wanted.name}", "DeployInOpenEBSNamespace", "false", expected)
                raise PoliciesRefused([fault])
            if (there := await self._look(VolumeName(wanted.name))) is None:
                await self._check_source(wanted, namespace)
                block = (claim or {}).get("spec", {}).get("volumeMode") == "Block"
                new = new_jiva_volume(
                    attrs.evolve(wanted, namespace=wanted.namespace or self.namespace),
                    decided.policy,
                    namespace=namespace,
                    volume_id=secrets.token_hex(16),
                    access_type="block" if block else "mount",
                )
                there = await self._make(new)
            if there.deleting:
                raise Unavailable(f"a volume {wanted.name} is being deleted: ask again when it is gone")
            view = await self._view(there)
            asked = _as_asked(there, view)
            if differs := difference(asked, wanted, decided.policy):
                raise AlreadyExists(f"volume {wanted.name} is there, and is another one: {differs}")
            return view

    async def get(self, volume: VolumeName) -> VolumeView:
        """See Backend."""
        with _errors():
            return await self._view(await self._find(volume))

    async def list(self, namespace: str = "") -> Sequence[VolumeView]:
        """See Backend."""
        with _errors():
            volumes = sorted(await self._all(), key=lambda each: each.name)
            nodes = await self._controller_nodes({each.namespace for each in volumes}, {})
            return [
                view_of(each, nodes.get(each.name, ""))
                for each in volumes
                if namespace in ("", claim_namespace(each))
            ]

    async def delete(self, volume: VolumeName) -> None:
        """See Backend."""
        with _errors():
            found = await self._find(volume)
            await self._check_unneeded(found)
            await self.cluster.delete(JIVA_VOLUMES, found.namespace, found.name, uid=found.uid)

    async def expand(self, volume: VolumeName, capacity_bytes: int) -> VolumeView:
        """See Backend."""
        with _errors():
            for _ in range(TRIES):
                found = await self._find(volume)
                if capacity_bytes < found.size_bytes:
                    raise Refused(
                        f"volume {volume} has {found.size_bytes} bytes: volumes do not become smaller"
                    )
                if capacity_bytes == found.size_bytes:
                    break
                change = {
                    "metadata": {"resourceVersion": found.resource_version},
                    "spec": {"capacity": format_quantity(capacity_bytes)},
                }
                with contextlib.suppress(kube.Conflict):  # it has changed since: look again
                    await self.cluster.merge(JIVA_VOLUMES, found.namespace, found.name, change)
            return await self._view(await self._find(volume))

    async def stats(self, volume: VolumeName) -> MetricFamilies:
        """See Backend: what the exporter beside its controller says."""
        with _errors():
            found = await self._find(volume)
        if not found.spec.policy.volume_monitor:
            raise Refused(f"volume {volume} has no exporter: its policy VolumeMonitor says so")
        if found.status.iscsi is None:
            raise Unavailable(f"volume {volume} has no address yet")
        host = found.status.iscsi.target_portal.rpartition(":")[0]
        families = await self.fetch(f"http://{host}:{EXPORTER_PORT}/metrics/?format=json")
        if not isinstance(families, list):
            raise Unavailable(f"volume {volume}: what its exporter says is not understood")
        return families

    # Snapshots

    async def create_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """See Backend."""
        with _errors():
            found = await self._find_wanted(volume)
            with contextlib.suppress(kube.AlreadyExists):  # as it was asked for
                await self.cluster.create(JIVA_SNAPSHOTS, snapshot_object(found, snapshot))
            return await self._snapshot(found, snapshot)

    async def snapshots(self, volume: VolumeName | None, namespace: str = "") -> Sequence[SnapshotView]:
        """See Backend."""
        with _errors():
            chosen = [await self._find(volume)] if volume is not None else await self._all()
            volumes = {(each.namespace, each.name): each for each in chosen}
            where = chosen[0].namespace if volume is not None else ""
            found = []
            for value in (await self.cluster.list(JIVA_SNAPSHOTS, where)).items:
                key = (value["metadata"]["namespace"], value.get("spec", {}).get("volumeName"))
                owner = volumes.get(key)
                if owner is not None and namespace in ("", claim_namespace(owner)):
                    found.append(snapshot_view(value, claim_namespace(owner)))
            return sorted(found, key=lambda each: (each.volume, each.created == "", each.created, each.name))

    async def get_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """See Backend."""
        with _errors():
            return await self._snapshot(await self._find(volume), snapshot)

    async def delete_snapshot(self, volume: VolumeName, snapshot: str) -> None:
        """See Backend."""
        with _errors():
            found = await self._find(volume)
            value = await self._snapshot_of(found, snapshot)
            await self._check_unneeded(found, snapshot)
            name, uid = value["metadata"]["name"], value["metadata"].get("uid", "")
            await self.cluster.delete(JIVA_SNAPSHOTS, found.namespace, name, uid=uid)

    # The rest

    async def pools(self) -> Sequence[PoolView]:
        """See Backend."""
        pools = {DEFAULT_POOL: self.defaults.pool_path, **self.given_pools}
        return [PoolView(name, path) for name, path in sorted(pools.items())]

    async def why_unhealthy(self) -> str:
        """See Backend."""
        try:
            await self.cluster.get(JIVA_VOLUMES, self.namespace, "healthz")  # whether it is there or not
        except KubeError as error:
            return f"Kubernetes' API: {error}"
        return ""

    # What a volume is to be

    async def _claim(self, wanted: NewVolume) -> Object | None:
        if not wanted.claim:
            return None
        namespace = wanted.namespace or self.namespace
        if (found := await self.cluster.get(CLAIMS, namespace, wanted.claim)) is None:
            raise Refused(f"volume {wanted.name}: there is no claim {namespace}/{wanted.claim}")
        return found

    async def _decide(self, wanted: NewVolume, claim: Object | None) -> Decided:
        """Raises PoliciesRefused, Refused."""
        title = f"volume {wanted.name}"
        storage_class = None
        if wanted.storage_class:
            value = await self.cluster.get(STORAGE_CLASSES, "", wanted.storage_class)
            if value is None:
                raise Refused(f"{title}: there is no StorageClass {wanted.storage_class}")
            storage_class = Origin.of_class(value)
        if claim is None:
            origin = Origin(title, wanted.name, wanted.annotations, wanted.labels)
        else:
            origin = Origin.of_claim(claim)
            expected = f"to stand on the claim {wanted.claim}, not on the request"
            said = [key for key in (CONFIG, CAS_TYPE) if key in wanted.annotations]
            if said:
                raise PoliciesRefused([PolicyFault(title, key, "", expected) for key in said])
        return read_policies(origin, storage_class, defaults=self.defaults, pools=self.given_pools)

    async def _check_source(self, wanted: NewVolume, namespace: str) -> None:
        """Raises NotFound, Refused: a clone cannot be made of it."""
        if wanted.source is None:
            return
        volume, snapshot = wanted.source.volume, wanted.source.snapshot
        source = await self._look(VolumeName(volume))
        if source is None or source.deleting:
            raise NotFound("volume", f"there is no volume {volume} to make a clone of")
        if source.namespace != namespace:
            where = f"{volume} is in {source.namespace}, the clone would be in {namespace}"
            raise Refused(f"volume {wanted.name}: {where}; see the policy DeployInOpenEBSNamespace")
        view = await self._snapshot(source, snapshot)
        if not view.ready:
            reason = view.message or "it is being made"
            raise Unavailable(f"snapshot {snapshot} of {volume} is not ready: {reason}")
        if wanted.capacity_bytes < view.size_bytes:
            has = f"snapshot {snapshot} of {volume} has {view.size_bytes} bytes"
            raise Refused(f"{has}: a clone of {wanted.capacity_bytes} is too small")

    async def _make(self, new: JivaVolume) -> JivaVolume:
        """The one that is there afterwards, ours or of who was first."""
        try:
            return JivaVolume.of(await self.cluster.create(JIVA_VOLUMES, new.to_object()))
        except kube.AlreadyExists:
            return await self._find(VolumeName(new.name))

    # Finding

    async def _all(self) -> tuple[JivaVolume, ...]:
        return tuple(JivaVolume.of(each) for each in (await self.cluster.list(JIVA_VOLUMES)).items)

    async def _look(self, volume: VolumeName) -> JivaVolume | None:
        """By its name, whichever namespace its pods are in."""
        value = await self.cluster.get(JIVA_VOLUMES, self.namespace, volume.name)
        if value is None:
            labels = {PERSISTENT_VOLUME: volume.name}
            elsewhere = (await self.cluster.list(JIVA_VOLUMES, labels=labels)).items
            value = next((each for each in elsewhere if each["metadata"]["name"] == volume.name), None)
        if value is None:
            return None
        found = JivaVolume.of(value)
        return found if volume.namespace in ("", found.namespace, claim_namespace(found)) else None

    async def _find(self, volume: VolumeName) -> JivaVolume:
        if (found := await self._look(volume)) is None:
            raise NotFound("volume", f"there is no volume {volume}")
        return found

    async def _find_wanted(self, volume: VolumeName) -> JivaVolume:
        found = await self._find(volume)
        if found.deleting:
            raise NotFound("volume", f"volume {volume} is being deleted")
        return found

    async def _view(self, volume: JivaVolume) -> VolumeView:
        nodes = await self._controller_nodes({volume.namespace}, {PERSISTENT_VOLUME: volume.name})
        return view_of(volume, nodes.get(volume.name, ""))

    async def _controller_nodes(
        self, namespaces: Collection[str], labels: Mapping[str, str]
    ) -> dict[str, str]:
        """Volume to the node that its controller runs on; of namespaces whose pods we may not see: none."""
        chosen = {**labels, CONTROLLER[0]: CONTROLLER[1]}
        found: dict[str, str] = {}
        for namespace in sorted(namespaces):
            with contextlib.suppress(kube.Forbidden):
                for pod in (await self.cluster.list(PODS, namespace, chosen)).items:
                    node = pod.get("spec", {}).get("nodeName")
                    if node and pod.get("status", {}).get("phase") == "Running":
                        found[pod["metadata"]["labels"].get(PERSISTENT_VOLUME, "")] = node
        return found

    async def _snapshot_of(self, volume: JivaVolume, snapshot: str) -> Object:
        name = snapshot_object_name(volume.name, snapshot)
        value = await self.cluster.get(JIVA_SNAPSHOTS, volume.namespace, name)
        if value is not None and value.get("spec", {}).get("snapshotName") == snapshot:
            return value
        for each in (await self.cluster.list(JIVA_SNAPSHOTS, volume.namespace)).items:  # a person's
            if each.get("spec") == {"volumeName": volume.name, "snapshotName": snapshot}:
                return each
        raise NotFound("snapshot", f"volume {volume.name} has no snapshot {snapshot!r}")

    async def _snapshot(self, volume: JivaVolume, snapshot: str) -> SnapshotView:
        return snapshot_view(await self._snapshot_of(volume, snapshot), claim_namespace(volume))

    async def _check_unneeded(self, volume: JivaVolume, snapshot: str = "") -> None:
        """Raises Refused: a clone is not complete without it."""
        for each in (await self.cluster.list(JIVA_VOLUMES, volume.namespace)).items:
            clone = JivaVolume.of(each)
            if is_filled_from(clone, volume.name, snapshot):
                what = f"snapshot {snapshot} of {volume.name}" if snapshot else f"volume {volume.name}"
                raise Refused(f"{what}: {clone.name} is being filled from it; wait for that")


def _as_asked(volume: JivaVolume, view: VolumeView) -> VolumeView:
    """As it is compared with what is asked for: by its spec, which may be ahead of what it is."""
    return attrs.evolve(view, capacity_bytes=volume.size_bytes)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Kubernetes' errors as the backend's."""
    try:
        yield
    except KubeError as error:
        if isinstance(error, kube.Forbidden | kube.NotFound) or error.status in _NEVER:
            raise Refused(f"Kubernetes' API refuses: {error}") from error
        raise Unavailable(f"Kubernetes' API: {error}") from error
    except PoliciesRefused:
        raise
    except ConfigError as error:  # an object that is not understood
        raise Unavailable(str(error)) from error
