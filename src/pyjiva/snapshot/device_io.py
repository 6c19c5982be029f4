"""A store as a block device on trio: what is quick is done in place, what may wait for the disk in threads.

In place, inside `submit` (`in_place_sys`): reads that the page cache can answer and writes of up to
WRITE_IN_PLACE_BYTES_MAX, which only copy into it.  To threads: reads that miss, larger writes, zeroing (a
punch waits for the write-back of what it removes), the first write after a clean point (it makes the state
durable), writes that copy the rest of a block from a snapshot, atomic writes, maps, hashes and flushes.  A
trip to a thread costs 150 us, so requests for threads are collected until the end of the batch and then
shared out over WORKERS tasks, several per trip, also short maps and hashes, of which a rebuild sends many.

Flushes are grouped: one fdatasync at a time, and it answers every flush and FUA write that was waiting when
it began; one that comes while it runs waits for the next, as its writes may be too late for this one.

A change of the chain, or a step of a merge, wants to be *alone*: what is in flight ends, and what comes
meanwhile and is in its way is held back until it is done.  The files of layers that it leaves behind are
freed a little later, in a thread, beside everything else.
"""

import collections
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from pyjiva.block import BlockStatus, Flush, Read, Request, Space, Unmap, Write, WriteZeroes
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.in_place_sys import InPlace, Verb
from pyjiva.snapshot.layered_store_sys import Store
from pyjiva.snapshot.past_sys import carry_out_past
from pyjiva.snapshot.requests import Hash, Past, Spoil
from pyjiva.snapshot.statistics import ChainStatistics, DiskTimes, no_times
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB

__all__ = ["ChainDevice", "open_chain_device"]

WORKERS: Final = 8  # reads that miss and run at once: a disk's own queue takes over beyond that
REQUESTS_PER_TRIP_MAX: Final = 32  # so that one trip never holds back the answers of a long queue
SPACE_S: Final = 5.0  # between two looks at how full the disk is
FREE_AFTER_S: Final = 2.0  # whoever closes a file last frees it: no controller's window has it open by then
RETIRE_S: Final = 60.0  # between two looks at which regions are not written to any more
QUICK: Final = frozenset({Read, Write})
LOOKS: Final = frozenset({Hash, BlockStatus})
LOOK_BYTES: Final = 64 * KIB  # a look at no more is quicker than the trip
LOOKS_PER_TRIP: Final = 8  # what a rebuild asks for scattered pieces comes sixteen at a time

RunInThread = Callable[[Callable[[], None]], Awaitable[None]]
"""Run a blocking call while other tasks go on.  Simulations give one that lets virtual time pass instead.
"""


