"""A checked file is a bytearray that never gives out a byte that was not written to it, whatever rots."""

import contextlib
import itertools
import threading
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyjiva.block_sums import sums_of, sums_of_all
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.sparse import (
    SUM_BLOCK_BYTES,
    Buffer,
    CheckedFile,
    DataFile,
    extent_under_way,
    open_directory,
    sums_size_bytes,
)
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault

BLOCKS: Final = 6
SIZE_BYTES: Final = (BLOCKS - 1) * SUM_BLOCK_BYTES + 512  # the last block is short
RANGES = st.tuples(st.integers(0, SIZE_BYTES - 1), st.integers(1, 3 * SUM_BLOCK_BYTES)).map(
    lambda r: (r[0], min(r[1], SIZE_BYTES - r[0]))
)


class Bench:
    """A checked file on a memory disk."""

    def __init__(self, seed: int = 0, size_bytes: int = SIZE_BYTES) -> None:
        self.disk = MemoryDisk(Random(seed))
        self.directory = self.disk.open_directory()
        for name, size in (("data", size_bytes), ("sums", sums_size_bytes(size_bytes))):
            self.directory.create(name).truncate(size)
        self.directory.sync()
        self.size_bytes = size_bytes
        self.file = self.open()

    def open(self) -> CheckedFile:
        return CheckedFile(self.directory.open("data"), self.directory.open("sums"), self.size_bytes)

    def is_bad(self, offset: int, length: int = 1) -> bool:
        try:
            self.file.read(offset, length)
        except StorageError as error:
            assert error.failure is StorageFailure.BAD_CHECKSUM  # noqa: PT017
            assert self.file.read_nowait(offset, length) is None
            return True
        assert self.file.read_nowait(offset, length) is not None
        return False


