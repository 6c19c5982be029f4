"""What a volume says of itself: frozen pictures for the API, the command line and tests.  Pure."""

import enum

import attrs

__all__ = ["ReplicaStatus", "VolumeState", "VolumeStatus"]


class VolumeState(enum.Enum):
    """How a volume is."""

    HEALTHY = "healthy"
    """Every configured replica is in sync."""
    DEGRADED = "degraded"
    """Host I/O is answered; a replica is missing or being rebuilt."""
    PARKED = "parked"
    """Host I/O waits."""


@attrs.frozen
class ReplicaStatus:
    """One configured replica."""

    id: int
    address: str
    """HOST:PORT of its data port."""
    directory: str
    """On its own machine; empty until it was reached once."""
    mode: str
    """in-sync, rebuilding or out."""
    progress: float | None
    """While rebuilding: from 0 to 1."""
    reason: str
    """Why it is not in sync; empty when it is."""


@attrs.frozen
class VolumeStatus:
    """The volume and its replicas."""

    name: str
    volume_id: str
    size_bytes: int
    block_size_bytes: int
    state: VolumeState
    reason: str
    """Why it is not healthy; empty when it is."""
    epoch: int
    replicas: tuple[ReplicaStatus, ...]
