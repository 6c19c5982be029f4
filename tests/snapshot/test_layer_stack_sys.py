"""Layers as one file: which of them a read reaches, what is copied up, rot in any of them, and requests
side by side."""

import threading
from collections.abc import Callable
from random import Random

import attrs
import pytest

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.held_map_sys import HELD, STABLE
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.testing import MemoryDisk, PowerCut, fail_at, no_fault
from pyjiva.units import KIB, MIB
from tests.snapshot.stacks import (
    BLOCK,
    IDENTITY,
    SIZE_BYTES,
    cut_at,
    held_bytes,
    hold_up,
    layered,
    mark_a_part,
    open_memory,
    stack_of,
)


def test_without_snapshots_nothing_stands_between_the_store_and_its_head() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk)
    assert not isinstance(store._head, LayerStack)
    head = "volume-head-000.img"
    assert disk.inodes().keys() == {"pyjiva.json", "volume.meta", head, f"{head}.meta", f"{head}.sums"}


def test_a_sector_takes_the_rest_of_its_block_along() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK + 512, 512, [b"x" * 512])
    assert store.read(BLOCK, BLOCK) == b"\2" * 512 + b"x" * 512 + b"\2" * (BLOCK - 1024)
    assert disk.read("volume-head-001.img", BLOCK, 512) == b"\2" * 512
    assert store.read_at("a", Extent(BLOCK, BLOCK)) == b"\2" * BLOCK


def test_a_first_write_is_stable_after_a_flush_and_not_before() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK, 2 * BLOCK, [b"x" * 2 * BLOCK])
    assert held_bytes(disk)[:4] == bytes((0, HELD, HELD, 0))
    store.flush()
    assert held_bytes(disk)[:4] == bytes((0, STABLE, STABLE, 0))
    store.write(2 * BLOCK, 2 * BLOCK, [b"y" * 2 * BLOCK])
    assert held_bytes(disk)[:4] == bytes((0, STABLE, STABLE, HELD)), "stable never goes back"


def test_a_flush_costs_a_second_sync_only_after_first_writes() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    synced: list[str] = []
    disk.before_step = lambda step: synced.append(step) if step.startswith("sync") else None
    store.write(0, BLOCK, [b"x" * BLOCK])
    synced.clear()
    store.flush()
    assert synced == ["sync volume-head-001.img", "sync volume-head-001.img.held"]
    store.write(0, BLOCK, [b"y" * BLOCK])
    synced.clear()
    store.flush()
    assert synced == ["sync volume-head-001.img"]


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_first_write_does_not_hide_what_was_stable(seed: int) -> None:
    disk = MemoryDisk(Random(seed))
    store = layered(disk, "a")
    store.write(BLOCK + 512, 512, [b"x" * 512])
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.read(BLOCK, BLOCK) == b"\2" * BLOCK
    assert disk.read("volume-head-001.img", BLOCK, BLOCK) == bytes(BLOCK), "the space is given back"
    disk.kill_process()
    store = open_memory(disk, "b-2")
    assert store.read(BLOCK, BLOCK) == b"\2" * BLOCK


