"""Atomic writes: whatever stops them, and whenever, the whole of each is there or nothing of it."""

from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Final

import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.block import ATOMIC_BYTES_MAX
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.undo_log_sys import UNDO_FILE
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import KIB, MIB

SIZE_BYTES: Final = 32 * KIB
HEAD: Final = "volume-head-000.img"
BLOCK: Final = 512


def open_memory(disk: MemoryDisk, boot_id: str, size_bytes: int = SIZE_BYTES) -> Store:
    identity = ReplicaState("v-1", 1, "demo", size_bytes, 512)
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


class Crash:
    """A store that atomic writes were made to, and the contents after each of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = MemoryDisk(self.random)
        self.store = open_memory(self.disk, "b-1")
        self.boots = 1
        first = self.random.randbytes(SIZE_BYTES // 2)
        self.store.write(0, len(first), [first])  # the other half is a hole
        self.store.flush()
        self.versions = [first + bytes(SIZE_BYTES // 2)]
        self.flushed = 0

    def steps(self) -> Iterator[None]:
        """Writes and flushes without end."""
        while True:
            if self.random.random() < 0.2:
                self.store.flush()
                self.flushed = len(self.versions) - 1
            else:
                start = self.random.randrange(0, SIZE_BYTES, BLOCK)
                length = self.random.randrange(0, min(SIZE_BYTES - start, 12 * KIB) + 1, BLOCK)
                data = self.random.randbytes(length)
                content = self.versions[-1]
                self.versions.append(content[:start] + data + content[start + length :])
                self.store.write_atomic(start, length, [data[: length // 2], data[length // 2 :]])
            yield

    def run_until(self, step: int) -> bool:
        """Go on until the machine or the process stops before `step`; whether that was inside a write."""
        self.disk.before_step = cut_power_at(step)
        before = len(self.versions)
        try:
            for _ in self.steps():
                before = len(self.versions)
        except PowerCut:
            self.disk.before_step = no_fault
        return len(self.versions) != before

    def come_back(self, *, power_cut: bool) -> bytes:
        if power_cut:
            self.disk.power_cut()
            self.boots += 1
        else:
            self.disk.kill_process()
        self.store = open_memory(self.disk, f"b-{self.boots}")
        return bytes(self.store.read(0, SIZE_BYTES))


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=4))
@example(seed=0, cuts=[3])
@settings(max_examples=150, deadline=None)
def test_a_power_cut_leaves_the_volume_as_after_one_of_the_writes_since_the_last_flush(
    seed: int, cuts: list[int]
) -> None:
    crash = Crash(seed)
    for cut in cuts:
        crash.run_until(cut)
        content = crash.come_back(power_cut=True)
        assert content in crash.versions[crash.flushed :]
        crash.versions, crash.flushed = [content], 0


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_a_kill_undoes_at_most_the_write_that_was_not_answered(seed: int, cuts: list[int]) -> None:
    crash = Crash(seed)
    for cut in cuts:
        inside = crash.run_until(cut)
        content = crash.come_back(power_cut=False)
        assert content in crash.versions[-1 - inside :]
        crash.versions, crash.flushed = [content], 0


@given(seed=st.integers(0, 2**32), steps=st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_power_that_goes_again_while_a_write_is_undone_changes_nothing(seed: int, steps: list[int]) -> None:
    crash = Crash(seed)
    crash.run_until(30)
    crash.disk.power_cut()
    for step in steps:
        crash.boots += 1
        crash.disk.before_step = cut_power_at(step)
        with suppress(PowerCut):
            crash.store = open_memory(crash.disk, f"b-{crash.boots}")
        crash.disk.power_cut()
        crash.disk.before_step = no_fault
    assert crash.come_back(power_cut=True) in crash.versions[crash.flushed :]


def test_a_later_write_that_was_flushed_is_not_undone_with_the_atomic_one() -> None:
    for seed in range(40):
        disk = MemoryDisk(Random(seed))
        store = open_memory(disk, "b-1")
        store.write_atomic(0, 8 * KIB, [b"a" * 8 * KIB])
        store.write(BLOCK, BLOCK, [b"b" * BLOCK])
        store.flush()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert store.read(0, 3 * BLOCK) == b"a" * BLOCK + b"b" * BLOCK + b"a" * BLOCK


def test_a_later_write_outlives_a_kill() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, "b-1")
    store.write_atomic(0, 8 * KIB, [b"a" * 8 * KIB])
    store.write(0, BLOCK, [b"b" * BLOCK])
    disk.kill_process()
    store = open_memory(disk, "b-1")
    assert store.read(0, 2 * BLOCK) == b"b" * BLOCK + b"a" * BLOCK


def test_what_undoes_a_write_gives_holes_back() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, "b-1")
    disk.before_step = fail_at(0, StorageFailure.NO_SPACE, f"write {HEAD}")
    with pytest.raises(StorageError) as caught:
        store.write_atomic(4 * KIB, 8 * KIB, [b"a" * 8 * KIB])
    assert caught.value.failure is StorageFailure.NO_SPACE
    assert store.allocated(Extent(0, SIZE_BYTES)) == []
    assert store.broken is None


@pytest.mark.parametrize("number", range(5))
def test_a_disk_too_full_for_the_log_refuses_the_write_and_nothing_else(number: int) -> None:
    disk = MemoryDisk(Random(number))
    store = open_memory(disk, "b-1")
    store.write(0, 4 * KIB, [b"o" * 4 * KIB])
    disk.before_step = fail_at(number, StorageFailure.NO_SPACE, f"write {UNDO_FILE}")
    with pytest.raises(StorageError) as caught:
        store.write_atomic(0, 4 * KIB, [b"a" * 4 * KIB])
    assert caught.value.failure is StorageFailure.NO_SPACE
    assert store.read(0, 4 * KIB) == b"o" * 4 * KIB
    store.write_atomic(0, 4 * KIB, [b"b" * 4 * KIB])
    assert store.read(0, 4 * KIB) == b"b" * 4 * KIB


def test_a_write_whose_end_cannot_be_told_breaks_the_store() -> None:
    """After a kill the log would undo it, and all that came later."""
    store = open_memory(disk := MemoryDisk(Random(0)), "b-1")
    disk.before_step = fail_at(5, StorageFailure.WRITE_ERROR, f"write {UNDO_FILE}")
    with pytest.raises(StorageError):
        store.write_atomic(0, BLOCK, [b"a" * BLOCK])
    assert store.broken is not None


def test_a_log_that_could_not_be_synced_breaks_the_store() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, "b-1")
    store.write_atomic(0, BLOCK, [b"a" * BLOCK])
    store.flush()
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, f"sync {UNDO_FILE}")
    with pytest.raises(StorageError):
        store.write_atomic(0, BLOCK, [b"b" * BLOCK])
    assert store.broken is not None


def test_a_write_larger_than_the_log_is_refused() -> None:
    store = open_memory(MemoryDisk(Random(0)), "b-1", 2 * MIB)
    largest = bytes(ATOMIC_BYTES_MAX)
    store.write_atomic(BLOCK, len(largest), [largest])
    with pytest.raises(StorageError) as caught:
        store.write_atomic(0, len(largest) + BLOCK, [largest, bytes(BLOCK)])
    assert caught.value.failure is StorageFailure.OUT_OF_RANGE


@given(noise=st.binary(max_size=600), at=st.integers(0, 5000))
@settings(max_examples=100, deadline=None)
def test_a_damaged_log_undoes_nothing(noise: bytes, at: int) -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, "b-1")
    store.write_atomic(0, BLOCK, [b"a" * BLOCK])
    store.write_atomic(0, BLOCK, [b"b" * BLOCK])
    content = disk.content(UNDO_FILE)
    head = disk.content(HEAD)
    disk.kill_process()
    damaged = content[:at] + noise + content[at + len(noise) :]
    disk.put(UNDO_FILE, damaged[: len(content)])
    disk.put(HEAD, head)
    store = open_memory(disk, "b-2")
    entry = [*range(48), *range(4 * KIB, 4 * KIB + 16 + BLOCK)]  # header, one part, its data
    whole = all(content[place] == damaged[place] for place in entry)
    assert bytes(store.read(0, BLOCK)) == (b"a" if whole else b"b") * BLOCK


def test_a_log_of_a_newer_version_is_left_to_it() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, "b-1")
    store.write_atomic(0, BLOCK, [b"a" * BLOCK])
    fields = b"pjatomic" + (2).to_bytes(4, "little") + disk.content(UNDO_FILE)[12:40]
    newer = fields + xxhash.xxh3_64_intdigest(fields).to_bytes(8, "little") + disk.content(UNDO_FILE)[48:]
    disk.kill_process()
    disk.put(UNDO_FILE, newer)
    with pytest.raises(ConfigError, match="format 2"):
        open_memory(disk, "b-2")
    assert disk.content(UNDO_FILE) == newer
