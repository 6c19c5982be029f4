"""Who may be at work in a store at the same time.  Pure.

Any number of processes may make backups at once.  One alone may collect chunks that no backup has, and only
while no backup is made: a backup that finds a chunk in the store does not store it again, and it must not be
taken away before the backup's manifest names it.

Each process puts a lock object, *then* looks at those of the others.  As lists are complete, of two that
begin at once one at least sees the other.  A collector that sees a maker leaves; a maker that sees a
collector keeps its lock and waits.  So if both see each other, the collector leaves; if only one sees the
other, that one gives way.

A lock is *dead* if its process is known to be gone, or if nobody has renewed it for EXPIRY_S by the store's
own clock.  Who goes on removes dead locks first.  A maker that was taken for dead finds its lock gone, and
withdraws its manifest (`create_io`); the argument is in docs/decisions/0007-backup.md.
"""

import enum
import json
from collections.abc import Callable, Sequence
from typing import Final, Self

import attrs

from pyjiva.backup.objects import DamagedError

__all__ = ["EXPIRY_S", "RENEW_S", "TRUST_S", "Lock", "LockKind", "SeenLock", "Verdict", "judge"]

RENEW_S: Final = 60.0
EXPIRY_S: Final = 6 * 3600.0  # a backup that is made too late is better than one that lacks chunks
TRUST_S: Final = 3600.0  # after so long without a renewal a process does not believe in its own lock any more


class LockKind(enum.Enum):
    """What its process does."""

    CREATE = "create"
    COLLECT = "collect"


@attrs.frozen
class Lock:
    """The content of a lock object."""

    kind: LockKind
    process: str
    """Boot, namespace, number and start of the process: nothing else ever has the same."""
    began: str
    """For people, as RFC 3339 has it."""

    def encode(self) -> bytes:
        """The object."""
        return json.dumps(
            {"format": 1, "kind": self.kind.value, "process": self.process, "began": self.began}
        ).encode()

    @classmethod
    def decode(cls, content: bytes, key: str) -> Self:
        """What `encode` gave.  Raises DamagedError."""
        try:
            fields = json.loads(content)
            kind, process, began = LockKind(fields["kind"]), fields["process"], fields["began"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedError(f"{key}: not a lock") from error
        if type(process) is not str or type(began) is not str:
            raise DamagedError(f"{key}: not a lock")
        return cls(kind, process, began)


@attrs.frozen
class SeenLock:
    """A lock of somebody else."""

    key: str
    lock: Lock
    modified_s: float
    """When it was put last, by the store's clock."""


@attrs.frozen
class Verdict:
    """What to do about the locks of others."""

    dead: tuple[SeenLock, ...]
    """To be removed before anything else."""
    in_the_way: tuple[SeenLock, ...]
    """Alive, and not to be worked beside."""


#: kind → the kinds that it is not to work beside.
CONFLICTS: Final[dict[LockKind, tuple[LockKind, ...]]] = {
    LockKind.CREATE: (LockKind.COLLECT,),
    LockKind.COLLECT: (LockKind.CREATE, LockKind.COLLECT),
}


def judge(
    kind: LockKind, others: Sequence[SeenLock], now_s: float, is_gone: Callable[[str], bool]
) -> Verdict:
    """What a process of `kind` does about `others` at `now_s`, by the store's clock.

    `is_gone` says of a process whether it is known not to live any more.
    """
    dead, in_the_way = [], []
    for seen in others:
        if seen.lock.kind not in CONFLICTS[kind]:
            continue
        if is_gone(seen.lock.process) or now_s - seen.modified_s > EXPIRY_S:
            dead.append(seen)
        else:
            in_the_way.append(seen)
    return Verdict(tuple(dead), tuple(in_the_way))
