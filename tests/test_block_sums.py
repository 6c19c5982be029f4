"""Checksums of blocks: those of the whole, however it is cut."""

import struct
from itertools import pairwise

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block_sums import SUM_BYTES, sums_of, sums_of_all
from pyjiva.units import STORED_BLOCK_BYTES

DATA = bytes(n * 7 % 251 for n in range(5 * STORED_BLOCK_BYTES + 512))


def test_each_block_has_its_xxh3() -> None:
    starts = range(0, len(DATA), STORED_BLOCK_BYTES)
    wanted = [xxhash.xxh3_64_intdigest(DATA[at : at + STORED_BLOCK_BYTES]) for at in starts]
    assert [sum_ for (sum_,) in struct.iter_unpack("<Q", sums_of(DATA))] == wanted
    assert len(sums_of(DATA)) == 6 * SUM_BYTES


@given(
    st.sets(
        st.one_of(st.integers(0, len(DATA)), st.sampled_from(range(0, len(DATA), STORED_BLOCK_BYTES))),
        max_size=8,
    )
)
def test_they_do_not_depend_on_how_it_is_cut(cuts: set[int]) -> None:
    parts = [memoryview(DATA)[start:end] for start, end in pairwise(sorted({0, *cuts, len(DATA)}))]
    assert sums_of_all(parts) == sums_of(DATA)


def test_nothing_has_none() -> None:
    assert sums_of(b"") == sums_of_all([]) == b""
