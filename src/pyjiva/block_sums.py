"""The checksum of a block: xxh3-64 of its 4 KiB, on the wire and beside the data.  Pure.

0 says *unknown*; a block whose hash is 0 has 1.

Where the hot modules are compiled, `native` does it in C (decision 12): 128 KiB in 3.5 us in place of 8.
"""  # hot

import operator
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import xxhash

from pyjiva.buffers import Buffer
from pyjiva.compiled import native
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["SUM_BYTES", "first_bad", "known_sums", "sum_of_hash", "sums_of", "sums_of_all"]

SUM_BYTES: Final = 8
_SUM: Final = struct.Struct("<Q")
_AT_ONCE_BLOCKS_MIN: Final = 16
"""From so many blocks on it takes less to make all sums at once than one by one."""
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
_native_sums_of: Final[Callable[[Buffer], bytes] | None] = native("sums_of")
_native_first_bad: Final[Callable[[Buffer, Buffer], int] | None] = native("first_bad")


def sums_of(data: Buffer) -> bytes:
    """The checksums of the blocks `data`, little-endian; the last one may be short.

    For several, what cuts, hashes and packs is called once for all: a loop costs as much as the hashes.
    """
    if _native_sums_of is not None:
        return _native_sums_of(data)
    size_bytes = len(data)
    if size_bytes <= STORED_BLOCK_BYTES:
        return _SUM.pack(_hash(data) or 1) if size_bytes else b""
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


def known_sums(sums: bytes, data: Buffer) -> bytes:
    """`sums` of the blocks `data`, those that are unknown made anew."""
    if _UNKNOWN not in sums:
        return sums
    pairs = zip(_SUM.iter_unpack(sums), _SUM.iter_unpack(sums_of(data)), strict=True)
    return b"".join([_SUM.pack(old or new) for (old,), (new,) in pairs])


def sum_of_hash(hash_: int) -> bytes:
    """The checksum of one block whose xxh3-64 is known already."""
    return _SUM.pack(hash_ or 1)


def first_bad(sums: Buffer, data: Buffer) -> int:
    """The number of the first block of `data` whose checksum in `sums` is known and another one; -1: none."""
    if _native_first_bad is not None:
        return _native_first_bad(sums, data)
    count = len(sums) // SUM_BYTES
    if count == 1:
        (known,) = _SUM.unpack(sums)
        return 0 if known and known != (_hash(data) or 1) else -1
    if count >= _AT_ONCE_BLOCKS_MIN and sums[:SUM_BYTES] != _UNKNOWN and sums == sums_of(data):
        return -1
    view = memoryview(data)
    for number, known in enumerate(struct.unpack(f"<{count}Q", sums)):
        at = number * STORED_BLOCK_BYTES
        if known and known != (_hash(view[at : at + STORED_BLOCK_BYTES]) or 1):
            return number
    return -1
