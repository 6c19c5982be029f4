"""The checksum of a block: xxh3-64 of its 4 KiB, on the wire and beside the data.  Pure.

0 says *unknown*; a block whose hash is 0 has 1.
"""  # hot

import struct
from collections.abc import Sequence
from typing import Final

import xxhash

from pyjiva.buffers import Buffer
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["SUM_BYTES", "sums_of", "sums_of_all"]

SUM_BYTES: Final = 8
_MASK: Final = STORED_BLOCK_BYTES - 1
_hash: Final = xxhash.xxh3_64_intdigest


def sums_of(data: Buffer) -> bytes:
    """The checksums of the blocks `data`, little-endian; the last one may be short."""
    view = memoryview(data)
    sums = [_hash(view[at : at + STORED_BLOCK_BYTES]) or 1 for at in range(0, len(view), STORED_BLOCK_BYTES)]
    return struct.pack(f"<{len(sums)}Q", *sums)


def sums_of_all(buffers: Sequence[Buffer]) -> bytes:
    """`sums_of` what is in `buffers` one after the other."""
    if any(len(buffer) & _MASK for buffer in buffers[:-1]):  # a block lies in two of them
        return sums_of(b"".join(buffers))
    return b"".join(map(sums_of, buffers))