class CheckedFileMachine(RuleBasedStateMachine):
    """`bad` are the blocks that have rotted, and not been written whole since."""

    @initialize(seed=st.integers(0, 2**32))
    def create(self, seed: int) -> None:
        self.bench = Bench(seed)
        self.file = self.bench.file
        self.model = bytearray(SIZE_BYTES)
        self.known = [False] * BLOCKS
        self.bad: set[int] = set()

    def touched(self, at: tuple[int, int]) -> list[tuple[int, bool]]:
        """(number, whole) of every block in the range."""
        start, end = at[0], sum(at)
        blocks = []
        for number in range(BLOCKS):
            first = number * SUM_BLOCK_BYTES
            last = min(first + SUM_BLOCK_BYTES, SIZE_BYTES)
            if start < last and first < end:
                blocks.append((number, start <= first and last <= end))
        return blocks

    @rule(at=RANGES, seed=st.integers(0, 99))
    def write(self, at: tuple[int, int], seed: int) -> None:
        data = Random(seed).randbytes(at[1])
        self.file.write(at[0], [data[: at[1] // 3], data[at[1] // 3 :]])
        self.changed(at, data)
        for number, _ in self.touched(at):
            self.known[number] = True

    @rule(at=RANGES, seed=st.integers(0, 99))
    def write_in_place(self, at: tuple[int, int], seed: int) -> None:
        data = Random(seed).randbytes(at[1])
        self.file.slot = new_word()
        self.file.write(at[0], [data[: at[1] // 3], data[at[1] // 3 :]], in_place=True)
        assert self.file.slot[0] == 0
        self.changed(at, data)
        for number, _ in self.touched(at):
            self.known[number] = True

    @rule(at=RANGES)
    def punch(self, at: tuple[int, int]) -> None:
        self.file.punch(*at)
        self.changed(at, bytes(at[1]))
        for number, whole in self.touched(at):
            self.known[number] = self.known[number] and not whole

    def changed(self, at: tuple[int, int], data: bytes) -> None:
        self.model[at[0] : sum(at)] = data
        self.bad -= {number for number, whole in self.touched(at) if whole}

    @rule(at=RANGES)
    def read(self, at: tuple[int, int]) -> None:
        touched = {number for number, _ in self.touched(at)}
        if touched & self.bad:
            assert self.bench.is_bad(*at)
        else:
            assert self.file.read(*at) == self.model[at[0] : sum(at)]
            assert self.file.read_nowait(*at) == self.model[at[0] : sum(at)]

    @rule(at=RANGES)
    def find_data(self, at: tuple[int, int]) -> None:
        rest = bytearray(self.model)
        for part in self.file.allocated(Extent(*at)):
            rest[part.offset_bytes : part.end_bytes] = bytes(part.length_bytes)
        assert not any(rest[at[0] : sum(at)])

    @precondition(lambda self: any(known and n not in self.bad for n, known in enumerate(self.known)))
    @rule(data=st.data(), within=st.integers(0, SUM_BLOCK_BYTES - 1))
    def rot(self, data: st.DataObject, within: int) -> None:
        number = data.draw(st.sampled_from([n for n in range(BLOCKS) if self.known[n] and n not in self.bad]))
        self.file.sync_data()
        self.file.sync_sums()
        place = min(number * SUM_BLOCK_BYTES + within, SIZE_BYTES - 1)
        self.bench.disk.rot("data", place)
        self.model[place] = self.bench.disk.read("data", place, 1)[0]
        self.bad.add(number)

    @rule(at=RANGES)
    def verify(self, at: tuple[int, int]) -> None:
        expected = {number for number, _ in self.touched(at)} & self.bad
        found = self.file.verify(Extent(*at))
        assert {
            e.offset_bytes // SUM_BLOCK_BYTES for part in found for e in part.split(SUM_BLOCK_BYTES)
        } == expected
        for number, _ in self.touched(at):
            first = number * SUM_BLOCK_BYTES
            if self.file.allocated(Extent(first, min(SUM_BLOCK_BYTES, SIZE_BYTES - first))):
                self.known[number] = True

    @rule()
    def be_killed(self) -> None:
        self.file = self.bench.file = self.bench.open()

    @invariant()
    def the_bytes_are_those_written(self) -> None:
        assert self.bench.disk.content("data") == self.model


TestCheckedFile = CheckedFileMachine.TestCase
TestCheckedFile.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("offset", "length"), [(0, 8192), (512, 512), (1000, 9000), (0, SIZE_BYTES)])
def test_a_kill_at_any_step_of_a_write_is_not_taken_for_rot(seed: int, offset: int, length: int) -> None:
    for step in range(12):
        bench = Bench(seed)
        bench.file.write(0, [b"o" * SIZE_BYTES])
        bench.disk.before_step = cut_power_at(step)
        try:
            bench.file.write(offset, [b"n" * length])
        except PowerCut:
            assert step < 11
        bench.disk.before_step = no_fault
        bench.file = bench.open()
        content = bytes(bench.file.read(0, SIZE_BYTES))
        assert set(content[offset : offset + length]) <= set(b"on")
        assert set(content[:offset] + content[offset + length :]) <= set(b"o")


@pytest.mark.parametrize("step", range(7))
def test_a_write_that_failed_leaves_no_bad_block(step: int) -> None:
    bench = Bench(step)
    bench.file.write(0, [b"o" * SIZE_BYTES])
    bench.disk.before_step = fail_at(step, StorageFailure.NO_SPACE)
    with pytest.raises(StorageError):
        bench.file.write(512, [b"n" * 8192])
    bench.disk.before_step = no_fault
    assert not bench.is_bad(0, SIZE_BYTES)


def test_a_block_that_rotted_stays_bad_until_all_of_it_is_written() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.sync_data()
    bench.disk.rot("data", 700)
    assert bench.is_bad(0, 1)
    assert not bench.is_bad(SUM_BLOCK_BYTES, 1)
    assert bench.file.mismatches == 1
    bench.file.write(512, [b"n" * 512])
    assert bench.is_bad(512, 1)
    bench.file.write(512, [b"n" * 512])
    assert bench.is_bad(0, 512)
    bench.file.write(0, [b"n" * SUM_BLOCK_BYTES])
    assert bench.file.read(0, SUM_BLOCK_BYTES) == b"n" * SUM_BLOCK_BYTES


@pytest.mark.parametrize("step", range(4))
def test_a_kill_while_a_part_of_a_bad_block_is_written_leaves_it_bad(step: int) -> None:
    bench = Bench(step)
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.sync_data()
    bench.disk.rot("data", 700)
    bench.disk.before_step = cut_power_at(step)
    with contextlib.suppress(PowerCut):
        bench.file.write(0, [b"n" * 512])
    bench.disk.before_step = no_fault
    bench.file = bench.open()
    assert bench.is_bad(0)


@pytest.mark.parametrize("seed", range(8))  # how much of the write happened
@pytest.mark.parametrize("fault", ["killed", "failed"])
@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("change", ["write", "write with parts", "punch"])
def test_a_repair_that_does_not_end_leaves_the_block_bad_or_good_never_believed(
    change: str, step: int, fault: str, seed: int
) -> None:
    bench = Bench(seed)
    bench.file.write(0, [b"o" * 3 * SUM_BLOCK_BYTES])
    bench.file.sync_data()
    bench.disk.rot("data", SUM_BLOCK_BYTES + 700)
    assert bench.file.verify(Extent(0, SIZE_BYTES)) == [Extent(SUM_BLOCK_BYTES, SUM_BLOCK_BYTES)]
    bench.disk.before_step = (
        cut_power_at(step) if fault == "killed" else fail_at(step, StorageFailure.NO_SPACE)
    )
    with contextlib.suppress(PowerCut, StorageError):
        match change:
            case "write":
                bench.file.write(0, [b"o" * 3 * SUM_BLOCK_BYTES])
            case "write with parts":
                bench.file.write(512, [b"o" * (3 * SUM_BLOCK_BYTES - 1024)])
            case "punch":
                bench.file.punch(0, 3 * SUM_BLOCK_BYTES)
    bench.disk.before_step = no_fault
    bench.file = bench.open()
    if not bench.is_bad(SUM_BLOCK_BYTES):
        assert bench.file.read(SUM_BLOCK_BYTES, SUM_BLOCK_BYTES) in (
            b"o" * SUM_BLOCK_BYTES,
            bytes(SUM_BLOCK_BYTES),
        )
    for good in (0, 2 * SUM_BLOCK_BYTES):
        assert not bench.is_bad(good)


def test_checksums_that_come_with_a_write_are_believed() -> None:
    """Right or wrong: whoever made them saw the data first."""
    bench = Bench()
    data = [Random(n).randbytes(SUM_BLOCK_BYTES) for n in range(2)]
    bench.file.write(0, data, sums_of_all(data))
    assert bytes(bench.file.read(0, 2 * SUM_BLOCK_BYTES)) == b"".join(data)
    bench.file.write(SUM_BLOCK_BYTES, [b"x" * SUM_BLOCK_BYTES], sums_of(data[0]))
    assert (bench.is_bad(0), bench.is_bad(SUM_BLOCK_BYTES)) == (False, True)


@pytest.mark.parametrize("cut", [512, SUM_BLOCK_BYTES, SUM_BLOCK_BYTES + 512])
def test_what_is_written_from_several_buffers_has_its_checksums(cut: int) -> None:
    bench = Bench()
    data = Random(cut).randbytes(3 * SUM_BLOCK_BYTES)
    bench.file.write(SUM_BLOCK_BYTES, [data[:cut], data[cut:]])
    assert not bench.is_bad(SUM_BLOCK_BYTES, len(data))
    assert bytes(bench.directory.open("sums").read(8, 24)) == sums_of(data)


def test_a_block_that_the_disk_has_lost_is_bad() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.data.punch(0, SUM_BLOCK_BYTES)
    assert bench.is_bad(0)
    assert bench.file.verify(Extent(0, SIZE_BYTES)) == [Extent(0, SUM_BLOCK_BYTES)]


def test_a_checksum_that_rotted_makes_its_block_bad() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.sync_sums()
    bench.disk.rot("sums", 8)
    assert not bench.is_bad(0)
    assert bench.is_bad(SUM_BLOCK_BYTES)


@pytest.mark.parametrize("blocks", [15, 16, 17, 40])
def test_one_bad_block_of_many_is_found_wherever_it_is_and_whatever_is_unknown(blocks: int) -> None:
    """Many are compared all at once, if that does."""
    size_bytes = (blocks - 1) * SUM_BLOCK_BYTES + 512
    bench = Bench(size_bytes=size_bytes)
    content = Random(blocks).randbytes(size_bytes)
    for forgotten in (None, 0, 1, blocks - 1):
        bench.file.write(0, [content])
        if forgotten is not None:
            bench.file.forget(Extent(forgotten * SUM_BLOCK_BYTES, 1))
        assert bench.file.read_nowait(0, size_bytes) == bench.file.read(0, size_bytes) == content
        for bad in range(blocks):
            at = bad * SUM_BLOCK_BYTES + 300
            bench.file.data.write(at, [bytes([content[at] ^ 1])])
            assert bench.is_bad(0, size_bytes) == (bad != forgotten)
            bench.file.data.write(at, [content[at : at + 1]])
        assert not bench.is_bad(0, size_bytes)


def test_forgotten_checksums_are_made_anew_by_verify() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.forget(Extent(0, SIZE_BYTES))
    bench.file.sync_data()
    bench.disk.rot("data", 5)
    assert not bench.is_bad(0), "it cannot be told"
    assert bench.file.verify(Extent(0, SIZE_BYTES)) == []
    bench.disk.rot("data", 5)
    assert bench.is_bad(0)


LAST: Final = SIZE_BYTES - 512  # where the short last block begins
GROWN: Final = [SIZE_BYTES + 512, SIZE_BYTES + SUM_BLOCK_BYTES - 512, SIZE_BYTES + 3 * SUM_BLOCK_BYTES]


def last_written(*, rotten: bool, seed: int = 0) -> Bench:
    """Blocks that are stable; in the last one, which is short, a bit of the disk's may have turned."""
    bench = Bench(seed)
    bench.file.write(0, [b"o" * SIZE_BYTES])
    bench.file.sync_data()
    bench.file.sync_sums()
    if rotten:
        bench.disk.rot("data", LAST + 100)
    return bench


@pytest.mark.parametrize("size_bytes", GROWN)
def test_rot_in_a_short_last_block_is_not_believed_when_the_file_has_grown(size_bytes: int) -> None:
    bench = last_written(rotten=True)
    bench.file.make_room(size_bytes)
    bench.file.set_size(size_bytes)
    assert bench.is_bad(LAST)
    bench.file.write(LAST + 200, [b"n"])
    assert bench.is_bad(LAST)
    assert not bench.is_bad(0)
    whole = min(SUM_BLOCK_BYTES, size_bytes - LAST)
    assert bench.file.verify(Extent(0, size_bytes)) == [Extent(LAST, whole)]
    bench.file.write(LAST, [b"n" * whole])
    assert not bench.is_bad(LAST)


def test_rot_that_the_page_cache_hides_is_found_when_the_file_grows() -> None:
    """What is forgotten then, nothing would find later."""
    bench = last_written(rotten=False)
    dropped: list[str] = []

    def before_step(step: str) -> None:
        if step == "drop data" and not dropped:
            dropped.append(step)
            bench.disk.rot("data", LAST + 100)

    bench.disk.before_step = before_step
    bench.file.make_room(GROWN[0])
    bench.disk.before_step = no_fault
    bench.file.set_size(GROWN[0])
    assert bench.is_bad(LAST)


def test_rot_is_not_believed_either_where_its_checksum_is_that_of_the_block_as_it_will_be() -> None:
    for size_bytes in GROWN:
        bench = last_written(rotten=True)
        will_be = bench.disk.content("data")[LAST:].ljust(min(SUM_BLOCK_BYTES, size_bytes - LAST), b"\0")
        bench.directory.open("sums").write((BLOCKS - 1) * 8, [sums_of(will_be)])
        assert bench.is_bad(LAST)
        bench.file.make_room(size_bytes)
        assert bench.is_bad(LAST)
        bench.file.set_size(size_bytes)
        assert bench.is_bad(LAST)


@pytest.mark.parametrize("rotten", [False, True])
@pytest.mark.parametrize("crash", ["kill", "power", "failure"])
@pytest.mark.parametrize("size_bytes", GROWN)
def test_growing_that_is_cut_anywhere_makes_nothing_good_bad_nor_bad_good(
    size_bytes: int, crash: str, rotten: bool
) -> None:
    """It may be done again, to another size, or never; the new size counts when all is stable."""
    for number in range(40):
        bench = last_written(rotten=rotten, seed=number)
        steps = fail_at(number, StorageFailure.WRITE_ERROR) if crash == "failure" else cut_power_at(number)
        bench.disk.before_step = steps
        grown = False
        with contextlib.suppress(PowerCut, StorageError):
            bench.file.make_room(size_bytes)
            bench.file.sync_data()
            bench.file.sync_sums()
            grown = True
        bench.disk.before_step = no_fault
        if crash != "failure":
            bench.disk.power_cut() if crash == "power" else bench.disk.kill_process()
            bench.directory = bench.disk.open_directory()
            bench.file = bench.open()
        assert bench.is_bad(LAST) == rotten, "the file has its old size"
        assert not bench.is_bad(LAST - 1)
        other_bytes = SIZE_BYTES + 1024
        for wanted_bytes in (size_bytes,) if grown else (other_bytes, size_bytes):
            bench.file.make_room(wanted_bytes)
            assert bench.is_bad(LAST) == rotten
        bench.file.set_size(size_bytes)
        bench.size_bytes = size_bytes
        for file in (bench.file, bench.open()):
            bench.file = file
            assert bench.is_bad(LAST) == rotten
            assert bool(bench.file.verify(Extent(0, size_bytes))) == rotten
        if grown:
            return
    pytest.fail("growing never came to its end")


def test_a_last_block_that_cannot_be_read_does_not_grow_and_loses_nothing() -> None:
    bench = last_written(rotten=False)
    bench.disk.before_step = fail_at(0, StorageFailure.READ_ERROR, "read data")
    with pytest.raises(StorageError):
        bench.file.make_room(GROWN[0])
    bench.disk.before_step = no_fault
    assert not bench.is_bad(LAST)
    bench.disk.rot("data", LAST)
    assert bench.is_bad(LAST)


def test_many_blocks_are_forgotten_at_once() -> None:
    size = 3000 * SUM_BLOCK_BYTES
    bench = Bench(size_bytes=size)
    for number in (0, 1, 2998, 2999):
        bench.file.write(number * SUM_BLOCK_BYTES, [b"o" * SUM_BLOCK_BYTES])
    bench.file.data.punch(0, size)
    assert bench.file.verify(Extent(0, size)) == [Extent(0, 8192), Extent(size - 8192, 8192)]
    bench.file.forget(Extent(SUM_BLOCK_BYTES, size - 2 * SUM_BLOCK_BYTES))
    assert bench.file.verify(Extent(0, size)) == [Extent(0, 4096), Extent(size - 4096, 4096)]


class Between:
    """Stands before a file, and does something before its next read."""

    def __init__(self, file: DataFile, action: Any) -> None:
        self.file, self.action = file, action

    def read(self, offset: int, length: int) -> Buffer:
        action, self.action = self.action, None
        if action is not None:
            action()
        return self.file.read(offset, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("at", [(0, SUM_BLOCK_BYTES), (512, 512)])
def test_a_write_between_checksum_and_data_is_not_taken_for_rot(at: tuple[int, int]) -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * SUM_BLOCK_BYTES])
    other = bench.open()
    bench.file.data = Between(bench.file.data, lambda: other.write(at[0], [b"n" * at[1]]))
    content = bytes(bench.file.read(0, SUM_BLOCK_BYTES))
    assert content[at[0] : sum(at)] == b"n" * at[1]
    assert bench.file.mismatches == 0


def test_two_writes_that_leave_the_checksum_that_there_was_are_not_taken_for_rot() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * SUM_BLOCK_BYTES])
    other, letters = bench.open(), {"read data": b"n", "read sums": b"o"}

    def before_step(step: str) -> None:
        if step == "read data" or letters.keys() == {"read sums"}:
            bench.disk.before_step = no_fault
            other.write(512, [letters.pop(step) * 512])
            bench.disk.before_step = before_step if letters else no_fault

    bench.disk.before_step = before_step
    assert bench.file.read(0, 512) == b"o" * 512
    assert not letters
    assert bench.file.mismatches == 0


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4096), (0, 8192), (0, SIZE_BYTES), (512, 512), (1000, 9000)]
)
def test_after_a_kill_in_a_write_in_place_the_word_tells_of_all_that_seems_to_be_rot(
    offset: int, length: int
) -> None:
    seemed_rotten = 0
    for seed, step in itertools.product(range(20), range(12)):
        bench = Bench(seed)
        bench.file.write(0, [b"o" * SIZE_BYTES])
        bench.file.slot = word = new_word()
        bench.disk.before_step = cut_power_at(step)
        with contextlib.suppress(PowerCut):
            bench.file.write(offset, [b"n" * length], in_place=True)
        bench.disk.before_step = no_fault
        bench.file = bench.open()
        seemed_rotten += bench.is_bad(0, SIZE_BYTES)
        bench.file = bench.open()
        told = extent_under_way(word[0], SIZE_BYTES)
        assert Extent(offset, length).clip(told) in (None, Extent(offset, length))
        bench.file.forget(told)
        content = bytes(bench.file.read(0, SIZE_BYTES))
        assert set(content[offset : offset + length]) <= set(b"on")
        assert set(content[:offset] + content[offset + length :]) <= set(b"o")
    whole = offset == 0  # parts of blocks are written as ever
    assert bool(seemed_rotten) == whole, "kills between data and checksum are among them"


