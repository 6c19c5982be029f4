"""Lists of extents as the payload of BLOCK_STATUS answers: pairs of unsigned 64-bit numbers,
little-endian.  Pure.
"""

import struct
from collections.abc import Sequence
from typing import Final

from pyjiva.errors import RemoteProtocolError
from pyjiva.extent import Extent

__all__ = ["EXTENTS_MAX", "decode_extents", "encode_extents"]

_PAIR: Final = struct.Struct("<QQ")
EXTENTS_MAX: Final = 65536  # 1 MiB of payload


def encode_extents(extents: Sequence[Extent]) -> bytes:
    """`extents`; beyond EXTENTS_MAX the last one covers all the rest, so that no data is ever reported as
    a hole.
    """
    if len(extents) > EXTENTS_MAX:
        rest = extents[EXTENTS_MAX - 1]
        extents = [
            *extents[: EXTENTS_MAX - 1],
            Extent(rest.offset_bytes, extents[-1].end_bytes - rest.offset_bytes),
        ]
    return b"".join(_PAIR.pack(e.offset_bytes, e.length_bytes) for e in extents)


def decode_extents(payload: bytes | memoryview, within: Extent) -> list[Extent]:
    """The extents in `payload`.

    Raises RemoteProtocolError: not sorted, disjoint, non-empty extents inside `within`.
    """
    if len(payload) % _PAIR.size or len(payload) > EXTENTS_MAX * _PAIR.size:
        raise RemoteProtocolError(f"list of extents has {len(payload)} bytes")
    extents = [Extent(offset, length) for offset, length in _PAIR.iter_unpack(payload)]
    position = within.offset_bytes
    for extent in extents:
        if not extent.length_bytes or extent.offset_bytes < position or extent.end_bytes > within.end_bytes:
            raise RemoteProtocolError(f"list of extents is not sorted inside {within}")
        position = extent.end_bytes
    return extents
