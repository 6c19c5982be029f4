"""A store is a bytearray on disk: over real files in normal life, over a memory disk through kills, power
cuts and faults at every step.

Not checked: bit rot, and disks that say "synced" when nothing was.
"""

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest
import xxhash
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.snapshot.state import decode_state
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import GIB, KIB, TIB

SIZE_BYTES: Final = 16 * KIB
SECTOR_BYTES: Final = 512
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
HEAD: Final = "volume-head-000.img"
RECORD: Final = MembershipRecord(1, 1, "c-1", configured=(1, 2, 3), in_sync=(1, 2), clean=False)

RANGES = st.tuples(st.integers(0, SIZE_BYTES), st.integers(0, SIZE_BYTES)).map(
    lambda r: (r[0], min(r[1], SIZE_BYTES - r[0]))
)
SECTORS = st.tuples(st.integers(0, 32), st.integers(0, 9)).map(
    lambda r: (r[0] * SECTOR_BYTES, min(r[1], 32 - r[0]) * SECTOR_BYTES)
)
BLOCKS = st.tuples(st.integers(0, 3), st.integers(1, 4)).map(
    lambda r: (r[0] * 4096, min(r[1], 4 - r[0]) * 4096)
)


def open_memory(disk: MemoryDisk, boot_id: str = "b-1") -> Store:
    return Store.open_in(disk.open_directory(), IDENTITY, boot_id=boot_id)


def noise(length_bytes: int, seed: int) -> bytes:
    return Random(seed).randbytes(length_bytes)


