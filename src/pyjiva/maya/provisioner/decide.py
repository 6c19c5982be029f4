"""What is to be done about one PersistentVolume's name: its claim, its volume, itself.  Pure.

A claim with uid U has the PersistentVolume `pvc-U` and the JivaVolume of the same name, so whoever looks
again, after any crash, finds what there is by name alone.  The steps, each of which can be done twice:

    claim wants ──▶ JivaVolume is made ──▶ it is Ready ──▶ PersistentVolume is made ──▶ (Kubernetes binds)
    claim gone, no PersistentVolume yet ──▶ JivaVolume is deleted
    PersistentVolume released, Delete ──▶ JivaVolume is deleted ──▶ PersistentVolume is deleted, lets go
    PersistentVolume deleted, Retain ──▶ JivaVolume is marked as kept ──▶ PersistentVolume lets go
    claim wants more ──▶ JivaVolume grows ──▶ PersistentVolume and claim say so

A PersistentVolume has our finalizer, so that deleting it by hand says what becomes of the data.  A volume is
never deleted on hearsay: who decides that reads claim and PersistentVolume from the API server at that
moment.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import format_quantity, parse_quantity
from pyjiva.maya.kube.resource import JIVA_SNAPSHOTS
from pyjiva.maya.policy.marks import Origin
from pyjiva.maya.policy.policies import read_policies
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.provisioner.objects import new_volume, persistent_volume
from pyjiva.maya.volume.jiva_volume import JivaVolume, Phase, VolumeSource

__all__ = [
    "KEPT",
    "PV_FINALIZER",
    "PV_PREFIX",
    "DeleteClaimed",
    "DeleteVolume",
    "Grow",
    "KeepVolume",
    "LetGo",
    "MakePersistentVolume",
    "MakeVolume",
    "Provisioned",
    "SaySize",
    "Seen",
    "Step",
    "TellClaim",
    "TellVolume",
    "decide",
]

PV_PREFIX: Final = "pvc-"
PV_FINALIZER: Final = "openebs.io/provisioner-iscsi"
KEPT: Final = "openebs.io/kept"
"""Annotation of a JivaVolume whose PersistentVolume was deleted with the policy Retain."""
STORAGE_PROVISIONER: Final = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
ACCESS_MODES: Final = ("ReadWriteOnce", "ReadWriteOncePod")

Object = Mapping[str, Any]


@attrs.frozen
class Seen:
    """One look at one name."""

    name: str
    claim: Object | None
    """With the uid that the name says."""
    storage_class: Object | None
    persistent_volume: Object | None
    volume: JivaVolume | None
    snapshot: Object | None = None
    """The JivaSnapshot that the claim is to begin with, if it is there."""
    source: JivaVolume | None = None
    """The volume of that snapshot."""


@attrs.frozen
class Provisioned:
    """What the provisioner was started with."""

    name: str
    """As StorageClasses have it."""
    namespace: str
    identity: str
    all_namespaces: bool = False
    """Whether volumes' pods may be in a claim's namespace."""
    defaults: VolumePolicy = attrs.field(factory=VolumePolicy)
    pools: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class MakeVolume:
    """Make the JivaVolume."""

    volume: JivaVolume


@attrs.frozen
class MakePersistentVolume:
    """Make the PersistentVolume."""

    value: Object


@attrs.frozen
class DeleteVolume:
    """Delete the JivaVolume, if claim and PersistentVolume are still as they were looked at."""

    uid: str


@attrs.frozen
class DeleteClaimed:
    """Delete the PersistentVolume itself."""


@attrs.frozen
class LetGo:
    """Take our finalizer from the PersistentVolume."""


@attrs.frozen
class KeepVolume:
    """Mark the JivaVolume as kept."""


@attrs.frozen
class Grow:
    """Have the JivaVolume grow."""

    capacity_bytes: int


@attrs.frozen
class SaySize:
    """Write the size that it has into the PersistentVolume and the claim."""

    capacity: str


@attrs.frozen
class TellClaim:
    """An Event on the claim."""

    warning: bool
    reason: str
    message: str


@attrs.frozen
class TellVolume:
    """An Event on the PersistentVolume."""

    warning: bool
    reason: str
    message: str


Step = (
    MakeVolume
    | MakePersistentVolume
    | DeleteVolume
    | DeleteClaimed
    | LetGo
    | KeepVolume
    | Grow
    | SaySize
    | TellClaim
    | TellVolume
)


def decide(seen: Seen, us: Provisioned) -> list[Step]:
    """The steps, in order."""
    if seen.persistent_volume is not None:
        return _of_persistent_volume(seen, seen.persistent_volume, us)
    if seen.claim is not None and _wants(seen.claim, us):
        return _provision(seen, seen.claim, us)
    if seen.claim is None and seen.volume is not None and _is_left_over(seen.volume, us):
        return [DeleteVolume(seen.volume.uid)]
    return []


def _wants(claim: Object, us: Provisioned) -> bool:
    annotations = claim["metadata"].get("annotations") or {}
    asked = any(annotations.get(key) == us.name for key in STORAGE_PROVISIONER)
    return asked and not claim["spec"].get("volumeName") and "deletionTimestamp" not in claim["metadata"]


def _is_left_over(volume: JivaVolume, us: Provisioned) -> bool:
    """Whether it was made by us for a claim that went away before it had a PersistentVolume."""
    ours = volume.annotations.get(PROVISIONED_BY) == us.name
    return ours and KEPT not in volume.annotations and not volume.deleting


# --- a claim that wants


def _provision(seen: Seen, claim: Object, us: Provisioned) -> list[Step]:
    if seen.volume is None:
        return _begin(seen, claim, us)
    volume = seen.volume
    if volume.deleting:
        return [TellClaim(True, "ProvisioningFailed", f"the volume {volume.name} is being deleted")]
    if volume.status.phase is not Phase.READY or volume.status.iscsi is None:
        return [_waiting(volume)]
    storage_class = seen.storage_class
    if storage_class is None:
        return [_no_class(claim)]
    made = persistent_volume(volume, claim, storage_class, us.name, us.identity, PV_FINALIZER)
    text = f"Successfully provisioned volume {volume.name}"
    return [MakePersistentVolume(made), TellClaim(False, "ProvisioningSucceeded", text)]


def _no_class(claim: Object) -> TellClaim:
    text = f"there is no StorageClass {claim['spec'].get('storageClassName', '')!r}"
    return TellClaim(True, "ProvisioningFailed", text)


def _waiting(volume: JivaVolume) -> TellClaim:
    conditions = {each.type: each for each in volume.status.conditions}
    for type_ in ("Placed", "Filled", "Ready"):
        found = conditions.get(type_)
        if found is not None and found.status == "False" and found.message:
            return TellClaim(False, "Provisioning", f"waiting for volume {volume.name}: {found.message}")
    return TellClaim(False, "Provisioning", f"waiting for volume {volume.name} to become ready")


def _begin(seen: Seen, claim: Object, us: Provisioned) -> list[Step]:
    if seen.storage_class is None:
        return [_no_class(claim)]
    try:
        wrong = _what_is_wrong(claim)
        source = None if wrong else _source_of(seen, claim)
        decided = read_policies(
            Origin.of_claim(claim),
            Origin.of_class(seen.storage_class),
            defaults=us.defaults,
            pools=us.pools,
        )
        size_bytes = _requested(claim)
    except ConfigError as error:
        return [TellClaim(True, "ProvisioningFailed", str(error))]
    if wrong:
        return [TellClaim(True, "ProvisioningFailed", wrong)]
    if source is not None and seen.source is not None and size_bytes < seen.source.size_bytes:
        least = format_quantity(seen.source.size_bytes)
        text = f"the claim asks for less than {source.volume} has, of which it is to be a clone: {least}"
        return [TellClaim(True, "ProvisioningFailed", text)]
    namespace = us.namespace
    if source is not None and seen.source is not None:
        namespace = seen.source.namespace  # the source's Service and Secret are there
    elif not decided.policy.deploy_in_openebs_namespace:
        if not us.all_namespaces:
            text = (
                "policy DeployInOpenEBSNamespace: false needs a Maya that was started with --all-namespaces"
            )
            return [TellClaim(True, "ProvisioningFailed", text)]
        namespace = claim["metadata"]["namespace"]
    made = new_volume(claim, seen.storage_class, decided.policy, size_bytes, source, us.name, namespace)
    text = f"volume {made.name} is being made in namespace {namespace}"
    notes = [TellClaim(False, "PolicyNote", note) for note in decided.notes]
    return [MakeVolume(made), TellClaim(False, "Provisioning", text), *notes]


def _what_is_wrong(claim: Object) -> str:
    """Why no volume can be made for it; "": one can."""
    spec = claim["spec"]
    for mode in spec.get("accessModes") or ():
        if mode not in ACCESS_MODES:
            return (
                f"access mode {mode}: an iSCSI volume is for one node at a time: {' or '.join(ACCESS_MODES)}"
            )
    if spec.get("selector"):
        return "a selector chooses among volumes that are there: volumes are made for claims without one"
    return ""


def _source_of(seen: Seen, claim: Object) -> VolumeSource | None:
    """The snapshot that it is to begin with.  Raises ConfigError: it cannot."""
    asked = claim["spec"].get("dataSourceRef") or claim["spec"].get("dataSource")
    if not asked:
        return None
    group, kind, name = asked.get("apiGroup") or "", asked.get("kind", ""), asked.get("name", "")
    if (group, kind) != (JIVA_SNAPSHOTS.group, JIVA_SNAPSHOTS.kind):
        what = f"{kind}.{group}" if group else kind
        raise ConfigError(f"a volume begins with nothing or with a JivaSnapshot, not with {what} {name}")
    elsewhere = asked.get("namespace")
    if elsewhere and elsewhere != claim["metadata"]["namespace"]:
        raise ConfigError(f"JivaSnapshot {elsewhere}/{name}: it has to be in the claim's own namespace")
    if seen.snapshot is None:
        raise ConfigError(f"there is no JivaSnapshot {name} in {claim['metadata']['namespace']}")
    if not (seen.snapshot.get("status") or {}).get("readyToUse"):
        message = (seen.snapshot.get("status") or {}).get("message", "")
        raise ConfigError(f"JivaSnapshot {name} is not ready{': ' if message else ''}{message}")
    if seen.source is None:
        raise ConfigError(f"JivaSnapshot {name}: its volume is not there")
    return VolumeSource(seen.source.name, seen.snapshot["spec"]["snapshotName"])


def _requested(claim: Object) -> int:
    return parse_quantity(str(claim["spec"]["resources"]["requests"]["storage"]))


# --- a PersistentVolume that is there


def _of_persistent_volume(seen: Seen, value: Object, us: Provisioned) -> list[Step]:
    metadata = value["metadata"]
    if (metadata.get("annotations") or {}).get(PROVISIONED_BY) != us.name:
        return []
    policy = value["spec"].get("persistentVolumeReclaimPolicy", "Delete")
    released = (value.get("status") or {}).get("phase") == "Released" and seen.claim is None
    going = "deletionTimestamp" in metadata
    if policy == "Delete" and (released or (going and seen.claim is None)):
        return _delete(seen, value)
    if going and seen.claim is None and PV_FINALIZER in (metadata.get("finalizers") or ()):
        kept: list[Step] = []
        if seen.volume is not None and KEPT not in seen.volume.annotations:
            kept.append(KeepVolume())
        return [*kept, LetGo()]
    if released and policy not in ("Delete", "Retain"):
        return [TellVolume(True, "VolumeUnknownReclaimPolicy", f"policy {policy}: write Delete or Retain")]
    return _resize(seen, value) if seen.claim is not None else []


def _delete(seen: Seen, value: Object) -> list[Step]:
    steps: list[Step] = []
    if seen.volume is not None and not seen.volume.deleting:
        steps.append(DeleteVolume(seen.volume.uid))
    # The deletion is the JivaVolume's business from now on, also of a node that is away.
    if "deletionTimestamp" not in value["metadata"]:
        steps.append(DeleteClaimed())
    if PV_FINALIZER in (value["metadata"].get("finalizers") or ()):
        steps.append(LetGo())
    return steps


def _resize(seen: Seen, value: Object) -> list[Step]:
    claim, volume = seen.claim, seen.volume
    if claim is None or volume is None or "deletionTimestamp" in claim["metadata"]:
        return []
    if claim["spec"].get("volumeName") != value["metadata"]["name"]:
        return []
    try:
        wanted = _requested(claim)
        has = parse_quantity(str(value["spec"]["capacity"]["storage"]))
        said = (claim.get("status") or {}).get("capacity", {}).get("storage")
    except (ConfigError, KeyError):
        return []
    steps: list[Step] = []
    if wanted > volume.spec.capacity_bytes:
        asked = format_quantity(wanted)
        steps += [Grow(wanted), TellClaim(False, "Resizing", f"volume {volume.name} grows to {asked}")]
        return steps
    unsaid = wanted > has or (said is not None and parse_quantity(str(said)) < min(wanted, has))
    if unsaid and volume.status.capacity_bytes >= wanted:
        steps.append(SaySize(format_quantity(wanted)))
        steps.append(TellClaim(False, "VolumeResizeSuccessful", _how_to_go_on(claim, volume)))
    return steps


def _how_to_go_on(claim: Object, volume: JivaVolume) -> str:
    text = f"volume {volume.name} has {format_quantity(volume.status.capacity_bytes)}"
    if claim["spec"].get("volumeMode") == "Block":
        return text
    return f"{text}; on its node: iscsiadm -m session --rescan, then resize2fs or xfs_growfs"
