"""A half-open range of bytes, and the little algebra that replicas, rebuilds and locks need."""

from collections.abc import Iterable, Iterator

import attrs

__all__ = ["Extent", "merge_extents"]


@attrs.frozen(order=True)
class Extent:
    """The bytes from `offset_bytes` up to, not including, `end_bytes`."""

    offset_bytes: int
    length_bytes: int

    def __str__(self) -> str:
        """As the operator reads it."""
        return f"{self.length_bytes} bytes at offset {self.offset_bytes}"

    @property
    def end_bytes(self) -> int:
        """The first byte after the extent."""
        return self.offset_bytes + self.length_bytes

    def overlaps(self, other: "Extent") -> bool:
        """Whether a byte lies in both."""
        return self.offset_bytes < other.end_bytes and other.offset_bytes < self.end_bytes

    def clip(self, other: "Extent") -> "Extent | None":
        """The part of this extent that lies in `other`; None when there is none."""
        start = max(self.offset_bytes, other.offset_bytes)
        end = min(self.end_bytes, other.end_bytes)
        return Extent(start, end - start) if start < end else None

    def split(self, step_bytes: int) -> Iterator["Extent"]:
        """The extent in pieces that end at multiples of `step_bytes`."""
        start = self.offset_bytes
        while start < self.end_bytes:
            end = min(self.end_bytes, start - start % step_bytes + step_bytes)
            yield Extent(start, end - start)
            start = end


def merge_extents(extents: Iterable[Extent]) -> list[Extent]:
    """The same bytes as `extents`, sorted, with no two that touch or overlap; empty ones are dropped.

    A flush has one for every write since the last one, and whoever flushes keeps the interpreter's lock from
    requests: numbers are sorted, not extents, whose comparison costs more than thirty times as much.
    """
    merged: list[Extent] = []
    begin = end = -1
    for offset, length in sorted((each.offset_bytes, each.length_bytes) for each in extents):
        if not length:
            continue
        if end >= 0 and offset <= end:
            end = max(end, offset + length)
            continue
        if end >= 0:
            merged.append(Extent(begin, end - begin))
        begin, end = offset, offset + length
    if end >= 0:
        merged.append(Extent(begin, end - begin))
    return merged
