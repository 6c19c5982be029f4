"""What happens to the roster of a volume, and what the shell must do about it.  Pure.

The two sides of `controller.roster`.
"""

import attrs

from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.replication import PromiseAnswer, ReplicaReport

__all__ = [
    "Accepted",
    "AddReplica",
    "Alive",
    "AskAccept",
    "AskAlive",
    "AskPromise",
    "CancelReconcile",
    "Connect",
    "Copied",
    "Disconnect",
    "Diverged",
    "Drop",
    "Effect",
    "Event",
    "Fence",
    "Fenced",
    "Forgot",
    "GiveUp",
    "Joined",
    "Level",
    "Levelled",
    "LinkDown",
    "LinkUp",
    "MembersChanged",
    "Promised",
    "Reconcile",
    "Reconciled",
    "RemoveReplica",
    "Replay",
    "SaveParameters",
    "Serve",
    "StartRebuild",
    "StopRequested",
    "Stopped",
    "Tick",
    "Unsettled",
]

# --- events


@attrs.frozen
class LinkUp:
    """A replica proved the key and said who it is."""

    member: int
    report: ReplicaReport


@attrs.frozen
class LinkDown:
    """A connection ended, or the member was found to be failing."""

    member: int
    reason: str


@attrs.frozen
class Diverged:
    """A member, connected or not, holds other bytes than the members that are kept."""

    member: int
    reason: str


@attrs.frozen
class Promised:
    """A replica promised `epoch`."""

    member: int
    epoch: int
    answer: PromiseAnswer


@attrs.frozen
class Alive:
    """A member has answered a question that it was asked after AskAlive."""

    member: int


@attrs.frozen
class Fenced:
    """A replica refused: it has promised `promised_epoch`."""

    member: int
    promised_epoch: int


@attrs.frozen
class Accepted:
    """A replica holds the record (`epoch`, `version`) on stable storage."""

    member: int
    version: int


@attrs.frozen
class Levelled:
    """The members that take part in the activation have the same snapshots."""


@attrs.frozen
class Reconciled:
    """All members that were to be made equal are."""


@attrs.frozen
class Unsettled:
    """Members could not be made equal, as this one's disk refused its part."""

    member: int


@attrs.frozen
class Copied:
    """A rebuilding member holds everything; its flush is still to come."""

    member: int


@attrs.frozen
class Joined:
    """A joining member has flushed: it may be taken in."""

    member: int


@attrs.frozen
class Tick:
    """Time has passed."""

    at_s: float


@attrs.frozen
class SaveParameters:
    """The logical unit has new parameters: every record from now on carries them."""

    parameters: bytes


@attrs.frozen
class AddReplica:
    """The operator wants one more: it is copied to first, then it belongs to the volume and is in sync, at
    once.  A witness belongs to it as soon as it has promised.
    """

    member: int
    address: str
    witness: bool


@attrs.frozen
class RemoveReplica:
    """The operator wants one less."""

    member: int


@attrs.frozen
class StopRequested:
    """All I/O is done and flushed: end cleanly."""


Event = (
    LinkUp
    | LinkDown
    | Diverged
    | Promised
    | Alive
    | Fenced
    | Accepted
    | Levelled
    | Reconciled
    | Unsettled
    | Copied
    | Joined
    | Tick
    | SaveParameters
    | AddReplica
    | RemoveReplica
    | StopRequested
)

# --- effects


@attrs.frozen
class AskPromise:
    """Ask `member` to promise `epoch`."""

    member: int
    epoch: int


@attrs.frozen
class AskAccept:
    """Ask `member` to accept `record`."""

    member: int
    record: MembershipRecord
    equal: bool = False
    """The member has just been made equal to the others, on this connection."""
    took_part: bool = False
    """It is back with everything: see `Flag.TOOK_PART`."""


@attrs.frozen
class AskAlive:
    """Ask `member` now for a sign of life."""

    member: int


@attrs.frozen
class Drop:
    """End the connection to `member`; it will be tried again."""

    member: int
    reason: str


@attrs.frozen
class Connect:
    """Keep a connection to `member`, who is new to the shell, at `address` (HOST:PORT, or "": unknown)."""

    member: int
    address: str


@attrs.frozen
class Disconnect:
    """`member` does not belong to the volume (any more)."""

    member: int
    reason: str


@attrs.frozen
class Level:
    """Learn which snapshots `source` has, and let the other `members` have the same; then say Levelled."""

    source: int
    members: tuple[int, ...]


@attrs.frozen
class Reconcile:
    """Make `targets` equal to `source` in `extents` (None: everywhere), then say Reconciled."""

    source: int
    targets: tuple[int, ...]
    extents: tuple[Extent, ...] | None


@attrs.frozen
class CancelReconcile:
    """Forget the reconciliation under way: a member of it was lost."""


@attrs.frozen
class Serve:
    """Host I/O may begin."""


@attrs.frozen
class StartRebuild:
    """Copy everything to `member`."""

    member: int


@attrs.frozen
class Replay:
    """`member` is back: send it again what it has not answered."""

    member: int


@attrs.frozen
class Forgot:
    """`member`, the only copy, came back without what it had not flushed: others may have what it has not,
    in places that no map of what they missed names.
    """

    member: int


@attrs.frozen
class MembersChanged:
    """Modes or connections changed: whom to ask, wait for and read from is to be worked out anew."""


@attrs.frozen
class Fence:
    """Stop at once, answer nothing more: another controller has the volume."""

    reason: str
    again: bool = False
    """Nobody else has it: the next activation finds out how it is."""


@attrs.frozen
class GiveUp:
    """The operator must decide: what the replicas hold contradicts what this controller was told."""

    reason: str


@attrs.frozen
class Stopped:
    """The clean record is committed, or there was nothing to commit."""


Effect = (
    AskPromise
    | AskAccept
    | AskAlive
    | Drop
    | Connect
    | Disconnect
    | Level
    | Reconcile
    | CancelReconcile
    | Serve
    | StartRebuild
    | Replay
    | Forgot
    | MembersChanged
    | Fence
    | GiveUp
    | Stopped
)
