"""Extents against the plainest model: sets of byte numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.extent import Extent, merge_extents

EXTENTS = st.builds(Extent, st.integers(0, 40), st.integers(0, 20))
FULL = st.builds(Extent, st.integers(0, 40), st.integers(1, 20))


def bytes_of(extent: Extent) -> set[int]:
    """The numbers of the bytes in it."""
    return set(range(extent.offset_bytes, extent.end_bytes))


@given(FULL, FULL)
def test_extents_overlap_when_they_share_a_byte(a: Extent, b: Extent) -> None:
    assert a.overlaps(b) == b.overlaps(a) == bool(bytes_of(a) & bytes_of(b))


@given(EXTENTS, EXTENTS)
def test_a_clip_holds_the_bytes_that_are_in_both(a: Extent, b: Extent) -> None:
    clipped = a.clip(b)
    assert (set() if clipped is None else bytes_of(clipped)) == bytes_of(a) & bytes_of(b)
    assert clipped is None or clipped.length_bytes


@given(EXTENTS, st.integers(1, 12))
def test_pieces_are_the_extent_cut_at_multiples(extent: Extent, step: int) -> None:
    pieces = list(extent.split(step))
    joined = [byte for piece in pieces for byte in range(piece.offset_bytes, piece.end_bytes)]
    assert joined == sorted(bytes_of(extent))
    assert all(piece.length_bytes for piece in pieces)
    assert all(piece.offset_bytes // step == (piece.end_bytes - 1) // step for piece in pieces)
    assert all(piece.end_bytes % step == 0 for piece in pieces[:-1])


@given(st.lists(EXTENTS, max_size=12))
def test_merging_keeps_the_bytes_and_leaves_gaps_between(extents: list[Extent]) -> None:
    merged = merge_extents(extents)
    assert set().union(*map(bytes_of, merged)) == set().union(*map(bytes_of, extents))
    assert all(extent.length_bytes for extent in merged)
    assert all(a.end_bytes < b.offset_bytes for a, b in itertools.pairwise(merged))
    assert merge_extents(merged) == merged
