"""Payloads of a rebuild made smaller by lz4, where that helps.  Pure.

Only what is copied from one replica to another, never what a host waits for.  The controller asks for it with
Flag.LZ4 in a READ; an answer that is squeezed has the length of the whole in its header's `length_bytes` (0
otherwise) and goes on to the other replica as it is, in a WRITE with Flag.LZ4.  So the controller spends
nothing on it.  The frame's xxh3 is that of the squeezed bytes; that the copy is right is proved by the hashes
of both sides, as ever.
"""

from collections.abc import Sequence
from typing import Final

import lz4.block

from pyjiva.errors import RemoteProtocolError

__all__ = ["squeeze", "unsqueeze"]

WORTH_IT: Final = 7 / 8  # of the whole: what saves less costs more time at the other end than it saves


def squeeze(buffers: Sequence[bytes | bytearray | memoryview]) -> bytes | None:
    """`buffers` in less space; None: that does not help."""
    whole = buffers[0] if len(buffers) == 1 else b"".join(buffers)
    squeezed: bytes = lz4.block.compress(whole, store_size=False)
    return squeezed if len(squeezed) <= len(whole) * WORTH_IT else None


def unsqueeze(squeezed: bytes | memoryview, length_bytes: int) -> bytes:
    """What was squeezed; takes no more memory than `length_bytes`, which the caller has bounded.

    Raises RemoteProtocolError: that is not what `squeezed` holds.
    """
    try:
        whole: bytes = lz4.block.decompress(squeezed, uncompressed_size=length_bytes)
    except (lz4.block.LZ4BlockError, ValueError) as error:
        raise RemoteProtocolError(f"lz4: {error}") from None
    if len(whole) != length_bytes:
        raise RemoteProtocolError(f"lz4: {len(whole)} bytes instead of {length_bytes}")
    return whole
