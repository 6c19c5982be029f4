"""Large buffers that are used again when nobody holds a view of them any more.  Pure.

A new `bytearray` is filled with zeros, page fault by page fault, only to be overwritten by a receive or a
read: for 1 MiB reads that was 37 % of the target's time, for 1 MiB writes 30 % of a replica's.  Explicit
give-back would be a rule for every holder of a view (and a forgotten or early one would corrupt data), so
the buffers are asked: Python refuses to resize a bytearray while a view of it exists (BufferError), which
is exactly the question.

Each begins at a page.  malloc gives large ones 16 bytes behind the start of one, and the kernel's copy of a
page of a file to there took five times as long on an AMD EPYC: 430 to 630 us for a MiB, in place of 75 to 90
at the start of a page, or 32 bytes and more behind it.

One thread's business: two could be given the same buffer.
"""

import collections
import ctypes
import mmap
from typing import Final, Protocol

import attrs

from pyjiva.units import MIB

__all__ = ["Buffers", "RecycledBuffers"]

KEPT_MAX: Final = 32  # more of them, and to look for one takes as long as to make it
KEPT_BYTES_MAX: Final = 5 * MIB  # of each stream: four for a MiB of data, not too much for 64 of them


class Buffers(Protocol):
    """Where large buffers come from."""

    def take(self, size_bytes: int) -> memoryview:
        """A writable view of `size_bytes` bytes with unspecified content; nobody else has a view of them."""


@attrs.define(eq=False)
class _Kept:  # hot
    """One buffer."""

    storage: bytearray
    start: int
    """Its first byte that begins a page."""
    room_bytes: int
    """From there on."""

    @classmethod
    def of(cls, size_bytes: int) -> "_Kept":
        """A new one."""
        storage = bytearray(size_bytes + mmap.PAGESIZE)
        start = -ctypes.addressof(ctypes.c_char.from_buffer(storage)) % mmap.PAGESIZE
        return cls(storage, start, size_bytes)

    def view(self, size_bytes: int) -> memoryview:
        """Its first bytes."""
        return memoryview(self.storage)[self.start : self.start + size_bytes]


@attrs.define(eq=False)
class RecycledBuffers:  # hot
    """Gives out buffers of any size; keeps the last few for the next time, the last one in any case."""

    _kept_bytes_max: int = KEPT_BYTES_MAX
    _kept: collections.deque[_Kept] = attrs.field(factory=collections.deque, init=False)
    _kept_bytes: int = attrs.field(default=0, init=False)

    def take(self, size_bytes: int) -> memoryview:
        """See Buffers."""
        kept = self._kept
        for _ in range(len(kept)):
            buffer = kept[0]
            kept.rotate(-1)
            # Not one that is much too large either: a small view would keep all of it.
            if size_bytes <= buffer.room_bytes <= 2 * size_bytes and _nobody_has_a_view(buffer.storage):
                return buffer.view(size_bytes)
        buffer = _Kept.of(size_bytes)
        kept.append(buffer)
        self._kept_bytes += size_bytes
        while len(kept) > KEPT_MAX or (self._kept_bytes > self._kept_bytes_max and len(kept) > 1):
            self._kept_bytes -= kept.popleft().room_bytes
        return buffer.view(size_bytes)


def _nobody_has_a_view(buffer: bytearray) -> bool:
    try:
        last = buffer.pop()  # first, and then append: the other way round needs room that is not there yet
    except BufferError:
        return False
    buffer.append(last)
    return True
