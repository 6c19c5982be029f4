"""Copying blocks from the file of one layer to that of another one, holes and what is bad as they are.
Blocking calls only.
"""

from collections.abc import Iterable
from typing import Final

from pyjiva.extent import Extent, merge_extents
from pyjiva.snapshot.chunk_blocks import CHUNK_BYTES, extents_of
from pyjiva.snapshot.layer_index import runs_of_bits
from pyjiva.sparse import SUM_BLOCK_BYTES, CheckedFile
from pyjiva.units import MIB

__all__ = ["copy_blocks", "copy_chunk", "whole_blocks"]

_SHIFT: Final = 12
_MASK: Final = SUM_BLOCK_BYTES - 1


def whole_blocks(extents: Iterable[Extent], size_bytes: int) -> list[Extent]:
    """`extents`, made larger to whole blocks of a file of `size_bytes`."""
    grown = []
    for extent in extents:
        start = extent.offset_bytes & ~_MASK
        grown.append(Extent(start, min((extent.end_bytes + _MASK) & ~_MASK, size_bytes) - start))
    return merge_extents(grown)


def copy_chunk(source: CheckedFile, target: CheckedFile, chunk: int, bits: int, size_bytes: int) -> int:
    """Make these blocks of a chunk in `target` what they are in `source`; which of them are data, as bits.

    See `CheckedFile.take`.  Holes are punched even where the target has holes: a power cut during an
    earlier attempt may have left checksums there.
    """
    base = chunk * CHUNK_BYTES
    low, high = (bits & -bits).bit_length() - 1, bits.bit_length()
    start = base + (low << _SHIFT)
    data = 0
    for extent in source.allocated(Extent(start, min(base + (high << _SHIFT), size_bytes) - start)):
        first = (extent.offset_bytes - base) >> _SHIFT
        data |= ((1 << (extent.end_bytes - base + _MASK >> _SHIFT) - first) - 1) << first
    data &= bits
    for hole in extents_of(chunk, bits & ~data, size_bytes):
        target.punch(hole.offset_bytes, hole.length_bytes)
    target.take(source, base >> _SHIFT, list(runs_of_bits(data)))
    return data


def copy_blocks(source: CheckedFile, target: CheckedFile, extent: Extent) -> None:
    """Copy whole blocks; what is bad in `source` is bad in `target` too, never believed there."""
    for piece in extent.split(MIB):
        data = source.read_unverified(piece.offset_bytes, piece.length_bytes)
        bad = source.bad_blocks(piece.offset_bytes, data)
        target.write(piece.offset_bytes, (data,))
        for number in bad:
            target.spoil(piece.offset_bytes + (number << _SHIFT))
