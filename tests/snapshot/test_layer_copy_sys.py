"""Blocks are copied from layer to layer as they are."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.chunk_blocks import CHUNK_BYTES, bits_of, blocks_of, bytes_of, extent_of, extents_of
from pyjiva.snapshot.layer_copy_sys import copy_chunk
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS
from pyjiva.sparse import SUM_BLOCK_BYTES, CheckedFile, sums_size_bytes
from pyjiva.testing import MemoryDisk
from tests.snapshot.stacks import BLOCK

BLOCKS = 12
SIZE_BYTES = CHUNK_BYTES + (BLOCKS - 1) * BLOCK + 512  # the second chunk is short, and so is its last block


def file_with(written: int, letter: bytes) -> CheckedFile:
    """Of the second chunk these blocks are written."""
    directory = MemoryDisk(Random(0)).open_directory()
    data, sums = directory.create("data"), directory.create("sums")
    data.truncate(SIZE_BYTES)
    sums.truncate(sums_size_bytes(SIZE_BYTES))
    file = CheckedFile(data, sums, SIZE_BYTES)
    for extent in extents_of(1, written, SIZE_BYTES):
        file.write(extent.offset_bytes, (letter * extent.length_bytes,))
    return file


BITS = st.integers(0, (1 << BLOCKS) - 1)


@given(BITS, BITS, BITS.filter(bool))
def test_data_are_data_then_and_holes_holes(source_bits: int, target_bits: int, taken: int) -> None:
    """Where nothing is taken all stays as it was."""
    source, target = file_with(source_bits, b"s"), file_with(target_bits, b"t")
    assert copy_chunk(source, target, 1, taken, SIZE_BYTES) == taken & source_bits
    there = source_bits & taken | target_bits & ~taken
    whole_blocks = Extent(0, SIZE_BYTES - 512)  # a hole punched into half a page may count as data
    expected = [part.clip(whole_blocks) for part in extents_of(1, there & (1 << BLOCKS - 1) - 1, SIZE_BYTES)]
    assert merge_extents(target.allocated(whole_blocks)) == merge_extents(filter(None, expected))
    for number in range(BLOCKS):
        letter = (
            (b"s" if source_bits >> number & 1 else b"\0")
            if taken >> number & 1
            else (b"t" if target_bits >> number & 1 else b"\0")
        )
        assert target.read(CHUNK_BYTES + number * BLOCK, 512) == letter * 512
    assert target.verify(Extent(0, SIZE_BYTES)) == []


@given(st.integers(1, 3 * CHUNK_BYTES), st.data())
def test_blocks_of_a_chunk_are_the_bytes_that_they_are(size_bytes: int, data: st.DataObject) -> None:
    chunk = data.draw(st.integers(0, (size_bytes - 1) // CHUNK_BYTES))
    count = blocks_of(chunk, size_bytes)
    extent = extent_of(chunk, size_bytes)
    assert 0 < count <= CHUNK_BLOCKS
    assert extent.end_bytes <= size_bytes
    assert -(-extent.length_bytes // SUM_BLOCK_BYTES) == count
    assert bits_of(extent) == (1 << count) - 1
    bits = data.draw(st.integers(0, (1 << count) - 1))
    extents = extents_of(chunk, bits, size_bytes)
    assert sum(each.length_bytes for each in extents) == bytes_of(chunk, bits, size_bytes)
    together = 0
    for each in extents:
        assert each.clip(extent) == each
        together |= bits_of(each)
    assert together == bits