@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_after_a_power_cut_outlives_a_kill_though_the_store_is_not_intact(seed: int) -> None:
    disk = MemoryDisk(Random(seed))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert not store.intact
    store.write(BLOCK, BLOCK, [b"y" * BLOCK])
    disk.kill_process()
    store = open_memory(disk, "b-2")
    assert store.read(BLOCK, BLOCK) == b"y" * BLOCK
    store.flush()
    disk.power_cut()
    assert open_memory(disk, "b-3").read(BLOCK, BLOCK) == b"y" * BLOCK


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("flush", [Store.flush, lambda store: store.create_snapshot("b")])
@pytest.mark.parametrize("step", ["write", "sync"])
def test_marks_that_a_killed_flush_left_in_the_page_cache_are_synced_by_the_next_one(
    step: str, flush: Callable[[Store], None], seed: int
) -> None:
    """They look stable, and there is none left to be made so: the map is synced all the same."""
    disk = MemoryDisk(Random(seed))
    blocks = (1, CHUNK_BLOCKS + 3)
    wide = attrs.evolve(IDENTITY, size_bytes=2 * CHUNK_BLOCKS * BLOCK)
    store = open_memory(disk, identity=wide)
    store.create_snapshot("a")
    for block in blocks:
        store.write(block * BLOCK, BLOCK, [b"x" * BLOCK])
    disk.before_step = cut_at(f"{step} volume-head-001.img.held", 1 if step == "write" else 0)
    with pytest.raises(PowerCut):
        flush(store)
    disk.before_step = no_fault
    disk.kill_process()
    store = open_memory(disk, identity=wide)
    for block in blocks:
        assert store.read(block * BLOCK, BLOCK) == b"x" * BLOCK
    flush(store)
    disk.power_cut()
    store = open_memory(disk, "b-2", identity=wide)
    for block in blocks:
        assert store.read(block * BLOCK, BLOCK) == b"x" * BLOCK


@pytest.mark.parametrize("seed", range(10))
def test_a_sweep_that_was_killed_is_synced_by_the_next_one(seed: int) -> None:
    """Otherwise what it took away comes back, over the space that was given back meanwhile."""
    disk = MemoryDisk(Random(seed))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    stack_of(store)._held.sync()  # as the kernel may at any time: the disk says HELD
    disk.power_cut()
    disk.before_step = cut_at("sync volume-head-001.img.held")
    with pytest.raises(PowerCut):
        open_memory(disk, "b-2")
    disk.before_step = no_fault
    disk.kill_process()
    store = open_memory(disk, "b-2")
    assert store.read(BLOCK, BLOCK) == b"\2" * BLOCK
    store.flush()
    store.mark_intact()
    store.mark_clean()
    disk.power_cut()
    assert open_memory(disk, "b-3").read(BLOCK, BLOCK) == b"\2" * BLOCK


@pytest.mark.parametrize("seed", range(10))
def test_marks_whose_sync_failed_are_written_again(seed: int) -> None:
    """The kernel takes them for clean: the next sync would succeed without them."""
    disk = MemoryDisk(Random(seed))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync volume-head-001.img.held")
    with pytest.raises(StorageError):
        store.flush()
    disk.before_step = no_fault
    disk.kill_process()
    store = open_memory(disk)
    assert not store.intact
    assert store.read(BLOCK, BLOCK) == b"x" * BLOCK, "so no rebuild writes it"
    store.flush()
    store.mark_intact()
    disk.power_cut()
    assert open_memory(disk, "b-2").read(BLOCK, BLOCK) == b"x" * BLOCK


def test_unmapped_above_a_snapshot_is_zeros_for_ever_and_takes_no_space() -> None:
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        store = layered(disk, "a")
        store.write(0, BLOCK, [b"x" * BLOCK])
        store.zero(0, 3 * BLOCK)
        store.flush()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        store.create_snapshot("b")
        assert store.read(0, 3 * BLOCK) == bytes(3 * BLOCK)
        assert store.read_at("a", Extent(0, BLOCK)) == b"\1" * BLOCK
        assert store.allocated(Extent(0, 4 * BLOCK)) == [Extent(3 * BLOCK, BLOCK)]
        assert store.allocated_in_layer("b", Extent(0, SIZE_BYTES)).data == []
        assert store.allocated_in_layer("b", Extent(0, SIZE_BYTES)).zeros == [Extent(0, 3 * BLOCK)]


def test_unmapping_what_is_zeros_already_costs_nothing() -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk)
    store.create_snapshot("a")
    store.zero(0, SIZE_BYTES)
    assert not any(held_bytes(disk))


