"""Locks on ranges of bytes: overlapping requests take turns in the order they came, disjoint ones run in
parallel.  Pure.

Every request becomes a `Lock` that counts its *blockers*: earlier locks, held or still waiting, that
overlap it and of which at least one of the two is exclusive.  It is held as soon as it has none.  Releasing
a lock takes one blocker from each lock that waits for it.  So the order is first come, first served for
each byte, nobody starves, and there can be no deadlock: a lock waits only for earlier ones.

Locks are found through a table of granules.  A 4 KiB request touches one entry; a request over more than
WIDE_GRANULES (an UNMAP of a whole device) stands in a list of its own that every acquire looks through.

Why: replicas answer in any order, so two overlapping requests in flight could be seen in one order on one
replica and in the other on the next (DESIGN G2).  Jiva holds one lock for the whole volume
(`controller/control.go:1036`), which makes the queue depth one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from pyjiva.extent import Extent
from pyjiva.units import KIB

__all__ = ["IntervalLocks", "Lock"]

GRANULE_BYTES: Final = 256 * KIB  # most requests lie in one; a 1 MiB request lies in four or five
WIDE_GRANULES: Final = 64  # 16 MiB: more than any READ or WRITE we allow


@attrs.define(eq=False)
class Lock:
    """One request's claim on a range."""

    offset_bytes: int
    end_bytes: int
    exclusive: bool
    owner: Any
    """What to go on with when the lock is held: the business of whoever acquired it."""
    blockers: int = 0
    waiters: list["Lock"] = attrs.field(factory=list)

    @property
    def held(self) -> bool:
        """Whether the owner may go on."""
        return self.blockers == 0


@attrs.define
class IntervalLocks:  # hot
    """The locks of one device."""

    _granules: dict[int, list[Lock]] = attrs.field(factory=dict, init=False)
    _wide: list[Lock] = attrs.field(factory=list, init=False)
    _count: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        """How many locks are held or waiting."""
        return self._count

    def acquire(self, offset_bytes: int, length_bytes: int, *, exclusive: bool, owner: Any = None) -> Lock:
        """Claim a range.  If the answer is not `held` yet, `release` of its last blocker returns it."""
        lock = Lock(offset_bytes, offset_bytes + length_bytes, exclusive, owner)
        self._count += 1
        first = offset_bytes // GRANULE_BYTES
        last = (lock.end_bytes - 1) // GRANULE_BYTES if length_bytes else first
        for other in self._wide:
            self._wait_for(lock, other)
        if last - first >= WIDE_GRANULES:
            for other in self._narrow_locks():
                self._wait_for(lock, other)
            self._wide.append(lock)
            return lock
        for granule in range(first, last + 1):
            others = self._granules.get(granule)
            if others is None:
                self._granules[granule] = [lock]
                continue
            for other in others:
                # Two locks may share several granules: they meet in the first that they share.
                if granule == max(first, other.offset_bytes // GRANULE_BYTES):
                    self._wait_for(lock, other)
            others.append(lock)
        return lock

    def _narrow_locks(self) -> Iterator[Lock]:
        for granule, locks in self._granules.items():
            for lock in locks:
                if granule == lock.offset_bytes // GRANULE_BYTES:
                    yield lock

    def _wait_for(self, lock: Lock, other: Lock) -> None:
        overlap = other.offset_bytes < lock.end_bytes and lock.offset_bytes < other.end_bytes
        if overlap and (lock.exclusive or other.exclusive):
            other.waiters.append(lock)
            lock.blockers += 1

    def release(self, lock: Lock) -> Sequence[Lock]:
        """Give a held lock back; returns the locks that are held from now on because of it, oldest first."""
        assert lock.held
        self._count -= 1
        first = lock.offset_bytes // GRANULE_BYTES
        last = max(first, (lock.end_bytes - 1) // GRANULE_BYTES)
        if last - first >= WIDE_GRANULES:
            self._wide.remove(lock)
        else:
            for granule in range(first, last + 1):
                locks = self._granules[granule]
                if len(locks) == 1:
                    del self._granules[granule]
                else:
                    locks.remove(lock)
        if not lock.waiters:
            return ()
        now_held = []
        for waiter in lock.waiters:
            waiter.blockers -= 1
            if not waiter.blockers:
                now_held.append(waiter)
        return now_held

    def extents(self) -> list[tuple[Extent, bool, bool]]:
        """(range, exclusive, held) of every lock, for status and tests."""
        locks = [*self._wide, *self._narrow_locks()]
        return [(Extent(k.offset_bytes, k.end_bytes - k.offset_bytes), k.exclusive, k.held) for k in locks]
