"""Make one replica's bytes equal to another's: compare, copy what differs, compare again.  Pure.

Used for a rebuild (the whole volume, or what the target missed, while the host writes) and for reconciling
after an unclean end (the extents that may differ, before anything is served).

    span ──no data on either side──▶ next span
      │ data
      ▼
    chunk: hash both ──equal──▶ next chunk
      │ different
      ▼
    map the source's holes, UNMAP them at the target, copy the rest, hash both ──equal──▶ next chunk
                                                                      │ different: the copy failed

What the target is known to have missed (`Work.compare_first` is false) begins with the map of the holes.

While a span or a chunk is looked at, a shared lock keeps writers out of it, and only out of it; `advanced`
moves the border below which writes go to the target too *before* the lock is given back.  So no write is
ever merged into bytes that have not arrived (longhorn#4354), and none is missed.  Holes stay holes.  Each
chunk is proved equal by its hash; Jiva and Longhorn compare names at the end.

Before each range the volume chooses the source anew, so that several share the work.  A source that is lost
is replaced, and the range begun again; what was asked before then counts no more.  What the target was to
change is waited for first: a write that is still on its way when the lock is given back could land on a
host's.  A piece that a source
cannot read, as its blocks have rotted, is asked of the others, and if none has all of it, in halves, down to
a block.  No single source can prove such a range then: the target verifies what it was given.
"""

import collections
import enum
from collections.abc import Callable, Sequence, Set
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer, Lock
from pyjiva.controller.background import Turn
from pyjiva.controller.dirty_map import Work
from pyjiva.errors import LocalProtocolError, RemoteProtocolError
from pyjiva.extent import Extent, merge_extents
from pyjiva.replication import Flag, Frame, FrameType, Status, decode_extents
from pyjiva.units import MIB, STORED_BLOCK_BYTES, align_down

__all__ = ["CHUNK_BYTES", "SPAN_BYTES", "Resync", "ResyncPort", "ResyncStep"]

CHUNK_BYTES: Final = 1 * MIB  # what writers may have to wait for: about 5 ms to copy on this class of machine
SQUEEZE_AGAIN: Final = 16  # pieces that go as they are after one that lz4 could not make smaller
SPAN_BYTES: Final = 1024 * MIB  # one question skips this much of holes; writers wait for one round trip


class ResyncPort(Protocol):
    """What a resync needs of the volume."""

    def acquire_shared(self, extent: Extent, owner: "Resync") -> None:
        """Call `owner.lock_held(lock)` when nobody writes to `extent` any more."""

    def release(self, lock: Lock) -> None:
        """Let writers in again."""

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

    def choose_source(self, resync: "Resync", without: Set[int]) -> int | None:
        """A member that has everything, and is not among `without`; None: there is no other."""

    def found_bad(self, finder: "Resync", member: int, extent: Extent) -> None:
        """`member` has a block in `extent` that is not what was written."""

    def may_go_on(self, resync: "Resync") -> bool:
        """Whether the next range may be begun now; if not, `resync.go_on()` is called when it may."""

    def spent(self, resync: "Resync", length_bytes: int) -> None:
        """So much data was read, to be compared or copied."""

    def advanced(self, resync: "Resync") -> None:
        """Writes below `resync.position` must go to the target from now on."""

    def finished(self, resync: "Resync", failed_member: int | None, reason: str) -> None:
        """It is over: well (None), or because of `failed_member`."""


class ResyncStep(enum.Enum):
    """What the machine waits for."""

    PACING = "its turn"
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