def new_word() -> memoryview:
    return memoryview(bytearray(8)).cast("Q")


def test_a_write_in_place_takes_two_steps_and_leaves_the_word_empty() -> None:
    bench = Bench()
    bench.file.slot = word = new_word()
    seen: list[tuple[str, Extent]] = []
    bench.disk.before_step = lambda step: seen.append((step, extent_under_way(word[0], SIZE_BYTES)))
    bench.file.write(SUM_BLOCK_BYTES, [b"n" * 2 * SUM_BLOCK_BYTES], in_place=True)
    place = Extent(SUM_BLOCK_BYTES, 2 * SUM_BLOCK_BYTES)
    assert seen == [("write data", place), ("write sums", place)]
    assert word[0] == 0
    seen.clear()
    bench.file.write(LAST, [b"n" * 512], in_place=True)  # the short last block is whole
    assert seen == [(step, Extent(LAST, 512)) for step in ("write data", "write sums")]
    seen.clear()
    bench.file.write(SUM_BLOCK_BYTES, [b"n" * 512], in_place=True)
    assert {told.length_bytes for _, told in seen} == {0}, "a part of a block is written as ever"
    bench.disk.before_step = no_fault
    assert not bench.is_bad(0, SIZE_BYTES)


def test_a_bad_block_is_written_in_place_as_ever() -> None:
    """Its checksum must stay wrong until its data is there."""
    bench = Bench()
    bench.file.write(0, [b"o" * 2 * SUM_BLOCK_BYTES])
    bench.file.sync_data()
    bench.disk.rot("data", 700)
    assert bench.is_bad(0)
    bench.file.slot = word = new_word()
    told: list[int] = []
    bench.disk.before_step = lambda _: told.append(word[0])
    bench.file.write(0, [b"n" * SUM_BLOCK_BYTES], in_place=True)
    assert not any(told)
    bench.disk.before_step = no_fault
    assert not bench.is_bad(0)


