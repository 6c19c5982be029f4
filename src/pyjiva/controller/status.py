"""What a volume says of itself: frozen pictures for the API, the command line and tests.  Pure."""

import enum
from typing import Final

import attrs

from pyjiva.controller.rebuild_totals import RebuildTotals
from pyjiva.controller.repairs import RotCounts

__all__ = [
    "WITNESS",
    "FillStatus",
    "MergeStatus",
    "RebuildStatus",
    "ReplicaStatus",
    "ScrubStatus",
    "VolumeState",
    "VolumeStatus",
]


class VolumeState(enum.Enum):
    """How a volume is."""

    HEALTHY = "healthy"
    """Every configured replica is in sync."""
    DEGRADED = "degraded"
    """Host I/O is answered; a replica is missing or being rebuilt."""
    PARKED = "parked"
    """Host I/O waits."""


@attrs.frozen
class RebuildStatus:
    """A copy to a replica that is under way."""

    source: int
    """The replica that a range is copied from at this moment: the last of several that take turns."""
    compared_bytes: int
    """Found equal by their hashes."""
    copied_bytes: int
    sent_bytes: int
    """What the copied ones were on the wire, squeezed where that helps."""
    remaining_bytes: int
    """What is still to be gone through, as far as is known."""
    eta_s: float | None
    """Seconds that it will take if it goes on as fast as until now; None: nothing is done yet."""


@attrs.frozen
class ScrubStatus:
    """The scrub under way, or the last one."""

    running: bool
    position_bytes: int
    bad: int
    """Chunks of 1 MiB with a block that is not what was written, counted once for each replica."""
    different: int
    """Chunks in which replicas differ whose blocks are all what was written."""


@attrs.frozen
class MergeStatus:
    """How far a replica has given back the space of deleted snapshots."""

    done_bytes: int
    remaining_bytes: int
    """At most."""


ALMOST: Final = 0.999
"""The share while the replicas do not know yet that nothing is missing."""


@attrs.frozen
class FillStatus:
    """What a volume gets from elsewhere, or has got since the controller began."""

    done_bytes: int
    total_bytes: int
    """What was missing when the controller began."""
    over: bool = False
    """Everything is there and the replicas know it: only then can a controller begin without the source."""

    @property
    def share(self) -> float:
        """How much of it is there, from 0 to 1; 1 only when it is over."""
        if self.over:
            return 1.0
        return min(self.done_bytes / self.total_bytes, ALMOST) if self.total_bytes else 0.0


WITNESS: Final = "witness"
"""The mode of a witness that can be reached."""


@attrs.frozen
class ReplicaStatus:
    """One configured replica."""

    id: int
    address: str
    """HOST:PORT of its data port."""
    directory: str
    """On its own machine; empty until it was reached once."""
    mode: str
    """in-sync, rebuilding, out or witness."""
    progress: float | None
    """While rebuilding: from 0 to 1."""
    rebuild: RebuildStatus | None
    """The copy to it."""
    rot: RotCounts
    """Blocks that were not what had been written."""
    used_bytes: int | None
    """What it takes on its disk; None: it is not connected, or has not said so yet."""
    available_bytes: int | None
    """What its file system has left."""
    reason: str
    """Why it is not in sync; empty when it is."""
    rebuilds: RebuildTotals = attrs.field(factory=RebuildTotals)
    """All copies to it, also those that have ended."""
    requests_in_flight: int = 0
    """What it was asked and has not answered, its part in copies included."""
    behind_bytes: int | None = None
    """While it is out: what was written without it, in whole pieces; None: not known, or it is not out."""
    merge: MergeStatus | None = None
    """None: there is no space of deleted snapshots to be given back, or it is not connected."""


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
    scrub: ScrubStatus | None
    parked_requests: int = 0
    """Of hosts, that wait until enough replicas can be reached."""
    locked_requests: int = 0
    """Of hosts, that wait for one before them that overlaps them."""
    adding: int | None = None
    """Which replica is to belong to the volume when it has everything."""
    removing: int | None = None
    """Which one is to belong to it no more, until that is committed."""
    filling: FillStatus | None = None
    """How much is there of what it is filled with; None: it is not filled from elsewhere."""
