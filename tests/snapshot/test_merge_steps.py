"""What a step of a merge takes in where blocks are scattered over a large volume; when the last one comes."""

from functools import partial
from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot import Merge, Store, merge_sys
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.snapshot.layer_stack_sys import OpenLayer
from pyjiva.snapshot.merge_sys import STEP_BYTES, Next
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, no_fault
from pyjiva.units import GIB, MIB
from tests.snapshot.stacks import BLOCK, IDENTITY, merge_of, open_memory

C: Final = CHUNK_BLOCKS * BLOCK
LARGE: Final = attrs.evolve(IDENTITY, size_bytes=1 * GIB + 512)
SPAN_BYTES: Final = LARGE.size_bytes // merge_sys.SPANS
LAST: Final = LARGE.size_bytes - 512
PLACES: Final = (
    0,
    3 * BLOCK,
    C - BLOCK,
    C,
    2 * C + BLOCK,
    40 * C,
    LAST,
)
STEPS: Final = [
    Extent(0, 2 * C),
    Extent(2 * C, C),
    Extent(40 * C, C),
    Extent(LAST, 512),
    Extent(0, LARGE.size_bytes),
]


def write(store: Store, place: int, letter: bytes) -> None:
    length = min(BLOCK, store.size_bytes - place)
    store.write(place, length, [letter * length])


def scattered(disk: MemoryDisk, *, child_is_head: bool) -> Store:
    """A large store with few blocks: of the lower layer "l", of the one to be merged with it "u"."""
    store = open_memory(disk, identity=LARGE)
    write(store, 5 * BLOCK, b"k")
    store.create_snapshot("kept")
    for place in PLACES:
        write(store, place, b"l")
    store.create_snapshot("lower")
    for place in PLACES:
        write(store, place + (BLOCK if place != LAST else 0), b"u")
    if not child_is_head:
        store.create_snapshot("upper")
    store.flush()
    store.delete_snapshot("lower")
    return store


EXPECTED: Final = {
    5 * BLOCK: b"k",
    **dict.fromkeys(PLACES, b"l"),
    **{place + (BLOCK if place != LAST else 0): b"u" for place in PLACES},
}


def check(store: Store) -> None:
    for place, letter in EXPECTED.items():
        length = min(BLOCK, store.size_bytes - place)
        assert store.read(place, length) == letter * length, place
    assert store.read(2 * BLOCK, BLOCK) == bytes(BLOCK)


def steps_of(store: Store, merge: Merge) -> list[Extent]:
    """Do it whole."""
    seen = []
    while merge.extent is not None:
        seen.append(merge.extent)
        if merge.wants_flush:
            store.flush()
        merge.step()
    return seen


@pytest.mark.parametrize("goes_down", [True, False])
@pytest.mark.parametrize("child_is_head", [True, False])
def test_a_step_takes_what_lies_near_to_each_other(goes_down: bool, child_is_head: bool) -> None:
    disk = MemoryDisk(Random(0))
    store = scattered(disk, child_is_head=child_is_head)
    merge = merge_of(store, goes_down=goes_down)
    assert (merge.child == HEAD) == child_is_head
    seen: list[str] = []
    disk.before_step = lambda step: seen.append(step) if step.startswith("sync") else None
    merge.step()
    disk.before_step = no_fault
    assert len(seen) == (4 if goes_down else 3), "as many as for one chunk"
    assert [STEPS[0], *steps_of(store, merge)] == STEPS
    check(store)
    store.close()
    check(open_memory(disk))


@pytest.mark.parametrize(
    ("goes_down", "frees_early"),
    [(True, True), (True, False), (False, True)],
    ids=["down, early", "down", "up"],
)
@pytest.mark.parametrize("child_is_head", [True, False])
def test_the_power_is_cut_in_a_step_over_several_chunks(
    goes_down: bool, frees_early: bool, child_is_head: bool
) -> None:
    """Before each thing that it does to the disk, and before each of the last step."""
    for number in range(1000):
        disk = MemoryDisk(Random(number))
        store = scattered(disk, child_is_head=child_is_head)
        merge = merge_of(store, goes_down=goes_down)
        merge.frees_early = frees_early
        disk.before_step = cut_power_at(number)
        try:
            steps_of(store, merge)
        except PowerCut:
            disk.power_cut()
            disk.before_step = no_fault
            store = open_memory(disk, "b-2")
            check(store)
            if (again := store.next_merge()) is not None:
                steps_of(store, again)
                check(store)
            store.close()
        else:
            assert number > 20
            return
    pytest.fail("it does not end")


