"""Regions of a volume to which writes were made that may not be stable, as bytes in memory and as text in the
state.  Pure.
"""

from collections.abc import Iterator

from pyjiva.extent import Extent
from pyjiva.snapshot.state import REGION_BYTES, ReplicaState

__all__ = ["marked_extents", "marks_of", "regions_of"]


def marks_of(state: ReplicaState) -> bytearray:
    """A byte for each region: 1 if the state names it."""
    count = -(-state.size_bytes // REGION_BYTES)
    bits = f"{int(state.written_regions or '0', 16):0{count}b}"
    return bytearray(bit == "1" for bit in bits[::-1][:count])


def regions_of(marks: bytearray) -> str:
    """`ReplicaState.written_regions` for the regions whose byte is not 0."""
    bits = "".join("1" if mark else "0" for mark in reversed(marks))
    return f"{int(bits, 2):x}"


def marked_extents(state: ReplicaState) -> Iterator[Extent]:
    """The regions that the state names."""
    for number, mark in enumerate(marks_of(state)):
        if mark:
            start = number * REGION_BYTES
            yield Extent(start, min(REGION_BYTES, state.size_bytes - start))
