"""Blocks that one member gives a wrong checksum for are copied to it from another, while the host goes on.
Pure.

    found ──▶ queued ──▶ copied (a Resync of that range alone) ──▶ repaired
                             │ no other member has a good copy
                             ▼
                          hopeless: told to the operator; the next write of the whole block ends it, and
                          the next read by the host tries again

One range at a time is repaired on each member.  A member that is lost meanwhile may hold a half-written
block: what was queued for it goes to its dirty map (`lost`), and the rebuild makes up for it.
"""

import collections
from collections.abc import Callable, Sequence, Set
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer, Lock
from pyjiva.controller.dirty_map import FixedWork
from pyjiva.controller.range_copy import RangeCopy, RangePort
from pyjiva.controller.resync import Resync
from pyjiva.extent import Extent
from pyjiva.replication import Frame, FrameType
from pyjiva.units import STORED_BLOCK_BYTES, align_down, align_up

__all__ = ["RepairPort", "Repairs", "RotCounts"]

QUEUE_MAX: Final = 1024  # ranges of one member; one with more is rebuilt as a whole


class RepairPort(RangePort, Protocol):
    """What repairs need of the volume."""

    def acquire_exclusive(self, extent: Extent, owner: RangeCopy) -> None:
        """Call `owner.lock_held(lock)` when nobody reads or writes `extent` any more."""

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        """See ResyncPort."""

    def too_much_rot(self, member: int) -> None:
        """Rebuild the member as a whole."""

    def repair_ended(self, member: int, extent: Extent, why_not: str) -> None:
        """A range is good again, or (with a reason) cannot be repaired."""


@attrs.frozen
class RotCounts:
    """What was found on one member since the controller started."""

    repairing: int = 0
    """Ranges that wait for repair, or are under repair."""
    repaired: int = 0
    """Ranges that were written again."""
    hopeless: int = 0
    """Ranges, now, of which no other member has a good copy."""
    found: int = 0
    """Ranges met; one that waits for its repair, or is hopeless, counts once."""


@attrs.define
class _Patient:
    """One member."""

    queue: collections.deque[tuple[Extent, bool]] = attrs.field(factory=collections.deque)
    """Blocks to repair, the first of them under way; and whether a repair's own reads found them bad."""
    running: Resync | None = None
    found: int = 0
    repaired: int = 0
    hopeless: set[Extent] = attrs.field(factory=set)