@pytest.mark.parametrize("goes_down", [True, False])
def test_a_step_is_over_sooner_where_there_are_many_runs(goes_down: bool) -> None:
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, identity=LARGE)
    per_step = STEP_BYTES // (BLOCK + merge_sys.RUN_BYTES)
    for layer in ("kept", "lower", "upper"):
        for at in range(0, 4 * per_step, 2):  # in two quarters of a chunk
            write(store, at * BLOCK, layer[:1].encode())
        if layer == "lower" and not goes_down:  # what the upper one has need not be moved
            for at in range(1, 4 * per_step, 2):
                write(store, (CHUNK_BLOCKS + at) * BLOCK, b"o")
        store.create_snapshot(layer)
    store.delete_snapshot("lower")
    steps = steps_of(store, merge_of(store, goes_down=goes_down))
    first = 0 if goes_down else C
    quarter = C // 4
    assert [Extent(first, quarter), Extent(first + quarter, 3 * quarter)][0] in steps
    assert all(step.length_bytes <= SPAN_BYTES for step in steps[:-1])
    assert store.read(0, BLOCK) == b"u" * BLOCK


def test_chunks_of_which_nobody_can_tell_what_they_have_are_not_passed_over() -> None:
    """The map of one is damaged: the merge fails there, again and again, and does not take it as empty."""
    disk = MemoryDisk(Random(0))
    store = scattered(disk, child_is_head=False)
    merge = merge_of(store, goes_down=False)
    lower = merge._lower.held
    assert lower is not None
    assert merge.step() == 3 * BLOCK
    mark = LAST // BLOCK
    good = lower._file.read(mark, 1)
    lower._file.write(mark, (b"\x01",))
    for _ in range(3):
        with pytest.raises(StorageError, match="map of held blocks is damaged"):
            merge.step()
        assert merge.extent == STEPS[1]
    lower._file.write(mark, (bytes(good),))
    assert steps_of(store, merge) == STEPS[1:]
    check(store)


def test_the_last_step_moves_what_was_written_meanwhile_with_one_sync() -> None:
    disk = MemoryDisk(Random(0))
    store = scattered(disk, child_is_head=True)
    merge = merge_of(store, goes_down=True)
    for _ in range(len(STEPS) - 1):
        merge.step()
    assert merge.extent == STEPS[-1]
    for place in EXPECTED:
        write(store, place, b"n")
    store.flush()
    seen: list[str] = []
    disk.before_step = seen.append
    assert merge.step() == (len(EXPECTED) - 1) * BLOCK + 512
    disk.before_step = no_fault
    assert seen.count("sync volume-head-002.img") + seen.count("sync volume-snap-lower.img") <= 2
    assert not [step for step in seen if step.startswith("punch")]
    assert merge.extent is None
    for place in EXPECTED:
        assert store.read(place, 512) == b"n" * 512
    disk.power_cut()
    store = open_memory(disk, "b-2")
    for place in EXPECTED:
        assert store.read(place, 512) == b"n" * 512


