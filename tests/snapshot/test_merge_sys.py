"""The steps of a merge, cut anywhere: what is moved, what is left, and what of it the disk knows."""

import threading
from random import Random

import attrs
import pytest

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot import Store, merge_sys
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.held_map_sys import HELD, STABLE
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.snapshot.merge_sys import STEP_BYTES
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from tests.snapshot.stacks import (
    BLOCK,
    IDENTITY,
    SIZE_BYTES,
    held_bytes,
    hold_up,
    killed_at,
    layered,
    mark_a_part,
    merge_of,
    open_memory,
    stack_of,
)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fault", ["killed", "full"])
def test_what_is_written_in_place_is_stable_though_its_block_came_up_in_a_merge_that_was_cut(
    fault: str, seed: int
) -> None:
    """The merge marked the block as stable, and did not come to sync the map."""
    disk = MemoryDisk(Random(seed))
    store = layered(disk, "a", "b")
    for block in (3, 5):
        store.write(block * BLOCK, BLOCK, [b"c" * BLOCK])
    store.create_snapshot("c")
    store.flush()
    assert store.mark_clean()
    store.delete_snapshot("c")
    merge = merge_of(store, goes_down=False)
    if fault == "killed":
        store = killed_at(disk, "sync volume-head-003.img.held", merge.step)
    else:
        mark_a_part(disk, store, 3, STABLE)
        with pytest.raises(StorageError):
            merge.step()
        assert disk.before_step is no_fault
    store.write(3 * BLOCK, BLOCK, [b"y" * BLOCK])
    store.flush()
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.read(3 * BLOCK, BLOCK) == b"y" * BLOCK
    assert store.read(5 * BLOCK, BLOCK) == b"c" * BLOCK


def test_what_a_merge_takes_out_of_the_head_is_not_marked_again_by_a_flush_that_had_begun() -> None:
    """The flush knows of the block, and has not come to its mark when the merge lets go of it; then the block
    is written again, and the power goes before that is stable.  What was flushed before must show.
    """
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    store.delete_snapshot("a")
    merge = merge_of(store)
    assert merge.goes_down
    entered, go = hold_up(disk, "sync volume-head-001.img")
    flush = threading.Thread(target=store.flush)
    flush.start()
    assert entered.wait(10)
    step = threading.Thread(target=merge.step)
    step.start()
    step.join(0.05)
    assert step.is_alive(), "let go of it while it may be marked"
    assert held_bytes(disk)[1] == HELD
    go.set()
    for thread in (flush, step):
        thread.join(10)
    disk.before_step = no_fault
    assert held_bytes(disk)[1] == 0
    store.write(BLOCK, BLOCK, [b"y" * BLOCK])
    assert held_bytes(disk)[1] == HELD
    disk.power_cut()
    assert open_memory(disk, "b-2").read(BLOCK, BLOCK) in (b"x" * BLOCK, b"y" * BLOCK)


