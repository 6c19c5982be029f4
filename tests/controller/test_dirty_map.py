"""What a replica may lack: never less than it misses, and hardly more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller import dirty_map as module
from pyjiva.controller.dirty_map import GRANULE_BYTES, DirtyMap, FixedWork
from pyjiva.extent import Extent, merge_extents
from pyjiva.units import MIB, TIB

SIZE = 10 * GRANULE_BYTES + 512
RANGES = st.tuples(st.integers(0, SIZE), st.integers(-10, 3 * GRANULE_BYTES)).map(
    lambda pair: (pair[0], min(pair[1], SIZE - pair[0]))
)


def walk(dirty: DirtyMap) -> list[Extent]:
    """All that it gives, from the start on."""
    found, position = [], 0
    while (extent := dirty.next_extent(position)) is not None:
        found.append(extent)
        position = extent.end_bytes
    return found


@given(st.lists(RANGES, max_size=8), st.integers(0, SIZE), st.booleans())
def test_it_gives_every_piece_that_was_marked_and_no_other(
    marks: list[tuple[int, int]], done: int, everything: bool
) -> None:
    dirty = DirtyMap(SIZE, everything)
    for offset, length in marks:
        dirty.mark(offset, length)
    pieces = set(range(11)) if everything else set()
    for offset, length in marks:
        if length > 0:
            pieces.update(range(offset // GRANULE_BYTES, (offset + length - 1) // GRANULE_BYTES + 1))
    dirty.finished(0, done)
    pieces = {p for p in pieces if min((p + 1) * GRANULE_BYTES, SIZE) > done}
    expected = merge_extents(
        Extent(p * GRANULE_BYTES, min(GRANULE_BYTES, SIZE - p * GRANULE_BYTES)) for p in pieces
    )
    assert walk(dirty) == expected
    assert dirty.remaining_bytes(0) == len(pieces) * GRANULE_BYTES
    assert dirty.compare_first is everything


@given(st.lists(RANGES, max_size=4), st.integers(0, SIZE - 1))
def test_it_goes_on_from_any_position(marks: list[tuple[int, int]], position: int) -> None:
    dirty = DirtyMap(SIZE)
    for offset, length in marks:
        dirty.mark(offset, length)
    whole = walk(dirty)
    rest = [e for e in whole if e.end_bytes > position]
    found = dirty.next_extent(position)
    if not rest:
        assert found is None
    else:
        assert found is not None
        start = max(position, rest[0].offset_bytes)
        assert found == Extent(start, rest[0].end_bytes - start)


@pytest.mark.parametrize(("size_bytes", "pieces"), [(MIB, 16), (TIB, 4 * MIB), (16 * TIB, 4 * MIB), (1, 1)])
def test_it_takes_little_memory(size_bytes: int, pieces: int) -> None:
    dirty = DirtyMap(size_bytes)
    assert len(dirty._pieces) == pieces
    dirty.mark(size_bytes - 1, 1)
    [extent] = walk(dirty)
    assert extent.end_bytes == size_bytes
    assert extent.length_bytes <= max(GRANULE_BYTES, size_bytes // module.PIECES_MAX)


def test_a_fixed_list_ends() -> None:
    work = FixedWork([Extent(10, 5), Extent(20, 5)])
    assert work.remaining_bytes(0) == 10
    assert work.next_extent(0) == Extent(10, 5)
    assert work.next_extent(12) == Extent(12, 3)
    assert work.remaining_bytes(12) == 8
    assert work.next_extent(15) == Extent(20, 5)
    assert work.next_extent(25) is None


CUTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8)


@given(extents=CUTS, done=CUTS, position=st.integers(0, 80))
def test_a_fixed_list_knows_what_is_left_in_any_order(
    extents: list[tuple[int, int]], done: list[tuple[int, int]], position: int
) -> None:
    given_extents = merge_extents(Extent(at, length) for at, length in extents if length)
    work = FixedWork(given_extents)
    left = {at for extent in given_extents for at in range(extent.offset_bytes, extent.end_bytes)}
    for at, length in done:
        work.finished(at, at + length)
        left -= set(range(at, at + length))
    assert work.remaining_bytes(position) == len([at for at in left if at >= position])
    expected, found = {at for at in left if at >= position}, set[int]()
    while (extent := work.next_extent(position)) is not None:
        assert extent.length_bytes
        found |= set(range(extent.offset_bytes, extent.end_bytes))
        position = extent.end_bytes
    assert found == expected
