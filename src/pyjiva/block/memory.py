"""A block device in memory: the target's first backend, and the model in tests of other devices.  Pure.

It answers inside `submit`.  Pages that were never written are holes.
"""

from typing import Final, assert_never

import attrs

from pyjiva.block.device import BlockStatus, Flush, Read, Request, Unmap, Write, WriteZeroes
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents

__all__ = ["MemoryDevice"]

PAGE_BYTES: Final = 4096
_ZERO_PAGE: Final = bytes(PAGE_BYTES)


@attrs.define(eq=False)
class MemoryDevice:
    """`size_bytes` of zeros to begin with."""

    size_bytes: int
    _pages: dict[int, bytearray] = attrs.field(factory=dict, init=False)
    flush_count: int = attrs.field(default=0, init=False)
    """How many Flush requests and FUA writes were answered."""

    def submit(self, request: Request) -> None:
        """Do `request` at once."""
        if not isinstance(request, Flush) and (
            request.offset_bytes < 0 or request.offset_bytes + request.length_bytes > self.size_bytes
        ):
            request.error = StorageError(
                StorageFailure.OUT_OF_RANGE,
                f"{request.length_bytes} bytes at {request.offset_bytes}: the device has {self.size_bytes}",
            )
        else:
            self._carry_out(request)
        request.done(request)  # type: ignore[arg-type]  # each class's `done` takes that class

    def _carry_out(self, request: Request) -> None:
        match request:
            case Read():
                request.data = (self.content(request.offset_bytes, request.length_bytes),)
            case Write():
                self._write(request.offset_bytes, b"".join(request.data))
                self.flush_count += request.force_unit_access
            case Unmap() | WriteZeroes():
                self._zero(request.offset_bytes, request.length_bytes)
            case Flush():
                self.flush_count += 1
            case BlockStatus():
                request.allocated = self._allocated(Extent(request.offset_bytes, request.length_bytes))
            case _:
                assert_never(request)

    def content(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The bytes of a range."""
        number, start = divmod(offset_bytes, PAGE_BYTES)
        if start + length_bytes <= PAGE_BYTES:  # most reads: it is also measured with
            return bytes(self._pages.get(number, _ZERO_PAGE)[start : start + length_bytes])
        pieces = []
        for piece in Extent(offset_bytes, length_bytes).split(PAGE_BYTES):
            number, start = divmod(piece.offset_bytes, PAGE_BYTES)
            pieces.append(self._pages.get(number, _ZERO_PAGE)[start : start + piece.length_bytes])
        return b"".join(pieces)

    def _write(self, offset_bytes: int, data: bytes) -> None:
        for piece in Extent(offset_bytes, len(data)).split(PAGE_BYTES):
            number, start = divmod(piece.offset_bytes, PAGE_BYTES)
            page = self._pages.setdefault(number, bytearray(PAGE_BYTES))
            taken = piece.offset_bytes - offset_bytes
            page[start : start + piece.length_bytes] = data[taken : taken + piece.length_bytes]

    def _zero(self, offset_bytes: int, length_bytes: int) -> None:
        end = offset_bytes + length_bytes
        for number in [
            n for n in self._pages if n * PAGE_BYTES < end and (n + 1) * PAGE_BYTES > offset_bytes
        ]:
            start = max(0, offset_bytes - number * PAGE_BYTES)
            stop = min(PAGE_BYTES, end - number * PAGE_BYTES)
            if stop - start == PAGE_BYTES:
                del self._pages[number]
            else:
                self._pages[number][start:stop] = bytes(stop - start)

    def _allocated(self, wanted: Extent) -> list[Extent]:
        pages = merge_extents(Extent(number * PAGE_BYTES, PAGE_BYTES) for number in self._pages)
        return [part for page in pages if (part := page.clip(wanted)) is not None]