@attrs.define(eq=False)
class ChainDevice:
    """A BlockDevice over `store`, which stays the caller's to close after `run` has ended."""

    store: Store
    _batch: EndOfBatch
    _in_thread: RunInThread | None = None
    """None: a thread of trio's pool."""
    _clock: Callable[[], float] = trio.current_time
    space: Space | None = attrs.field(default=None, init=False)
    """Part of SpaceSource; at most SPACE_S old, unless the disk hangs."""
    chain_changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set by a change of the chain, for whoever looks what is to be merged; replaced then."""
    submit: Callable[[Request | Hash | Spoil | Past], None] = attrs.field(init=False)
    """See BlockDevice."""
    _in_place: InPlace = attrs.field(init=False)
    _open_verbs: dict[type, Verb] = attrs.field(init=False)
    """Those of `_in_place` when nobody is alone."""
    _thread_verbs: dict[type, Verb] = attrs.field(init=False)
    _queue: collections.deque[Any] = attrs.field(factory=collections.deque, init=False)
    _flush_waiters: list[Any] = attrs.field(factory=list, init=False)
    _registered: bool = attrs.field(default=False, init=False)
    _idle_workers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _flush_wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    _waiting: int = attrs.field(default=0, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)
    _closed: bool = attrs.field(default=False, init=False)
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=partial(trio.CapacityLimiter, WORKERS + 2), init=False
    )
    """Our own, so that nobody else's slow calls hold the disk up."""
    _started_at: dict[object, float] = attrs.field(factory=dict, init=False)
    """Start of what each task has in a thread now; oldest first."""
    _zeroings: int = attrs.field(default=0, init=False)
    _zeroed_bytes: int = attrs.field(default=0, init=False)
    _flushes: int = attrs.field(default=0, init=False)
    _flush_s: float = attrs.field(default=0.0, init=False)
    disk_times: DiskTimes = attrs.field(factory=no_times, init=False)
    """How long a thread had each request; of flushes, how long each fdatasync took."""
    _retire_at: float = attrs.field(default=0.0, init=False)
    _one_alone: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _dropped: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when there are layers to be freed; replaced then."""
    _held_back: list[Any] = attrs.field(factory=list, init=False)
    _in_the_way_of: Extent | None = attrs.field(default=None, init=False)
    """While somebody is alone: what overlaps it is held back; None: everything is."""

    def __attrs_post_init__(self) -> None:
        self._in_place = InPlace(self.store, self._queue_for_thread, self._wait_for_flush)
        self.submit = self._in_place.submit
        self._open_verbs = {
            Read: self._in_place.read,
            Write: self._in_place.write,
            Unmap: self._zero,
            WriteZeroes: self._zero,
            Flush: self._wait_for_flush,
            BlockStatus: self._queue_for_thread,
            Hash: self._queue_for_thread,
            Spoil: self._queue_for_thread,
            Past: self._queue_for_thread,
        }
        self._in_place.verbs = self._open_verbs
        self._thread_verbs = {
            Read: self._read_in_thread,
            Write: self._write_in_thread,
            Unmap: self._zero_in_thread,
            WriteZeroes: self._zero_in_thread,
            BlockStatus: self._map_in_thread,
            Hash: self._hash_in_thread,
            Spoil: self._spoil_in_thread,
            Past: self._past_in_thread,
        }
        self._idle.set()
        self._retire_at = self._clock() + RETIRE_S

    @property
    def size_bytes(self) -> int:
        """Size of the volume."""
        return self.store.size_bytes

    def _zero(self, request: Unmap | WriteZeroes) -> None:
        self._zeroings += 1
        self._zeroed_bytes += request.length_bytes
        self._queue_for_thread(request)

    def _queue_for_thread(self, request: Any) -> None:
        if self._closed:
            self._refuse(request)
            return
        self._waiting += 1
        self._queue.append(request)
        if not self._registered:
            self._registered = True
            self._batch.at_end(self._wake_workers)

    def _wait_for_flush(self, request: Flush | Write | WriteZeroes) -> None:
        if self._closed:
            self._refuse(request)
            return
        self._waiting += 1
        self._flush_waiters.append(request)
        if not self._registered:
            self._registered = True
            self._batch.at_end(self._wake_workers)

    def _refuse(self, request: Any) -> None:
        request.error = StorageError(StorageFailure.NOT_READY, f"{self.store.path}: is being closed")
        request.done(request)

    def _wake_workers(self) -> None:
        self._registered = False
        if self._queue:
            self._idle_workers.unpark(count=len(self._queue))
        if self._flush_waiters:
            self._flush_wanted.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what `submit` queues, until cancelled; what is queued then, and later, is refused.

        Cancelling waits for calls that are in a thread: a disk that hangs holds it up.
        """
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(WORKERS):
                    nursery.start_soon(self._work)
                nursery.start_soon(self._run_flushes)
                nursery.start_soon(self._watch_space)
                nursery.start_soon(self._free_dropped)
                task_status.started()
        finally:
            self._closed = True
            left: list[Any] = [*self._queue, *self._flush_waiters]
            self._queue.clear()
            self._flush_waiters.clear()
            for request in left:
                self._waiting -= 1
                self._refuse(request)
            self._end_batch()

    async def _work(self) -> None:
        while True:
            if not self._queue:
                await self._idle_workers.park()
                continue
            trip = self._take_trip()
            began_at = self._clock()
            try:
                await self._call(trip, partial(self._carry_out, trip))
            except trio.Cancelled:  # before the thread started
                self._queue.extendleft(reversed(trip))
                raise
            took_ns = int((self._clock() - began_at) * 1e9)
            for request in trip:
                if (times := self.disk_times.get(type(request))) is not None:
                    times.add(took_ns)
                if request.error is None and getattr(request, "force_unit_access", False):
                    self._flush_waiters.append(request)
                    self._flush_wanted.set()
                else:
                    self._waiting -= 1
                    request.done(request)
            self._end_batch()

    def _take_trip(self) -> list[Any]:
        """This worker's share of the queue.  What may take long goes alone: no read waits for a hash."""
        queue = self._queue
        share = min(-(-len(queue) // WORKERS), REQUESTS_PER_TRIP_MAX)
        trip = [queue.popleft()]
        if type(trip[0]) in QUICK:
            while len(trip) < share and type(queue[0]) in QUICK:
                trip.append(queue.popleft())
        elif _is_short_look(trip[0]):
            while len(trip) < LOOKS_PER_TRIP and queue and _is_short_look(queue[0]):
                trip.append(queue.popleft())
        return trip

    def _carry_out(self, trip: list[Any]) -> None:
        """In a thread."""
        for request in trip:
            try:
                self._thread_verbs[type(request)](request)
            except StorageError as error:
                request.error = error

    async def _run_flushes(self) -> None:
        while True:
            await self._flush_wanted.wait()
            self._flush_wanted = trio.Event()
            if not self._flush_waiters:
                continue
            waiters, self._flush_waiters = self._flush_waiters, []
            began_at = self._clock()
            retire = began_at >= self._retire_at
            if retire:
                self._retire_at = began_at + RETIRE_S
            try:
                await self._call(waiters, partial(self._flush_in_thread, waiters, retire=retire))
            except trio.Cancelled:
                self._flush_waiters[:0] = waiters
                raise
            self._flushes += 1
            took_s = self._clock() - began_at
            self._flush_s += took_s
            self.disk_times[Flush].add(int(took_s * 1e9))
            for request in waiters:
                self._waiting -= 1
                request.done(request)
            self._end_batch()

    def _flush_in_thread(self, waiters: list[Any], *, retire: bool) -> None:
        try:
            self.store.flush()
        except StorageError as error:
            for request in waiters:
                request.error = StorageError(error.failure, error.detail)
            return
        if retire:
            # If it cannot be stored, more regions count as written than are; the next time makes up for it.
            with contextlib.suppress(StorageError):
                self.store.retire_regions()

    async def _watch_space(self) -> None:
        await self._run_in_thread(self._begin)
        while True:
            await trio.sleep(SPACE_S)
            await self._run_in_thread(self._measure_space)

    def _begin(self) -> None:
        """In a thread."""
        with contextlib.suppress(StorageError):  # writes in place are as all others then
            self.store.begin_in_place()
        self._measure_space()

    def _measure_space(self) -> None:
        """In a thread."""
        try:
            self.space = self.store.space()
        except StorageError:  # the verbs will meet it too, and say so
            self.space = None

    async def _free_dropped(self) -> None:
        while True:
            await self._dropped.wait()
            self._dropped = trio.Event()
            await trio.sleep(FREE_AFTER_S)
            await self._run_in_thread(self.store.free_dropped)

    async def _call(self, owner: object, call: Callable[[], None]) -> None:
        """Run `call` in a thread, with its age in the books."""
        key = id(owner)
        self._started_at[key] = self._clock()
        try:
            await self._run_in_thread(call)
        finally:
            del self._started_at[key]

    async def _run_in_thread(self, call: Callable[[], None]) -> None:
        if self._in_thread is None:
            await trio.to_thread.run_sync(call, limiter=self._limiter)
        else:
            await self._in_thread(call)

    def _end_batch(self) -> None:
        if self._waiting == 0:
            self._idle.set()
        self._batch.end()

    def _read_in_thread(self, request: Read) -> None:
        request.data = (self.store.read(request.offset_bytes, request.length_bytes),)

    def _write_in_thread(self, request: Write) -> None:
        write = self.store.write_atomic if request.atomic else partial(self.store.write, sums=request.sums)
        write(request.offset_bytes, request.length_bytes, request.data)

    def _zero_in_thread(self, request: Unmap | WriteZeroes) -> None:
        self.store.zero(request.offset_bytes, request.length_bytes)

    def _map_in_thread(self, request: BlockStatus) -> None:
        request.allocated = self.store.allocated(Extent(request.offset_bytes, request.length_bytes))

    def _hash_in_thread(self, request: Hash) -> None:
        if request.verify:
            self.store.verify(Extent(request.offset_bytes, request.length_bytes))
        request.digest = self.store.hash_range(request.offset_bytes, request.length_bytes)

    def _spoil_in_thread(self, request: Spoil) -> None:
        self.store.spoil(Extent(request.offset_bytes, request.length_bytes))

    def _past_in_thread(self, request: Past) -> None:
        carry_out_past(self.store, request)

    async def change(self, call: Callable[[], None]) -> None:
        """Run `call`, which changes the chain, in a thread, alone.

        Raises ConfigError, StorageError: what it raises.
        """
        await self.alone(None, call)
        self.chain_changed.set()
        self.chain_changed = trio.Event()

    async def alone(self, extent: Extent | None, call: Callable[[], None]) -> None:
        """Run `call` in a thread while no request that overlaps `extent` is in flight; None: none at all."""
        async with self._one_alone:
            self._in_place.verbs = dict.fromkeys(self._open_verbs, self._hold_back)
            try:
                await self._wait_in_flight()
                if extent is not None:
                    self._in_the_way_of = extent
                    self._let_go()
                await self._call(call, call)
            finally:
                self._in_place.verbs, self._in_the_way_of = self._open_verbs, None
                self._let_go()
                if self.store.has_dropped:
                    self._dropped.set()

    def _hold_back(self, request: Any) -> None:
        """Instead of a verb, while somebody is alone or about to be."""
        if self._in_the_way_of is None or _overlaps(request, self._in_the_way_of):
            self._held_back.append(request)
        else:
            self._open_verbs[type(request)](request)

    def _let_go(self) -> None:
        """Go on with what was held back and is not in the way any more."""
        held, self._held_back = self._held_back, []
        for request in held:
            self.submit(request)
        self._end_batch()

    async def aside(self, call: Callable[[], None], *, wait: bool = True) -> None:
        """Run `call`, which needs the chain to stay as it is and no request to wait, in a thread.

        Raises StorageError: what it raises; NOT_READY: it would have to wait, and is not to.
        """
        if not wait and self._one_alone.locked():
            raise StorageError(StorageFailure.NOT_READY, "the chain is being changed")
        async with self._one_alone:
            await self._call(call, call)

    async def wait_idle(self) -> None:
        """Wait until nothing that was submitted is queued, in a thread, or held back for somebody."""
        while self._waiting or self._held_back:
            await self._wait_in_flight(at_least_once=True)

    async def _wait_in_flight(self, *, at_least_once: bool = False) -> None:
        """Wait until nothing that was submitted is queued or in a thread."""
        while self._waiting or at_least_once:
            at_least_once = False
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()

    def oldest_operation_s(self) -> float:
        """For how long the oldest disk operation has been in its thread; 0 when there is none."""
        for started_at in self._started_at.values():
            return self._clock() - started_at
        return 0.0

    @property
    def requests(self) -> int:
        """How many there have been that read or change data, since the device was opened."""
        return self._in_place.reads + self._in_place.writes + self._zeroings

    def statistics(self) -> ChainStatistics:
        """Counters since the device was opened."""
        quick = self._in_place
        return ChainStatistics(
            reads=quick.reads,
            read_bytes=quick.read_bytes,
            reads_missed=quick.reads_missed,
            writes=quick.writes,
            written_bytes=quick.written_bytes,
            zeroings=self._zeroings,
            zeroed_bytes=self._zeroed_bytes,
            flushes=self._flushes,
            flush_s=self._flush_s,
            waiting=self._waiting,
        )


def _is_short_look(request: Any) -> bool:
    verifies = type(request) is Hash and request.verify  # that reads from the disk, whatever is in memory
    return type(request) in LOOKS and request.length_bytes <= LOOK_BYTES and not verifies


def _overlaps(request: Any, extent: Extent) -> bool:
    """Whether the request has a range, and it touches `extent`."""
    if type(request) is Flush:
        return False
    start = request.offset_bytes
    return bool(start < extent.end_bytes and extent.offset_bytes < start + request.length_bytes)


@asynccontextmanager
async def open_chain_device(
    path: str | Path, *, size_bytes: int, block_size_bytes: int, batch: EndOfBatch
) -> AsyncIterator[ChainDevice]:
    """A device over a directory that belongs to no replicated volume, for a target without replication.

    At the end of a body that did not fail everything is flushed.  Raises ConfigError, StorageError.
    """
    store = Store.open_or_create(
        path,
        volume_id="local",
        replica_id=0,
        volume_name="local",
        size_bytes=size_bytes,
        block_size_bytes=block_size_bytes,
    )
    try:
        async with trio.open_nursery() as nursery:
            device = ChainDevice(store, batch)
            await nursery.start(device.run)
            yield device
            await device.wait_idle()
            await trio.to_thread.run_sync(_settle, store)
            nursery.cancel_scope.cancel()
    finally:
        store.close()


def _settle(store: Store) -> None:
    store.flush()
    store.mark_clean()
