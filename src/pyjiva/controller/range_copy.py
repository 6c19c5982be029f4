"""Make one range of a replica equal to another's, while a lock keeps writers out of it.  Pure.

    lock ──▶ probe both: where has one of them data ──▶ done
      ├────▶ hash both ──equal──▶ done
      │          │ different
      ├────▶ map the source's holes, UNMAP them at the target, copy the rest, hash both ──equal──▶ done
      │          ▲ bad                                        different: the copy failed ◀─┘
      └────▶ ask the target whether it has a bad block ──none──▶ done

The walk (`resync`) says with which question a range begins.  Holes stay holes.  Each range is proved equal by
its hash; Jiva and Longhorn compare names at the end.

A source that is lost is replaced, and the range begun again; what was asked before then counts no more.  What
the target was to change is waited for first: a write that is still on its way when the lock is given back
could land on a host's.  A piece that a source cannot read, as its blocks have rotted, is asked of the others,
and if none has all of it, in halves, down to a block.  No single source can prove such a range then: the
target verifies what it was given.
"""

import collections
import enum
from collections.abc import Callable, Sequence, Set
from typing import Protocol

import attrs

from pyjiva.block import Buffer, Lock
from pyjiva.errors import LocalProtocolError, RemoteProtocolError
from pyjiva.extent import Extent, merge_extents
from pyjiva.replication import Flag, Frame, FrameType, Status, decode_extents
from pyjiva.units import STORED_BLOCK_BYTES, align_down

__all__ = ["RangeCopy", "RangePort", "RangeStep", "Walk"]


class RangeStep(enum.Enum):
    """What the machine waits for."""

    LOCKING = "a lock"
    CHECKING = "what the target thinks of its own"
    PROBING = "block status of both"
    HASHING = "hash of both"
    MAPPING = "block status of the source's chunk"
    UNMAPPING = "a hole at the target"
    READING = "data from the source"
    WRITING = "data at the target"
    VERIFYING = "hash of both after the copy"
    OVER = "nothing"


class RangePort(Protocol):
    """What a range needs of the volume."""

    def ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer],
        on_answer: Callable[[Frame | None], None],
        code: int = 0,
    ) -> None:
        """Send a frame with the flags `code`; `on_answer` gets the answer (None: the member is lost)."""

    def release(self, lock: Lock) -> None:
        """Let writers in again."""


class Walk(Protocol):
    """The copy of which this is one range."""

    @property
    def target(self) -> int:
        """The member that gets the bytes."""

    @property
    def if_bad(self) -> bool:
        """See Resync."""

    @property
    def keep_lost(self) -> bool:
        """See Resync."""

    def choose_source(self, without: Set[int]) -> int | None:
        """A member that has everything, and is not among `without`; None: there is no other."""

    def found_bad(self, member: int, extent: Extent) -> None:
        """`member` has a block in `extent` that is not what was written."""

    def squeezes(self) -> bool:
        """Whether the next piece is to be asked for squeezed."""

    def compared(self, length_bytes: int, *, equal: bool) -> None:
        """So much was hashed on both sides."""

    def copied(self, length_bytes: int, received_bytes: int, *, asked_squeezed: bool) -> None:
        """So much data came from the source, in so many bytes."""

    def was_good(self, length_bytes: int) -> None:
        """So much was let be, as nothing in it was bad."""

    def probed(self, range_: "RangeCopy", data: Sequence[Extent]) -> None:
        """Only in `data`, sorted, has either side anything.  The lock is given back after that."""

    def equal(self, range_: "RangeCopy") -> None:
        """Both sides are equal.  The lock is given back after that."""

    def ended(self, range_: "RangeCopy") -> None:
        """It has no lock any more, and is over: well."""

    def failed(self, range_: "RangeCopy", member: int, reason: str) -> None:
        """It has no lock any more, and is over: because of `member`."""