@pytest.mark.parametrize("step", range(2))
def test_a_write_in_place_that_failed_leaves_no_bad_block_and_no_word(step: int) -> None:
    bench = Bench(step)
    bench.file.write(0, [b"o" * SIZE_BYTES])
    bench.file.slot = word = new_word()
    bench.disk.before_step = fail_at(step, StorageFailure.NO_SPACE)
    with pytest.raises(StorageError):
        bench.file.write(0, [b"n" * 8192], in_place=True)
    bench.disk.before_step = no_fault
    assert not bench.is_bad(0, SIZE_BYTES)
    assert (word[0], bench.file.slot) == (0, word)


def test_where_nothing_more_can_be_written_the_word_stays_for_the_next_process() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * SIZE_BYTES])
    bench.file.slot = word = new_word()

    def refuse(step: str) -> None:
        raise StorageError(StorageFailure.WRITE_ERROR, step)

    bench.disk.before_step = refuse
    with pytest.raises(StorageError):
        bench.file.write(SUM_BLOCK_BYTES, [b"n" * SUM_BLOCK_BYTES], in_place=True)
    bench.disk.before_step = no_fault
    bench.file.write(0, [b"m" * SUM_BLOCK_BYTES], in_place=True)
    assert extent_under_way(word[0], SIZE_BYTES) == Extent(SUM_BLOCK_BYTES, SUM_BLOCK_BYTES)
    bench.file.forget(extent_under_way(word[0], SIZE_BYTES))
    assert not bench.is_bad(0, SIZE_BYTES)


