"""Large buffers that are used again when nobody holds a view of them any more.  Pure.

A new `bytearray` is filled with zeros, page fault by page fault, only to be overwritten by a receive or a
read: for 1 MiB reads that was 37 % of the target's time, for 1 MiB writes 30 % of a replica's.  Explicit
give-back would be a rule for every holder of a view (and a forgotten or early one would corrupt data), so
the buffers are asked: Python refuses to resize a bytearray while a view of it exists (BufferError), which
is exactly the question.

One task's business: two threads could be given the same buffer.
"""

import collections
from typing import Final, Protocol

import attrs

__all__ = ["Buffers", "RecycledBuffers"]

KEPT_MAX: Final = 4  # for each stream and file: at 1 MiB each, not too much for 64 sessions


class Buffers(Protocol):
    """Where large buffers come from."""

    def take(self, size_bytes: int) -> memoryview:
        """A writable view of `size_bytes` bytes with unspecified content; nobody else has a view of them."""


@attrs.define(eq=False)
class RecycledBuffers:
    """Gives out buffers of any size; keeps the last few for the next time."""

    _kept_max: int = KEPT_MAX
    _kept: collections.deque[bytearray] = attrs.field(factory=collections.deque, init=False)

    def take(self, size_bytes: int) -> memoryview:
        """See Buffers."""
        kept = self._kept
        for _ in range(len(kept)):
            buffer = kept[0]
            kept.rotate(-1)
            # Not one that is much too large either: a small view would keep all of it.
            if size_bytes <= len(buffer) <= 2 * size_bytes and _nobody_has_a_view(buffer):
                return memoryview(buffer)[:size_bytes]
        buffer = bytearray(size_bytes)
        kept.append(buffer)
        if len(kept) > self._kept_max:
            kept.popleft()
        return memoryview(buffer)


def _nobody_has_a_view(buffer: bytearray) -> bool:
    try:
        last = buffer.pop()  # first, and then append: the other way round needs room that is not there yet
    except BufferError:
        return False
    buffer.append(last)
    return True
