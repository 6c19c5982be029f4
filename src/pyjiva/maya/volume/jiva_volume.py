"""The JivaVolume: what somebody wants (`spec`), and what has become of it (`status`).  Pure.

A JivaVolume is a custom resource, namespaced, named as its PersistentVolume.  Names are those of Jiva's
operator (`jiva-operator pkg/apis/openebs/v1/jivavolume_types.go`) where they mean the same; what its operator
wrote into `spec` stands in `status` here.

Who writes what: `spec` is written by who makes the volume (provisioner, apiserver, a person); the reconciler
writes `status` alone, besides its finalizer, and of `status.witness` only a blank one for a new witness; what
that has promised, its processes write.  Both replace the whole status on the condition that the object is
still the one that they have read (`resourceVersion`), so neither undoes what the other has written.
`spec.volumeID`, `spec.source` and the block size never change; `capacity` only grows.

Invariants of `status.replicas`: ids are never used twice (`nextReplicaID` only grows); an entry is written
before anything of that replica is made, and taken away after all of it is gone, its data included.
"""

import enum
from typing import Any, Final

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import format_quantity, parse_quantity
from pyjiva.maya.kube.resource import JIVA_VOLUMES
from pyjiva.maya.policy.volume_policy import LabelRequirement, Resources, Toleration, VolumePolicy
from pyjiva.units import STORED_BLOCK_BYTES, align_up

__all__ = [
    "FINALIZER",
    "IQN_PREFIX",
    "ISCSI_PORT",
    "Condition",
    "IscsiAddress",
    "JivaVolume",
    "JivaVolumeSpec",
    "JivaVolumeStatus",
    "Phase",
    "ReplicaPlace",
    "ReplicaState",
    "VolumeSource",
    "WitnessVote",
    "json_name",
    "policy_of",
    "policy_to_json",
    "witness_vote",
]

FINALIZER: Final = "openebs.io/jiva-volume"
IQN_PREFIX: Final = "iqn.2016-09.com.openebs.jiva:"
ISCSI_PORT: Final = 3260


class Phase(enum.Enum):
    """The volume in one word, in the order of a life."""

    PENDING = "Pending"  # something that it needs is not there yet
    SYNCING = "Syncing"  # its processes run; I/O is not answered
    READY = "Ready"  # I/O is answered; conditions say whether all copies are there
    UNKNOWN = "Unknown"  # it was ready, and cannot be asked now
    FAILED = "Failed"  # it cannot be, and only a person can change that
    DELETING = "Deleting"


class ReplicaState(enum.Enum):
    """Where one replica is on its way; in this order, but for what is called off."""

    INITIAL = "Initial"  # one of those that the volume is born with
    JOINING = "Joining"  # made for a volume that lives; not a member yet
    MEMBER = "Member"  # the controller counts it
    LEAVING = "Leaving"  # to be taken out, then to be removed
    REMOVING = "Removing"  # the controller does not count it; objects and data are to go


@attrs.frozen
class ReplicaPlace:
    """One replica of `status.replicas`."""

    id: int
    state: ReplicaState
    node: str = ""
    """The node's name, chosen once; "" before that."""
    witness: bool = False
    address: str = ""
    """HOST:PORT of its Service; of a witness beside the controller: on the loopback there."""
    mode: str = ""
    """As the controller says: in-sync, rebuilding, out; "": it says nothing."""
    reason: str = ""
    """Why it is not in sync, for people."""
    away_since: str = ""
    """RFC 3339: since when its node does not answer; "": it does."""
    started: bool = False
    """Whether it ran once on its node: from then on it stays there."""
    refused: tuple[str, ...] = ()
    """Nodes where its pod did not fit."""
    in_volume: bool = False
    """Of a witness: its vote is kept here (`WitnessVote`), and its process is beside the controller."""


@attrs.frozen
class Condition:
    """As in every Kubernetes object (`metav1.Condition`)."""

    type: str
    status: str
    """True, False, Unknown."""
    reason: str
    """CamelCase, for programs."""
    message: str = ""
    last_transition_time: str = ""


@attrs.frozen
class WitnessVote:
    """What a witness beside the controller has promised.  Its processes alone change it (`maya.witness`)."""

    replica_id: int
    """Its number."""
    promised_epoch: int
    writes: int
    """How often this was written: one with a smaller number is of an older time."""
    checksum: str
    """Of all of it and the object's uid: what somebody else wrote is not believed."""
    promised_to: str = ""
    """The controller that was promised the epoch."""
    record: str = ""
    """The newest membership record, as JSON."""


@attrs.frozen
class VolumeSource:
    """A snapshot that the volume begins with."""

    volume: str
    """Name of the JivaVolume, in the same namespace."""
    snapshot: str
    """Name of its snapshot."""


@attrs.frozen
class IscsiAddress:
    """Where initiators log in."""

    target_portal: str
    """HOST:PORT."""
    iqn: str
    lun: int = 0


@attrs.frozen
class JivaVolumeSpec:
    """What is wanted."""

    pv: str
    """Name of the PersistentVolume."""
    capacity_bytes: int
    volume_id: str
    """32 hexadecimal digits."""
    desired_replication_factor: int
    """Copies with data; may be changed on a volume that lives."""
    access_type: str = "mount"
    """mount or block."""
    policy: VolumePolicy = attrs.field(factory=VolumePolicy)
    source: VolumeSource | None = None


