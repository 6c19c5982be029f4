"""A frame whose payload lies in memory that both sides share.  Pure.

With `Flag.SHARED` a WRITE or READ has, in place of its payload, *where* that lies:

    offset size field
         0    8 xxh3-64 of the whole payload, of a WRITE that has no checksums; else 0
         8    4 number of parts
        12   12 of each part, one after the other: offset in the memory 8, length 4
              8 of each block of a WRITE that begins and ends where blocks do: its checksum (`block_sums`)

The parts make up the payload in their order; a READ has one, of its whole length, and its answer has no
payload.

A checksum that came with a WRITE is stored with its block as it is.  So what the memory held when it was
written is compared with it by every later read, and a replica need not hash it twice.  What a READ has put
into the memory was compared with its checksums there.
"""

import struct
from collections.abc import Sequence
from typing import Final

import attrs
import xxhash

from pyjiva.block_sums import SUM_BYTES
from pyjiva.buffers import Buffer
from pyjiva.errors import RemoteProtocolError
from pyjiva.replication.frame import PAYLOAD_BYTES_MAX, Flag
from pyjiva.replication.request_frame import RequestFrame
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = ["PARTS_MAX", "Reference", "decode_reference", "digest_of", "refer"]

_HEAD: Final = struct.Struct("<QI")
_PART: Final = struct.Struct("<QI")
_SHARED: Final = int(Flag.SHARED)
PARTS_MAX: Final = 1024  # of one payload: as many as one pwritev takes


@attrs.define
class Reference:  # hot
    """Where a payload lies."""

    digest: int
    """Of all of it, if there are no `sums`."""
    parts: tuple[tuple[int, int], ...]
    """(offset, length) in the memory, bytes."""
    sums: bytes
    """The checksums of its blocks; empty if they are not told."""

    @property
    def length_bytes(self) -> int:
        """Of the whole payload."""
        return sum(length for _, length in self.parts)


def refer(frame: RequestFrame, parts: Sequence[tuple[int, int]]) -> tuple[Buffer, ...]:
    """`frame` with its payload at `parts`, as header and payload."""
    assert len(parts) <= PARTS_MAX
    sums = frame.sums()
    digest = digest_of(frame.payload) if frame.payload and not sums else 0
    payload = b"".join((_HEAD.pack(digest, len(parts)), *(_PART.pack(*part) for part in parts), sums))
    return frame.header(frame.code | _SHARED, (payload,)), payload


def decode_reference(payload: memoryview, offset_bytes: int, length_bytes: int) -> Reference:
    """What `refer` made, for a request of this range.

    Raises RemoteProtocolError: it is something else, or not for this range.
    """
    if len(payload) < _HEAD.size:
        raise RemoteProtocolError(f"{len(payload)} bytes do not say where a payload lies")
    digest, count = _HEAD.unpack_from(payload)
    end = _HEAD.size + count * _PART.size
    if not 1 <= count <= PARTS_MAX or len(payload) < end:
        raise RemoteProtocolError(f"{len(payload)} bytes do not say where {count} parts of a payload lie")
    found = Reference(digest, tuple(_PART.iter_unpack(payload[_HEAD.size : end])), bytes(payload[end:]))
    if not 0 < found.length_bytes == length_bytes <= PAYLOAD_BYTES_MAX:
        raise RemoteProtocolError(f"a payload of {found.length_bytes} bytes for a range of {length_bytes}")
    if found.sums and (
        offset_bytes % STORED_BLOCK_BYTES
        or length_bytes % STORED_BLOCK_BYTES
        or len(found.sums) != length_bytes // STORED_BLOCK_BYTES * SUM_BYTES
    ):
        raise RemoteProtocolError(f"{len(found.sums)} bytes of checksums for {length_bytes} bytes of data")
    return found


def digest_of(parts: Sequence[Buffer]) -> int:
    """The xxh3-64 of `parts` one after the other."""
    if len(parts) == 1:
        return xxhash.xxh3_64_intdigest(parts[0])
    hasher = xxhash.xxh3_64()
    for part in parts:
        hasher.update(part)
    return hasher.intdigest()