@attrs.define(eq=False)
class Repairs:
    """All repairs of one volume; each Resync has it as its port."""

    size_bytes: int
    port: RepairPort
    _patients: collections.defaultdict[int, _Patient] = attrs.field(
        factory=lambda: collections.defaultdict(_Patient), init=False
    )
    _stopped: bool = attrs.field(default=False, init=False)

    @property
    def running(self) -> bool:
        """Whether one may be writing."""
        return any(patient.running is not None for patient in self._patients.values())

    def stop(self) -> None:
        """Begin no more of them."""
        self._stopped = True

    def found(self, member: int, extent: Extent) -> None:
        """`member` has a block in `extent` that is not what was written."""
        self._found(member, extent, by_repair=False)

    def good(self, member: int, extent: Extent) -> None:
        """`member` was seen to have nothing bad in `extent`: what was hopeless has been written over."""
        if member in self._patients and (hopeless := self._patients[member].hopeless):
            hopeless -= {bad for bad in hopeless if bad.clip(extent) == bad}

    def counts(self, member: int) -> RotCounts:
        """Of one member."""
        if member not in self._patients:
            return RotCounts()
        patient = self._patients[member]
        return RotCounts(len(patient.queue), patient.repaired, len(patient.hopeless), patient.found)

    def _found(self, member: int, extent: Extent, by_repair: bool) -> None:
        start = align_down(extent.offset_bytes, STORED_BLOCK_BYTES)
        blocks = Extent(start, min(align_up(extent.end_bytes, STORED_BLOCK_BYTES), self.size_bytes) - start)
        patient = self._patients[member]
        if any(blocks.clip(queued) == blocks for queued, _ in patient.queue):
            return
        if blocks not in patient.hopeless:
            patient.found += 1
        if len(patient.queue) >= QUEUE_MAX:
            self.port.too_much_rot(member)
            return
        patient.queue.append((blocks, by_repair))
        if patient.running is None:
            self._start(member)

    def _start(self, member: int) -> None:
        """Begin with the first of the queue that another member may have."""
        patient = self._patients[member]
        while patient.queue and not self._stopped:
            extent, _ = patient.queue[0]
            resync = Resync(member, member, FixedWork([extent], compare_first=False), self, if_bad=True)
            source = self.port.choose_source(resync, {member})
            if source is not None:
                resync.source = source
                patient.running = resync
                resync.start()
                return
            patient.queue.popleft()
            self._over(member, extent, "no other replica is in sync")

    def _over(self, member: int, extent: Extent, why_not: str) -> None:
        patient = self._patients[member]
        patient.hopeless.discard(extent)
        if why_not:
            patient.hopeless.add(extent)
        else:
            patient.repaired += 1
        self.port.repair_ended(member, extent, why_not)

    def lost(self, member: int) -> list[Extent]:
        """`member` is gone: what of it was not repaired yet.  Other members' repairs lose it as a source."""
        left: list[Extent] = []
        if member in self._patients:
            patient = self._patients[member]
            left = [extent for extent, _ in patient.queue]
            patient.queue.clear()
            running, patient.running = patient.running, None
            if running is not None:
                running.cancel()
        for patient in list(self._patients.values()):
            if patient.running is not None:
                patient.running.member_lost(member)
        return left

    # --- see ResyncPort

    def acquire_shared(self, extent: Extent, owner: RangeCopy) -> None:
        """Part of ResyncPort.  Readers are kept out too: while the member writes a block, it cannot tell the
        old content from a good one.
        """
        self.port.acquire_exclusive(extent, owner)

    def release(self, lock: Lock) -> None:
        """Part of ResyncPort."""
        self.port.release(lock)

    def ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer],
        on_answer: Callable[[Frame | None], None],
        code: int = 0,
    ) -> None:
        """Part of ResyncPort."""
        self.port.ask(member, type_, extent, payload, on_answer, code)

    def found_bad(self, finder: Resync, member: int, extent: Extent) -> None:
        """Part of ResyncPort: the source of a repair has rot of its own.

        What a repair finds that another one called for is let be: the first has seen all there is, and two
        bad copies of one block would call for each other for ever.
        """
        if not self._patients[finder.target].queue[0][1]:
            self._found(member, extent, by_repair=True)

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        """Part of ResyncPort."""
        return self.port.choose_source(resync, {*without, resync.target})

    def may_go_on(self, resync: Resync) -> bool:
        """Part of ResyncPort: it is little, and urgent."""
        return True

    def spent(self, resync: Resync, length_bytes: int) -> None:
        """Part of ResyncPort."""

    def advanced(self, resync: Resync) -> None:
        """Part of ResyncPort: writes go to the member anyway."""

    def finished(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        """Part of ResyncPort."""
        member = resync.target
        patient = self._patients[member]
        patient.running = None
        extent, by_repair = patient.queue.popleft()
        if failed_member is not None and extent.length_bytes > STORED_BLOCK_BYTES:
            half = align_up(
                extent.length_bytes // 2, STORED_BLOCK_BYTES
            )  # one bad block must not hide the others
            patient.queue.appendleft(
                (Extent(extent.offset_bytes + half, extent.length_bytes - half), by_repair)
            )
            patient.queue.appendleft((Extent(extent.offset_bytes, half), by_repair))
        elif resync.good_bytes < extent.length_bytes:
            self._over(member, extent, reason if failed_member is not None else "")
        else:  # good by now: the host wrote it, or it is the good half of what was found
            patient.hopeless.discard(extent)
        self._start(member)