@attrs.define(eq=False)
class Resync:
    """One copy from `source` to `target` of all that `work` has, which may grow meanwhile."""

    source: int
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
    step: ResyncStep = attrs.field(default=ResyncStep.LOCKING, init=False)
    turn: Turn = attrs.field(factory=Turn, init=False)
    """When its next range may be begun: the port's business."""
    _total_bytes: int = attrs.field(init=False)
    _data_until: int = attrs.field(default=0, init=False)
    """The last probe saw data from `position` up to here."""
    _range: Extent = attrs.field(default=Extent(0, 0), init=False)
    """The span or chunk that is locked."""
    _lock: Lock | None = attrs.field(default=None, init=False)
    _hashes: dict[int, bytes] = attrs.field(factory=dict, init=False)
    _maps: dict[int, list[Extent]] = attrs.field(factory=dict, init=False)
    _holes: list[Extent] = attrs.field(factory=list, init=False)
    _data: collections.deque[Extent] = attrs.field(factory=collections.deque, init=False)
    _turn: int = attrs.field(default=0, init=False)
    """Counts how often a range was begun; an answer to an earlier one is not looked at."""
    _unfit: set[int] = attrs.field(factory=set, init=False)
    """Members that cannot be the source of this range, or of this piece."""
    _plain: int = attrs.field(default=0, init=False)
    """So many pieces are to be asked for as they are."""
    _mixed: bool = attrs.field(default=False, init=False)
    """Whether a piece of this range came from another member than the rest."""
    _left: bool = attrs.field(default=False, init=False)
    """Whether a block of this range, which nobody can read, was left as it is, or spoilt at the target."""
    _orphaned: bool = attrs.field(default=False, init=False)
    """The source was lost while the target changes its bytes: that is to end before anything else begins."""

    def __attrs_post_init__(self) -> None:
        self._total_bytes = self.work.remaining_bytes(0)

    def start(self) -> None:
        """Begin."""
        self._next()

    def cancel(self) -> None:
        """Stop; `finished` is not called.  Answers that still come are ignored."""
        self.step = ResyncStep.OVER
        self._turn += 1
        self._unlock()

    def fraction_done(self) -> float:
        """From 0 to 1, by bytes gone through."""
        if not self._total_bytes:
            return 1.0
        return max(0.0, 1 - self.remaining_bytes() / self._total_bytes)

    def remaining_bytes(self) -> int:
        """What is still to be gone through, as far as is known."""
        return self.work.remaining_bytes(self.position)

    # --- the walk

    def _next(self) -> None:
        """Lock the next range, or finish."""
        extent = self.work.next_extent(self.position)
        if extent is None:
            self.step = ResyncStep.OVER
            self.port.finished(self, None, "")
            return
        if extent.offset_bytes > self.position:
            # Nothing lacks in between, also no write under way: from now on those go to the target too.
            self.position = extent.offset_bytes
            self.port.advanced(self)
        if not self.port.may_go_on(self):
            self.step = ResyncStep.PACING
            return
        self._unfit.clear()
        source = self.port.choose_source(self, self._unfit)
        if source is not None:  # else the old one; if that is lost too, it says so itself
            self.source = source
        if self._in_data or not self.work.compare_first:
            border = align_down(self.position, CHUNK_BYTES) + CHUNK_BYTES
        else:
            border = self.position + SPAN_BYTES
        self._range = Extent(self.position, min(border, extent.end_bytes) - self.position)
        self.step = ResyncStep.LOCKING
        self.port.acquire_shared(self._range, self)

    def go_on(self) -> None:
        """Part of pacing: see ResyncPort.may_go_on."""
        if self.step is ResyncStep.PACING:
            self._next()

    @property
    def _in_data(self) -> bool:
        return self._data_until > self.position

    def lock_held(self, lock: Lock) -> None:
        """Writers are out of the range that was asked for."""
        if self.step is ResyncStep.OVER:
            self.port.release(lock)
            return
        self._lock = lock
        self._begin()

    def _begin(self) -> None:
        self._turn += 1
        self._mixed = self._left = self._orphaned = False
        if self.if_bad:
            self.step = ResyncStep.CHECKING
            self._ask(self.target, FrameType.HASH, self._range, code=Flag.VERIFY)
        elif not self.work.compare_first:
            self._map()
        elif self._in_data:
            self._ask_both(ResyncStep.HASHING, FrameType.HASH)
        else:
            self._ask_both(ResyncStep.PROBING, FrameType.BLOCK_STATUS)

    def _ask_both(self, step: ResyncStep, type_: FrameType) -> None:
        self.step = step
        self._hashes, self._maps = {}, {}
        turn = self._turn
        for member in (self.source, self.target):
            if self.step is step and self._turn == turn:  # else the first is lost
                self._ask(member, type_, self._range)

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
        """Begin the range again with another source, if there is one."""
        self._unfit.add(self.source)
        other = self.port.choose_source(self, self._unfit)
        if other is None:
            return False
        self.source = other
        if self._lock is not None:
            self._begin()
        return True

    def member_lost(self, member: int) -> None:
        """`member` is gone, whatever is waited for: when it comes back it may be behind."""
        if self.step is ResyncStep.OVER or member not in (self.source, self.target):
            return
        if member == self.source and self.step in (ResyncStep.UNMAPPING, ResyncStep.WRITING):
            self._orphaned = True
        elif member == self.target or not self._try_another():
            self._fail(member, f"{self.step.value}: it was lost")

    def _answered(self, member: int, frame: Frame | None) -> None:
        """An answer, or None because `member` is lost.  Raises RemoteProtocolError: the answer makes no
        sense.
        """
        if self.step is ResyncStep.OVER:
            return
        if frame is None or frame.code != Status.OK:
            self._refused(member, frame)
            return
        match self.step:
            case ResyncStep.CHECKING:
                self.good_bytes += self._range.length_bytes
                self._advance(self._range.end_bytes)
            case ResyncStep.PROBING:
                self._maps[member] = decode_extents(frame.payload, within=self._range)
                if len(self._maps) == 2:
                    self._probed()
            case ResyncStep.HASHING | ResyncStep.VERIFYING:
                if not frame.payload:
                    raise RemoteProtocolError("a hash without bytes")
                self._hashes[member] = bytes(frame.payload)
                if self._mixed and self.step is ResyncStep.VERIFYING:
                    self._advance(self._range.end_bytes)
                elif len(self._hashes) == 2:
                    self._hashed()
            case ResyncStep.MAPPING:
                self._mapped(frame)
            case ResyncStep.UNMAPPING:
                self._changed()
            case ResyncStep.READING:
                self._read(frame)
            case ResyncStep.WRITING:
                self._data.popleft()
                self._changed()
            case ResyncStep.PACING | ResyncStep.LOCKING | ResyncStep.OVER:
                raise LocalProtocolError(f"answer while the resync waits for {self.step.value}")

    def _refused(self, member: int, frame: Frame | None) -> None:
        if frame is not None and frame.code == Status.BAD_CHECKSUM and self.step is ResyncStep.READING:
            self._read_bad()
            return
        if frame is not None and frame.code == Status.BAD_CHECKSUM and self.step is ResyncStep.CHECKING:
            self._map()
            return
        if frame is None and member == self.source and self._try_another():
            return
        why = "it was lost" if frame is None else f"status {frame.code}"
        self._fail(member, f"{self.step.value} of {self._range.length_bytes} bytes: {why}")

    def _read_bad(self) -> None:
        """The source cannot read a piece.  It is no worse for that than the target: it is not given up."""
        piece = self._data[0]
        halves = _halves(piece)
        if self.keep_lost and halves:
            self._split(halves)
            return
        self._mixed = True
        self._unfit.add(self.source)
        other = self.port.choose_source(self, self._unfit)
        if other is not None or not halves:  # else which block it is will be seen
            self.port.found_bad(self, self.source, piece)
        if other is not None:
            self.source = other
            self._read_piece()
        elif halves:
            self._split(halves)
        elif self.keep_lost:
            self._left = True
            self._data.popleft()
            self._copy_on()
        elif not self.if_bad:
            # Or the volume would wait for ever for a copy that it cannot have.
            self._left = True
            self.step = ResyncStep.WRITING
            self._ask(self.target, FrameType.SPOIL, piece)
        else:
            self._fail(self.target, f"no other replica has a good copy of {piece}")

    def _split(self, halves: tuple[Extent, Extent]) -> None:
        self._data.popleft()
        self._data.extendleft(reversed(halves))
        self._copy_on()

    def _probed(self) -> None:
        data = merge_extents(extent for extents in self._maps.values() for extent in extents)
        if data:
            self._data_until = data[0].end_bytes
            border = align_down(data[0].offset_bytes, CHUNK_BYTES)
            self._advance(max(self.position, border))
        else:
            self._advance(self._range.end_bytes)

    def _hashed(self) -> None:
        self.port.spent(self, self._range.length_bytes)
        if self._hashes[self.source] == self._hashes[self.target]:
            self.compared_bytes += self._range.length_bytes
            self._advance(self._range.end_bytes)
        elif self.step is ResyncStep.HASHING:
            self._map()
        else:
            self._fail(self.target, f"{self._range} differs after it was copied")

    def _map(self) -> None:
        self.step = ResyncStep.MAPPING
        self._ask(self.source, FrameType.BLOCK_STATUS, self._range)

    def _mapped(self, frame: Frame) -> None:
        allocated = decode_extents(frame.payload, within=self._range)
        self._data = collections.deque(allocated)
        self._holes, position = [], self._range.offset_bytes
        for extent in [*allocated, Extent(self._range.end_bytes, 0)]:
            if extent.offset_bytes > position:
                self._holes.append(Extent(position, extent.offset_bytes - position))
            position = extent.end_bytes
        self._copy_on()

    def _copy_on(self) -> None:
        """The next hole, then the next piece of data, then the proof."""
        if self._holes:
            self.step = ResyncStep.UNMAPPING
            self._ask(self.target, FrameType.UNMAP, self._holes.pop())
        elif self._data:
            self.step = ResyncStep.READING
            self._unfit.clear()
            if self._mixed and (source := self.port.choose_source(self, self._unfit)) is not None:
                self.source = source  # not the one that stood in for it
            self._read_piece()
        elif self._left:
            self._advance(self._range.end_bytes)
        elif self._mixed:
            self.step = ResyncStep.VERIFYING
            self._ask(self.target, FrameType.HASH, self._range, code=Flag.VERIFY)
        else:
            self._ask_both(ResyncStep.VERIFYING, FrameType.HASH)

    def _read_piece(self) -> None:
        self._ask(self.source, FrameType.READ, self._data[0], code=0 if self._plain else Flag.LZ4)

    def _read(self, frame: Frame) -> None:
        extent, received = self._data[0], len(frame.payload)
        squeezed = not self._plain and frame.length_bytes == extent.length_bytes > received
        if not squeezed and received != extent.length_bytes:
            raise RemoteProtocolError(f"READ of {extent.length_bytes} bytes answered by {received}")
        self._plain = 0 if squeezed else (self._plain or SQUEEZE_AGAIN + 1) - 1
        self.copied_bytes += extent.length_bytes
        self.sent_bytes += received
        self.port.spent(self, extent.length_bytes)
        self.step = ResyncStep.WRITING
        self._ask(self.target, FrameType.WRITE, extent, (frame.payload,), Flag.LZ4 if squeezed else 0)

    def _changed(self) -> None:
        """Nothing that changes the target is on its way any more."""
        if not self._orphaned:
            self._copy_on()
        elif not self._try_another():
            self._fail(self.target, "its source was lost")

    def _advance(self, position: int) -> None:
        self.work.finished(self._range.offset_bytes, position)
        self.position = position
        self.port.advanced(self)
        self._unlock()
        self._next()

    def _fail(self, member: int, reason: str) -> None:
        self.step = ResyncStep.OVER
        self._unlock()
        self.port.finished(self, member, reason)

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