class RealStoreMachine(RuleBasedStateMachine):
    """A store over real files, and a bytearray."""

    @initialize()
    def create(self) -> None:
        self.parent = tempfile.TemporaryDirectory()
        self.model = bytearray(SIZE_BYTES)
        self.open()

    def open(self) -> None:
        self.store = Store.open_or_create(
            Path(self.parent.name) / "r", volume_id="v-1", replica_id=1, volume_name="demo",
            size_bytes=SIZE_BYTES, block_size_bytes=512,
        )  # fmt: skip

    @rule(at=RANGES, seed=st.integers(0, 99))
    def write(self, at: tuple[int, int], seed: int) -> None:
        offset, length = at
        data = noise(length, seed)
        self.store.write(offset, length, [data[: length // 3], data[length // 3 :]])
        self.model[offset : offset + length] = data

    @rule(at=RANGES, seed=st.integers(0, 99))
    def write_atomic(self, at: tuple[int, int], seed: int) -> None:
        offset, length = at
        data = noise(length, seed)
        self.store.write_atomic(offset, length, [data[: length // 3], data[length // 3 :]])
        self.model[offset : offset + length] = data

    @rule(at=RANGES)
    def zero(self, at: tuple[int, int]) -> None:
        offset, length = at
        self.store.zero(offset, length)
        self.model[offset : offset + length] = bytes(length)

    @rule(at=RANGES)
    def read(self, at: tuple[int, int]) -> None:
        offset, length = at
        wanted = self.model[offset : offset + length]
        assert self.store.read(offset, length) == wanted
        assert self.store.read_nowait(offset, length) in (None, wanted)
        assert self.store.hash_range(offset, length) == xxhash.xxh3_128_digest(wanted)

    @rule(at=RANGES)
    def find_data(self, at: tuple[int, int]) -> None:
        rest = bytearray(self.model)
        for part in self.store.allocated(Extent(*at)):
            assert part.clip(Extent(*at)) == part
            rest[part.offset_bytes : part.end_bytes] = bytes(part.length_bytes)
        assert not any(rest[at[0] : sum(at)])

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule(epochs=st.integers(1, 3))
    def promise(self, epochs: int) -> None:
        state = attrs.evolve(self.store.state, promised_epoch=self.store.state.promised_epoch + epochs)
        self.store.save_state(state)

    @rule(clean=st.booleans())
    def reopen(self, clean: bool) -> None:
        if clean:
            self.store.flush()
            assert self.store.mark_clean()
        state = self.store.state
        self.store.close()
        self.open()
        assert self.store.intact
        assert self.store.state == state
        assert self.store.read(0, SIZE_BYTES) == self.model

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.parent.cleanup()


class CrashingStoreMachine(RuleBasedStateMachine):
    """A store over a memory disk whose power goes at any step.

    `versions` are the contents since the last flush, newest last: after a power cut each sector must be as
    in one of them.  The newest alone counts after a kill, or when the store says that it is intact.
    """

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.disk = MemoryDisk(Random(seed))
        self.boots = 1
        self.versions = [bytes(SIZE_BYTES)]
        self.interrupted: Extent | None = None  # the range of a write during which the power went
        self.states = [IDENTITY]  # what the state may be, newest last
        self.known_bad = False  # not intact and not rebuilt since
        self.store = open_memory(self.disk, "b-1")
        self.in_place = False  # whether the store was told that one thread writes in place

    def attempt(self, cut: int | None, action: Callable[[], object]) -> bool:
        """Do `action`, with the power going before its step number `cut`; whether it came to its end."""
        if cut is not None:
            self.disk.before_step = cut_power_at(cut)
        try:
            action()
        except PowerCut as step:
            note(f"power cut before {step}")
            self.come_back()
            return False
        finally:
            self.disk.before_step = no_fault
        return True

    def come_back(self) -> None:
        self.disk.power_cut()
        self.disk.before_step = no_fault
        self.boots += 1
        self.store, self.in_place = open_memory(self.disk, f"b-{self.boots}"), False
        content = bytes(self.store.read(0, SIZE_BYTES))
        self.check_survivors(content)
        if self.store.intact:
            assert not self.known_bad
            assert self.interrupted or content == self.versions[-1], "intact, but a write is gone"
        self.known_bad = not self.store.intact
        self.versions, self.interrupted = [content], None
        durable = attrs.evolve(self.store.state, written_boot_id="", written_regions="")
        assert durable in self.states
        self.states = [durable]

    def check_survivors(self, content: bytes) -> None:
        for start in range(0, SIZE_BYTES, SECTOR_BYTES):
            sector = content[start : start + SECTOR_BYTES]
            candidates = {version[start : start + SECTOR_BYTES] for version in self.versions}
            if sector in candidates:
                continue
            place = Extent(start, SECTOR_BYTES)
            assert self.interrupted is not None and place.overlaps(self.interrupted), "neither old nor new"
            columns = zip(sector, *candidates, strict=True)
            assert all(byte in column for byte, *column in columns), "bytes from nowhere"

    cuts = st.none() | st.integers(0, 12)

    def change(self, cut: int | None, extent: Extent, data: bytes, action: Callable[[], object]) -> None:
        content = bytearray(self.versions[-1])
        content[extent.offset_bytes : extent.end_bytes] = data
        if data:
            self.versions.append(bytes(content))
        self.interrupted = extent if cut is not None else None
        if self.attempt(cut, action):
            self.interrupted = None

    @rule(cut=cuts, at=SECTORS | RANGES | BLOCKS, seed=st.integers(1, 99))
    def write(self, cut: int | None, at: tuple[int, int], seed: int) -> None:
        data = noise(at[1], seed)
        self.change(cut, Extent(*at), data, lambda: self.write_to_store(at, data))

    @rule(cut=cuts, at=SECTORS, seed=st.integers(1, 99))
    def write_atomic(self, cut: int | None, at: tuple[int, int], seed: int) -> None:
        data = noise(at[1], seed)
        self.change(cut, Extent(*at), data, lambda: self.store.write_atomic(*at, [data]))

    @rule(cut=cuts, at=SECTORS | RANGES)
    def zero(self, cut: int | None, at: tuple[int, int]) -> None:
        self.change(cut, Extent(*at), bytes(at[1]), lambda: self.store.zero(*at))

    @rule(cut=cuts)
    def flush(self, cut: int | None) -> None:
        if self.attempt(cut, self.store.flush):
            self.versions = self.versions[-1:]

    @rule(cut=cuts)
    def mark_clean(self, cut: int | None) -> None:
        marked: list[bool] = []
        if self.attempt(cut, lambda: marked.append(self.store.mark_clean())):
            assert marked[0] <= (len(self.versions) == 1 and not self.known_bad)

    @rule(cut=cuts)
    def stop_cleanly(self, cut: int | None) -> None:
        def stop() -> None:
            self.store.flush()
            self.versions = self.versions[-1:]
            assert self.store.mark_clean() == (not self.known_bad)
            self.store.close()

        if self.attempt(cut, stop):
            self.come_back()
            assert self.store.intact == (not self.known_bad)

    @rule(cut=cuts)
    def finish_a_rebuild(self, cut: int | None) -> None:
        if self.known_bad:

            def rebuild() -> None:
                self.store.flush()
                self.versions = self.versions[-1:]
                self.store.mark_intact()
                self.known_bad = False

            self.known_bad = not self.attempt(cut, rebuild) and self.known_bad

    @rule(cut=cuts)
    def promise(self, cut: int | None) -> None:
        new = attrs.evolve(self.states[-1], promised_epoch=self.states[-1].promised_epoch + 1, record=RECORD)
        self.states.append(new)
        if self.attempt(cut, lambda: self.store.save_state(new)):
            self.states = [new]

    @rule()
    def lose_power(self) -> None:
        self.come_back()

    @rule()
    def be_killed(self) -> None:
        intact = self.store.intact
        self.disk.kill_process()
        self.store, self.in_place = open_memory(self.disk, f"b-{self.boots}"), False
        assert self.store.intact == intact

    @rule()
    def begin_in_place(self) -> None:
        if not self.in_place:
            self.store.begin_in_place()
            self.in_place = True

    def write_to_store(self, at: tuple[int, int], data: bytes) -> None:
        if self.in_place and self.store.writes_in_place(*at):
            self.store.write(*at, [data], in_place=True)
        else:
            self.store.write(*at, [data])

    @rule(
        cut=st.integers(0, 12), at=SECTORS | RANGES | BLOCKS, seed=st.integers(1, 99), is_lost=st.booleans()
    )
    def be_killed_while_writing(self, cut: int, at: tuple[int, int], seed: int, is_lost: bool) -> None:
        data = noise(at[1], seed)
        old = self.versions[-1]
        self.disk.before_step = cut_power_at(cut)
        try:
            self.write_to_store(at, data)
        except PowerCut as step:
            note(f"killed before {step}")
        self.disk.before_step = no_fault
        self.disk.kill_process()
        if is_lost:
            self.disk.slots.words.clear()
        intact = self.store.intact
        self.store, self.in_place = open_memory(self.disk, f"b-{self.boots}"), False
        assert self.store.intact == intact
        content = bytes(self.store.read(0, SIZE_BYTES))
        new = old[: at[0]] + data + old[sum(at) :]
        assert all(byte in choices for byte, *choices in zip(content, old, new, strict=True))
        if content != old:
            self.versions.append(content)

    @rule(cut=cuts)
    def retire_regions(self, cut: int | None) -> None:
        self.attempt(cut, self.store.retire_regions)

    @invariant()
    def reads_give_the_newest(self) -> None:
        assert self.store.read(0, SIZE_BYTES) == self.versions[-1]


_settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRealStore = RealStoreMachine.TestCase
TestRealStore.settings = settings(_settings, max_examples=25)
TestCrashingStore = CrashingStoreMachine.TestCase
TestCrashingStore.settings = _settings


def test_unmapped_data_does_not_come_back_after_a_restart() -> None:
    """D6: Jiva kept the map of unmapped blocks in memory alone."""
    for seed in range(30):
        disk = MemoryDisk(Random(seed))
        store = open_memory(disk)
        store.write(0, 8192, [b"x" * 8192])
        store.flush()
        store.zero(0, 8192)
        store.flush()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert store.read(0, 8192) == bytes(8192)
        assert store.allocated(Extent(0, SIZE_BYTES)) == []


@pytest.mark.parametrize("seed", range(20))
def test_an_atomic_write_that_was_undone_is_not_taken_for_rot_after_one_more_power_cut(seed: int) -> None:
    """Its region may have been retired, so that nothing else forgets the checksums of what was undone."""
    disk = MemoryDisk(Random(seed))
    store = open_memory(disk)
    store.write_atomic(0, 8192, [b"x" * 8192])
    store.retire_regions()
    store.retire_regions()
    for boot in ("b-2", "b-3"):
        disk.power_cut()
        store = open_memory(disk, boot)
        assert store.read(0, 8192) == bytes(8192)


def test_a_flush_makes_an_atomic_write_stable_though_a_kill_cut_the_next_one() -> None:
    """The process that was killed had begun to replace the log's entry, in the page cache alone."""
    for number in range(12):
        disk = MemoryDisk(Random(number))
        store = open_memory(disk)
        store.write_atomic(0, 512, [b"x" * 512])
        disk.before_step = cut_power_at(number)
        with contextlib.suppress(PowerCut):
            store.write_atomic(4096, 512, [b"y" * 512])
        disk.before_step = no_fault
        disk.kill_process()
        store = open_memory(disk)
        store.flush()
        disk.power_cut()
        assert open_memory(disk, "b-2").read(0, 512) == b"x" * 512


REGION_BYTES: Final = 64 * 1024 * KIB


class Regions:
    """A store with four regions, and one block in the middle of each."""

    def __init__(self, seed: int) -> None:
        self.disk = MemoryDisk(Random(seed))
        self.identity = attrs.evolve(IDENTITY, size_bytes=3 * REGION_BYTES + 512)
        self.open("b-1")

    def open(self, boot_id: str) -> None:
        self.store = Store.open_in(self.disk.open_directory(), self.identity, boot_id=boot_id)

    def write(self, *numbers: int, in_place: bool = False) -> None:
        for number in numbers:
            data = bytes([65 + number]) * 512
            self.store.write(self.place(number), 512, [data], in_place=in_place)

    def place(self, number: int) -> int:
        return min(number * REGION_BYTES + 4096, self.identity.size_bytes - 512)

    def lose_power(self) -> None:
        self.disk.power_cut()
        self.open("b-2")

    def rot(self, number: int) -> bool:
        """Whether rot is noticed."""
        self.disk.rot(HEAD, self.place(number))
        try:
            self.store.read(self.place(number), 512)
        except StorageError as error:
            return error.failure is StorageFailure.BAD_CHECKSUM
        return False

    def marked(self) -> list[bool]:
        return [self.store.marked(self.place(number), 512) for number in range(4)]


@pytest.mark.parametrize("seed", range(10))
def test_what_a_power_cut_tore_is_told_from_rot(seed: int) -> None:
    regions = Regions(seed)
    regions.write(0, 1, 2, 3)
    regions.store.flush()
    assert regions.store.mark_clean()
    regions.write(1, 3)
    assert regions.marked() == [False, True, False, True]
    regions.lose_power()
    for number in range(4):
        regions.store.read(regions.place(number), 512)  # torn or not, this is no rot
    assert [regions.rot(number) for number in range(4)] == [True, False, True, False]


@pytest.mark.parametrize("seed", range(10))
def test_regions_that_nobody_writes_to_keep_their_checksums_over_a_power_cut(seed: int) -> None:
    regions = Regions(seed)
    regions.write(0, 1)
    regions.store.flush()
    regions.store.retire_regions()
    assert regions.marked() == [True, True, False, False]
    regions.write(1)
    regions.store.flush()
    regions.store.retire_regions()
    assert regions.marked() == [False, True, False, False]
    regions.lose_power()
    assert not regions.store.intact
    assert [regions.rot(number) for number in (0, 1)] == [True, False]


@pytest.mark.patches
@pytest.mark.parametrize("in_place", [False, True])
def test_a_region_is_not_retired_while_a_write_is_under_way(*, in_place: bool) -> None:
    regions = Regions(0)
    regions.store.begin_in_place()
    regions.write(0)
    regions.store.flush()
    regions.store.retire_regions()
    slow = SlowFile(regions.store, "write")
    thread = threading.Thread(target=regions.write, args=(0,), kwargs={"in_place": in_place})
    thread.start()
    assert slow.entered.wait(10)
    for _ in range(3):  # the first only notes that nothing was written since
        regions.store.retire_regions()
        assert regions.marked()[0]
    slow.go.set()
    thread.join()


def test_a_failed_retirement_is_made_good_by_the_next_write() -> None:
    regions = Regions(0)
    regions.write(0)
    regions.store.flush()
    regions.store.retire_regions()
    regions.disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync directory")
    with pytest.raises(StorageError):
        regions.store.retire_regions()
    regions.write(0)
    assert decode_state(regions.disk.content("pyjiva.json")).written_regions == "1"


@pytest.mark.parametrize(("offset", "length"), [(SIZE_BYTES, 1), (-1, 2), (0, SIZE_BYTES + 1), (2**62, 512)])
def test_requests_beyond_the_end_are_refused_before_anything_happens(offset: int, length: int) -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    steps = disk.steps
    calls: list[Callable[[], object]] = [
        lambda: store.read_nowait(offset, length),
        lambda: store.read(offset, length),
        lambda: store.write(offset, length, [b""]),
        lambda: store.write_atomic(offset, length, [b""]),
        lambda: store.zero(offset, length),
        lambda: store.allocated(Extent(offset, length)),
        lambda: store.hash_range(offset, length),
    ]
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.failure is StorageFailure.OUT_OF_RANGE
    assert disk.steps == steps


def test_full_disk_leaves_other_bytes_and_the_store_in_use() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.write(0, SIZE_BYTES, [b"a" * SIZE_BYTES])
    disk.before_step = fail_at(0, StorageFailure.NO_SPACE, f"write {HEAD}")
    with pytest.raises(StorageError) as caught:
        store.write(4096, 4096, [b"b" * 4096])
    assert caught.value.failure is StorageFailure.NO_SPACE
    content = bytes(store.read(0, SIZE_BYTES))
    assert content[:4096] + content[8192:] == b"a" * (SIZE_BYTES - 4096)
    assert set(content[4096:8192]) <= set(b"ab")
    store.flush()
    assert store.mark_clean()


def test_full_disk_keeps_the_old_state() -> None:
    for number in range(9):
        disk = MemoryDisk(Random(0))
        store = open_memory(disk)
        disk.before_step = fail_at(number, StorageFailure.NO_SPACE)
        new = attrs.evolve(store.state, promised_epoch=5, promised_to="c-1")
        try:
            store.save_state(new)
        except StorageError:
            assert store.state == IDENTITY
        else:
            assert store.state == new
        disk.before_step = no_fault
        store.save_state(IDENTITY)  # also when the file holds the newer one already
        assert decode_state(disk.content("pyjiva.json")) == IDENTITY


def test_store_is_broken_after_a_flush_that_failed() -> None:
    """Linux reports a failed write-back once, then takes the pages for clean (PostgreSQL's "fsyncgate")."""
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.write(0, 4096, [b"a" * 4096])
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, f"sync {HEAD}")
    with pytest.raises(StorageError, match="injected"):
        store.flush()
    refused: list[Callable[[], object]] = [
        store.flush,
        store.mark_clean,
        store.mark_intact,
        lambda: store.read(0, 1),
        lambda: store.read_nowait(0, 1),
        lambda: store.write(0, 1, [b"x"]),
        lambda: store.zero(0, 1),
        lambda: store.allocated(Extent(0, 1)),
        lambda: store.hash_range(0, 1),
    ]
    for call in refused:
        with pytest.raises(StorageError, match="refused since a flush failed"):
            call()
    assert not store.intact
    assert store.broken is not None
    store.save_state(attrs.evolve(store.state, promised_epoch=1))  # a vote needs no data
    disk.kill_process()
    store = open_memory(disk)  # the same boot: the cache may still show what the disk has lost
    assert not store.intact
    assert store.state.promised_epoch == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_the_flushes_of_the_process_after_a_failed_one_say_the_truth(recorded: bool) -> None:
    """What the failed one left clean in the page cache is written again; also if the state could not tell."""
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.write(0, 8192, [b"a" * 8192])
    store.flush()
    store.write(4096, 4096, [b"b" * 4096])

    def fail(step: str) -> None:
        if step.startswith(f"sync {HEAD}" if recorded else "sync"):
            raise StorageError(StorageFailure.WRITE_ERROR, f"{step}: injected")

    disk.before_step = fail
    with pytest.raises(StorageError, match="injected"):
        store.flush()
    disk.before_step = no_fault
    disk.kill_process()
    store = open_memory(disk)
    assert not store.intact
    store.flush()
    disk.power_cut()
    assert bytes(open_memory(disk, "b-2").read(0, 8192)) == b"a" * 4096 + b"b" * 4096


def test_broken_store_whose_disk_takes_nothing_says_so() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.write(0, 1, [b"a"])

    def fail(step: str) -> None:
        raise StorageError(StorageFailure.WRITE_ERROR, f"{step}: injected")

    disk.before_step = fail
    with pytest.raises(StorageError, match="injected") as caught:
        store.flush()
    assert "could not be recorded" in caught.value.__notes__[0]


def test_write_is_marked_durably_before_it_happens_and_only_once() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    assert not store.marked(0, 1)
    store.write(0, 1, [b"a"])
    assert store.marked(0, 1)
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync directory")  # none any more
    store.write(1, 1, [b"b"])
    store.zero(2, 1)
    disk.before_step = no_fault
    assert not store.mark_clean()  # not flushed
    store.flush()
    assert store.mark_clean()
    assert not store.marked(0, 1)
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync directory")
    with pytest.raises(StorageError):
        store.write(2, 1, [b"c"])
    assert store.read(0, 3) == b"ab\0"
    store.write(2, 1, [b"c"])
    disk.power_cut()
    assert not open_memory(disk, "b-2").intact


@pytest.mark.parametrize("in_place", [False, True])
def test_what_was_written_since_the_last_flush_is_not_clean(*, in_place: bool) -> None:
    store = open_memory(MemoryDisk(Random(0)))
    store.begin_in_place()
    store.write(0, SIZE_BYTES, [bytes(SIZE_BYTES)])
    store.flush()
    store.write(0, 4096, [b"a" * 4096], in_place=in_place)
    assert not store.mark_clean()
    store.flush()
    assert store.mark_clean()


def test_what_an_earlier_process_did_not_flush_is_not_clean() -> None:
    disk = MemoryDisk(Random(0))
    open_memory(disk).write(0, 1, [b"a"])
    disk.kill_process()
    store = open_memory(disk)
    assert store.intact
    assert not store.mark_clean()
    store.flush()
    assert store.mark_clean()


def test_failed_mark_clean_is_made_good_by_the_next_write() -> None:
    """The file may say "clean" already: a write must not rely on the mark that was there before."""
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.write(0, 1, [b"a"])
    store.flush()
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync directory")
    with pytest.raises(StorageError):
        store.mark_clean()
    store.write(0, 1, [b"b"])
    assert decode_state(disk.content("pyjiva.json")).written_boot_id == "b-1"


def test_lost_writes_are_not_forgotten_by_a_later_write_or_flush() -> None:
    disk = MemoryDisk(Random(0))
    open_memory(disk, "b-1").write(0, 1, [b"a"])
    disk.power_cut()
    for boot_id in ("b-2", "b-3"):
        store = open_memory(disk, boot_id)
        assert not store.intact
        store.write(0, 1, [b"b"])
        store.flush()
        assert not store.mark_clean()
        disk.kill_process()
    store = open_memory(disk, "b-3")
    assert not store.intact
    store.mark_intact()
    assert store.intact
    disk.kill_process()
    assert open_memory(disk, "b-3").intact


class SlowFile:
    """Stands before a file; the first call of one of its methods waits until it is let go."""

    def __init__(self, store: Store, slow: str) -> None:
        self.file = store._head
        self.slow = slow
        self.entered = threading.Event()
        self.go = threading.Event()
        self.failure: StorageError | None = None
        store._head = self  # type: ignore[assignment]  # it has all that is called

    def __getattr__(self, name: str) -> Any:
        if name != self.slow or self.entered.is_set():
            return getattr(self.file, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.entered.set()
            assert self.go.wait(10)
            if self.failure:
                raise self.failure
            return getattr(self.file, name)(*arguments, **options)

        return call


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Over real files, with one write done."""
    store = Store.open_or_create(
        tmp_path / "r",
        volume_id="v",
        replica_id=1,
        volume_name="v",
        size_bytes=SIZE_BYTES,
        block_size_bytes=512,
    )
    store.write(0, 1, [b"a"])
    yield store
    store.close()


@pytest.mark.patches
def test_write_in_another_thread_keeps_the_store_from_being_clean(store: Store) -> None:
    slow = SlowFile(store, "write")
    thread = threading.Thread(target=store.write, args=(1, 1, [b"b"]))
    thread.start()
    assert slow.entered.wait(10)
    store.flush()
    assert not store.mark_clean()
    slow.go.set()
    thread.join()
    assert not store.mark_clean()
    store.flush()
    assert store.mark_clean()


@pytest.mark.patches
def test_write_during_a_flush_keeps_the_store_from_being_clean(store: Store) -> None:
    slow = SlowFile(store, "sync_data")
    thread = threading.Thread(target=store.flush)
    thread.start()
    assert slow.entered.wait(10)
    store.write(1, 1, [b"b"])
    slow.go.set()
    thread.join()
    assert not store.mark_clean()
    store.flush()
    assert store.mark_clean()


class NotingLock:
    """A lock that says when somebody has to wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.contended = threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.contended.set()
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


@pytest.mark.patches
def test_flush_beside_one_that_fails_does_not_succeed(store: Store) -> None:
    """The kernel tells one caller of the failure; the next fdatasync would succeed."""
    slow = SlowFile(store, "sync_data")
    slow.failure = StorageError(StorageFailure.WRITE_ERROR, "injected")
    store._flush_lock = lock = NotingLock()  # type: ignore[assignment]
    answers: list[str] = []

    def flush() -> None:
        try:
            store.flush()
        except StorageError as error:
            answers.append(str(error))

    threads = [threading.Thread(target=flush) for _ in range(2)]
    threads[0].start()
    assert slow.entered.wait(10)
    threads[1].start()
    assert lock.contended.wait(10)
    slow.go.set()
    for thread in threads:
        thread.join()
    assert len(answers) == 2
    assert all("injected" in answer for answer in answers)


def test_first_writes_of_many_threads_are_all_marked(store: Store) -> None:
    store.flush()
    assert store.mark_clean()
    threads = [
        threading.Thread(target=store.write, args=(i * 512, 512, [bytes([i]) * 512])) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.state.written_boot_id == read_boot_id()
    assert store.read(0, 16 * 512) == b"".join(bytes([i]) * 512 for i in range(16))


def test_hash_of_a_huge_hole_costs_no_reading(tmp_path: Path) -> None:
    store = Store.open_or_create(
        tmp_path, volume_id="v", replica_id=1, volume_name="v", size_bytes=1 * TIB, block_size_bytes=512
    )
    store.write(512 * GIB, 4096, [b"x" * 4096])
    assert store.hash_range(0, 64 * KIB) == store.hash_range(700 * GIB, 64 * KIB)
    assert store.hash_range(0, 64 * KIB) == xxhash.xxh3_128_digest(bytes(64 * KIB))
    around = bytes(32 * KIB) + b"x" * 4096 + bytes(100_000)
    assert store.hash_range(512 * GIB - 32 * KIB, len(around)) == xxhash.xxh3_128_digest(around)
    store.close()


def test_boot_id_is_this_machines() -> None:
    assert len(read_boot_id()) == 36
    assert read_boot_id() == read_boot_id()


def test_impossible_identity_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 4096"):
        Store.open_or_create(
            tmp_path / "r",
            volume_id="v",
            replica_id=1,
            volume_name="v",
            size_bytes=512,
            block_size_bytes=4096,
        )
    assert not (tmp_path / "r").exists()