class Within(Between):
    """Calls `action` when a half of what is written is there."""

    def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self.file.write(offset, [data[: len(data) // 2]])
        action, self.action = self.action, None
        if action is not None:
            action()
        self.file.write(offset, [data])


def test_a_read_within_a_write_in_place_takes_nothing_for_rot_but_what_is() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * SIZE_BYTES])
    bench.file.sync_data()
    bench.file.slot = new_word()
    seen: list[bytes] = []

    def look() -> None:
        seen.append(bytes(bench.file.read(0, 3 * SUM_BLOCK_BYTES)))
        bench.disk.rot("data", 2 * SUM_BLOCK_BYTES + 9)
        with pytest.raises(StorageError, match=f"block at {2 * SUM_BLOCK_BYTES} is not"):
            bench.file.read(0, 3 * SUM_BLOCK_BYTES)

    bench.file.data = Within(bench.file.data, look)
    bench.file.write(0, [b"n" * 2 * SUM_BLOCK_BYTES], in_place=True)
    assert seen == [b"n" * SUM_BLOCK_BYTES + b"o" * 2 * SUM_BLOCK_BYTES]
    assert bench.is_bad(2 * SUM_BLOCK_BYTES)
    assert not bench.is_bad(0, 2 * SUM_BLOCK_BYTES)


def test_a_write_in_place_between_checksum_and_data_is_not_taken_for_rot() -> None:
    bench = Bench()
    bench.file.write(0, [b"o" * SUM_BLOCK_BYTES])
    bench.file.slot = new_word()
    whole = [b"n" * SUM_BLOCK_BYTES]
    bench.file.data = Between(bench.file.data, lambda: bench.file.write(0, whole, in_place=True))
    assert bytes(bench.file.read(0, SUM_BLOCK_BYTES)) == whole[0]
    assert bench.file.mismatches == 0


def test_writes_to_parts_of_one_block_take_turns() -> None:
    bench = Bench()
    entered, go = threading.Event(), threading.Event()

    class Slow(Between):
        def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
            if not entered.is_set():
                entered.set()
                assert go.wait(10)
            self.file.write(offset, buffers)

    bench.file.data = Slow(bench.file.data, None)
    first = threading.Thread(target=bench.file.write, args=(0, [b"a" * 512]))
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=bench.file.write, args=(512, [b"b" * 512]))
    second.start()
    go.set()
    first.join()
    second.join()
    assert bench.file.read(0, 1024) == b"a" * 512 + b"b" * 512


