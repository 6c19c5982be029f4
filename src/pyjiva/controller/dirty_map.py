"""What a replica may lack: one byte for each piece of the volume.  Pure.

A piece is GRANULE_BYTES, or more in a volume so large that the map would grow beyond PIECES_MAX bytes.  A
map belongs to one replica and one controller's life: it begins when the replica is lost, or before a copy
of everything, and ends when the replica takes all writes again.  It never forgets a write; it may remember
more than there was.
"""

import bisect
from typing import Final, Protocol

import attrs

from pyjiva.extent import Extent
from pyjiva.units import KIB

__all__ = ["GRANULE_BYTES", "DirtyMap", "FixedWork", "Work"]

GRANULE_BYTES: Final = 64 * KIB
PIECES_MAX: Final = 4 * 1024 * 1024


class Work(Protocol):
    """What a resync has to go through, from the start of the volume to its end."""

    @property
    def compare_first(self) -> bool:
        """Whether much of it may be equal already, so that hashes are asked for before any data."""

    @property
    def piece_bytes(self) -> int:
        """Nothing smaller is known to be finished, but for what lies below a position."""

    def next_extent(self, position: int) -> Extent | None:
        """The next range at or after `position` that is left; None: that was all."""

    def finished(self, start: int, end: int) -> None:
        """From `start` to `end` (bytes) source and target are equal now."""

    def remaining_bytes(self, position: int) -> int:
        """How much there is at and after `position`."""


@attrs.define(eq=False)
class FixedWork:
    """Extents, sorted and disjoint, to which nothing is added."""

    left: list[Extent]
    """Those that are not finished; its own list, which gets shorter."""
    compare_first: bool = True

    @property
    def piece_bytes(self) -> int:
        """Part of Work: its own bounds are all there are."""
        return 1

    def _index(self, position: int) -> int:
        """Of the first that does not end before `position`, or at it."""
        return bisect.bisect_right(self.left, position, key=lambda extent: extent.end_bytes)

    def next_extent(self, position: int) -> Extent | None:
        """Part of Work."""
        index = self._index(position)
        if index == len(self.left):
            return None
        extent = self.left[index]
        start = max(position, extent.offset_bytes)
        return Extent(start, extent.end_bytes - start)

    def finished(self, start: int, end: int) -> None:
        """Part of Work."""
        first = last = self._index(start)
        rest: list[Extent] = []
        while last < len(self.left) and (extent := self.left[last]).offset_bytes < end:
            if extent.offset_bytes < start:
                rest.append(Extent(extent.offset_bytes, start - extent.offset_bytes))
            if extent.end_bytes > end:
                rest.append(Extent(end, extent.end_bytes - end))
            last += 1
        self.left[first:last] = rest

    def remaining_bytes(self, position: int) -> int:
        """Part of Work."""
        return sum(max(0, e.end_bytes - max(position, e.offset_bytes)) for e in self.left)


@attrs.define(eq=False)
class DirtyMap:
    """The pieces of `size_bytes` that a replica may lack; none to begin with, or all."""

    size_bytes: int
    everything: bool = False
    """Begun without knowing what the replica holds: most of it may be right."""
    _shift: int = attrs.field(init=False)
    _pieces: bytearray = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._shift = GRANULE_BYTES.bit_length() - 1
        while self.size_bytes >> self._shift > PIECES_MAX:
            self._shift += 1
        count = -(-self.size_bytes >> self._shift)
        self._pieces = bytearray(b"\x01" * count if self.everything else count)

    @property
    def compare_first(self) -> bool:
        """Part of Work."""
        return self.everything

    @property
    def piece_bytes(self) -> int:
        """Part of Work."""
        return 1 << self._shift

    def mark(self, offset: int, length: int) -> None:  # hot while a replica is away
        """A write that the replica does not get."""
        if length <= 0:
            return
        first, last = offset >> self._shift, (offset + length - 1) >> self._shift
        if first == last:
            self._pieces[first] = 1
        else:
            self._pieces[first : last + 1] = b"\x01" * (last + 1 - first)

    def next_extent(self, position: int) -> Extent | None:
        """Part of Work: up to the next piece that is not lacking."""
        first = self._pieces.find(1, position >> self._shift)
        if first < 0 or position >= self.size_bytes:  # the last piece may reach beyond the end
            return None
        end = self._pieces.find(0, first)
        if end < 0:
            end = len(self._pieces)
        start = max(position, first << self._shift)
        return Extent(start, min(end << self._shift, self.size_bytes) - start)

    def finished(self, start: int, end: int) -> None:
        """Part of Work: pieces that lie within are not lacking any more."""
        first = -(-start >> self._shift)
        last = len(self._pieces) if end >= self.size_bytes else end >> self._shift
        if first < last:
            self._pieces[first:last] = bytes(last - first)

    def remaining_bytes(self, position: int) -> int:
        """Part of Work, to a piece."""
        return self._pieces.count(1, position >> self._shift) << self._shift

    def grown(self, size_bytes: int) -> "DirtyMap":
        """The same for a volume that has become larger: nothing lacks of what was added."""
        grown = DirtyMap(size_bytes, everything=self.everything)
        if grown._shift != self._shift:
            return DirtyMap(size_bytes, everything=True)
        grown._pieces[: len(self._pieces)] = self._pieces
        return grown
