"""Host requests over the replicas: locks, fan-out, answers.  Pure; hot.

Theory.  Every host request takes a lock on its range (`block.IntervalLocks`), so that of two overlapping
requests of which one writes only one is in flight, and all replicas apply overlapping writes in one order
(DESIGN G2).

- A read is answered from the files of a readable member on this machine, if what it asks for is in memory
  there (`windows`).  Else it goes to the readable member with the least in flight; if that member is lost or
  refuses, to the next.
- A write goes to all members that take writes, and is answered when nobody that `must_ack` is missing.  A
  member that was lost stays in `must_ack` until a record without it is committed (`roster`), so a write
  waits exactly as long as it must.
- To a rebuilding member goes the part of a write that lies below `synced_until`: the copy brings the rest.
  It holds a shared lock on the chunk under way, so no write ever lands in a chunk that is being copied.
- A flush goes to all that must acknowledge.
- What cannot be done now is *parked*, without a lock (a rebuild must get past it), and goes on when it can
  (DESIGN G5); after `park_limit_s` the host is told NOT READY.  A write that was sent is never taken back:
  its lock is kept until the replicas have settled it.

`must_ack`, `writable`, `readable` and `rebuilding` are sets of members as bit masks, set by the volume from
the roster and nowhere else.

Failures of a write: if every member refused it, none can be blamed: the host gets the error, and all but
one have *diverged*, for a failed write may have left different bytes: they are taken out and rebuilt, and
until they are out the range stays locked and counts as not stable.  So has one that is being rebuilt and was
sent it, whether it refused it or not.  If only some refused it, they are lost and the write goes on.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, assert_never

import attrs

from pyjiva.block import (
    BlockStatus,
    Flush,
    Hosts,
    IntervalLocks,
    Lock,
    Read,
    Request,
    Times,
    Unmap,
    Write,
    WriteZeroes,
)
from pyjiva.buffers import Buffer, first_bytes
from pyjiva.controller.change_request import ChangeRequest, FillRequest
from pyjiva.controller.dirty_map import DirtyMap
from pyjiva.controller.path_times import PathTimes
from pyjiva.controller.windows import Windows
from pyjiva.errors import RemoteProtocolError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.replication import (
    ANSWER,
    DONE_TYPES,
    EPOCH_MAX,
    FAILURE_OF_STATUS,
    PAYLOAD_BYTES_MAX,
    Flag,
    Frame,
    FrameType,
    Refusal,
    RequestFrame,
    Status,
    decode_done,
    decode_extents,
    decode_message,
    encode_message,
)
from pyjiva.units import STORED_BLOCK_BYTES, align_down, align_up

__all__ = ["DataPath", "Link", "LockOwner"]

_NOTHING_DONE: Final = frozenset({StorageFailure.NO_SPACE, StorageFailure.NOT_SUPPORTED})
"""How a replica refuses a change that it has certainly not made."""
# Members of enums by names of their own: to look one up in its class takes five times as long.
_READ: Final = FrameType.READ
_WRITE: Final = FrameType.WRITE
_UNMAP: Final = FrameType.UNMAP
_BLOCK_STATUS: Final = FrameType.BLOCK_STATUS
_FENCED: Final = int(Status.FENCED)
_READS: Final = (_READ, _BLOCK_STATUS)
_DONE: Final = int(FrameType.DONE)


class Link(Protocol):
    """Where the frames for one member go: a connection, or a list in tests."""

    def send(self, frame: RequestFrame) -> None:
        """Queue `frame` for the replica; never waits, never raises."""


class LockOwner(Protocol):
    """Something other than a host request that holds a lock: a rebuild."""

    def lock_held(self, lock: Lock) -> None:
        """Go on: the range is yours."""


@attrs.define(eq=False)
class Pending:
    """Frames that were sent and not all answered."""

    type: FrameType
    waiting: int
    """Members whose answer is missing."""
    request: "Request | ChangeRequest | FillRequest | None"
    """The host's; None once it was told NOT READY."""
    lock: Lock | None
    frame: RequestFrame | None
    """What a member that comes back is sent again; None: reads are asked of others, calls have failed."""
    extent: tuple[int, int]
    at_s: float
    sent_ns: int | None = None
    """Of a host's request, by the clock of `times`."""
    lost: int = 0
    """Members of `waiting` whose answer cannot come any more: they wait to be given up, or for a replay."""
    failed: int = 0
    """Members that refused."""
    error: StorageError | None = None
    on_answer: Callable[[Frame | None], None] | None = None
    """Internal calls: gets the answer, or None when the member was lost."""
    change: Change | None = None
    """Of a CHANGE."""
    unsure: int = 0
    """Members that refused a CHANGE and may have made it all the same: see `_settle`."""
    refusal: StorageError | None = None
    """No member has made the change, for this reason."""
    copying: int = 0
    """Members of `waiting` that were sent it while they are rebuilt, perhaps a part only.  One that was in
    sync until then may be `lost` too: it is waited for twice, for the answer and to be given up.
    """
    copied: int = 0
    """Members that were sent it while they are rebuilt, and have carried it out."""
    window: int = 0
    """How many windows there had been when it was sent."""


@attrs.define(eq=False)
class MemberIo:
    """One member as the data path sees it."""

    bit: int
    answers: dict[FrameType, Times]
    """How long it took to answer."""
    link: Link | None = None
    in_flight: int = 0
    synced_until: int = 0
    """While rebuilding: everything below this offset (bytes) is copied."""