@pytest.mark.parametrize(
    ("written", "again"),
    [
        ([2], [False]),  # little: the last step comes
        ([8, 1], [True, False]),  # much, but less than half of what there was
        ([12], [False]),  # more than half: another way through would not help
        ([40], [True]),  # too much for a last step, whatever helps
        ([10, 5, 3], [True, True, False]),
    ],
)
def test_a_head_is_gone_through_again_as_long_as_that_helps(
    written: list[int], again: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written, in blocks, while it was gone through."""
    monkeypatch.setattr(merge_sys, "LAST_BYTES_GOOD", 2 * BLOCK)
    monkeypatch.setattr(merge_sys, "LAST_BYTES_MAX", 32 * BLOCK)
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, identity=attrs.evolve(IDENTITY, size_bytes=32 * MIB))
    store.write(0, 256 * BLOCK, [b"l" * (256 * BLOCK)])
    store.create_snapshot("lower")
    store.write(0, 20 * BLOCK, [b"u" * (20 * BLOCK)])
    store.delete_snapshot("lower")
    merge = merge_of(store, goes_down=True)
    seen = []
    for number, blocks in enumerate(written, 1):
        store.flush()
        place = number % 2 * C  # nobody writes to what is being moved
        disk.before_step = partial(write_amid, disk, store, Extent(place, blocks * BLOCK))
        while True:
            merge.step()
            if merge._begins or merge.next is not Next.MOVE:
                break
        assert disk.before_step is no_fault
        seen.append(merge.next is not Next.LAST)
    assert seen == again


def write_amid(disk: MemoryDisk, store: Store, extent: Extent, step: str) -> None:
    """When all is moved, and before it is seen how much is left."""
    if step.startswith("punch"):
        disk.before_step = no_fault
        store.write(extent.offset_bytes, extent.length_bytes, [b"n" * extent.length_bytes])


def test_what_is_not_given_back_early_is_with_the_child_s_files() -> None:
    disk = MemoryDisk(Random(0))
    store = scattered(disk, child_is_head=True)
    merge = merge_of(store, goes_down=True)
    merge.frees_early = False
    seen: list[str] = []
    disk.before_step = seen.append
    assert steps_of(store, merge) == STEPS
    disk.before_step = no_fault
    assert not [step for step in seen if step.startswith("punch")]
    assert store.has_dropped
    store.free_dropped()
    assert not store.has_dropped
    check(store)
    store.self_check()
    store.close()
    check(open_memory(disk))


@pytest.mark.parametrize("goes_down", [True, False])
def test_a_step_takes_several_pieces_of_one_chunk(goes_down: bool) -> None:
    """It is too much for one step, and of its quarters the first two are not."""
    disk = MemoryDisk(Random(0))
    store = open_memory(disk, identity=LARGE)
    store.create_snapshot("kept")
    quarter = CHUNK_BLOCKS // 4
    per_step = STEP_BYTES // (BLOCK + merge_sys.RUN_BYTES)
    runs = {0: per_step - 60, 1: 40, 2: 40}
    places = [(number * quarter + 2 * at) * BLOCK for number, count in runs.items() for at in range(count)]
    if not goes_down:
        for place in places:
            write(store, place, b"l")
    store.create_snapshot("lower")
    if goes_down:
        for place in places:
            write(store, place, b"l")
    store.create_snapshot("upper")
    store.delete_snapshot("lower")
    merge = merge_of(store, goes_down=goes_down)
    assert merge.extent == Extent(0, C // 2)
    merge.step()
    assert merge.extent == Extent(C // 2, C // 2)
    held = merge._upper.bits(0, CHUNK_BLOCKS) & (1 << CHUNK_BLOCKS // 2) - 1
    assert held.bit_count() == (0 if goes_down else runs[0] + runs[1])
    steps_of(store, merge)
    assert {bytes(store.read(place, BLOCK)) for place in places} == {b"l" * BLOCK}


@pytest.mark.patches
@pytest.mark.parametrize("freed", [True, False])
def test_a_revert_leaves_the_head_to_be_freed_later_and_a_store_that_is_closed_leaves_nothing_open(
    freed: bool,
) -> None:
    store = open_memory(MemoryDisk(Random(0)))
    write(store, 0, b"o")
    store.create_snapshot("one")
    write(store, 0, b"n")
    head = store._layers.head
    closed: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenLayer, "close", lambda layer: closed.append("head" if layer is head else "other"))
        store.revert("one")
        assert store.has_dropped
        assert "head" not in closed
        if freed:
            store.free_dropped()
        else:
            store.close()
        assert closed.count("head") == 1


@pytest.mark.patches
def test_what_is_given_back_early_is_so_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes to the file waits for one of them."""
    store = scattered(MemoryDisk(Random(0)), child_is_head=True)
    merge = merge_of(store, goes_down=True)
    punched: list[Extent] = []
    monkeypatch.setattr(
        merge._upper.file.__class__, "punch", lambda _, at, size: punched.append(Extent(at, size))
    )
    merge.step()
    assert [each for each in punched if each.length_bytes > BLOCK] == list(STEPS[0].split(STEP_BYTES))
