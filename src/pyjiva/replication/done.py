"""DONE: one frame that says of many requests that they were carried out.  Pure; hot.

A replica carries out several small writes between two waits.  An answer for each is a header of 64 bytes
with two checksums, made, received and taken apart only to say "yes".  Whatever is answered by status OK
and nothing else may be answered by a DONE instead, whose payload is the request ids, little-endian, 8 bytes
each.
"""

import struct
from collections.abc import Sequence
from typing import Final

from pyjiva.errors import RemoteProtocolError
from pyjiva.replication.frame import FrameType

__all__ = ["DONE_IDS_MAX", "DONE_TYPES", "decode_done", "encode_done"]

DONE_IDS_MAX: Final = 128  # a 128th of a header for each: with more there is nothing to gain
DONE_TYPES: Final = frozenset({FrameType.WRITE, FrameType.UNMAP, FrameType.WRITE_ZEROES, FrameType.FLUSH})
"""What may be answered so."""
_ID_BYTES: Final = 8
_LAYOUTS: Final = tuple(struct.Struct(f"<{count}Q") for count in range(DONE_IDS_MAX + 1))
"""By the number of ids: to make the format anew each time would take longer than the rest."""


def encode_done(request_ids: Sequence[int]) -> bytes:  # hot
    """The payload of a DONE."""
    assert 1 <= len(request_ids) <= DONE_IDS_MAX
    return _LAYOUTS[len(request_ids)].pack(*request_ids)


def decode_done(payload: memoryview) -> tuple[int, ...]:  # hot
    """The ids that the payload of a DONE holds, one or more.  Raises RemoteProtocolError: it is none."""
    count, left = divmod(len(payload), _ID_BYTES)
    if left or not 1 <= count <= DONE_IDS_MAX:
        raise RemoteProtocolError(
            f"DONE with {len(payload)} bytes: {_ID_BYTES} for each of at most {DONE_IDS_MAX} requests"
        )
    return _LAYOUTS[count].unpack(payload)