@pytest.mark.parametrize("file", ["volume-snap-a.img", "volume-snap-b.img", "volume-head-002.img"])
def test_rot_in_any_layer_is_refused_and_repaired_by_a_write(file: str) -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    store.create_snapshot("b")
    store.write(2 * BLOCK, BLOCK, [b"y" * BLOCK])
    store.flush()
    place = {"volume-snap-a.img": 0, "volume-snap-b.img": BLOCK, "volume-head-002.img": 2 * BLOCK}[file]
    disk.rot(file, place + 700)
    for read in (lambda: store.read(0, SIZE_BYTES), lambda: store.verify(Extent(0, SIZE_BYTES))):
        with pytest.raises(StorageError) as caught:
            read()
        assert caught.value.failure is StorageFailure.BAD_CHECKSUM
    assert store.mismatches == 1
    store.write(place, BLOCK, [b"z" * BLOCK])
    assert store.read(place, BLOCK) == b"z" * BLOCK
    store.verify(Extent(0, SIZE_BYTES))


@pytest.mark.parametrize("atomic", [False, True])
def test_a_sector_written_over_a_rotten_block_does_not_make_it_believed(atomic: bool) -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    disk.rot("volume-snap-a.img", BLOCK + 3000)
    write = store.write_atomic if atomic else store.write
    write(BLOCK, 512, [b"x" * 512])
    with pytest.raises(StorageError) as caught:
        store.read(BLOCK, BLOCK)
    assert caught.value.failure is StorageFailure.BAD_CHECKSUM
    assert store.read(0, BLOCK) == b"\1" * BLOCK
    store.write(BLOCK, BLOCK, [b"z" * BLOCK])
    assert store.read(BLOCK, BLOCK) == b"z" * BLOCK


def test_rot_in_a_map_is_an_error_not_an_answer() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    store.flush()
    store.mark_clean()
    store.close()
    disk.rot("volume-head-001.img.held", 1)
    store = open_memory(disk)
    with pytest.raises(StorageError, match="map of held blocks is damaged at block 1"):
        store.read(0, BLOCK)


def test_only_whole_blocks_and_known_ones_are_written_in_place() -> None:
    store = layered(MemoryDisk(Random(0)), "a")
    store.write(0, BLOCK, [b"x" * BLOCK])  # marks the region, and loads the table
    assert store.writes_in_place(0, 512)  # held by the head
    assert store.writes_in_place(BLOCK, BLOCK)
    assert store.writes_in_place(64 * KIB, 512)  # the short last block, whole
    assert not store.writes_in_place(BLOCK, 512)
    assert not store.writes_in_place(BLOCK - 512, BLOCK + 512 + 512)
    stack_of(store).index.drop(0, 1)
    assert not store.writes_in_place(0, BLOCK)
    assert store.read_nowait(0, BLOCK) is None
    assert store.read(0, BLOCK) == b"x" * BLOCK


