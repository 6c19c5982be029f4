"""A chain device keeps the contract of block devices, works in batches, and flushes for many at once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pyjiva.block import BlockStatus, Flush, Read, Request, Space, Unmap, Write, WriteZeroes
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ChainDevice, Hash, ReplicaState, Spoil, Store, in_place_sys, open_chain_device
from pyjiva.snapshot.device_io import LOOK_BYTES, LOOKS_PER_TRIP, SPACE_S, WORKERS
from pyjiva.snapshot.in_place_sys import WRITE_IN_PLACE_BYTES_MAX
from pyjiva.testing import MemoryDisk, fail_at
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB, MIB
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name

HEAD: Final = "volume-head-000.img"


def open_memory(disk: MemoryDisk, boot_id: str = "b-1") -> Store:
    identity = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


async def in_turn(call: Callable[[], None]) -> None:
    """Instead of a thread: for files in memory."""
    await trio.lowlevel.checkpoint()
    call()


@attrs.define(eq=False)
class Gate:
    """Instead of a thread: calls wait until a test lets them go, in any order."""

    waiting: list[tuple[Callable[[], None], trio.Event]] = attrs.field(factory=list)
    open: bool = False
    """Let everything through: the test has ended."""

    async def in_gate(self, call: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        opened = trio.Event()
        if self.open:
            opened.set()
        self.waiting.append((call, opened))
        with trio.CancelScope(shield=True):  # as a thread, it cannot be stopped half-way
            await opened.wait()
        call()

    async def let_go(self, index: int = 0) -> None:
        """Carry out one call, and wait until everybody has heard of it."""
        self.waiting.pop(index)[1].set()
        await wait_all_tasks_blocked()

    async def let_all_go(self) -> None:
        """Until nothing waits."""
        await wait_all_tasks_blocked()
        while self.waiting:
            await self.let_go()

    def open_for_good(self) -> None:
        """So that a test that failed ends."""
        self.open = True
        for _, opened in self.waiting:
            opened.set()


@attrs.define(eq=False)
class Bench:
    """A device over a memory disk with its tasks running, and the requests that it has answered."""

    disk: MemoryDisk
    store: Store
    device: ChainDevice
    batch: EndOfBatch
    gate: Gate
    done: list[Any] = attrs.field(factory=list)

    async def submit(self, *requests: Request) -> None:
        """Submit as one batch, and wait until the device has done what it can."""
        for request in requests:
            self.device.submit(request)
        self.batch.end()
        await wait_all_tasks_blocked()

    def write(self, offset: int = 0, length: int = 4096, *, fua: bool = False) -> Write:
        return Write(offset, length, [b"w" * length], self.done.append, fua)

    def atomic(self, *, fua: bool = False) -> Write:
        return Write(0, 4096, [b"a" * 4096], self.done.append, fua, atomic=True)

    def read(self, offset: int = 0, length: int = 4096) -> Read:
        return Read(offset, length, self.done.append)

    def flush(self) -> Flush:
        return Flush(self.done.append)

    async def mark(self) -> None:
        """Get the first write, which goes through a thread, out of the way."""
        await self.submit(self.write())
        await self.gate.let_all_go()
        self.done.clear()


@asynccontextmanager
async def open_bench(
    clock: Callable[[], float] = trio.current_time, cached_share: float = 1.0
) -> AsyncIterator[Bench]:
    disk = MemoryDisk(Random(0), cached_share=cached_share)
    store, batch, gate = open_memory(disk), EndOfBatch(), Gate()
    device = ChainDevice(store, batch, in_thread=gate.in_gate, clock=clock)
    bench = Bench(disk, store, device, batch, gate)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        await wait_all_tasks_blocked()
        await gate.let_go()  # the first look at how full the disk is; the next comes much later
        try:
            yield bench
        finally:
            gate.open_for_good()
        await device.wait_idle()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(
    store: Store, in_thread: Callable[[Callable[[], None]], Awaitable[None]] | None = None
) -> AsyncIterator[Driver]:
    batch = EndOfBatch()
    device = ChainDevice(store, batch, in_thread=in_thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        yield Driver(device, batch)
        nursery.cancel_scope.cancel()
    store.close()


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_device_over_real_files_keeps_the_contract(case: Case, tmp_path: Path) -> None:
    store = Store.open_or_create(
        tmp_path, volume_id="v", replica_id=1, volume_name="v", size_bytes=SIZE_BYTES, block_size_bytes=512
    )
    async with running(store) as driver:
        await case(driver)
        model = driver.model
    store = Store.open_or_create(
        tmp_path, volume_id="v", replica_id=1, volume_name="v", size_bytes=SIZE_BYTES, block_size_bytes=512
    )
    assert store.read(0, SIZE_BYTES) == model
    store.close()


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_device_whose_reads_always_miss_keeps_the_contract(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "read_nowait", lambda *_: None)
    monkeypatch.setattr(in_place_sys, "WRITE_IN_PLACE_BYTES_MAX", 0)
    store = Store.open_or_create(
        tmp_path, volume_id="v", replica_id=1, volume_name="v", size_bytes=SIZE_BYTES, block_size_bytes=512
    )
    async with running(store) as driver:
        await case(driver)


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_device_over_a_memory_disk_keeps_the_contract(case: Case) -> None:
    async with running(open_memory(MemoryDisk(Random(0), cached_share=0.5)), in_turn) as driver:
        await case(driver)


async def test_cached_read_and_small_write_are_answered_in_place() -> None:
    async with open_bench() as bench:
        await bench.mark()
        write, read = bench.write(4096), bench.read(4096)
        bench.device.submit(write)
        bench.device.submit(read)
        assert bench.done == [write, read]
        assert read.data == (b"w" * 4096,)


async def test_a_write_in_place_takes_two_calls_of_the_system() -> None:
    async with open_bench() as bench:
        await bench.mark()
        steps: list[str] = []
        bench.disk.before_step = steps.append
        bench.device.submit(bench.write(4096))
        assert steps == [f"write {HEAD}", f"write {HEAD}.sums"]


async def test_first_write_after_a_clean_point_goes_through_a_thread() -> None:
    """It makes the state durable, which waits for the disk."""
    async with open_bench() as bench:
        write = bench.write()
        await bench.submit(write)
        assert bench.done == []
        assert bench.store.state.written_boot_id == ""
        await bench.gate.let_go()
        assert bench.done == [write]
        assert bench.store.state.written_boot_id == "b-1"


async def test_large_write_goes_through_a_thread() -> None:
    async with open_bench() as bench:
        await bench.mark()
        await bench.submit(
            bench.write(0, WRITE_IN_PLACE_BYTES_MAX), bench.write(0, WRITE_IN_PLACE_BYTES_MAX + 1)
        )
        assert [request.length_bytes for request in bench.done] == [WRITE_IN_PLACE_BYTES_MAX]
        await bench.gate.let_go()
        assert len(bench.done) == 2


async def test_misses_of_a_batch_are_shared_out_in_few_trips() -> None:
    async with open_bench(cached_share=0.0) as bench:
        reads = [bench.read(4096 * index) for index in range(64)]
        for read in reads:
            bench.device.submit(read)
        await wait_all_tasks_blocked()
        assert bench.gate.waiting == []  # not before the batch ends
        bench.batch.end()
        await wait_all_tasks_blocked()
        assert len(bench.gate.waiting) == WORKERS
        while bench.gate.waiting:
            await bench.gate.let_go(-1)
        assert set(bench.done) == set(reads)
        assert len(bench.done) == 64
        assert bench.device.statistics().reads_missed == 64


async def test_one_miss_is_one_trip() -> None:
    async with open_bench(cached_share=0.0) as bench:
        await bench.submit(bench.read())
        assert len(bench.gate.waiting) == 1
        await bench.gate.let_go()
        assert len(bench.done) == 1


async def test_read_does_not_wait_for_what_may_take_long() -> None:
    async with open_bench(cached_share=0.0) as bench:
        await bench.mark()
        slow = [Unmap(4096 * index, 512, bench.done.append) for index in range(4)]
        reads = [bench.read(4096 * index) for index in range(20)]
        await bench.submit(*reads[:10], slow[0], slow[1], *reads[10:], slow[2], slow[3])
        calls = [call.args[0] for call, _ in bench.gate.waiting]  # type: ignore[attr-defined]
        assert all(len(trip) == 1 for trip in calls if type(trip[0]) is Unmap)
        assert any(len(trip) > 1 for trip in calls)
        await bench.gate.let_all_go()
        assert set(bench.done) == {*slow, *reads}


async def test_short_looks_share_trips_and_long_ones_go_alone() -> None:
    """A rebuild asks for hashes and maps of many small pieces at once."""
    async with open_bench(cached_share=0.0) as bench:
        await bench.mark()
        done: Any = bench.done.append
        short: list[Any] = []
        for n in range(LOOKS_PER_TRIP):
            short += [Hash(n * 4096, LOOK_BYTES, False, done), BlockStatus(n * 4096, LOOK_BYTES, done)]
        long: list[Any] = [
            Hash(0, LOOK_BYTES + 1, False, done),
            Hash(0, 4096, True, done),  # it reads from the disk
            Hash(4096, 4096, True, done),
            BlockStatus(0, LOOK_BYTES + 1, done),
            Spoil(0, 4096, done),
        ]
        read = bench.read()
        await bench.submit(read, *short, *long)
        trips = [call.args[0] for call, _ in bench.gate.waiting]  # type: ignore[attr-defined]
        trips.sort(key=lambda trip: [read, *short, *long].index(trip[0]))
        assert (
            trips
            == [
                [read],  # it waits for no look
                short[:LOOKS_PER_TRIP],
                short[LOOKS_PER_TRIP:],
                *([request] for request in long),
            ]
        )
        await bench.gate.let_all_go()
        assert set(bench.done) >= {*short, *long}


async def test_answers_of_a_trip_end_a_batch() -> None:
    async with open_bench(cached_share=0.0) as bench:
        ended: list[int] = []
        read = Read(0, 10, lambda _: bench.batch.at_end(lambda: ended.append(1)))
        await bench.submit(read)
        await bench.gate.let_go()
        assert ended == [1]
        flush = Flush(lambda _: bench.batch.at_end(lambda: ended.append(2)))
        await bench.submit(flush)
        await bench.gate.let_go()
        assert ended == [1, 2]


async def test_waiting_flushes_share_one_sync_and_late_ones_wait_for_the_next() -> None:
    async with open_bench() as bench:
        early = [bench.flush() for _ in range(3)]
        await bench.submit(*early)
        late = [bench.flush() for _ in range(2)]
        await bench.submit(*late)
        assert len(bench.gate.waiting) == 1
        await bench.gate.let_go()
        assert bench.done == early
        assert len(bench.gate.waiting) == 1
        await bench.gate.let_go()
        assert bench.done == early + late
        assert bench.device.statistics().flushes == 2


async def test_forced_write_is_answered_by_a_sync_that_began_after_it() -> None:
    async with open_bench() as bench:
        await bench.mark()
        flush, forced = bench.flush(), bench.write(fua=True)
        await bench.submit(flush)
        await bench.submit(forced)
        await bench.gate.let_go()
        assert bench.done == [flush]
        await bench.gate.let_go()
        assert bench.done == [flush, forced]
        bench.disk.power_cut()
        assert bench.disk.content(HEAD)[:4096] == b"w" * 4096


async def test_an_atomic_write_waits_for_the_disk_in_a_thread_and_is_whole_after_a_power_cut() -> None:
    async with open_bench() as bench:
        await bench.mark()
        await bench.submit(bench.flush())
        await bench.gate.let_all_go()
        bench.done.clear()
        await bench.submit(bench.atomic())
        assert bench.done == []
        assert len(bench.gate.waiting) == 1
        await bench.gate.let_all_go()
        assert len(bench.done) == 1
        bench.disk.power_cut()
        store = open_memory(bench.disk, "b-2")
        assert bytes(store.read(0, 4096)) == b"w" * 4096, "undone as a whole, as no flush came"


async def test_forced_requests_that_went_through_a_thread_are_synced_too() -> None:
    async with open_bench() as bench:
        first = bench.write(0, 4096, fua=True)  # the first: its trip marks the store
        await bench.submit(first)
        await bench.gate.let_go()
        assert bench.done == []
        await bench.gate.let_go()
        assert bench.done == [first]
        zeroes = WriteZeroes(0, 512, bench.done.append, force_unit_access=True)
        await bench.submit(zeroes)
        await bench.gate.let_go()
        assert bench.done == [first]
        await bench.gate.let_go()
        assert bench.done == [first, zeroes]
        bench.disk.power_cut()
        assert bench.disk.content(HEAD)[:4096] == bytes(512) + b"w" * 3584


async def test_failed_flush_fails_all_that_wait_for_it_and_all_that_follow() -> None:
    async with open_bench() as bench:
        await bench.mark()
        bench.disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, f"sync {HEAD}")
        forced = bench.write(fua=True)
        await bench.submit(bench.flush(), bench.flush(), forced)
        await bench.gate.let_all_go()
        await bench.submit(bench.flush(), bench.write(), bench.read(), Unmap(0, 512, bench.done.append))
        await bench.gate.let_all_go()
        assert len(bench.done) == 7
        errors = [request.error for request in bench.done]
        assert all(isinstance(error, StorageError) for error in errors)
        assert len(set(map(id, errors))) == 7  # an exception belongs to one request


async def test_failed_requests_are_answered_with_their_error() -> None:
    async with open_bench() as bench:
        await bench.mark()
        for verb, request in (
            ("write", bench.write(fua=True)),
            ("read", bench.read()),
            ("punch", Unmap(0, 4096, bench.done.append)),
            ("punch", WriteZeroes(0, 4096, bench.done.append, force_unit_access=True)),
            ("map", BlockStatus(0, 512, bench.done.append)),
        ):
            bench.done.clear()
            bench.disk.before_step = fail_at(0, StorageFailure.NO_SPACE, verb)
            await bench.submit(request)
            await bench.gate.let_all_go()
            assert bench.done == [request]
            assert request.error is not None, verb
            assert request.error.failure is StorageFailure.NO_SPACE


async def test_a_flush_now_and_then_retires_what_is_not_written_any_more() -> None:
    now = 100.0
    async with open_bench(clock=lambda: now) as bench:
        await bench.mark()
        for moment, marked in ((159.0, True), (160.0, True), (219.0, True), (220.0, False)):
            now = moment
            await bench.submit(bench.flush())
            await bench.gate.let_all_go()
            assert bench.store.marked(0, 4096) is marked


async def test_oldest_operation_is_the_one_that_hangs() -> None:
    now = 100.0
    async with open_bench(clock=lambda: now, cached_share=0.0) as bench:
        assert bench.device.oldest_operation_s() == 0.0
        await bench.submit(bench.read())
        now = 103.0
        await bench.submit(bench.flush())
        now = 104.0
        assert bench.device.oldest_operation_s() == 4.0
        await bench.gate.let_go(0)
        assert bench.device.oldest_operation_s() == 1.0
        await bench.gate.let_go(0)
        assert bench.device.oldest_operation_s() == 0.0
        assert bench.device.statistics().flush_s == 1.0


async def test_space_is_looked_at_now_and_then_and_not_known_after_an_error(mock_clock: MockClock) -> None:
    """Never when it is asked for: who asks may be in a hurry."""
    async with open_bench() as bench:
        first = bench.device.space
        assert first == bench.store.space()
        assert first is not None
        await bench.mark()
        assert bench.device.space == first
        mock_clock.jump(SPACE_S)
        await bench.gate.let_all_go()
        assert bench.device.space == Space(first.used_bytes + 2 * 4096, first.available_bytes - 2 * 4096)
        bench.disk.before_step = fail_at(0, StorageFailure.READ_ERROR)
        mock_clock.jump(SPACE_S)
        await bench.gate.let_all_go()
        assert bench.device.space is None


async def test_wait_idle_waits_for_everything_in_flight(mock_clock: MockClock) -> None:
    async with open_bench(cached_share=0.0) as bench:
        await bench.device.wait_idle()
        await bench.submit(bench.read(), bench.flush())
        assert bench.device.statistics().waiting == 2
        idle: list[int] = []

        async def wait(number: int) -> None:
            await bench.device.wait_idle()
            idle.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, 1)
            nursery.start_soon(wait, 2)
            await wait_all_tasks_blocked()
            await bench.gate.let_go()
            assert idle == []
            await bench.gate.let_go()
            assert sorted(idle) == [1, 2]


async def test_what_is_queued_when_the_device_stops_is_refused_once() -> None:
    disk = MemoryDisk(Random(0), cached_share=0.0)
    batch, gate = EndOfBatch(), Gate()
    device = ChainDevice(open_memory(disk), batch, in_thread=gate.in_gate)
    done: list[Any] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        await wait_all_tasks_blocked()
        await gate.let_go()  # the first look at how full the disk is
        for _ in range(3):
            device.submit(Flush(done.append))
            batch.end()
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        device.submit(Read(0, 10, done.append))
        batch.end()
        gate.waiting.pop()[1].set()
    await device.wait_idle()
    late: list[Request] = [Flush(done.append), Read(0, 10, done.append), Unmap(0, 10, done.append)]
    for request in late:
        device.submit(request)
    assert [request.error and request.error.failure for request in done] == (
        [None] + [StorageFailure.NOT_READY] * 6
    )
    assert len(set(done)) == 7


async def test_what_was_about_to_go_to_a_thread_when_the_device_stops_is_refused_once() -> None:
    batch = EndOfBatch()
    device = ChainDevice(open_memory(MemoryDisk(Random(0), cached_share=0.0)), batch)
    done: list[Any] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        await wait_all_tasks_blocked()
        requests: list[Request] = [Read(0, 10, done.append), Read(0, 9, done.append), Flush(done.append)]
        for request in requests:
            device.submit(request)
        batch.end()  # wakes the tasks, which find themselves cancelled
        nursery.cancel_scope.cancel()
    assert set(done) == set(requests)
    assert len(done) == 3
    assert all(request.error.failure is StorageFailure.NOT_READY for request in done)


async def test_requests_that_came_before_the_tasks_run_are_answered() -> None:
    batch = EndOfBatch()
    done: list[Any] = []
    device = ChainDevice(open_memory(MemoryDisk(Random(0))), batch, in_thread=in_turn)
    for request in (Write(0, 1, [b"x"], done.append), Flush(done.append)):
        device.submit(request)
    batch.end()
    async with trio.open_nursery() as nursery:
        await nursery.start(device.run)
        await device.wait_idle()
        assert len(done) == 2
        nursery.cancel_scope.cancel()


async def test_a_hash_agrees_with_the_store_and_reports_failure() -> None:
    async with running(open_memory(MemoryDisk(Random(0))), in_turn) as driver:
        await driver.write(10_000, b"x" * 5000)
        device = driver.device
        assert isinstance(device, ChainDevice)
        done: list[Hash] = []
        for offset in (0, MIB, SIZE_BYTES):
            device.submit(Hash(offset, MIB, False, done.append))
            driver.batch.end()
            await device.wait_idle()
        first, second, beyond = done
        assert first.digest == device.store.hash_range(0, MIB) != second.digest
        assert beyond.error is not None
        assert beyond.error.failure is StorageFailure.OUT_OF_RANGE


async def test_what_is_spoilt_is_refused_until_it_is_written() -> None:
    async with running(open_memory(MemoryDisk(Random(0))), in_turn) as driver:
        await driver.write(0, b"x" * 12288)
        device = driver.device
        assert isinstance(device, ChainDevice)
        done: list[Spoil] = []
        device.submit(Spoil(4096, 4096, done.append))
        driver.batch.end()
        await device.wait_idle()
        assert done[0].error is None
        with pytest.raises(AssertionError, match="the block at 4096 is not what was written"):
            await driver.read(0, 12288)
        assert await driver.read(0, 4096) == await driver.read(8192, 4096) == b"x" * 4096
        await driver.write(4096, b"y" * 4096)
        assert await driver.read(0, 12288) == b"x" * 4096 + b"y" * 4096 + b"x" * 4096


async def test_statistics_count_what_was_done(tmp_path: Path) -> None:
    async with open_bench() as bench:
        await bench.submit(bench.write(0, 8192), Unmap(0, 4096, bench.done.append))
        await bench.gate.let_all_go()
        await bench.submit(bench.read(0, 512), bench.flush())
        await bench.gate.let_all_go()
        statistics = bench.device.statistics()
        assert (statistics.writes, statistics.written_bytes) == (1, 8192)
        assert (statistics.zeroings, statistics.zeroed_bytes) == (1, 4096)
        assert (statistics.reads, statistics.read_bytes, statistics.reads_missed) == (1, 512, 0)
        assert (statistics.flushes, statistics.waiting) == (1, 0)


async def test_local_device_keeps_its_data_and_is_clean_after_a_clean_end(tmp_path: Path) -> None:
    for content in (bytes(KIB), b"y" * KIB):
        batch = EndOfBatch()
        async with open_chain_device(
            tmp_path / "r", size_bytes=SIZE_BYTES, block_size_bytes=512, batch=batch
        ) as device:
            driver = Driver(device, batch)
            assert await driver.read(0, KIB) == content
            await driver.write(0, b"y" * KIB)
            assert await driver.allocated(MIB, MIB) == []
            assert [Extent(0, 4096)] == await driver.allocated(0, 4096)
        assert device.store.state.written_boot_id == ""
    with pytest.raises(ConfigError, match="holds a volume of 4MiB"):
        async with open_chain_device(
            tmp_path / "r", size_bytes=8 * MIB, block_size_bytes=512, batch=EndOfBatch()
        ):
            pytest.fail("opened")


async def test_idle_is_only_who_holds_nothing_back() -> None:
    """A promise waits for idleness: a write that waits for a step of a merge would land after it."""
    async with open_bench() as bench, trio.open_nursery() as nursery:
        await bench.mark()
        idle = trio.Event()

        async def wait() -> None:
            await bench.device.wait_idle()
            idle.set()

        nursery.start_soon(bench.device.alone, Extent(0, 4096), lambda: None)
        await wait_all_tasks_blocked()
        await bench.submit(bench.write())
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert bench.done == []
        assert not idle.is_set()
        await bench.gate.let_all_go()
        assert len(bench.done) == 1
        assert idle.is_set()
