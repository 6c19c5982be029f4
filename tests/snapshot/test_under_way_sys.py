"""A kill in a write in place costs the checksums of what it wrote, and of nothing else; it is never rot."""

import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

import pytest

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.snapshot.state import REGION_BYTES
from pyjiva.snapshot.under_way_sys import SLOT_FILE, under_way
from pyjiva.sparse import SUM_BLOCK_BYTES, SharedSlots, open_directory
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import KIB

SIZE_BYTES: Final = 32 * KIB
HEAD: Final = "volume-head-000.img"
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
OLD, NEW = b"o" * SUM_BLOCK_BYTES, b"n" * SUM_BLOCK_BYTES


def open_store(disk: MemoryDisk, boot_id: str = "b-1") -> Store:
    return Store.open_in(disk.open_directory(), IDENTITY, boot_id=boot_id)


def written(seed: int = 0) -> tuple[MemoryDisk, Store]:
    """A store that is full and has begun to write in place."""
    disk = MemoryDisk(Random(seed))
    store = open_store(disk)
    for block in range(0, SIZE_BYTES, SUM_BLOCK_BYTES):
        store.write(block, SUM_BLOCK_BYTES, [OLD])
    store.begin_in_place()
    return disk, store


def kill_at(disk: MemoryDisk, store: Store, step: int, offset: int) -> None:
    """Be killed before that step of a write in place."""
    disk.before_step = cut_power_at(step)
    with suppress(PowerCut):
        store.write(offset, SUM_BLOCK_BYTES, [NEW], in_place=True)
    disk.before_step = no_fault
    disk.kill_process()


