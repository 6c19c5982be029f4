"""Blocks of 4 KiB of a chunk of 4096 as the bits of a number, the first one the lowest, and what they are in
bytes of a volume, the last block of which may be short.  Pure.
"""

from typing import Final

from pyjiva.extent import Extent
from pyjiva.snapshot.layer_index import CHUNK_BLOCKS, runs_of_bits
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["CHUNK_BYTES", "Blocks", "bits_of", "blocks_of", "bytes_of", "extent_of", "extents_of"]

CHUNK_BYTES: Final = CHUNK_BLOCKS * STORED_BLOCK_BYTES

Blocks = dict[int, int]
"""By chunk, blocks of it."""


def blocks_of(chunk: int, size_bytes: int) -> int:
    """How many blocks the chunk has in a volume of that size."""
    return min(CHUNK_BLOCKS, -(-size_bytes // STORED_BLOCK_BYTES) - chunk * CHUNK_BLOCKS)


def extent_of(chunk: int, size_bytes: int) -> Extent:
    """The chunk in bytes."""
    start = chunk * CHUNK_BYTES
    return Extent(start, min(CHUNK_BYTES, size_bytes - start))


def extents_of(chunk: int, bits: int, size_bytes: int) -> list[Extent]:
    """These blocks in bytes."""
    extents = []
    for first, count in runs_of_bits(bits):
        start = chunk * CHUNK_BYTES + first * STORED_BLOCK_BYTES
        extents.append(Extent(start, min(count * STORED_BLOCK_BYTES, size_bytes - start)))
    return extents


def bytes_of(chunk: int, bits: int, size_bytes: int) -> int:
    """How many bytes these blocks have."""
    last = size_bytes // STORED_BLOCK_BYTES - chunk * CHUNK_BLOCKS
    is_short = size_bytes % STORED_BLOCK_BYTES and 0 <= last < CHUNK_BLOCKS and bits >> last & 1
    lacking_bytes = STORED_BLOCK_BYTES - size_bytes % STORED_BLOCK_BYTES if is_short else 0
    return bits.bit_count() * STORED_BLOCK_BYTES - lacking_bytes


def bits_of(piece: Extent) -> int:
    """The blocks of an extent that lies in one chunk."""
    first = piece.offset_bytes % CHUNK_BYTES // STORED_BLOCK_BYTES
    return ((1 << -(-piece.length_bytes // STORED_BLOCK_BYTES)) - 1) << first