def test_sectors_of_one_block_are_written_side_by_side() -> None:
    store = layered(MemoryDisk(Random(0)), "a")
    for turn in range(50):
        offset = turn % 16 * BLOCK
        if turn == 16:
            store.create_snapshot("b")
        start = threading.Barrier(4)

        def write(sector: int, offset: int = offset, start: threading.Barrier = start) -> None:
            start.wait()
            store.write(offset + sector * 512, 512, [bytes([100 + sector]) * 512])

        threads = [threading.Thread(target=write, args=(sector,)) for sector in (0, 3, 4, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        content = store.read(offset, BLOCK)
        assert [content[sector * 512] for sector in (0, 3, 4, 7)] == [100, 103, 104, 107]
    stack_of(store).self_check()


def test_a_write_that_overtakes_who_loads_the_table_is_read_afterwards() -> None:
    """It was found by a clone that was filled while a host wrote to it: a read of what had been written gave
    what was below, and a write to another part of the block would have made that last.
    """
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a", "b")
    store.write(9 * BLOCK, BLOCK, [b"h" * BLOCK])  # the maps of both have bytes in the chunk
    store.create_snapshot("c")
    store.write(9 * BLOCK, BLOCK, [b"h" * BLOCK])
    stack_of(store).index.drop(0, 1)
    entered, go = hold_up(disk, "read volume-head-002.img.held")  # when that of the head has been read
    looker = threading.Thread(target=store.read, args=(4 * BLOCK, BLOCK))
    looker.start()
    assert entered.wait(10)
    store.write(BLOCK + 512, 512, [b"x" * 512])
    go.set()
    looker.join(10)
    disk.before_step = no_fault
    store.write(BLOCK + 1024, 512, [b"y" * 512])
    expected = b"\2" * 512 + b"x" * 512 + b"y" * 512 + b"\2" * (BLOCK - 1536)
    assert store.read(BLOCK, BLOCK) == expected
    stack_of(store).self_check()


def test_a_flush_waits_for_marks_that_another_thread_is_writing() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    entered, go = hold_up(disk, "write volume-head-001.img.held")
    first = threading.Thread(target=stack_of(store).sync_data)
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=store.flush)
    second.start()
    second.join(0.05)
    assert second.is_alive(), "answered before the block is marked as stable"
    go.set()
    for thread in (first, second):
        thread.join(10)
    assert held_bytes(disk)[1] == STABLE


def test_the_table_may_be_smaller_than_what_is_read() -> None:
    """Chunks are dropped and loaded again, also while they are written to."""
    disk = MemoryDisk(Random(0))
    identity = ReplicaState("v-1", 1, "demo", 96 * MIB, 4096)
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    store.create_snapshot("a")
    store.create_snapshot("b")
    stack = stack_of(store)
    stack.index.memory_limit_bytes = 1
    random = Random(1)
    model: dict[int, int] = {}
    for _ in range(600):
        block = random.randrange(96 * MIB // BLOCK // 64) * 64 + random.randrange(2)
        model[block] = random.randrange(1, 255)
        store.write(block * BLOCK, BLOCK, [bytes([model[block]]) * BLOCK])
    assert sum(stack.index.is_loaded(chunk) for chunk in range(6)) == 1
    for block, value in model.items():
        assert store.read(block * BLOCK, BLOCK) == bytes([value]) * BLOCK
    expected = sum(1 for _ in model)
    assert sum(part.length_bytes for part in store.allocated(Extent(0, 96 * MIB))) == expected * BLOCK
    stack.self_check()


def test_a_write_to_blocks_of_which_the_head_holds_some_leaves_it_all_of_them() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    for block in (2, 5):
        store.write(block * BLOCK, BLOCK, [b"x" * BLOCK])
    store.flush()
    store.write(BLOCK, 6 * BLOCK, [b"y" * 6 * BLOCK])
    expected = b"\1" * BLOCK + b"y" * 6 * BLOCK + b"\x08" * BLOCK
    assert store.read(0, 8 * BLOCK) == expected
    assert stack_of(store).index.find(0, 8) == [(0, 0, 1), (1, 1, 6), (0, 7, 1)]
    assert held_bytes(disk)[:8] == bytes((0, HELD, STABLE, HELD, HELD, STABLE, HELD, 0))
    store.self_check()
    disk.kill_process()
    assert open_memory(disk).read(0, 8 * BLOCK) == expected


def test_a_first_write_of_which_a_full_disk_took_a_part_shows_what_the_map_says() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    assert store.read(BLOCK, 2 * BLOCK) == b"\2" * BLOCK + b"\3" * BLOCK  # the table knows these blocks
    mark_a_part(disk, store, 1, HELD)
    with pytest.raises(StorageError, match="held"):
        store.write(BLOCK, 2 * BLOCK, [b"x" * 2 * BLOCK])
    assert stack_of(store).torn == {0}
    expected = b"x" * BLOCK + b"\3" * BLOCK
    assert store.read(BLOCK, 2 * BLOCK) == expected
    store.self_check()
    disk.kill_process()
    assert open_memory(disk).read(BLOCK, 2 * BLOCK) == expected
