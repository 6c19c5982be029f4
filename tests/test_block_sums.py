"""Checksums of blocks: those of the whole, however it is cut."""

import struct
from itertools import pairwise

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block_sums import SUM_BYTES, first_bad, known_sums, sum_of_hash, sums_of, sums_of_all
from pyjiva.units import STORED_BLOCK_BYTES

DATA = bytes(n * 7 % 251 for n in range(5 * STORED_BLOCK_BYTES + 512))
#: No two blocks are alike.
MANY = b"".join(n.to_bytes(8, "little") * (STORED_BLOCK_BYTES // 8) for n in range(702))


def test_each_block_has_its_xxh3() -> None:
    starts = range(0, len(DATA), STORED_BLOCK_BYTES)
    wanted = [xxhash.xxh3_64_intdigest(DATA[at : at + STORED_BLOCK_BYTES]) for at in starts]
    assert [sum_ for (sum_,) in struct.iter_unpack("<Q", sums_of(DATA))] == wanted
    assert len(sums_of(DATA)) == 6 * SUM_BYTES


@given(st.integers(0, 700), st.integers(-600, 600))
def test_any_number_of_blocks_is_summed_one_by_one(blocks: int, more_bytes: int) -> None:
    data = MANY[: max(0, blocks * STORED_BLOCK_BYTES + more_bytes)]
    wanted = (
        xxhash.xxh3_64_intdigest(data[at : at + STORED_BLOCK_BYTES]).to_bytes(SUM_BYTES, "little")
        for at in range(0, len(data), STORED_BLOCK_BYTES)
    )
    assert sums_of(memoryview(data)) == b"".join(wanted)


def test_a_block_whose_hash_is_in_truth_0_has_1() -> None:
    short = bytes.fromhex("42d568e138d727ff")
    assert xxhash.xxh3_64_intdigest(short) == 0
    assert sums_of(short) == (1).to_bytes(SUM_BYTES, "little")
    assert sums_of(MANY[:STORED_BLOCK_BYTES] + short)[SUM_BYTES:] == (1).to_bytes(SUM_BYTES, "little")


@pytest.mark.patches
@pytest.mark.parametrize("count", [1, 2, 3, 256, 257])
def test_a_block_whose_hash_says_unknown_has_1(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    hashes = [0 if n % 2 else 1 + n << 40 for n in range(count)]

    def hash_of(block: memoryview) -> int:
        assert len(block) == STORED_BLOCK_BYTES
        return hashes[int.from_bytes(block[:8], "little")]

    monkeypatch.setattr("pyjiva.block_sums._hash", hash_of)
    sums = sums_of(memoryview(MANY)[: count * STORED_BLOCK_BYTES])
    assert [sum_ for (sum_,) in struct.iter_unpack("<Q", sums)] == [each or 1 for each in hashes]


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


def test_a_hash_that_is_known_makes_the_same_sum() -> None:
    block = DATA[:STORED_BLOCK_BYTES]
    assert sum_of_hash(xxhash.xxh3_64_intdigest(block)) == sums_of(block)
    assert sum_of_hash(0) == (1).to_bytes(SUM_BYTES, "little")


@pytest.mark.parametrize("blocks", [1, 2, 15, 16, 100])
def test_the_first_block_that_is_known_to_be_bad_is_found(blocks: int) -> None:
    data = MANY[: blocks * STORED_BLOCK_BYTES - 512]
    sums = bytearray(sums_of(data))
    assert first_bad(sums, data) == -1
    for number in {0, blocks // 2, blocks - 1}:
        wrong = bytearray(data)
        wrong[number * STORED_BLOCK_BYTES] ^= 1
        assert first_bad(sums, wrong) == number
        unknown = bytearray(sums)
        unknown[number * SUM_BYTES : (number + 1) * SUM_BYTES] = bytes(SUM_BYTES)
        assert first_bad(unknown, wrong) == -1


def test_unknown_sums_are_made_anew_and_others_stay_as_they_are() -> None:
    """Also one that is wrong; and zeros that belong to two sums are no unknown one."""
    data = bytes(range(256)) * 16 * 4
    right = sums_of(data)
    wrong = b"\1" + bytes(7) + bytes(7) + b"\1"
    assert known_sums(right, data) is right
    assert known_sums(right[:16] + bytes(8) + right[24:], data) == right
    assert known_sums(wrong + right[16:], data) == wrong + right[16:]
    assert known_sums(wrong + bytes(16), data) == wrong + right[16:]