@attrs.define(eq=False)
class DataPath:
    """See the module.  `members` are the replica ids in the order of their bits."""

    member_ids: Sequence[int]
    size_bytes: int
    on_failed: Callable[[int, str], None]
    """A member must be lost: (id, reason)."""
    on_diverged: Callable[[int, str], None]
    """A member holds other bytes than the rest: it must be lost, and not come back but by a rebuild."""
    on_fenced: Callable[[int, int], None]
    """A member refused our epoch: (id, the epoch it has promised)."""
    on_bad_block: Callable[[int, Extent], None]
    """A member has a block in this range that is not what was written."""
    on_changed: Callable[[Change, bool | None], None]
    """A change of the snapshots is over, and was carried out or not; None: no member knows."""
    takes_fills: Callable[[int], bool]
    """Whether a rebuilding member has the snapshot that is being filled."""
    park_limit_s: float
    present_generation: Callable[[], int] = lambda: 0
    """Of the snapshots (`lineage`)."""
    on_changing: Callable[[], None] = lambda: None
    """A change of the snapshots begins: from now on members may differ in which they have."""
    epoch: int = 0
    now_s: float = 0.0
    """Set by the volume's clock; coarse."""
    clock: Callable[[], float] | None = None
    """The time now, for the lease; None: there is none to keep."""
    times: PathTimes = attrs.field(factory=lambda: PathTimes(lambda: 0))
    """Of the volume's clock."""
    windows: Windows = attrs.field(factory=Windows)
    """Through which reads are answered without asking a replica."""
    lease_until_s: float = attrs.field(default=float("-inf"), init=False)
    """Reads may be answered before this moment (`lease`)."""
    must_ack: int = attrs.field(default=0, init=False)
    writable: int = attrs.field(default=0, init=False)
    readable: int = attrs.field(default=0, init=False)
    rebuilding: int = attrs.field(default=0, init=False)
    serving: bool = attrs.field(default=False, init=False)
    writes_open: bool = attrs.field(default=False, init=False)
    reads_open: bool = attrs.field(default=False, init=False)
    members: dict[int, MemberIo] = attrs.field(factory=dict, init=False)
    dirty: dict[int, DirtyMap] = attrs.field(factory=dict, init=False)
    """By member that does not take all writes, and had everything at some time in this epoch."""
    _suspect: int = attrs.field(default=0, init=False)
    """Members whose disk has refused something: what was written before may be gone too (fsync(2): EIO)."""
    _of_mask: dict[int, tuple[MemberIo, ...]] = attrs.field(factory=dict, init=False)
    _locks: IntervalLocks = attrs.field(factory=IntervalLocks, init=False)
    _pending: dict[int, Pending] = attrs.field(factory=dict, init=False)
    _writes: dict[int, None] = attrs.field(factory=dict, init=False)
    """Ids of host writes in flight, oldest first: what `stable` is counted from."""
    _last_id: int = attrs.field(default=0, init=False)
    _own_ids: int = attrs.field(default=0, init=False)
    """How many of them were for what no host has asked for."""
    _parked: collections.deque[tuple[float, Request | ChangeRequest | FillRequest]] = attrs.field(
        factory=collections.deque, init=False
    )
    _min_copies: int = attrs.field(default=1, init=False)
    _withheld: list[tuple[float, Request | ChangeRequest | FillRequest]] = attrs.field(
        factory=list, init=False
    )
    """Carried out by fewer members than it takes to answer: answered when there are enough again."""
    _unconfirmed: list[tuple[float, Read | BlockStatus]] = attrs.field(factory=list, init=False)
    """Reads that were carried out and may be old news: answered when the lease is renewed."""
    _queued: dict[Lock, float] = attrs.field(factory=dict, init=False)
    """Locks of host requests that wait for others, and since when."""
    _go_on: collections.deque[Lock] = attrs.field(factory=collections.deque, init=False)
    _going_on: bool = attrs.field(default=False, init=False)
    _dispatch_of: Mapping[type[Any], Callable[[Lock], None]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for id_ in self.member_ids:
            self.add_member(id_)
        self._dispatch_of = {
            Read: self._dispatch_read,
            Write: self._dispatch_write,
            Unmap: self._dispatch_write,
            WriteZeroes: self._dispatch_write,
            BlockStatus: self._dispatch_block_status,
            ChangeRequest: self._dispatch_change,
            FillRequest: self._dispatch_fill,
        }

    def add_member(self, member_id: int) -> None:
        """One more that can be talked to, if it is not known yet; a bit is never given to another one."""
        if member_id not in self.members:
            self.members[member_id] = MemberIo(1 << len(self.members), self.times.member(member_id))

    def forget(self, member_id: int) -> None:
        """It does not belong to the volume any more; if it ever does again, all of it is compared."""
        self.dirty.pop(member_id, None)
        self._suspect |= self.members[member_id].bit

    # --- host requests

    def submit(self, request: Request | ChangeRequest | FillRequest) -> None:
        """Start a host request (`block.BlockDevice`), or a change of the snapshots."""
        if type(request) is Flush:
            self._dispatch_flush(request)
            return
        assert not isinstance(request, Flush)
        offset, length = request.offset_bytes, request.length_bytes
        if offset < 0 or length < 0 or offset + length > self.size_bytes:
            reason = f"{length} bytes at {offset}: the volume has {self.size_bytes}"
            _complete(request, StorageError(StorageFailure.OUT_OF_RANGE, reason))
        elif not length:
            _complete(request, None)
        else:
            exclusive = type(request) is not Read and type(request) is not BlockStatus
            lock = self._locks.acquire(offset, length, exclusive=exclusive, owner=request)
            if not lock.blockers:
                self._dispatch_of[type(request)](lock)
            else:
                self._queued[lock] = self.now_s

    def _dispatch(self, lock: Lock) -> None:
        dispatch = self._dispatch_of.get(type(lock.owner))
        if dispatch is not None:
            dispatch(lock)
        elif lock.owner is None:  # its host was told NOT READY meanwhile
            self._release(lock)
        else:
            lock.owner.lock_held(lock)

    def _release(self, lock: Lock) -> None:
        held = self._locks.release(lock)
        if held:
            self._go_on.extend(held)
            if not self._going_on:  # else a call further up does it: many that park one another nest too deep
                self._dispatch_held()

    def _dispatch_held(self) -> None:
        self._going_on = True
        try:
            while self._go_on:
                lock = self._go_on.popleft()
                self._dispatch(lock)
                self._queued.pop(lock, None)
        finally:
            self._going_on = False

    def _park(self, lock: Lock) -> None:
        """Put a host request that holds its lock aside."""
        self._parked.append((self._queued.get(lock, self.now_s), lock.owner))
        self.times.parked.set(running=True)
        self._release(lock)

    def _dispatch_read(self, lock: Lock) -> None:
        request = lock.owner
        if not self.reads_open:
            self._park(lock)
            return
        if request.length_bytes > PAYLOAD_BYTES_MAX:
            self._refuse_length(lock, request)
            return
        if not (self.windows.bit & self.readable and self._read_here(lock, request)):
            self._ask_one(_READ, lock, request)
            if not self.windows.bit:
                self.windows.want(self.size_bytes, self.readable, self.call)

    def _read_here(self, lock: Lock, request: Read) -> bool:
        """Answer a read from the files of a replica on this machine, if that can be done without a wait."""
        data = self.windows.read(request.offset_bytes, request.length_bytes)
        # After the read, as for what a replica answers.
        if data is None or (self.clock is not None and self.clock() >= self.lease_until_s):
            return False
        self._last_id += 1
        self.windows.reads += 1
        self._release(lock)
        request.data = (data,)
        request.done(request)
        return True

    def _dispatch_block_status(self, lock: Lock) -> None:
        if not self.reads_open:
            self._park(lock)
            return
        self._ask_one(FrameType.BLOCK_STATUS, lock, lock.owner)

    def _ask_one(self, type_: FrameType, lock: Lock, request: Read | BlockStatus, without: int = 0) -> None:
        best: MemberIo | None = None
        for member in self._of(self.readable & ~without):
            if best is None or member.in_flight < best.in_flight:
                best = member
        assert best is not None
        assert best.link is not None
        self._last_id = id_ = self._last_id + 1
        offset, length = request.offset_bytes, request.length_bytes
        frame = RequestFrame(type_, id_, self.epoch, self.stable(), offset, length)
        sent_ns = self.times.clock_ns()
        pending = Pending(
            type_, best.bit, request, lock, None, (offset, length), self.now_s, sent_ns, 0, without
        )
        self._pending[id_] = pending
        best.in_flight += 1
        best.link.send(frame)

    def _dispatch_write(self, lock: Lock) -> None:
        request = lock.owner
        if not self.writes_open:
            self._park(lock)
            return
        payload: Sequence[Buffer] = ()
        code = 0
        if type(request) is Write:
            type_ = _WRITE
            payload = request.data
            offset, length = request.offset_bytes, request.length_bytes
            if length > PAYLOAD_BYTES_MAX:
                self._refuse_length(lock, request)
                return
            if request.atomic:
                code = Flag.ATOMIC
            is_forced = request.force_unit_access
        else:
            type_ = _UNMAP if type(request) is Unmap else FrameType.WRITE_ZEROES
            offset, length = request.offset_bytes, request.length_bytes
            is_forced = type_ is not _UNMAP and request.force_unit_access
        if is_forced:
            code |= Flag.FORCE_UNIT_ACCESS
        self._last_id = id_ = self._last_id + 1
        self._writes[id_] = None  # before the frame, which must not call this write stable
        frame = RequestFrame(type_, id_, self.epoch, self.stable(), offset, length, code, payload)
        sent_ns = self.times.clock_ns()
        pending = Pending(type_, self.must_ack, request, lock, frame, (offset, length), self.now_s, sent_ns)
        pending.lost, pending.window = self.must_ack & ~self.writable, self.windows.opened
        self._pending[id_] = pending
        for member in self._of(self.writable):
            member.in_flight += 1
            assert member.link is not None
            member.link.send(frame)
        if self.rebuilding:
            self._write_to_rebuilding(id_, code, pending, payload)
        if self.dirty:
            self._mark_dirty(offset, length)

    def _mark_dirty(self, offset: int, length: int) -> None:
        """A write is on its way: whom does it not go to?"""
        for member_id, dirty in self.dirty.items():
            start = max(offset, self.members[member_id].synced_until)
            dirty.mark(start, offset + length - start)

    def _write_to_rebuilding(self, id_: int, code: int, pending: Pending, payload: Sequence[Buffer]) -> None:
        """Send the part of a write that a rebuilding member has a copy under; the rest comes with the
        copy.
        """
        offset, length = pending.extent
        for member in self._of(self.rebuilding):
            part = min(length, member.synced_until - offset)
            if part <= 0:
                continue
            cut = first_bytes(payload, part) if payload else ()
            frame = RequestFrame(pending.type, id_, self.epoch, self.stable(), offset, part, code, cut)
            pending.waiting |= member.bit
            pending.copying |= member.bit
            member.in_flight += 1
            assert member.link is not None
            member.link.send(frame)

    def _dispatch_flush(self, request: Flush) -> None:
        if not self.writes_open:
            self._parked.append((self.now_s, request))
            self.times.parked.set(running=True)
            return
        self._last_id = id_ = self._last_id + 1
        frame = RequestFrame(FrameType.FLUSH, id_, self.epoch, self.stable())
        sent_ns = self.times.clock_ns()
        pending = Pending(FrameType.FLUSH, self.must_ack, request, None, frame, (0, 0), self.now_s, sent_ns)
        pending.lost = self.must_ack & ~self.writable
        self._pending[id_] = pending
        self._send(self.writable, frame)

    def _send(self, mask: int, frame: RequestFrame) -> None:
        """To each member of `mask`; a write does this in its own place, as it is hot."""
        for member in self._of(mask):
            member.in_flight += 1
            assert member.link is not None
            member.link.send(frame)

    def _dispatch_change(self, lock: Lock) -> None:
        """The lock is that of the whole volume: no other request is in flight."""
        request = lock.owner
        why_not = "" if self.writes_open else "the volume is parked"
        if (
            request.change.before != self.present_generation()
        ):  # whoever asked for the one before did not wait for it
            why_not = "the snapshots have changed meanwhile"
        if why_not:
            self._release(lock)
            _complete(request, StorageError(StorageFailure.NOT_READY, why_not))
            return
        payload = (encode_message(request.change),)
        self._own_ids += 1
        self._last_id = id_ = self._last_id + 1
        frame = RequestFrame(FrameType.CHANGE, id_, self.epoch, self.stable(), payload=payload)
        place = (0, request.length_bytes)
        pending = Pending(FrameType.CHANGE, self.must_ack, request, lock, frame, place, self.now_s)
        pending.lost, pending.change = self.must_ack & ~self.writable, request.change
        self._pending[id_] = pending
        self.on_changing()
        if request.change.kind is ChangeKind.REVERT:
            for member_id in self.dirty:
                self.dirty[member_id] = DirtyMap(self.size_bytes, everything=True)
        self._send(self.writable, frame)

    def _dispatch_fill(self, lock: Lock) -> None:
        request = lock.owner
        if not self.writes_open:
            self._park(lock)
            return
        payload = (request.data,)
        self._own_ids += 1
        self._last_id = id_ = self._last_id + 1
        offset, length = request.offset_bytes, request.length_bytes
        type_, place = FrameType.PAST_WRITE, (offset, length)
        frame = RequestFrame(type_, id_, self.epoch, request.number, offset, length, payload=payload)
        pending = Pending(type_, self.must_ack, request, lock, frame, place, self.now_s)
        pending.lost = self.must_ack & ~self.writable
        self._pending[id_] = pending
        for member_id in self._ids(self.rebuilding):
            if self.takes_fills(member_id):
                pending.copying |= self.members[member_id].bit
        pending.waiting |= self.writable | pending.copying
        self._send(self.writable | pending.copying, frame)

    @property
    def changing(self) -> bool:
        """Whether a change of the snapshots is under way."""
        return any(pending.change is not None for pending in self._pending.values())

    def resize(self, size_bytes: int) -> None:
        """The volume has become larger: what is added is zeros on all members."""
        self.size_bytes = size_bytes
        self.dirty = {member_id: dirty.grown(size_bytes) for member_id, dirty in self.dirty.items()}

    def _refuse_length(self, lock: Lock, request: Read | Write) -> None:
        reason = f"{request.length_bytes} bytes in one request: at most {PAYLOAD_BYTES_MAX}"
        self._release(lock)
        _complete(request, StorageError(StorageFailure.NOT_SUPPORTED, reason))

    def stable(self) -> int:
        """Every host write with an id up to this one is on all members that must have it.

        0 until the volume serves: what is copied then must be remembered until a record says that all is
        equal.
        """
        if not self.serving:
            return 0
        for oldest in self._writes:
            return oldest - 1
        return self._last_id

    @property
    def hosts(self) -> Hosts:
        """What hosts have asked for and wait for, without what is parked."""
        waiting = any(isinstance(pending.request, Request) for pending in self._pending.values())
        return Hosts(self._last_id - self._own_ids, waiting)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is in flight, not even a ping, and nothing waits."""
        return not (self._pending or self._parked or self._withheld or self._unconfirmed or self._queued)

    # --- internal calls (pings, promises, rebuilds)

    def call(
        self,
        member_id: int,
        type_: FrameType,
        on_answer: Callable[[Frame | None], None],
        *,
        offset_bytes: int = 0,
        length_bytes: int = 0,
        payload: Sequence[Buffer] = (),
        code: int = 0,
        number: int | None = None,
    ) -> None:
        """Send one frame to one connected member; `on_answer` gets its answer, or None if the member is
        lost first.  `number` is that of a snapshot, in frames that name one.
        """
        member = self.members[member_id]
        assert member.link is not None, f"replica {member_id} is not connected"
        self._own_ids += 1
        self._last_id = id_ = self._last_id + 1
        stable = self.stable() if number is None else number
        frame = RequestFrame(type_, id_, self.epoch, stable, offset_bytes, length_bytes, code, payload)
        self._pending[id_] = Pending(
            type_, member.bit, None, None, None, (offset_bytes, length_bytes), self.now_s, on_answer=on_answer
        )
        member.in_flight += 1
        member.link.send(frame)

    def acquire(self, extent: Extent, owner: LockOwner, *, exclusive: bool = False) -> None:
        """Keep writers (`exclusive`: and readers) out of `extent`; `owner.lock_held` is called when that is
        so, perhaps at once.
        """
        lock = self._locks.acquire(extent.offset_bytes, extent.length_bytes, exclusive=exclusive, owner=owner)
        if lock.held:
            owner.lock_held(lock)

    def release(self, lock: Lock) -> None:
        """Give back what `acquire` gave."""
        self._release(lock)

    # --- answers

    def answered(self, member_id: int, frame: Frame) -> None:
        """`member_id` answered: one request, or by a DONE many.

        Raises RemoteProtocolError: nothing like it was asked; the connection is to be closed.
        """
        member = self.members[member_id]
        if frame.type == _DONE:
            for request_id in decode_done(frame.payload):
                if member.link is not None:
                    self._done(member_id, member, request_id, frame.epoch)
            return
        if member.link is None:  # given up over a frame that came with this one: it gets a replay
            return
        pending = self._pending.get(frame.request_id)
        if pending is None or frame.type & 0x7F != pending.type:
            raise _not_open(member_id, frame.request_id)
        self._book_answer(member_id, member, frame.request_id, pending)
        if frame.code == _FENCED:
            if frame.epoch > EPOCH_MAX:
                raise RemoteProtocolError(
                    f"replica {member_id} says that it has promised epoch {frame.epoch}"
                )
            if pending.on_answer is not None:
                del self._pending[frame.request_id]
            self.on_fenced(member_id, frame.epoch)
        elif pending.on_answer is not None:
            del self._pending[frame.request_id]
            pending.on_answer(frame)
        elif frame.code:
            self._refused(member_id, frame, pending)
        elif pending.type is _READ:
            self._read_answered(member_id, frame, pending)
        elif pending.type is _BLOCK_STATUS:
            self._block_status_answered(frame, pending)
        else:
            self._carried_out(member, frame.request_id, pending)

    def _done(self, member_id: int, member: MemberIo, request_id: int, epoch: int) -> None:
        """One of the requests of a DONE."""
        pending = self._pending.get(request_id)
        if pending is None or pending.type not in DONE_TYPES:
            raise _not_open(member_id, request_id)
        self._book_answer(member_id, member, request_id, pending)
        if pending.on_answer is None:
            self._carried_out(member, request_id, pending)
        else:
            del self._pending[request_id]
            payload = memoryview(b"")
            pending.on_answer(Frame(pending.type | ANSWER, Status.OK, request_id, epoch, 0, 0, 0, payload))

    def _book_answer(self, member_id: int, member: MemberIo, request_id: int, pending: Pending) -> None:
        """`member` has answered this one, by whatever frame."""
        if not pending.waiting & member.bit:
            raise _not_open(member_id, request_id)
        member.in_flight -= 1
        if pending.sent_ns is not None:
            member.answers[pending.type].add(self.times.arrived_ns - pending.sent_ns)

    def _carried_out(self, member: MemberIo, request_id: int, pending: Pending) -> None:
        """`member` has what all are to have."""
        if pending.copying & member.bit:
            pending.copying &= ~member.bit
            pending.copied |= member.bit
            if member.bit & pending.lost:
                return
        pending.waiting &= ~member.bit
        if not pending.waiting:
            self._settle(request_id, pending)

    def _read_answered(self, member_id: int, frame: Frame, pending: Pending) -> None:
        request = pending.request
        assert isinstance(request, Read) or request is None
        if len(frame.payload) != pending.extent[1]:
            raise RemoteProtocolError(
                f"replica {member_id} answered a READ of {pending.extent[1]} bytes by {len(frame.payload)}"
            )
        del self._pending[frame.request_id]
        assert pending.lock is not None
        self._release(pending.lock)
        if request is not None:
            request.data = (frame.payload,)
            if self.clock is None or self.clock() < self.lease_until_s:
                request.done(request)
            else:
                self._unconfirmed.append((pending.at_s, request))

    def _block_status_answered(self, frame: Frame, pending: Pending) -> None:
        request = pending.request
        assert isinstance(request, BlockStatus) or request is None
        extents = decode_extents(frame.payload, within=Extent(*pending.extent))
        del self._pending[frame.request_id]
        assert pending.lock is not None
        self._release(pending.lock)
        if request is not None:
            request.allocated = extents
            if self.clock is None or self.clock() < self.lease_until_s:
                request.done(request)
            else:
                self._unconfirmed.append((pending.at_s, request))

    def renew_lease(self, until_s: float) -> None:
        """A majority has confirmed our epoch: what was read meanwhile is as good as new."""
        self.lease_until_s = until_s
        if self._unconfirmed and self.clock is not None and self.clock() < until_s:
            unconfirmed, self._unconfirmed = self._unconfirmed, []
            for _, request in unconfirmed:
                _complete(request, None)

    def _refused(self, member_id: int, frame: Frame, pending: Pending) -> None:
        """A member answered a host request by an error."""
        failure = FAILURE_OF_STATUS.get(frame.code)
        if failure is None:
            raise RemoteProtocolError(f"replica {member_id} refused {pending.type.name}: status {frame.code}")
        bit = self.members[member_id].bit
        if failure is StorageFailure.BAD_CHECKSUM and pending.type is FrameType.READ:
            self._read_refused_as_bad(member_id, frame, pending)
            return
        self.windows.doubt(member_id)
        reason = f"its disk answered {failure.value} to {pending.type.name}"
        if pending.change is not None:
            reason = decode_message(frame.payload, Refusal).reason
            if failure not in _NOTHING_DONE:
                pending.unsure |= bit
        else:
            self._suspect |= bit
        pending.waiting &= ~bit
        pending.lost &= ~bit
        pending.copying &= ~bit
        pending.failed |= bit
        pending.error = StorageError(failure, f"replica {member_id}: {reason}")
        if pending.type in _READS:
            del self._pending[frame.request_id]
            if self.readable & ~bit:
                self.readable &= ~bit
                pending.error = None
                self._ask_again(pending)
                self.on_failed(member_id, reason)
            else:
                self._finish(pending)
        elif not pending.waiting:
            self._settle(frame.request_id, pending)

    def _read_refused_as_bad(self, member_id: int, frame: Frame, pending: Pending) -> None:
        """Ask the others that were not asked yet; the member stays in, and is repaired."""
        del self._pending[frame.request_id]
        tried = pending.failed | self.members[member_id].bit
        assert pending.lock is not None
        if pending.request is None:
            self._release(pending.lock)
        elif self.readable & ~tried:
            assert isinstance(pending.request, Read)
            self._ask_one(FrameType.READ, pending.lock, pending.request, tried)
        elif pending.extent[1] > STORED_BLOCK_BYTES:
            # Each may have rot in another place.
            assert isinstance(pending.request, Read)
            self._release(pending.lock)
            self._read_in_halves(pending.request)
        else:
            detail = f"no replica in sync has a good copy of all of {Extent(*pending.extent)}"
            pending.error = StorageError(StorageFailure.BAD_CHECKSUM, detail)
            self._finish(pending)
        self.on_bad_block(member_id, Extent(*pending.extent))

    def _read_in_halves(self, request: Read) -> None:
        end = request.offset_bytes + request.length_bytes
        middle = align_up(request.offset_bytes + request.length_bytes // 2, STORED_BLOCK_BYTES)
        if middle >= end:
            middle = align_down(end - 1, STORED_BLOCK_BYTES)
        left = 2

        def done(_: Read) -> None:
            nonlocal left
            left -= 1
            if not left:
                request.data = (*halves[0].data, *halves[1].data)
                _complete(request, halves[0].error or halves[1].error)

        halves = (
            Read(request.offset_bytes, middle - request.offset_bytes, done),
            Read(middle, end - middle, done),
        )
        for half in halves:
            self.submit(half)

    def _ask_again(self, pending: Pending) -> None:
        assert pending.lock is not None
        if pending.request is None:
            self._release(pending.lock)
        else:
            self._dispatch(pending.lock)

    def _settle(self, id_: int, pending: Pending) -> None:
        """Every answer of a write or a flush is there: carried out, refused by all, or refused by some."""
        failed = pending.failed & self.must_ack
        lost = pending.failed & self.rebuilding
        error, pending.error, pending.failed = pending.error, None, 0
        refused, diverged = None, 0
        kept = failed & self.readable if failed == self.must_ack else 0
        if kept and pending.change is not None:
            # Who is not sure whether it has made it is broken, and refuses all that comes; if all are, only
            # the next activation finds out.
            pending.refusal = error
            diverged = awaited = pending.unsure & failed if kept & ~pending.unsure else 0
        elif kept and pending.type is FrameType.PAST_WRITE:
            pending.refusal, awaited = error, 0  # a piece that is filled is filled again before it is read
        elif kept:
            # Nobody has it.  One that can be reached keeps what it has, the others become equal to it.
            diverged = awaited = failed & ~(kept & -kept)
            refused, pending.request = pending.request, None
            self._copy_again(pending)
        else:
            lost |= failed
            awaited = failed
        # Until a record without them, or for a replay; if all but they have it, the write is good.
        pending.waiting |= awaited
        pending.lost |= awaited
        if not pending.waiting:
            del self._pending[id_]
            self._writes.pop(id_, None)
            pending.error = pending.refusal
            self._finish(pending)
        if lost or diverged:
            why = f": {error.failure.value}" if error is not None else ""
            reason = f"its disk could not carry out a {pending.type.name}{why}"
            for member_id in self._ids(lost):
                self.on_failed(member_id, reason)
            for member_id in self._ids(diverged):
                self.on_diverged(member_id, reason)
        if refused is not None:
            _complete(refused, error)

    def _copy_again(self, pending: Pending) -> None:
        """Who is being rebuilt has a write that all those refused of whom it is a copy (seed 745281)."""
        for member_id in self._ids(pending.copied & self.rebuilding):
            if member_id in self.dirty:
                self.dirty[member_id].mark(*pending.extent)
            self.on_failed(member_id, f"it has a {pending.type.name} that the others refused")

    def _finish(self, pending: Pending) -> None:
        if pending.change is not None:  # before the lock is given back: what comes next must know
            nobody_knows = pending.error is not None and not self.must_ack & ~pending.unsure
            self.on_changed(pending.change, None if nobody_knows else pending.error is None)
        if self.windows.bit and pending.change is not None:
            self.windows.close()  # another size, perhaps: see whether there is another one
        elif self.windows.bit and pending.type not in _READS:
            # What a window's replica has carried out before it was opened, it may have moved since, too.
            written = pending.type is _WRITE and pending.window == self.windows.opened
            self.windows.told(pending.extent, written=written and pending.error is None)
        if pending.lock is not None:
            self._release(pending.lock)
        if pending.request is None:
            return
        if pending.sent_ns is not None and pending.type in self.times.settled:
            self.times.settled[pending.type].add(self.times.arrived_ns - pending.sent_ns)
        is_read = pending.type in _READS
        if is_read or pending.error is not None or self._has_copies:
            _complete(pending.request, pending.error)
        else:
            self._withheld.append((pending.at_s, pending.request))

    # --- members

    @property
    def _has_copies(self) -> bool:
        """Whether all that must acknowledge are copies enough.  One that joins is none yet: no record says
        that it has everything, so the next controller would not begin from it.
        """
        joining = self.writable & ~self.readable
        return (self.must_ack & ~joining).bit_count() >= self._min_copies

    def set_members(
        self, *, must_ack: int, writable: int, readable: int, rebuilding: int, min_copies: int, serving: bool
    ) -> None:
        """Take over who is in, as the roster sees it now; whatever this settles or opens goes on."""
        self.times.arrived()
        self._suspect &= ~(
            writable & ~self.writable
        )  # all of it was compared; not of one that is still to go
        self.must_ack, self.writable, self.readable, self.rebuilding = (
            must_ack,
            writable,
            readable,
            rebuilding,
        )
        self.serving = serving
        for member_id in [i for i in self.dirty if not serving or self.members[i].bit & writable]:
            del self.dirty[member_id]
        self.reads_open = serving and readable != 0
        self._min_copies = min_copies
        # A member that joins has it all, but no record says so yet: it does not count.
        self.writes_open = serving and readable.bit_count() >= min_copies
        for id_, pending in list(self._pending.items()):
            given_up = pending.lost & ~must_ack
            if given_up and id_ in self._pending:
                pending.lost &= ~given_up
                pending.waiting &= ~given_up | pending.copying
                if not pending.waiting:
                    self._settle(id_, pending)
        if self.writes_open and self._withheld:
            withheld, self._withheld = self._withheld, []
            for _, request in withheld:
                _complete(request, None)
        if self.reads_open or self.writes_open:
            self._unpark()

    def _unpark(self) -> None:
        parked, self._parked = self._parked, collections.deque()
        while parked:
            at_s, request = parked.popleft()
            self.submit(request)
            # Perhaps still waiting: as long as before.
            if self._parked and self._parked[-1][1] is request:
                self._parked[-1] = (at_s, request)
            elif self._queued and (lock := next(reversed(self._queued))).owner is request:
                self._queued[lock] = at_s
        self.times.parked.set(running=bool(self._parked))

    def member_up(self, member_id: int, link: Link) -> None:
        """Frames for `member_id` may go to `link` from now on."""
        member = self.members[member_id]
        member.link, member.in_flight, member.synced_until = link, 0, 0

    def copied(self, member_id: int) -> None:
        """All was copied to `member_id`: what it was sent meanwhile it was sent whole, and its answers count.

        What it was not sent holds a lock, which the copy would have had to wait for; but for a flush, which
        it gets now.
        """
        self.times.arrived()
        member = self.members[member_id]
        bit = member.bit
        for id_, pending in list(self._pending.items()):
            if not pending.lost & bit or id_ not in self._pending:
                continue
            pending.lost &= ~bit
            if pending.type is FrameType.FLUSH:
                assert pending.frame is not None
                self._send(bit, pending.frame)
                continue
            pending.waiting &= ~bit | pending.copying
            if not pending.waiting:
                self._settle(id_, pending)

    def distrust(self, member_id: int) -> None:
        """When `member_id` is lost, all that it holds is to be compared."""
        self._suspect |= self.members[member_id].bit

    def distrust_others(self, member_id: int) -> None:
        """All that the others hold is to be compared with what `member_id` has."""
        for other, member in self.members.items():
            if other != member_id:
                self._suspect |= member.bit
                if other in self.dirty:
                    self.dirty[other] = DirtyMap(self.size_bytes, everything=True)

    def forgot(self) -> None:
        """The only copy is back without what it had not flushed: what it alone had, and no host was told of,
        is done again when it can be.
        """
        again = [each for each in self._withheld if isinstance(each[1], Write | Unmap | WriteZeroes)]
        self._withheld = [each for each in self._withheld if each not in again]
        self._parked.extendleft(reversed(again))
        self.times.parked.set(running=bool(self._parked))

    def member_down(self, member_id: int) -> None:
        """The connection is gone: reads go elsewhere, calls fail, writes wait for the roster's decision."""
        member = self.members[member_id]
        bit = member.bit
        self.windows.lost(member_id)
        self._remember_what_it_lacks(member_id, bit)
        member.link, member.in_flight, member.synced_until = None, 0, 0
        self.readable &= ~bit
        self.writable &= ~bit
        self.rebuilding &= ~bit
        self.reads_open = self.reads_open and self.readable != 0
        self.writes_open = self.writes_open and self.readable.bit_count() >= self._min_copies
        for id_, pending in list(self._pending.items()):
            if not pending.waiting & bit or id_ not in self._pending:
                continue
            if pending.frame is not None:
                pending.lost |= bit
                pending.copying &= ~bit
            else:
                del self._pending[id_]
                if pending.on_answer is not None:
                    pending.on_answer(None)
                else:
                    self._ask_again(pending)

    def _remember_what_it_lacks(self, member_id: int, bit: int) -> None:
        if self._suspect & bit:
            self.dirty[member_id] = DirtyMap(self.size_bytes, everything=True)
        elif self.serving and self.writable & bit:
            self.dirty[member_id] = DirtyMap(self.size_bytes)
        if (dirty := self.dirty.get(member_id)) is not None:
            for pending in self._pending.values():
                # Also what it has refused, while others have still to answer.
                if (pending.waiting | pending.failed) & bit and pending.frame is not None:
                    if pending.change is None:
                        dirty.mark(*pending.extent)
                    elif pending.change.kind is ChangeKind.REVERT:
                        self.dirty[member_id] = DirtyMap(self.size_bytes, everything=True)

    def replay(self, member_id: int) -> None:
        """`member_id` is back with all it had: send it again what it has not answered."""
        member = self.members[member_id]
        assert member.link is not None
        for pending in self._pending.values():
            # Not what was sent to it since it is back: a write that came twice could land after a later
            # one.
            if pending.lost & member.bit:
                pending.lost &= ~member.bit
                member.in_flight += 1
                assert pending.frame is not None
                member.link.send(pending.frame)

    def tick(self, now_s: float) -> None:
        """Take over the time; host requests that waited longer than the limit are answered NOT READY."""
        self.now_s = now_s
        limit = now_s - self.park_limit_s
        error = StorageError(
            StorageFailure.NOT_READY, f"the volume was parked for more than {self.park_limit_s:g} s"
        )
        while self._parked and self._parked[0][0] < limit:
            _complete(self._parked.popleft()[1], error)
        self.times.parked.set(running=bool(self._parked))
        while self._withheld and self._withheld[0][0] < limit:
            _complete(self._withheld.pop(0)[1], error)
        while self._unconfirmed and self._unconfirmed[0][0] < limit:
            read = self._unconfirmed.pop(0)[1]
            _forget_answer(read)
            _complete(read, error)
        for lock in [k for k, at_s in self._queued.items() if at_s < limit]:
            del self._queued[lock]
            request, lock.owner = lock.owner, None
            _complete(request, error)
        for pending in list(self._pending.values()):
            if pending.at_s >= limit:
                break
            if pending.request is not None:
                request, pending.request = pending.request, None
                if pending.frame is not None:  # its data is the host's again; a replay needs it still
                    pending.frame.keep()
                _complete(request, error)

    @property
    def writing(self) -> bool:
        """Whether a host write is on its way, also one whose host has got another answer."""
        return bool(self._writes)

    @property
    def busy(self) -> bool:
        """Whether a host request is in flight or parked."""
        return bool(self._parked) or any(p.request is not None for p in self._pending.values())

    @property
    def waiting_for_others(self) -> int:
        """How many host requests wait for one that overlaps them."""
        return len(self._queued)

    def request_of(self, request_id: int) -> Request | ChangeRequest | FillRequest | None:
        """What was sent under this id, as long as somebody waits for it."""
        pending = self._pending.get(request_id)
        return None if pending is None else pending.request

    def waits_for(self, request: Request | ChangeRequest) -> str:
        """What a request that was submitted and not sent waits for, in words."""
        if any(parked is request for _, parked in self._parked):
            return "enough replicas"
        return "a request that overlaps it"

    @property
    def parked(self) -> int:
        """How many host requests wait for members."""
        return len(self._parked)

    def mask(self, ids: set[int]) -> int:
        """The bits of `ids`."""
        return sum(self.members[i].bit for i in ids)

    def _of(self, mask: int) -> tuple[MemberIo, ...]:
        members = self._of_mask.get(mask)
        if members is None:
            members = tuple(m for m in self.members.values() if m.bit & mask)
            self._of_mask[mask] = members
        return members

    def _ids(self, mask: int) -> list[int]:
        return [i for i, m in self.members.items() if m.bit & mask]


def _not_open(member_id: int, request_id: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"replica {member_id} answered request {request_id}, which is not open")


def _complete(request: Request | ChangeRequest | FillRequest, error: StorageError | None) -> None:
    request.error = error
    match request:
        case (
            Read()
            | Write()
            | Unmap()
            | WriteZeroes()
            | Flush()
            | BlockStatus()
            | ChangeRequest()
            | FillRequest()
        ):
            request.done(request)  # type: ignore[arg-type]  # each class's `done` takes that class
        case _:
            assert_never(request)


def _forget_answer(request: Read | BlockStatus) -> None:
    if isinstance(request, Read):
        request.data = ()
    else:
        request.allocated = ()
