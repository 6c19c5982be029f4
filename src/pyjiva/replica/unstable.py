"""Which of a replica's writes the other replicas may not have: what must be compared after an unclean end.
Pure.

A controller that dies leaves writes that some replicas have and others do not.  Nobody was told that they
are done, so either content is right, but all replicas must have the same (DESIGN G2).  Each replica
remembers in memory the range of every write until the controller's `stable` mark has passed it: every write
with an id up to the mark is on all in-sync replicas.  The next controller compares only the union of what
they remember.

The memory is *complete* when it holds every write since a moment at which this replica was known to be
equal to the others: the controller says so with the record that takes it in (`Flag.EQUAL`).  A process that
has just started cannot know, so it answers None, and the whole volume is compared; that a record names it
in sync says nothing, for it may have been taken in before the memory was lost.

Writes belong to the epoch in which they came: marks of a later controller say nothing about them, only its
record does.
"""

import collections
from typing import Final

import attrs

from pyjiva.extent import Extent, merge_extents

__all__ = ["UnstableWrites"]

WRITES_MAX: Final = 65536  # far above what controllers keep in flight; beyond it the memory gives up


@attrs.define
class UnstableWrites:  # hot
    """The memory of one replica process."""

    _writes: collections.deque[tuple[int, int, int, int]] = attrs.field(factory=collections.deque, init=False)
    """(epoch, request id, offset, length), in the order of arrival."""
    _complete: bool = attrs.field(default=False, init=False)
    _gave_up_in: int = attrs.field(default=-1, init=False)
    """The epoch in which writes were forgotten because they were too many."""

    def add(self, epoch: int, request_id: int, offset_bytes: int, length_bytes: int) -> None:
        """A write is about to be applied."""
        if len(self._writes) >= WRITES_MAX:
            self._writes.clear()
            self._complete = False
            self._gave_up_in = epoch
        self._writes.append((epoch, request_id, offset_bytes, length_bytes))

    def settle(self, epoch: int, stable: int) -> None:
        """Every write of `epoch` with an id up to `stable` is on all in-sync replicas."""
        writes = self._writes
        # Ids rise within an epoch but for replays; a replayed one that stays a little longer does no harm.
        while writes and writes[0][1] <= stable and writes[0][0] == epoch:
            writes.popleft()

    def accepted(self, epoch: int, *, in_sync: bool, equal: bool) -> None:
        """A record of `epoch` was accepted: with `equal` this replica equals the others but for writes of
        `epoch`.
        """
        if not in_sync:
            self._complete = False
        elif equal:
            self._writes = collections.deque(w for w in self._writes if w[0] == epoch)
            self._complete = self._gave_up_in != epoch

    def extents(self) -> list[Extent] | None:
        """The ranges that may differ; None when they are not known."""
        if not self._complete:
            return None
        return merge_extents(Extent(offset, length) for _, _, offset, length in self._writes)

    def extents_within(self, volume: Extent) -> list[Extent] | None:
        """As `extents`, without what lies beyond the end: the replica may have been made smaller since."""
        extents = self.extents()
        if extents is None:
            return None
        return [part for extent in extents if (part := extent.clip(volume)) is not None]