def unknown_blocks(disk: MemoryDisk) -> list[int]:
    sums = disk.content(f"{HEAD}.sums")
    return [at // 8 for at in range(0, len(sums), 8) if not any(sums[at : at + 8])]


@pytest.mark.parametrize("step", range(3))
def test_the_next_process_forgets_the_block_that_was_under_way_and_no_other(step: int) -> None:
    for seed in range(10):
        disk, store = written(seed)
        kill_at(disk, store, step, 3 * SUM_BLOCK_BYTES)
        store = open_store(disk)
        assert unknown_blocks(disk) == ([3] if step < 2 else [])
        content = bytes(store.read(0, SIZE_BYTES))
        assert set(content[3 * SUM_BLOCK_BYTES : 4 * SUM_BLOCK_BYTES]) <= set(b"on")
        store.flush()
        disk.rot(HEAD, 5 * SUM_BLOCK_BYTES)
        with pytest.raises(StorageError) as caught:
            store.read(0, SIZE_BYTES)
        assert caught.value.failure is StorageFailure.BAD_CHECKSUM


def test_a_process_that_does_not_find_the_word_forgets_what_may_not_be_stable() -> None:
    size_bytes = 3 * REGION_BYTES
    identity = ReplicaState("v-1", 1, "demo", size_bytes, 512)
    disk = MemoryDisk(Random(1))
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    store.write(REGION_BYTES, SUM_BLOCK_BYTES, [OLD])
    store.flush()
    assert store.mark_clean()
    store.write(0, SUM_BLOCK_BYTES, [OLD])
    store.begin_in_place()
    kill_at(disk, store, 1, SUM_BLOCK_BYTES)
    disk.slots.words.clear()
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    sums = disk.content(f"{HEAD}.sums")
    assert not any(sums[: REGION_BYTES // SUM_BLOCK_BYTES * 8])
    assert any(sums), "that of a region that is stable"
    assert store.read(0, SUM_BLOCK_BYTES) == OLD


def test_a_kill_at_any_step_of_opening_changes_nothing() -> None:
    for step in count():
        disk, store = written(step)
        kill_at(disk, store, 1, 0)
        disk.before_step = cut_power_at(step)
        try:
            store = open_store(disk)
            store.begin_in_place()
        except PowerCut:
            done = False
        else:
            done = True
        disk.before_step = no_fault
        disk.kill_process()
        store = open_store(disk)
        assert unknown_blocks(disk) == [0]
        assert set(bytes(store.read(0, SIZE_BYTES))) <= set(b"on")
        if done:
            assert step > 10
            assert len(disk.slots.words) == 1, "the old word is gone"
            return


def test_a_directory_that_was_closed_has_nothing_under_way() -> None:
    disk, store = written()
    store.write(0, SUM_BLOCK_BYTES, [NEW], in_place=True)
    store.close()
    assert not disk.slots.words
    assert disk.content(SLOT_FILE) == b""
    store = open_store(disk)
    assert unknown_blocks(disk) == []


@pytest.mark.parametrize("step", range(4))
def test_a_directory_that_a_full_disk_closes_loses_nothing(step: int) -> None:
    disk, store = written()
    disk.before_step = fail_at(step, StorageFailure.NO_SPACE)
    store.close()
    disk.before_step = no_fault
    open_store(disk)
    assert unknown_blocks(disk) == []


@pytest.mark.parametrize("step", range(8))
def test_on_a_full_disk_writes_in_place_are_as_all_others(step: int) -> None:
    disk = MemoryDisk(Random(1))
    store = open_store(disk)
    store.write(0, SUM_BLOCK_BYTES, [OLD])
    disk.before_step = fail_at(step, StorageFailure.NO_SPACE)
    with suppress(StorageError):
        store.begin_in_place()
    disk.before_step = no_fault
    kill_at(disk, store, 1, 0)
    store = open_store(disk)
    assert set(bytes(store.read(0, SUM_BLOCK_BYTES))) <= set(b"on")
    store.begin_in_place()
    assert len(disk.slots.words) == 1


def test_a_machine_without_slots_does_with_what_is_in_the_files() -> None:
    disk, store = written()
    disk.kill_process()
    disk.slots.available = False
    store = open_store(disk)
    store.begin_in_place()
    assert disk.content(SLOT_FILE) == b"" and not disk.slots.words
    kill_at(disk, store, 2, 0)
    store = open_store(disk)
    assert unknown_blocks(disk) == [0]
    assert bytes(store.read(0, SUM_BLOCK_BYTES)) == NEW


@pytest.mark.parametrize("content", [b"garbage", b"pyjiva-slot-" + b"0" * 32, b"\xff" * 44])
def test_a_name_that_leads_nowhere_is_a_word_that_is_lost(content: bytes) -> None:
    disk, _ = written()
    disk.kill_process()
    disk.put(SLOT_FILE, content)
    open_store(disk).begin_in_place()
    assert unknown_blocks(disk) == list(range(SIZE_BYTES // SUM_BLOCK_BYTES))
    assert disk.content(SLOT_FILE).decode() in disk.slots.words


def test_after_another_boot_and_after_a_clean_stop_the_word_says_nothing() -> None:
    disk, store = written()
    kill_at(disk, store, 1, 0)
    directory = disk.open_directory()
    state = store.state
    assert under_way(directory, state, "b-1") == [Extent(0, SUM_BLOCK_BYTES)]
    assert under_way(directory, state, "b-2") == []
    directory.close()
    store = open_store(disk)
    store.flush()
    assert store.mark_clean()
    disk.kill_process()
    directory = disk.open_directory()
    assert under_way(directory, store.state, "b-1") == []


def test_the_head_above_a_new_snapshot_has_the_word() -> None:
    disk, store = written()
    store.create_snapshot("s")
    store.write(0, 2 * SUM_BLOCK_BYTES, [OLD, OLD])
    files = {name: layer.file.slot for name, layer in store._layers.open_layers.items()}
    assert {name for name, slot in files.items() if slot is not None} == {""}
    steps: list[str] = []
    disk.before_step = steps.append
    store.write(0, SUM_BLOCK_BYTES, [NEW], in_place=True)
    disk.before_step = no_fault
    assert [step.split()[0] for step in steps] == ["write", "write"]
    assert all("head" in step for step in steps)
    steps.clear()
    disk.before_step = steps.append
    store.write(4 * SUM_BLOCK_BYTES, SUM_BLOCK_BYTES, [NEW], in_place=True)
    head = "volume-head-001.img"
    assert steps == [f"write {head}", f"write {head}.sums", f"write {head}.held"]


@pytest.mark.parametrize("step", range(4))
def test_a_kill_in_the_first_write_of_a_block_above_a_snapshot_leaves_the_old_block_or_the_new_one(
    step: int,
) -> None:
    disk, store = written()
    store.create_snapshot("s")
    kill_at(disk, store, step, 3 * SUM_BLOCK_BYTES)
    store = open_store(disk)
    content = bytes(store.read(0, SIZE_BYTES))
    before, after = content[: 3 * SUM_BLOCK_BYTES], content[4 * SUM_BLOCK_BYTES :]
    assert set(before + after) == set(b"o")
    assert content[3 * SUM_BLOCK_BYTES : 4 * SUM_BLOCK_BYTES] == (NEW if step == 3 else OLD)
    store.begin_in_place()
    store.write(3 * SUM_BLOCK_BYTES, SUM_BLOCK_BYTES, [NEW], in_place=True)
    assert store.read(3 * SUM_BLOCK_BYTES, SUM_BLOCK_BYTES) == NEW
    store.flush()
    disk.rot("volume-head-001.img", 3 * SUM_BLOCK_BYTES)
    with pytest.raises(StorageError, match="not what was written"):
        store.read(3 * SUM_BLOCK_BYTES, SUM_BLOCK_BYTES)


def test_a_second_process_takes_the_place_of_the_word_of_the_first() -> None:
    disk, store = written()
    (first,) = disk.slots.words
    disk.kill_process()
    store = open_store(disk)
    assert set(disk.slots.words) == {first}, "who only looks makes none"
    store.begin_in_place()
    (second,) = disk.slots.words
    assert first != second
    assert disk.content(SLOT_FILE) == second.encode()


WRITER: Final = """
import random, sys
from pyjiva.snapshot import Store
store = Store.open_or_create(sys.argv[1], volume_id="v-1", replica_id=1, volume_name="demo",
                             size_bytes=1 << 20, block_size_bytes=512)
store.write(0, 1 << 20, [bytes(1 << 20)])
store.begin_in_place()
assert store.writes_in_place(0, 1 << 20)
data = [random.randbytes(1 << 18) for _ in range(20)]
print("writing", flush=True)
while True:
    count = random.choice((1, 4, 64))
    at = random.randrange(256 - count + 1) * 4096
    store.write(at, count * 4096, [random.choice(data)[: count * 4096]], in_place=True)
"""


def test_real_processes_that_are_killed_while_they_write_leave_nothing_that_seems_to_be_rot(
    tmp_path: Path,
) -> None:
    cut = 0
    for number in range(8):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "r")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "writing\n"
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.005 * (number + 1))
            child.kill()
        directory = open_directory(tmp_path / "r")
        name = directory.open(SLOT_FILE).read(0, 44)
        cut += bool(directory.slots.look(bytes(name).decode()))
        directory.close()
        store = Store.open_or_create(
            tmp_path / "r", volume_id="v-1", replica_id=1, volume_name="demo",
            size_bytes=1 << 20, block_size_bytes=512,
        )  # fmt: skip
        assert store.state.written_boot_id == read_boot_id()
        store.verify(Extent(0, store.size_bytes))
        store.begin_in_place()
        store.close()
        assert SharedSlots().look(bytes(name).decode()) is None
    assert cut, "some were killed within a write"