def pair(blocks: int, short_bytes: int = 0) -> tuple[Bench, Bench]:
    """Two files of so many blocks: "a" in the first, "b" in the other."""
    size = blocks * SUM_BLOCK_BYTES + short_bytes
    source, target = Bench(1, size), Bench(2, size)
    source.file.write(0, (b"a" * size,))
    target.file.write(0, (b"b" * size,))
    for bench in (source, target):
        bench.file.sync_data()
    return source, target


def test_blocks_that_are_taken_have_the_checksums_that_they_had() -> None:
    source, target = pair(8, 512)
    target.file.take(source.file, 1, [(0, 2), (3, 1), (7, 1)])
    letters = b"".join(bytes(target.file.read(number * SUM_BLOCK_BYTES, 512))[:1] for number in range(9))
    assert letters == b"baababbba"
    assert target.file.verify(Extent(0, target.size_bytes)) == []
    expected = sums_of(target.file.read(0, target.size_bytes))
    assert target.disk.content("sums") == expected
    target.file.sync_data()
    target.disk.rot("data", SUM_BLOCK_BYTES)
    assert target.is_bad(SUM_BLOCK_BYTES)


def test_what_is_taken_is_as_bad_as_it_was_and_what_was_bad_before_is_not() -> None:
    source, target = pair(8)
    for bench, rotten in ((source, (1, 2)), (target, (2, 3, 5))):
        for number in rotten:
            bench.disk.rot("data", number * SUM_BLOCK_BYTES)
            assert number == 1 or bench.is_bad(number * SUM_BLOCK_BYTES), "the others are known to be bad"
    target.file.take(source.file, 0, [(1, 3)])
    assert [target.is_bad(number * SUM_BLOCK_BYTES) for number in range(8)] == [
        number in (1, 2, 5) for number in range(8)
    ]
    assert list(target.file._bad) == [5, 2, 1]
    for number in (1, 2):
        target.file.write(number * SUM_BLOCK_BYTES, (b"n" * SUM_BLOCK_BYTES,))
        assert not target.is_bad(number * SUM_BLOCK_BYTES)