@pytest.mark.parametrize("seed", range(5))
def test_a_merge_that_takes_blocks_out_of_the_head_and_is_cut_leaves_every_block_readable(seed: int) -> None:
    """They are copied over blocks that were stable: those must not be seen half written, or at all, before
    the copies are stable.  Some blocks of the head are on the disk as the host sees them, some are not, and
    of some the disk has nothing.
    """
    letters = {block: {chr(block + 1)} for block in range(SIZE_BYTES // BLOCK)}
    letters |= {1: {"x", "y"}, 3: {"x"}, 4: {chr(5), "y"}, 6: {chr(7), "y"}}
    number, ended = 0, False
    while not ended:
        disk = MemoryDisk(Random(1000 * seed + number))
        store = layered(disk, "a")
        for block in (1, 3):
            store.write(block * BLOCK, BLOCK, [b"x" * BLOCK])
        store.flush()
        assert store.mark_clean()
        for block in (1, 4, 6):
            store.write(block * BLOCK, BLOCK, [b"y" * BLOCK])
        store.delete_snapshot("a")
        merge = merge_of(store)
        assert merge.goes_down
        disk.before_step = cut_power_at(number)
        try:
            assert merge.step() == 2 * BLOCK, "what the disk has nothing of is for later"
            assert merge.step() == 2 * BLOCK
            ended = True
        except PowerCut:
            number += 1
        disk.before_step = no_fault
        disk.power_cut()
        store = open_memory(disk, "b-2")
        for block, either in letters.items():
            found = bytes(store.read(block * BLOCK, BLOCK))
            for at in range(0, BLOCK, 512):
                assert chr(found[at]) in either
                assert found[at : at + 512] == found[at : at + 1] * 512
    assert number > 20


@pytest.mark.parametrize("steps", range(1, 4))
def test_an_atomic_write_that_two_steps_of_a_merge_take_down_is_not_undone_by_half(steps: int) -> None:
    """It was not flushed, so a power cut may undo it; not what one of the steps has left of it alone."""
    old, new = b"o" * 2 * BLOCK, b"n" * 2 * BLOCK
    at = STEP_BYTES - BLOCK
    disk = MemoryDisk(Random(0))
    identity = attrs.evolve(IDENTITY, size_bytes=2 * STEP_BYTES)
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    store.write(at, len(old), [old])
    store.flush()
    store.create_snapshot("a")
    store.write_atomic(at, len(new), [new])
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=True)
    for _ in range(steps):
        merge.step()
    disk.power_cut()
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-2")
    assert store.read(at, len(new)) in (old, new)


@pytest.mark.parametrize("flushed", [0, 1])
def test_an_atomic_write_that_a_merge_could_take_down_by_half_is_not_undone_by_half(flushed: int) -> None:
    """The head holds one of its two blocks for good; of the other the disk has nothing."""
    old, new = b"o" * BLOCK, b"n" * BLOCK
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    for block in (0, 1):
        store.write(block * BLOCK, BLOCK, [old])
    store.flush()
    store.create_snapshot("b")
    store.write(flushed * BLOCK, BLOCK, [old])
    store.flush()
    store.write_atomic(0, 2 * BLOCK, [new * 2])
    store.delete_snapshot("b")
    merge = merge_of(store, goes_down=True)
    merge.step()
    disk.power_cut()
    assert open_memory(disk, "b-2").read(0, 2 * BLOCK) in (old * 2, new * 2)


def test_what_a_merge_leaves_in_the_head_it_does_not_punch() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    for blocks, flushes in (((1, 5), True), ((0, 3, 4), False)):
        for block in blocks:
            store.write(block * BLOCK, BLOCK, [bytes([100 + block]) * BLOCK])
        if flushes:
            store.flush()
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=True)
    for copied, staying in ((2, (0, 3, 4)), (3, ())):
        assert merge.step() == copied * BLOCK
        for block in range(SIZE_BYTES // BLOCK):
            letter = 100 + block if block in (0, 1, 3, 4, 5) else block + 1
            assert store.read(block * BLOCK, BLOCK) == bytes([letter]) * BLOCK
        if staying:
            assert [at for at, mark in enumerate(held_bytes(disk)) if mark] == list(staying)
            assert stack_of(store).layers[-1].file.allocated(Extent(0, 16 * BLOCK)) == [
                Extent(0, BLOCK),
                Extent(3 * BLOCK, 2 * BLOCK),
            ]
    assert merge.extent is None


@pytest.mark.parametrize("doubt", ["opened", "failed"])
def test_a_merge_does_not_believe_marks_that_the_disk_may_lack(doubt: str) -> None:
    """A process was killed, or a disk was full, between a mark that says stable and its sync."""
    disk = MemoryDisk(Random(3))
    store = layered(disk, "a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    if doubt == "opened":
        store = killed_at(disk, "sync volume-head-001.img.held", store.flush)
    else:
        stack_of(store).sync_data()
        stack_of(store).layers[-1].held.in_doubt = True  # type: ignore[union-attr]
    assert held_bytes(disk)[1] == STABLE
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=True)
    synced: list[str] = []
    disk.before_step = lambda step: synced.append(step) if step.startswith("sync") else None
    assert merge.step() == BLOCK
    disk.before_step = no_fault
    assert synced[:2] == ["sync volume-head-001.img", "sync volume-head-001.img.held"]


def test_a_merge_takes_many_runs_out_of_the_head_by_few_calls() -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    for block in (1, 3, 4):
        store.write(block * BLOCK, BLOCK, [b"x" * BLOCK])
    store.flush()
    store.delete_snapshot("a")
    merge = merge_of(store)
    seen: list[str] = []
    disk.before_step = seen.append
    assert merge.step() == 3 * BLOCK
    disk.before_step = no_fault
    assert seen.count("punch volume-head-001.img") == 1, "whoever writes to the file waits for each"
    assert [step for step in seen if step.startswith("sync")] == [
        "sync volume-head-000.img",
        "sync volume-head-000.img.sums",
        "sync volume-head-001.img.held",
    ]
    assert not any(held_bytes(disk))
    disk.power_cut()
    store = open_memory(disk, "b-2")
    for block in (1, 3, 4):
        assert store.read(block * BLOCK, BLOCK) == b"x" * BLOCK


@pytest.mark.parametrize(
    ("goes_down", "child_is_head", "wanted"),
    [
        (True, True, [True, False, True, False, True]),
        (False, True, [True, True, True]),
        (True, False, [False, False, True]),
        (False, False, [False, False, True]),
    ],
)
def test_a_flush_is_wanted_where_a_step_would_do_it_or_could_move_nothing(
    goes_down: bool, child_is_head: bool, wanted: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the last step; before each that makes the head stable; before each way down through the head."""
    disk = MemoryDisk(Random(0))
    identity = attrs.evolve(IDENTITY, size_bytes=2 * STEP_BYTES)
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    for name in ("a", "b"):
        for at in (0, STEP_BYTES):
            store.write(at, BLOCK, [name.encode() * BLOCK])
        store.create_snapshot(name)
    for at in (0, STEP_BYTES):
        store.write(at, BLOCK, [b"c" * BLOCK])
    store.delete_snapshot("b" if child_is_head else "a")
    merge = merge_of(store)
    assert (merge.child == HEAD) == child_is_head
    merge.choose(goes_down=goes_down)
    monkeypatch.setattr(merge_sys, "LAST_BYTES_MAX", 0)
    monkeypatch.setattr(merge_sys, "LAST_BYTES_GOOD", 0)
    seen: list[bool] = []
    while merge.extent is not None:
        if len(seen) == 1 and child_is_head:  # behind what is moved: down, it is gone through again for that
            store.write(0, BLOCK, [b"d" * BLOCK])
        seen.append(merge.wants_flush)
        if merge.wants_flush:
            store.flush()
        merge.step()
    assert seen == wanted
    assert store.read(0, BLOCK) == (b"d" if child_is_head else b"c") * BLOCK


@pytest.mark.parametrize("when", ["before a step down", "before a step up", "before it looks"])
def test_a_merge_moves_nothing_since_a_flush_failed(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page cache shows of the block may be what was there before: its checksum is wrong then, and
    only where it was written does the next process forget it.
    """
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    for letter in (b"x", b"y"):
        store.write(BLOCK, BLOCK, [letter * BLOCK])
        if letter == b"x":
            store.flush()
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=when != "before a step up")

    def fail_to_flush() -> None:
        disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync volume-head-001.img")
        with pytest.raises(StorageError):
            store.flush()
        disk.before_step = no_fault
        inode = disk.inodes()["volume-head-001.img"]
        inode.pages = dict(inode.stable_pages)  # as of a file system that drops what it could not write

    if when != "before it looks":
        fail_to_flush()
    else:
        monkeypatch.setattr(
            Layers, "forget_views", lambda _: fail_to_flush() if store.broken is None else None
        )
    with pytest.raises(StorageError, match="since a flush failed"):
        merge.step()
    assert held_bytes(disk)[1] == STABLE
    disk.kill_process()
    assert open_memory(disk).read(BLOCK, BLOCK) in (b"x" * BLOCK, b"y" * BLOCK)


def test_a_view_that_was_made_amid_a_step_is_forgotten_after_it() -> None:
    """A read of another extent of the same chunk goes on beside the step, and its table knows the maps as
    they were before it.
    """
    disk = MemoryDisk(Random(0))
    identity = attrs.evolve(IDENTITY, size_bytes=2 * STEP_BYTES)
    store = Store.open_in(disk.open_directory(), identity, boot_id="b-1")
    for name in ("a", "b"):
        for at in (0, STEP_BYTES):
            store.write(at, BLOCK, [name.encode() * BLOCK])
        store.create_snapshot(name)
    store.delete_snapshot("a")
    merge = merge_of(store, goes_down=True)
    assert merge.extent == Extent(0, STEP_BYTES)
    entered, go = hold_up(disk, "write volume-head-001.img.held")
    step = threading.Thread(target=merge.step)
    step.start()
    assert entered.wait(10)
    assert store.read_at("b", Extent(STEP_BYTES, BLOCK)) == b"b" * BLOCK
    go.set()
    step.join(10)
    disk.before_step = no_fault
    assert store.read_at("b", Extent(0, BLOCK)) == b"b" * BLOCK


def test_the_last_step_drops_nothing_that_is_not_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk(Random(0))
    store = layered(disk, "a")
    store.delete_snapshot("a")
    store.write(BLOCK, BLOCK, [b"x" * BLOCK])
    merge = merge_of(store, goes_down=True)
    merge.step()
    monkeypatch.setattr(Store, "settle_all", lambda _: None)
    with pytest.raises(StorageError, match="4096 bytes are not flushed"):
        merge.step()
    monkeypatch.undo()
    assert merge.extent is not None, "it may be done again"
    merge.step()
    assert merge.extent is None
    assert store.read(BLOCK, BLOCK) == b"x" * BLOCK


def test_regions_are_not_retired_amid_a_flush_or_the_sync_of_a_merge() -> None:
    """Each of them writes marks to the head's map, and says after its sync that the disk has them all."""
    store = layered(MemoryDisk(Random(0)), "a")
    store.flush()
    store.retire_regions()
    with store._flush_lock:
        retire = threading.Thread(target=store.retire_regions)
        retire.start()
        retire.join(0.05)
        assert retire.is_alive()
    retire.join(10)
    assert not retire.is_alive()