@attrs.frozen
class JivaVolumeStatus:
    """What is."""

    phase: Phase = Phase.PENDING
    status: str = "Unknown"
    """RW, RO (I/O waits) or Unknown, as Jiva's users know it."""
    observed_generation: int = 0
    born: bool = False
    """It has taken I/O once: from then on blank replicas are a loss, not a beginning."""
    capacity_bytes: int = 0
    """As it is now; 0: not known yet."""
    replica_count: int = 0
    """Copies in sync."""
    iscsi: IscsiAddress | None = None
    replicas: tuple[ReplicaPlace, ...] = ()
    next_replica_id: int = 1
    filled: bool = False
    """Whether all of `source` has arrived."""
    witness: WitnessVote | None = None
    """Of the witness of that number, if it has no place of its own."""
    conditions: tuple[Condition, ...] = ()


@attrs.frozen
class JivaVolume:
    """One JivaVolume."""

    namespace: str
    name: str
    spec: JivaVolumeSpec
    status: JivaVolumeStatus = attrs.field(factory=JivaVolumeStatus)
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: dict[str, str] = attrs.field(factory=dict)
    annotations: dict[str, str] = attrs.field(factory=dict)
    finalizers: tuple[str, ...] = ()
    deleting: bool = False
    """Whether somebody has deleted it, and it is here only until its finalizers are gone."""

    @property
    def iqn(self) -> str:
        """The target's name."""
        return IQN_PREFIX + self.name

    @property
    def size_bytes(self) -> int:
        """What is asked for, in whole blocks of any size."""
        return align_up(self.spec.capacity_bytes, STORED_BLOCK_BYTES)

    @classmethod
    def of(cls, value: dict[str, Any]) -> "JivaVolume":
        """From the object.  Raises ConfigError: it is none that the CRD's schema lets through."""
        metadata = value.get("metadata", {})
        try:
            return cls(
                namespace=metadata.get("namespace", ""),
                name=metadata["name"],
                spec=_converter.structure(value["spec"], JivaVolumeSpec),
                status=_converter.structure(value.get("status") or {}, JivaVolumeStatus),
                uid=metadata.get("uid", ""),
                resource_version=metadata.get("resourceVersion", ""),
                generation=metadata.get("generation", 0),
                labels=dict(metadata.get("labels") or {}),
                annotations=dict(metadata.get("annotations") or {}),
                finalizers=tuple(metadata.get("finalizers") or ()),
                deleting="deletionTimestamp" in metadata,
            )
        except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
            name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
            reasons = "; ".join(cattrs.transform_error(error)) if isinstance(error, Exception) else ""
            raise ConfigError(f"JivaVolume {name} is not understood: {reasons}") from error

    def to_object(self) -> dict[str, Any]:
        """For `create`: without status."""
        metadata: dict[str, Any] = {"name": self.name, "namespace": self.namespace}
        for key in ("labels", "annotations"):
            if getattr(self, key):
                metadata[key] = dict(getattr(self, key))
        if self.finalizers:
            metadata["finalizers"] = list(self.finalizers)
        return {
            "apiVersion": JIVA_VOLUMES.api_version,
            "kind": JIVA_VOLUMES.kind,
            "metadata": metadata,
            "spec": _converter.unstructure(self.spec),
        }

    def status_object(self) -> dict[str, Any]:
        """What `status` is as JSON."""
        made: dict[str, Any] = _converter.unstructure(self.status)
        return made


def policy_to_json(policy: VolumePolicy) -> dict[str, Any]:
    """As `spec.policy`: what is at its default is left out."""
    made: dict[str, Any] = _converter.unstructure(policy)
    return made


def policy_of(value: dict[str, Any]) -> VolumePolicy:
    """Raises ConfigError: a field has another type."""
    try:
        return _converter.structure(value, VolumePolicy)
    except (cattrs.BaseValidationError, TypeError, ValueError) as error:
        raise ConfigError(f"policy is not understood: {'; '.join(cattrs.transform_error(error))}") from error


def witness_vote(value: dict[str, Any]) -> WitnessVote:
    """From `status.witness`."""
    made: WitnessVote = _converter.structure(value, WitnessVote)
    return made


_NAMES: Final = {
    "volume_id": "volumeID",
    "next_replica_id": "nextReplicaID",
    "replica_id": "replicaID",
    "capacity_bytes": "capacity",
}


def json_name(name: str) -> str:
    """How a field of these records, and of a policy, is called in JSON."""
    first, *others = name.split("_")
    return _NAMES.get(name) or first + "".join(part.capitalize() for part in others)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True)
    quantity = override(struct_hook=lambda text, _: parse_quantity(str(text)), unstruct_hook=format_quantity)
    for record in (
        *(LabelRequirement, Resources, Toleration, VolumePolicy),
        *(Condition, IscsiAddress, ReplicaPlace, VolumeSource, WitnessVote, JivaVolumeSpec, JivaVolumeStatus),
    ):
        names: dict[str, Any] = {}
        for field in attrs.fields(record):
            renamed = override(rename=json_name(field.name))
            if field.name == "capacity_bytes":
                renamed = attrs.evolve(quantity, rename="capacity")
            names[field.name] = renamed
        unstructure = make_dict_unstructure_fn(record, converter, _cattrs_omit_if_default=True, **names)
        converter.register_unstructure_hook(record, unstructure)
        converter.register_structure_hook(record, make_dict_structure_fn(record, converter, **names))
    return converter


_converter: Final = _make_converter()
