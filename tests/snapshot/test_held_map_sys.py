"""The map of held blocks: a byte for each block, whatever is done to it in which order."""

import threading
from collections.abc import Iterable
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.extent import Extent
from pyjiva.snapshot import held_map_sys
from pyjiva.snapshot.held_map_sys import HELD, STABLE, HeldMap
from pyjiva.testing import MemoryDisk

BLOCKS: Final = 40
RANGES: Final = st.builds(
    lambda first, count: Extent(first, min(count, BLOCKS - first)),
    st.integers(0, BLOCKS - 1),
    st.integers(1, 12),
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


@given(page_blocks=st.integers(1, BLOCKS), steps=STEPS)
def test_only_the_blocks_that_are_meant_change(
    page_blocks: int, steps: list[tuple[str, Extent | None]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_map_sys, "_PAGE_BLOCKS", page_blocks)
        disk = MemoryDisk(Random(0))
        held, model, taken = opened(disk), bytearray(BLOCKS), list[Extent]()
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
                blocks = [number for number in blocks if number not in marked | in_hand]  # settled before
                held.release(0, sum(1 << number for number in blocks))
            elif verb == "take":
                taken += held.take_unstable()
                in_hand, marked = in_hand | marked, set()
            else:
                held.settle(taken)
                for number in in_hand:
                    model[number] = STABLE
                taken, in_hand = [], set()
            for number in blocks:
                model[number] = {"mark": HELD, "mark stable": STABLE, "release": 0}[verb]
            assert disk.content("held") == model
            assert held.bits(0) == sum(1 << number for number, byte in enumerate(model) if byte)


def test_many_blocks_become_stable_by_one_write_for_each_page() -> None:
    disk = MemoryDisk(Random(0))
    directory = disk.open_directory()
    blocks = 3 * held_map_sys._PAGE_BLOCKS
    directory.create("held").truncate(blocks)
    held = HeldMap.open(directory.open("held"), blocks, unstable=False)
    for number in (*range(1, 1000, 2), *range(2 * held_map_sys._PAGE_BLOCKS - 5, blocks, 7)):
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
    assert held.take_unstable() == [Extent(2, 1)]