@pytest.mark.parametrize("rotten", ["source", "target"])
def test_one_bad_block_among_those_that_are_taken_is_noted(rotten: str) -> None:
    source, target = pair(4)
    bench = source if rotten == "source" else target
    bench.disk.rot("data", SUM_BLOCK_BYTES)
    assert bench.is_bad(SUM_BLOCK_BYTES)
    target.file.take(source.file, 0, [(0, 4)])
    assert list(target.file._bad) == ([1] if rotten == "source" else [])
    assert target.is_bad(SUM_BLOCK_BYTES) == (rotten == "source")


def test_what_is_unknown_of_the_blocks_that_are_taken_is_known_then() -> None:
    source, target = pair(4)
    source.file.forget(Extent(SUM_BLOCK_BYTES, SUM_BLOCK_BYTES))
    source.file.spoil(2 * SUM_BLOCK_BYTES)
    target.file.take(source.file, 0, [(0, 4)])
    known = sums_of(b"a" * 2 * SUM_BLOCK_BYTES)
    assert target.disk.content("sums")[:16] == known
    assert target.is_bad(2 * SUM_BLOCK_BYTES)


@pytest.mark.parametrize(
    ("runs", "groups", "writes"),
    [
        ([(0, 1), (2, 1), (4, 3)], 1, 3),
        ([(0, 1), (513, 1), (1030, 1)], 2, 3),
        ([(0, 1500), (1502, 2)], 1, 3),
        ([], 0, 0),
    ],
)
def test_few_calls_take_what_lies_near(runs: list[tuple[int, int]], groups: int, writes: int) -> None:
    source, target = pair(1600)
    seen: list[str] = []
    source.disk.before_step = target.disk.before_step = seen.append
    target.file.take(source.file, 0, runs)
    source.disk.before_step = target.disk.before_step = no_fault
    assert seen.count("write sums") == groups
    assert seen.count("read sums") == 2 * groups
    assert seen.count("write data") == seen.count("read data") == writes
    taken = {number for start, count in runs for number in range(start, start + count)}
    for number in range(1600):
        letter = b"a" if number in taken else b"b"
        assert target.file.read(number * SUM_BLOCK_BYTES, 1) == letter
    assert target.file.verify(Extent(0, target.size_bytes)) == []


def test_over_real_files(tmp_path: Any) -> None:
    directory = open_directory(tmp_path)
    data, sums = directory.create("data"), directory.create("sums")
    data.truncate(SIZE_BYTES)
    sums.truncate(sums_size_bytes(SIZE_BYTES))
    file = CheckedFile(data, sums, SIZE_BYTES)
    file.write(100, [b"x" * 9000])
    file.punch(4000, 4500)
    expected = b"x" * 3900 + bytes(4500) + b"x" * 600
    assert file.read(100, 9000) == expected
    assert file.verify(Extent(0, SIZE_BYTES)) == []
    file.sync_data()
    file.sync_sums()
    data.write(8500, (b"y",))
    with pytest.raises(StorageError, match="the block at 8192 is not what was written"):
        file.read(8192, 1)
    assert file.verify(Extent(0, SIZE_BYTES)) == [Extent(8192, 4096)]
    file.close()
    directory.close()