@attrs.define(eq=False)
class RangeCopy:
    """One range of `walk.target`, made equal to that of `source`."""

    extent: Extent
    source: int
    first: RangeStep
    """PROBING, HASHING, or MAPPING; with `walk.if_bad` the target is asked before that."""
    walk: Walk
    port: RangePort
    step: RangeStep = attrs.field(default=RangeStep.LOCKING, init=False)
    _lock: Lock | None = attrs.field(default=None, init=False)
    _hashes: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _maps: dict[int, list[Extent]] = attrs.field(factory=dict, init=False)
    _holes: list[Extent] = attrs.field(factory=list, init=False)
    _data: collections.deque[Extent] = attrs.field(factory=collections.deque, init=False)
    _turn: int = attrs.field(default=0, init=False)
    """Counts how often it was begun; an answer to an earlier time is not looked at."""
    _unfit: set[int] = attrs.field(factory=set, init=False)
    """Members that cannot be the source of this range, or of this piece."""
    _squeezed: bool = attrs.field(default=False, init=False)
    """Whether the piece under way was asked for squeezed."""
    _mixed: bool = attrs.field(default=False, init=False)
    """Whether a piece of it came from another member than the rest."""
    _left: bool = attrs.field(default=False, init=False)
    """Whether a block of it, which nobody can read, was left as it is, or spoilt at the target."""
    _orphaned: bool = attrs.field(default=False, init=False)
    """The source was lost while the target changes its bytes: that is to end before anything else begins."""

    def lock_held(self, lock: Lock) -> None:
        """Writers are out of it."""
        if self.step is RangeStep.OVER:
            self.port.release(lock)
            return
        self._lock = lock
        self._begin()

    def cancel(self) -> None:
        """Stop, and give the lock back; nothing of the walk is called any more."""
        self.step = RangeStep.OVER
        self._unlock()

    def source_lost(self) -> None:
        """The source is gone, whatever is waited for: when it comes back it may be behind."""
        if self.step in (RangeStep.UNMAPPING, RangeStep.WRITING):
            self._orphaned = True
        elif not self._try_another():
            self._fail(self.source, f"{self.step.value}: it was lost")

    def _begin(self) -> None:
        self._turn += 1
        self._mixed = self._left = self._orphaned = False
        if self.walk.if_bad:
            self.step = RangeStep.CHECKING
            self._ask(self.walk.target, FrameType.HASH, self.extent, code=Flag.VERIFY)
        elif self.first is RangeStep.MAPPING:
            self._map()
        elif self.first is RangeStep.HASHING:
            self._ask_both(RangeStep.HASHING, FrameType.HASH)
        else:
            self._ask_both(RangeStep.PROBING, FrameType.BLOCK_STATUS)

    def _ask_both(self, step: RangeStep, type_: FrameType) -> None:
        self.step = step
        self._hashes, self._maps = {}, {}
        turn = self._turn
        for member in (self.source, self.walk.target):
            if self.step is step and self._turn == turn:  # else the first is lost
                self._ask(member, type_, self.extent)

    def _ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer] = (),
        code: int = 0,
    ) -> None:
        turn = self._turn

        def on_answer(frame: Frame | None) -> None:
            if turn == self._turn:
                self._answered(member, frame)

        self.port.ask(member, type_, extent, payload, on_answer, code)

    def _try_another(self) -> bool:
        """Begin again with another source, if there is one."""
        self._unfit.add(self.source)
        other = self.walk.choose_source(self._unfit)
        if other is None:
            return False
        self.source = other
        if self._lock is not None:
            self._begin()
        return True

    def _answered(self, member: int, frame: Frame | None) -> None:
        """An answer, or None because `member` is lost.  Raises RemoteProtocolError: the answer makes no
        sense.
        """
        if self.step is RangeStep.OVER:
            return
        if frame is None or frame.code != Status.OK:
            self._refused(member, frame)
            return
        match self.step:
            case RangeStep.CHECKING:
                self.walk.was_good(self.extent.length_bytes)
                self._done()
            case RangeStep.PROBING:
                self._maps[member] = decode_extents(frame.payload, within=self.extent)
                if len(self._maps) == 2:
                    self._probed()
            case RangeStep.HASHING | RangeStep.VERIFYING:
                if not frame.payload:
                    raise RemoteProtocolError("a hash without bytes")
                self._hashes[member] = bytes(frame.payload)
                if self._mixed and self.step is RangeStep.VERIFYING:
                    self._done()
                elif len(self._hashes) == 2:
                    self._hashed()
            case RangeStep.MAPPING:
                self._mapped(frame)
            case RangeStep.UNMAPPING:
                self._changed()
            case RangeStep.READING:
                self._read(frame)
            case RangeStep.WRITING:
                self._data.popleft()
                self._changed()
            case RangeStep.LOCKING | RangeStep.OVER:
                raise LocalProtocolError(f"answer while a range waits for {self.step.value}")

    def _refused(self, member: int, frame: Frame | None) -> None:
        if frame is not None and frame.code == Status.BAD_CHECKSUM and self.step is RangeStep.READING:
            self._read_bad()
            return
        if frame is not None and frame.code == Status.BAD_CHECKSUM and self.step is RangeStep.CHECKING:
            self._map()
            return
        if frame is None and member == self.source and self._try_another():
            return
        why = "it was lost" if frame is None else f"status {frame.code}"
        self._fail(member, f"{self.step.value} of {self.extent.length_bytes} bytes: {why}")

    def _read_bad(self) -> None:
        """The source cannot read a piece.  It is no worse for that than the target: it is not given up."""
        piece = self._data[0]
        halves = _halves(piece)
        if self.walk.keep_lost and halves:
            self._split(halves)
            return
        self._mixed = True
        self._unfit.add(self.source)
        other = self.walk.choose_source(self._unfit)
        if other is not None or not halves:  # else which block it is will be seen
            self.walk.found_bad(self.source, piece)
        if other is not None:
            self.source = other
            self._read_piece()
        elif halves:
            self._split(halves)
        elif self.walk.keep_lost:
            self._left = True
            self._data.popleft()
            self._copy_on()
        elif not self.walk.if_bad:
            # Or the volume would wait for ever for a copy that it cannot have.
            self._left = True
            self.step = RangeStep.WRITING
            self._ask(self.walk.target, FrameType.SPOIL, piece)
        else:
            self._fail(self.walk.target, f"no other replica has a good copy of {piece}")

    def _split(self, halves: tuple[Extent, Extent]) -> None:
        self._data.popleft()
        self._data.extendleft(reversed(halves))
        self._copy_on()

    def _probed(self) -> None:
        data = merge_extents(extent for extents in self._maps.values() for extent in extents)
        self.step = RangeStep.OVER
        self.walk.probed(self, data)
        self._unlock()
        self.walk.ended(self)

    def _hashed(self) -> None:
        equal = self._hashes[self.source] == self._hashes[self.walk.target]
        self.walk.compared(self.extent.length_bytes, equal=equal)
        if equal:
            self._done()
        elif self.step is RangeStep.HASHING:
            self._map()
        else:
            self._fail(self.walk.target, f"{self.extent} differs after it was copied")

    def _map(self) -> None:
        self.step = RangeStep.MAPPING
        self._ask(self.source, FrameType.BLOCK_STATUS, self.extent)

    def _mapped(self, frame: Frame) -> None:
        allocated = decode_extents(frame.payload, within=self.extent)
        self._data = collections.deque(allocated)
        self._holes, position = [], self.extent.offset_bytes
        for extent in [*allocated, Extent(self.extent.end_bytes, 0)]:
            if extent.offset_bytes > position:
                self._holes.append(Extent(position, extent.offset_bytes - position))
            position = extent.end_bytes
        self._copy_on()

    def _copy_on(self) -> None:
        """The next hole, then the next piece of data, then the proof."""
        if self._holes:
            self.step = RangeStep.UNMAPPING
            self._ask(self.walk.target, FrameType.UNMAP, self._holes.pop())
        elif self._data:
            self.step = RangeStep.READING
            self._unfit.clear()
            if self._mixed and (source := self.walk.choose_source(self._unfit)) is not None:
                self.source = source  # not the one that stood in for it
            self._read_piece()
        elif self._left:
            self._done()
        elif self._mixed:
            self.step = RangeStep.VERIFYING
            self._ask(self.walk.target, FrameType.HASH, self.extent, code=Flag.VERIFY)
        else:
            self._ask_both(RangeStep.VERIFYING, FrameType.HASH)

    def _read_piece(self) -> None:
        self._squeezed = self.walk.squeezes()
        code = Flag.LZ4 if self._squeezed else 0
        self._ask(self.source, FrameType.READ, self._data[0], code=code)

    def _read(self, frame: Frame) -> None:
        extent, received = self._data[0], len(frame.payload)
        squeezed = self._squeezed and frame.length_bytes == extent.length_bytes > received
        if not squeezed and received != extent.length_bytes:
            raise RemoteProtocolError(f"READ of {extent.length_bytes} bytes answered by {received}")
        self.walk.copied(extent.length_bytes, received, asked_squeezed=self._squeezed)
        self.step = RangeStep.WRITING
        code = Flag.LZ4 if squeezed else 0
        self._ask(self.walk.target, FrameType.WRITE, extent, (frame.payload,), code)

    def _changed(self) -> None:
        """Nothing that changes the target is on its way any more."""
        if not self._orphaned:
            self._copy_on()
        elif not self._try_another():
            self._fail(self.walk.target, "its source was lost")

    def _done(self) -> None:
        self.step = RangeStep.OVER
        self.walk.equal(self)
        self._unlock()
        self.walk.ended(self)

    def _fail(self, member: int, reason: str) -> None:
        self.step = RangeStep.OVER
        self._unlock()
        self.walk.failed(self, member, reason)

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            self.port.release(lock)


def _halves(piece: Extent) -> tuple[Extent, Extent] | None:
    """`piece` cut between two blocks; None if it lies within one."""
    start, end = piece.offset_bytes, piece.end_bytes
    middle = align_down(start + piece.length_bytes // 2, STORED_BLOCK_BYTES)
    if middle <= start:
        middle = align_down(start, STORED_BLOCK_BYTES) + STORED_BLOCK_BYTES
    if middle >= end:
        return None
    return Extent(start, middle - start), Extent(middle, end - middle)
