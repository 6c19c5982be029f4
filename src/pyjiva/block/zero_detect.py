"""Writes of zeros become holes: a wrapper for hosts that write zeros instead of unmapping.  Pure.

Only whole blocks, as the replicas keep them: for parts of one nothing would be gained.  What is not zeros
costs the look at its first and last byte.
"""

from typing import Final

import attrs

from pyjiva.block.device import BlockDevice, Request, Write, WriteZeroes
from pyjiva.buffers import Buffer
from pyjiva.units import KIB, STORED_BLOCK_BYTES

__all__ = ["ZeroDetect"]

_ZEROS: Final = bytes(256 * KIB)


@attrs.frozen(eq=False)
class ZeroDetect:
    """The block device `device`, with holes where zeros are written."""

    device: BlockDevice

    @property
    def size_bytes(self) -> int:
        """Of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        if type(request) is Write and _is_zeros(request):
            write = request

            def done(zeroed: WriteZeroes) -> None:
                write.error = zeroed.error
                write.done(write)

            request = WriteZeroes(write.offset_bytes, write.length_bytes, done, write.force_unit_access)
        self.device.submit(request)


def _is_zeros(write: Write) -> bool:
    if write.atomic or not write.length_bytes:
        return False
    if write.offset_bytes % STORED_BLOCK_BYTES or write.length_bytes % STORED_BLOCK_BYTES:
        return False
    return all(_all_zero(buffer) for buffer in write.data)


def _all_zero(buffer: Buffer) -> bool:
    if not len(buffer):
        return True
    if buffer[0] or buffer[-1]:
        return False
    step = len(_ZEROS)
    view = memoryview(buffer)
    return all(view[at : at + step] == _ZEROS[: len(view) - at] for at in range(0, len(view), step))
