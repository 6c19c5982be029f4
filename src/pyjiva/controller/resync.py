"""Make one replica's bytes equal to another's: compare, copy what differs, compare again.  Pure.

Used for a rebuild (the whole volume, or what the target missed, while the host writes) and for reconciling
after an unclean end (the extents that may differ, before anything is served).

    pace ──▶ what is left begins where nothing is known ──▶ probe a span: chunks without data are done
     ▲  │
     │  └──▶ a step: ranges of what is left, of a MiB in all ──each beside the others (`range_copy`)──┐
     └──────────────────────────── all of the step are equal ─────────────────────────────────────────┘

A step is a MiB, or four while no host asks for anything.  Small ranges that are scattered make up a step
together: what is asked for them travels together, as it is the trips that they cost, not the bytes.  What the
target is known to have missed (`Work.compare_first` is false) is copied without a look at hashes.

While a span or a range is looked at, a shared lock keeps writers out of it, and only out of it.  When a range
is equal, `Work` is told, and `position`, below which all is equal, moves on to the next that is left: both
*before* the lock is given back.  Writes below `position` go to the target too (`ResyncPort.advanced`); a
write above it is marked in `Work`, so a range that was done before an earlier one of its step, and is written
then, is left again.  So no write is ever merged into bytes that have not arrived (longhorn#4354), and none is
missed.  Each step moves `position` on beyond its first range at least, however often hosts write.

Before each range the volume chooses the source anew, so that several share the work.
"""

import enum
from collections.abc import Sequence, Set
from typing import Final, Protocol

import attrs

from pyjiva.controller.background import Turn
from pyjiva.controller.dirty_map import Work
from pyjiva.controller.range_copy import RangeCopy, RangePort, RangeStep
from pyjiva.extent import Extent
from pyjiva.units import MIB, align_down, align_up

__all__ = ["CHUNK_BYTES", "SPAN_BYTES", "Resync", "ResyncPort", "ResyncStep"]

CHUNK_BYTES: Final = 1 * MIB  # of a step: what writers may have to wait for, about 5 ms
RANGES_MAX: Final = 16  # of a step: so many pieces of a dirty map make up a chunk
QUIET_CHUNKS: Final = 4  # of a step while hosts are quiet: one travels while another is hashed
SQUEEZE_AGAIN: Final = 16  # pieces that go as they are after one that lz4 could not make smaller
SPAN_BYTES: Final = 1024 * MIB  # one question skips this much of holes; writers wait for one round trip


class ResyncPort(RangePort, Protocol):
    """What a resync needs of the volume."""

    def acquire_shared(self, extent: Extent, owner: RangeCopy) -> None:
        """Call `owner.lock_held(lock)` when nobody writes to `extent` any more."""

    def choose_source(self, resync: "Resync", without: Set[int]) -> int | None:
        """A member that has everything, and is not among `without`; None: there is no other."""

    def found_bad(self, finder: "Resync", member: int, extent: Extent) -> None:
        """`member` has a block in `extent` that is not what was written."""

    def may_go_on(self, resync: "Resync") -> bool:
        """Whether the next step may be begun now; if not, `resync.go_on()` is called when it may."""

    def spent(self, resync: "Resync", length_bytes: int) -> None:
        """So much data was read, to be compared or copied."""

    def advanced(self, resync: "Resync") -> None:
        """Writes below `resync.position` must go to the target from now on."""

    def finished(self, resync: "Resync", failed_member: int | None, reason: str) -> None:
        """It is over: well (None), or because of `failed_member`."""


class ResyncStep(enum.Enum):
    """What the walk waits for."""

    PACING = "its turn"
    COPYING = "ranges"
    OVER = "nothing"


