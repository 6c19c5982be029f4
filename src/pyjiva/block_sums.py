"""The checksum of a block: xxh3-64 of its 4 KiB, on the wire and beside the data.  Pure.

0 says *unknown*; a block whose hash is 0 has 1.

Where the hot modules are compiled, `native_sums` does it in C (decision 12): 128 KiB in 3.5 us in place of 8.
"""  # hot

import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import xxhash

from pyjiva.buffers import Buffer
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["AT_ONCE_BLOCKS_MIN", "SUM_BYTES", "sums_of", "sums_of_all"]

_native: Callable[[Buffer], bytes] | None
try:
    from pyjiva.native_sums import sums_of as _native
except ImportError:  # nothing is compiled
    _native = None

SUM_BYTES: Final = 8
AT_ONCE_BLOCKS_MIN: Final = 16 if _native is None else 1
"""From so many blocks on it takes less to compare all sums at once than one by one."""
_MASK: Final = STORED_BLOCK_BYTES - 1
_PART_BLOCKS: Final = 256
_PART_BYTES: Final = _PART_BLOCKS * STORED_BLOCK_BYTES
#: Where a part's blocks lie.
_SLICES: Final = tuple(slice(at, at + STORED_BLOCK_BYTES) for at in range(0, _PART_BYTES, STORED_BLOCK_BYTES))
#: By a number of blocks, two or more: what cuts a view into them, and what packs their sums; made when first
#: asked for.  All of them together would be a quarter of a megabyte, but a host writes in few sizes.
_tools: Final[dict[int, tuple[Callable[[memoryview], tuple[memoryview, ...]], Callable[..., bytes]]]] = {}
_UNKNOWN: Final = bytes(SUM_BYTES)
_hash: Final = xxhash.xxh3_64_intdigest


def sums_of(data: Buffer) -> bytes:
    """The checksums of the blocks `data`, little-endian; the last one may be short.

    For several, what cuts, hashes and packs is called once for all: a loop costs as much as the hashes.
    """
    if _native is not None:
        return _native(data)
    size_bytes = len(data)
    if size_bytes <= STORED_BLOCK_BYTES:
        return struct.pack("<Q", _hash(data) or 1) if size_bytes else b""
    view = memoryview(data)
    if size_bytes > _PART_BYTES:
        return b"".join([sums_of(view[at : at + _PART_BYTES]) for at in range(0, size_bytes, _PART_BYTES)])
    cut, pack = _tools_for((size_bytes + _MASK) // STORED_BLOCK_BYTES)
    blocks = cut(view)
    sums = pack(*map(_hash, blocks))
    if _UNKNOWN in sums:  # perhaps a sum, perhaps parts of two
        return pack(*[_hash(block) or 1 for block in blocks])
    return sums


def _tools_for(count: int) -> tuple[Callable[[memoryview], tuple[memoryview, ...]], Callable[..., bytes]]:
    tools = _tools.get(count)
    if tools is None:
        cut: Any = operator.itemgetter(*_SLICES[:count])
        tools = _tools[count] = cut, struct.Struct(f"<{count}Q").pack
    return tools


def sums_of_all(buffers: Sequence[Buffer]) -> bytes:
    """`sums_of` what is in `buffers` one after the other."""
    if len(buffers) == 1:
        return sums_of(buffers[0])
    if any(len(buffer) & _MASK for buffer in buffers[:-1]):  # a block lies in two of them
        return sums_of(b"".join(buffers))
    return b"".join(map(sums_of, buffers))
