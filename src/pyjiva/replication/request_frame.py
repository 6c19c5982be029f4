"""A request of a controller, before anybody has put it into bytes.  Pure; hot."""

from collections.abc import Sequence
from typing import Final

import attrs

from pyjiva.block_sums import sums_of_all
from pyjiva.buffers import Buffer
from pyjiva.replication.frame import FrameType, encode_header
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["RequestFrame"]

_MASK: Final = STORED_BLOCK_BYTES - 1


@attrs.define(eq=False)
class RequestFrame:  # hot
    """What goes to one replica, or in the same words to several.

    Header and checksums are made when somebody needs them, and once: a payload that lies in shared memory
    leaves without the hash of the whole that a header has, and that takes as long as its checksums.
    """

    #: The fields of a frame's header (`frame`).
    type: FrameType
    request_id: int
    epoch: int
    stable: int
    offset_bytes: int = 0
    length_bytes: int = 0
    code: int = 0
    payload: Sequence[Buffer] = ()
    """Nobody may change it until all have answered."""
    referring: tuple[Buffer, ...] = attrs.field(default=(), init=False)
    """The frame that says where the payload lies, in the memory of `generation` (`reference`); empty: not
    made yet.
    """
    generation: int = attrs.field(default=0, init=False)
    _buffers: tuple[Buffer, ...] = attrs.field(default=(), init=False)
    _sums: bytes | None = attrs.field(default=None, init=False)

    def buffers(self) -> tuple[Buffer, ...]:
        """Header and payload."""
        if not self._buffers:
            self._buffers = (self.header(self.code, self.payload), *self.payload)
        return self._buffers

    def header(self, code: int, payload: Sequence[Buffer]) -> bytes:
        """With a code and a payload that may be others, for the same request."""
        return encode_header(
            self.type,
            code=code,
            request_id=self.request_id,
            epoch=self.epoch,
            offset_bytes=self.offset_bytes,
            length_bytes=self.length_bytes,
            stable=self.stable,
            payload=payload,
        )

    def sums(self) -> bytes:
        """Of the blocks of the payload (`block_sums`); none if it does not begin and end where blocks do."""
        if self._sums is None:
            whole = not (self.offset_bytes | self.length_bytes) & _MASK
            self._sums = sums_of_all(self.payload) if whole else b""
        return self._sums

    def keep(self) -> None:
        """Copy the payload, which is somebody else's again."""
        self.payload = tuple(bytes(buffer) for buffer in self.payload)
        self.referring = self._buffers = ()
