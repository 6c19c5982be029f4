"""The map of held blocks: a byte for each block, whatever is done to it in which order."""

import threading
from collections.abc import Iterable
from random import Random
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.snapshot.held_map_sys import HELD, STABLE, HeldMap, Unstable
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.testing import MemoryDisk

BLOCKS: Final = 2 * CHUNK_BLOCKS + 40
RANGES: Final = st.builds(
    lambda border, before, count: Extent(max(0, border - before), min(count, BLOCKS - border)),
    st.sampled_from([0, CHUNK_BLOCKS, 2 * CHUNK_BLOCKS]),
    st.integers(0, 12),
    st.one_of(st.integers(1, 30), st.just(CHUNK_BLOCKS + 5)),
)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["mark", "mark stable", "release"]), RANGES),
        st.tuples(st.sampled_from(["take", "settle"]), st.none()),
    )
)


def opened(disk: MemoryDisk) -> HeldMap:
    directory = disk.open_directory()
    directory.create("held").truncate(BLOCKS)
    directory.sync()
    return HeldMap.open(directory.open("held"), BLOCKS, unstable=False)


@given(steps=STEPS)
@example(
    steps=[("mark", Extent(CHUNK_BLOCKS - 2, 4)), ("release", Extent(CHUNK_BLOCKS - 1, 2)), ("take", None)]
)
@example(steps=[("mark", Extent(0, 3)), ("release", Extent(1, 1))])
def test_only_the_blocks_that_are_meant_change(steps: list[tuple[str, Extent | None]]) -> None:
    disk = MemoryDisk(Random(0))
    held, model, taken = opened(disk), bytearray(BLOCKS), list[Unstable]()
    marked: set[int] = set()  # since the last `take`
    in_hand: set[int] = set()
    for verb, extent in steps:
        blocks: Iterable[int] = [] if extent is None else range(extent.offset_bytes, extent.end_bytes)
        if verb == "mark":
            assert extent is not None
            held.mark(extent.offset_bytes, extent.length_bytes)
            marked.update(blocks)
        elif verb == "mark stable":
            assert extent is not None
            held.mark_stable([extent])
        elif verb == "release":
            blocks = [number for number in blocks if number not in in_hand]  # no flush is about to mark them
            marked.difference_update(blocks)
            released: dict[int, int] = {}
            for number in blocks:
                chunk, at = divmod(number, CHUNK_BLOCKS)
                released[chunk] = released.get(chunk, 0) | 1 << at
            held.release(released)
        elif verb == "take":
            taken.append(held.take_unstable())
            in_hand, marked = in_hand | marked, set()
        else:
            for each in taken:
                held.settle(each)
            for number in in_hand:
                model[number] = STABLE
            taken, in_hand = [], set()
        for number in blocks:
            model[number] = {"mark": HELD, "mark stable": STABLE, "release": 0}[verb]
        assert disk.content("held") == model
        for chunk in range(3):
            there = model[chunk * CHUNK_BLOCKS : (chunk + 1) * CHUNK_BLOCKS]
            assert held.bits(chunk) == sum(1 << number for number, byte in enumerate(there) if byte)
            assert not any(there) or held.present >> chunk & 1
    unstable = held.take_unstable()
    assert unstable == {chunk: bits for chunk, bits in unstable.items() if bits}
    assert marked == {
        chunk * CHUNK_BLOCKS + number
        for chunk, bits in unstable.items()
        for number in range(CHUNK_BLOCKS)
        if bits >> number & 1
    }


def test_many_blocks_become_stable_by_one_write_for_each_page() -> None:
    disk = MemoryDisk(Random(0))
    directory = disk.open_directory()
    blocks = 3 * CHUNK_BLOCKS
    directory.create("held").truncate(blocks)
    held = HeldMap.open(directory.open("held"), blocks, unstable=False)
    for number in (*range(1, 1000, 2), *range(2 * CHUNK_BLOCKS - 5, blocks, 7)):
        held.mark(number, 1)
    before = bytes(disk.content("held"))
    seen: list[str] = []
    disk.before_step = seen.append
    held.settle(held.take_unstable())
    assert seen == ["read held", "write held"] * 3 + ["sync held"]
    assert disk.content("held") == before.replace(bytes((HELD,)), bytes((STABLE,)))


def test_what_is_marked_while_its_neighbours_become_stable_is_not_lost() -> None:
    disk = MemoryDisk(Random(0))
    held = opened(disk)
    for number in (1, 3):
        held.mark(number, 1)
    host = threading.Thread(target=held.mark, args=(2, 1))
    seen: list[str] = []

    def before_step(step: str) -> None:
        seen.append(step)
        if seen == ["read held", "write held"]:
            host.start()
            host.join(0.05)

    disk.before_step = before_step
    held.settle(held.take_unstable())
    host.join(10)
    assert disk.content("held")[:5] == bytes((0, STABLE, HELD, STABLE, 0))
    assert held.take_unstable() == {0: 1 << 2}


def test_what_a_full_disk_let_through_becomes_stable_with_the_next_flush() -> None:
    disk = MemoryDisk(Random(0))
    held = opened(disk)

    def fill(step: str) -> None:
        if step == "write held":
            disk.before_step = lambda _: None
            held._file.write(CHUNK_BLOCKS - 2, (bytes((HELD,)) * 3,))
            raise StorageError(StorageFailure.NO_SPACE, "full")

    disk.before_step = fill
    with pytest.raises(StorageError):
        held.mark(CHUNK_BLOCKS - 2, 20)
    assert held.take_unstable() == {0: 0b11 << CHUNK_BLOCKS - 2, 1: 0b1}
    assert held.present == 0b11


def test_where_nobody_can_tell_what_a_full_disk_let_through_all_becomes_stable() -> None:
    """A block that is held and never becomes stable would lose what a flush has promised."""
    disk = MemoryDisk(Random(0))
    held = opened(disk)

    def fail(step: str) -> None:
        raise StorageError(StorageFailure.NO_SPACE, step)

    disk.before_step = fail
    with pytest.raises(StorageError, match="write held"):
        held.mark(CHUNK_BLOCKS - 2, 3)
    assert held.take_unstable() == {0: 0b11 << CHUNK_BLOCKS - 2, 1: 0b1}


def test_a_map_that_becomes_shorter_forgets_what_lies_beyond() -> None:
    held = opened(MemoryDisk(Random(0)))
    for chunk in range(3):
        held.mark(chunk * CHUNK_BLOCKS + 3, 4)
    held.set_blocks(CHUNK_BLOCKS + 5)
    assert held.take_unstable() == {0: 0b1111 << 3, 1: 0b11 << 3}
    assert held.present == 0b11