@attrs.define(eq=False)
class Resync:
    """One copy from `source` to `target` of all that `work` has, which may grow meanwhile."""

    source: int
    """The one that was chosen last."""
    target: int
    work: Work
    port: ResyncPort
    if_bad: bool = False
    """Copy only ranges in which the target itself says that it has a bad block."""
    keep_lost: bool = False
    """Several are made equal to one source, and any of them may have what the source has lost: of a piece
    that it cannot read only the bad blocks come from another one, and one that nobody can read stays bad.
    """
    position: int = attrs.field(default=0, init=False)
    """Everything below this offset is equal."""
    compared_bytes: int = attrs.field(default=0, init=False)
    copied_bytes: int = attrs.field(default=0, init=False)
    sent_bytes: int = attrs.field(default=0, init=False)
    """What these were on the wire, squeezed where that helped."""
    good_bytes: int = attrs.field(default=0, init=False)
    """With `if_bad`: ranges that were let be."""
    step: ResyncStep = attrs.field(default=ResyncStep.PACING, init=False)
    ranges: list[RangeCopy] = attrs.field(factory=list, init=False)
    """Of the step under way, those that are not over."""
    turn: Turn = attrs.field(factory=Turn, init=False)
    """When its next step may be begun: the port's business."""
    _total_bytes: int = attrs.field(init=False)
    _probed_until: int = attrs.field(default=0, init=False)
    """Of what is left up to here, each chunk had data on either side, or was written since."""
    _squeezable: bool = attrs.field(default=True, init=False)
    """Whether the last piece that was to come squeezed did."""
    _plain: int = attrs.field(default=0, init=False)
    """If not: so many pieces are to be asked for as they are."""

    def __attrs_post_init__(self) -> None:
        self._total_bytes = self.work.remaining_bytes(0)

    def start(self) -> None:
        """Begin."""
        self._next()

    def cancel(self) -> None:
        """Stop; `finished` is not called.  Answers that still come are ignored."""
        self.step = ResyncStep.OVER
        ranges, self.ranges = self.ranges, []
        for range_ in ranges:
            range_.cancel()

    def fraction_done(self) -> float:
        """From 0 to 1, by bytes gone through."""
        if not self._total_bytes:
            return 1.0
        return max(0.0, 1 - self.remaining_bytes() / self._total_bytes)

    def remaining_bytes(self) -> int:
        """What is still to be gone through, as far as is known."""
        return self.work.remaining_bytes(self.position)

    def go_on(self) -> None:
        """Part of pacing: see ResyncPort.may_go_on."""
        if self.step is ResyncStep.PACING:
            self._next()

    def member_lost(self, member: int) -> None:
        """`member` is gone, whatever is waited for: when it comes back it may be behind."""
        if self._is_over:
            return
        if member == self.target:
            self._fail(member, f"{self._waits_for}: it was lost")
            return
        for range_ in [range_ for range_ in self.ranges if range_.source == member]:
            if range_.step is not RangeStep.OVER:  # one before it may have failed, and ended all
                range_.source_lost()
        if self._is_over or member != self.source:
            return
        if self.ranges:  # those that wait for a change at the target choose another one then
            self.source = next((r.source for r in self.ranges if r.source != member), member)
        elif self.choose_source({member}) is None:
            self._fail(member, f"{self._waits_for}: it was lost")

    @property
    def _is_over(self) -> bool:
        return self.step is ResyncStep.OVER

    @property
    def _waits_for(self) -> str:
        return self.ranges[0].step.value if self.ranges else self.step.value

    # --- the walk

    def _next(self) -> None:
        """Begin the next step, or finish."""
        extent = self.work.next_extent(self.position)
        if extent is None:
            self.step = ResyncStep.OVER
            self.port.finished(self, None, "")
            return
        self._advance(extent.offset_bytes)
        if not self.port.may_go_on(self):
            self.step = ResyncStep.PACING
            return
        self.step = ResyncStep.COPYING
        if self.work.compare_first and extent.offset_bytes >= self._probed_until:
            first = RangeStep.PROBING
            parts = [Extent(extent.offset_bytes, min(SPAN_BYTES, extent.length_bytes))]
        else:
            first = RangeStep.HASHING if self.work.compare_first else RangeStep.MAPPING
            parts = self._parts(extent)
        self.ranges = [RangeCopy(part, self.source, first, self, self.port) for part in parts]
        for range_ in list(self.ranges):
            if range_.step is RangeStep.LOCKING:  # one before it may have failed, and ended all
                self._lock(range_)

    def _parts(self, extent: Extent) -> list[Extent]:
        """What is left from `extent` on, cut where chunks end: as much as makes up a step."""
        parts: list[Extent] = []
        left: Extent | None = extent
        by_itself = self.work.piece_bytes <= CHUNK_BYTES  # else one that is done too early would be left
        chunks = QUIET_CHUNKS if self.turn.quiet and by_itself else 1
        room = chunks * CHUNK_BYTES
        while left is not None and len(parts) < chunks * RANGES_MAX:
            if self.work.compare_first and left.offset_bytes >= self._probed_until:
                break
            border = align_down(left.offset_bytes, CHUNK_BYTES) + CHUNK_BYTES
            part = Extent(left.offset_bytes, min(border, left.end_bytes) - left.offset_bytes)
            room -= part.length_bytes
            if parts and room < 0:
                break
            parts.append(part)
            left = self.work.next_extent(part.end_bytes)
        return parts

    def _lock(self, range_: RangeCopy) -> None:
        """Choose its source, by what the ranges before it have to do, and keep writers out."""
        if self.choose_source(set()) is not None:  # else the old one; if that is lost too, it says so itself
            range_.source = self.source
        self.port.acquire_shared(range_.extent, range_)

    def _advance(self, position: int) -> None:
        if position > self.position:
            # Nothing lacks below, also no write under way: from now on those go to the target too.
            self.position = position
            self.port.advanced(self)

    def _fail(self, member: int, reason: str) -> None:
        self.cancel()
        self.port.finished(self, member, reason)

    # --- see range_copy.Walk

    def choose_source(self, without: Set[int]) -> int | None:
        """Part of Walk."""
        source = self.port.choose_source(self, without)
        if source is not None:
            self.source = source
        return source

    def found_bad(self, member: int, extent: Extent) -> None:
        """Part of Walk."""
        self.port.found_bad(self, member, extent)

    def squeezes(self) -> bool:
        """Part of Walk."""
        if self._squeezable:
            return True
        if self._plain:
            self._plain -= 1
            return False
        self._plain = SQUEEZE_AGAIN  # until it is known what becomes of this one
        return True

    def compared(self, length_bytes: int, *, equal: bool) -> None:
        """Part of Walk."""
        self.port.spent(self, length_bytes)
        if equal:
            self.compared_bytes += length_bytes

    def copied(self, length_bytes: int, received_bytes: int, *, asked_squeezed: bool) -> None:
        """Part of Walk."""
        self.copied_bytes += length_bytes
        self.sent_bytes += received_bytes
        self.port.spent(self, length_bytes)
        if asked_squeezed and received_bytes < length_bytes:
            self._squeezable = True
        elif asked_squeezed and self._squeezable:
            self._squeezable, self._plain = False, SQUEEZE_AGAIN

    def was_good(self, length_bytes: int) -> None:
        """Part of Walk."""
        self.good_bytes += length_bytes

    def probed(self, range_: RangeCopy, data: Sequence[Extent]) -> None:
        """Part of Walk: chunks without data are done."""
        position, end = range_.extent.offset_bytes, range_.extent.end_bytes
        self._probed_until = end
        for extent in data:
            self._equal(position, align_down(extent.offset_bytes, CHUNK_BYTES))
            position = align_up(extent.end_bytes, CHUNK_BYTES)
        self._equal(position, end)

    def equal(self, range_: RangeCopy) -> None:
        """Part of Walk."""
        self._equal(range_.extent.offset_bytes, range_.extent.end_bytes)

    def _equal(self, start: int, end: int) -> None:
        if start >= end:
            return
        self.work.finished(start, end)
        position = end if start <= self.position else self.position
        left = self.work.next_extent(position)  # what is under way is left too
        self._advance(position if left is None else left.offset_bytes)

    def ended(self, range_: RangeCopy) -> None:
        """Part of Walk."""
        if self._is_over:
            return
        self.ranges.remove(range_)
        if not self.ranges:
            self._next()

    def failed(self, range_: RangeCopy, member: int, reason: str) -> None:
        """Part of Walk."""
        if not self._is_over:
            self._fail(member, reason)
