"""What makes volumes, as Maya's API asks for it: with Kubernetes (`kube_backend_io`), or on one machine
(`local_backend_io`).  Pure.

Every verb may be sent again: what is there already as it was asked for is answered as if it had just been
made, and what is gone already is NotFound.  A verb that fails has changed nothing, or what it has begun is
finished by the next one and by the backend itself, however often it dies in between.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs

from pyjiva.errors import PyjivaError
from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.maya.policy.volume_policy import VolumePolicy

__all__ = [
    "AlreadyExists",
    "Backend",
    "BackendError",
    "CasPhase",
    "CloneSource",
    "MetricFamilies",
    "NewVolume",
    "NotFound",
    "PoolView",
    "Refused",
    "ReplicaView",
    "SnapshotView",
    "Unavailable",
    "VolumeName",
    "VolumeView",
    "difference",
]

MetricFamilies = list[dict[str, Any]]
"""As the exporter's `?format=json` has them."""


class BackendError(PyjivaError):
    """It was not done."""


class NotFound(BackendError):
    """There is no such volume, or it has no such snapshot."""

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what
        """volume, snapshot or pool."""


class AlreadyExists(BackendError):
    """There is another one of this name; the message says in what it differs."""


class Refused(BackendError):
    """As things are it cannot be, and asking again does not help."""


class Unavailable(BackendError):
    """It cannot be done now; may be asked again."""


@attrs.frozen
class VolumeName:
    """Which volume is meant."""

    name: str
    namespace: str = ""
    """The claim's; "": whatever it is."""

    def __str__(self) -> str:
        """For messages."""
        return f"{self.name} in namespace {self.namespace}" if self.namespace else self.name


@attrs.frozen
class CloneSource:
    """What a volume begins with."""

    volume: str
    snapshot: str


@attrs.frozen
class NewVolume:
    """A volume that is asked for."""

    name: str
    namespace: str
    """The claim's; "": Maya's own."""
    capacity_bytes: int
    storage_class: str = ""
    claim: str = ""
    """The names of both, whose policies count."""
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    """Of the request: policies where no claim is named."""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    source: CloneSource | None = None


class CasPhase(enum.Enum):
    """The three words that OpenEBS' clients know."""

    PENDING = "Pending"
    AVAILABLE = "Available"
    FAILED = "Failed"


@attrs.frozen
class ReplicaView:
    """One replica, as it is."""

    id: int
    address: str = ""
    """HOST:PORT; "": it has none yet."""
    node: str = ""
    mode: str = ""
    """in-sync, rebuilding, out, witness; "": nobody says."""
    reason: str = ""
    witness: bool = False

    @property
    def runs(self) -> bool:
        """Whether the controller reaches it."""
        return self.mode in ("in-sync", "rebuilding", "witness")


@attrs.frozen
class VolumeView:
    """A volume, as it is."""

    name: str
    namespace: str
    volume_id: str
    capacity_bytes: int
    iqn: str
    policy: VolumePolicy
    portals: Sequence[str] = ()
    """HOST:PORT, the first one for clients that know only one."""
    lun: int = 0
    storage_class: str = ""
    claim: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    source: CloneSource | None = None
    phase: CasPhase = CasPhase.PENDING
    reason: str = ""
    """CamelCase, for programs; "": all is well."""
    message: str = ""
    """Why, for people."""
    controller_runs: bool = False
    controller_node: str = ""
    replicas: Sequence[ReplicaView] = ()
    """All members, also a witness."""

    @property
    def copies(self) -> tuple[ReplicaView, ...]:
        """Those that hold data."""
        return tuple(replica for replica in self.replicas if not replica.witness)


@attrs.frozen
class SnapshotView:
    """A snapshot of a volume."""

    name: str
    volume: str
    namespace: str
    created: str = ""
    """RFC 3339; "": not yet."""
    size_bytes: int = 0
    """What a volume made of it has at least; 0: not known yet."""
    ready: bool = False
    message: str = ""
    """Why it is not ready."""


@attrs.frozen
class PoolView:
    """A folder that replicas keep their data in."""

    name: str
    path: str
    node: str = ""
    """"": on every node."""
    size_bytes: int | None = None
    free_bytes: int | None = None
    """None: nobody here knows."""


class Backend(Protocol):
    """Who makes volumes.

    Every verb raises a BackendError, `create` also PoliciesRefused.
    """

    async def create(self, wanted: NewVolume) -> VolumeView:
        """Begin to make a volume, if it is not there; how it is now.

        Raises AlreadyExists: one of this name is there, and it is another one.
        """
        ...

    async def get(self, volume: VolumeName) -> VolumeView:
        """How it is."""
        ...

    async def list(self, namespace: str = "") -> Sequence[VolumeView]:
        """All of a namespace, or ("") all, by name."""
        ...

    async def delete(self, volume: VolumeName) -> None:
        """Let it go, and its data unless its policy keeps that.  It ends later."""
        ...

    async def expand(self, volume: VolumeName, capacity_bytes: int) -> VolumeView:
        """Let it have so much; how it is now.  Raises Refused: it has more."""
        ...

    async def stats(self, volume: VolumeName) -> MetricFamilies:
        """Its exporter's metrics."""
        ...

    async def create_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """Keep what it holds now, if there is no snapshot of this name."""
        ...

    async def snapshots(self, volume: VolumeName | None, namespace: str = "") -> Sequence[SnapshotView]:
        """Of a volume, or of all of a namespace."""
        ...

    async def get_snapshot(self, volume: VolumeName, snapshot: str) -> SnapshotView:
        """How it is."""
        ...

    async def delete_snapshot(self, volume: VolumeName, snapshot: str) -> None:
        """Let it go."""
        ...

    async def pools(self) -> Sequence[PoolView]:
        """All, by name."""
        ...

    async def why_unhealthy(self) -> str:
        """Why it can do nothing now; "": it can."""
        ...


def difference(there: VolumeView, wanted: NewVolume, policy: VolumePolicy) -> str:
    """In what the volume that is there is another one than is wanted, in words; "": in nothing."""
    pairs: list[tuple[str, object, object]] = [
        ("capacity", format_quantity(there.capacity_bytes), format_quantity(wanted.capacity_bytes)),
        ("storage class", there.storage_class, wanted.storage_class),
        ("claim", there.claim, wanted.claim),
        ("source", there.source, wanted.source),
    ]
    if wanted.namespace:
        pairs.append(("namespace", there.namespace, wanted.namespace))
    for field in attrs.fields(VolumePolicy):
        pairs.append((f"policy {field.name}", getattr(there.policy, field.name), getattr(policy, field.name)))
    return "; ".join(
        f"{title}: it has {_shown(found)}, asked for was {_shown(asked)}"
        for title, found, asked in pairs
        if found != asked
    )


def _shown(value: object) -> str:
    if isinstance(value, CloneSource):
        return f"snapshot {value.snapshot} of {value.volume}"
    return str(value) if value not in ("", None) else "none"
