"""PDUs out of and into a stream of bytes: lengths, padding, digests (RFC 7143 §11.2, §13.1).  Pure.

`next_pdu` takes one PDU off the buffer; `encode` gives the buffers of one to send.  Payloads are views both
ways.  The same class serves a target and an initiator.
"""  # hot

import struct
from collections.abc import Sequence
from typing import Final

import attrs
import google_crc32c

from pyjiva.buffers import Buffer
from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.pdu import BHS_BYTES, Pdu, padding
from pyjiva.transport import ReceiveBuffer

__all__ = ["Framing", "digest"]

DIGEST_BYTES: Final = 4
_DIGEST: Final = struct.Struct("<I")  # RFC 7143 §13.1: the CRC's bit order makes it little-endian on the wire
_NO_LENGTHS: Final = bytes(4)  # TotalAHSLength, in words, and DataSegmentLength


def digest(*buffers: Buffer) -> bytes:
    """CRC32C over the buffers one after the other, as it goes on the wire."""
    crc = 0
    for buffer in buffers:
        crc = google_crc32c.extend(crc, buffer if type(buffer) is bytes else bytes(buffer))
    return _DIGEST.pack(crc)


@attrs.define(eq=False)
class Framing:
    """One direction-less end of a connection: digests and the largest data segment we accept."""

    buffer: ReceiveBuffer
    data_segment_length_max: int
    header_digest: bool = False
    data_digest: bool = False
    wanted_bytes: int = BHS_BYTES
    """How many bytes the next PDU needs in the buffer, as far as is known."""

    def receive_data(self, data: Buffer) -> None:
        """Append bytes: for tests and for streams that are not sockets."""
        self.buffer.receive_data(data)

    def next_pdu(self) -> Pdu | None:
        """The next whole PDU; None while it has not arrived.

        Raises RemoteProtocolError: a segment longer than was agreed, or a wrong header digest.
        """
        buffer = self.buffer
        header = buffer.copy_of(BHS_BYTES)
        if header is None:
            self.wanted_bytes = BHS_BYTES
            return None
        if header[4:8] == _NO_LENGTHS and not self.header_digest:
            buffer.skip(BHS_BYTES)
            return Pdu(header)
        return self._next_long(header, header[4] * 4, header[5] << 16 | header[6] << 8 | header[7])

    def _next_long(self, header: bytes, additional_bytes: int, data_bytes: int) -> Pdu | None:
        if data_bytes > self.data_segment_length_max:
            raise RemoteProtocolError(
                f"data segment of {data_bytes} bytes, at most {self.data_segment_length_max} were agreed"
            )
        buffer = self.buffer
        header_bytes = BHS_BYTES + additional_bytes
        start = header_bytes + (DIGEST_BYTES if self.header_digest else 0)
        padded = data_bytes + (-data_bytes & 3)
        total = start + padded + (DIGEST_BYTES if self.data_digest and data_bytes else 0)
        if len(buffer) < total:
            self.wanted_bytes = total
            return None
        additional = b""
        if start != BHS_BYTES:
            front = buffer.peek(start)
            assert front is not None
            if self.header_digest and digest(front[:header_bytes]) != front[header_bytes:]:
                raise RemoteProtocolError("header digest is wrong")
            additional = bytes(front[BHS_BYTES:header_bytes])
        buffer.skip(start)
        if not data_bytes:
            return Pdu(header, b"", additional)
        if not self.data_digest:
            data = buffer.take(data_bytes)
            buffer.skip(padded - data_bytes)
            return Pdu(header, data, additional)
        segment = buffer.take(padded)
        trailer = buffer.peek(DIGEST_BYTES)
        assert trailer is not None
        intact = digest(segment) == trailer
        buffer.skip(DIGEST_BYTES)
        return Pdu(header, segment[:data_bytes], additional, intact)

    def encode(self, header: bytes, data: Sequence[Buffer] = (), data_bytes: int = 0) -> list[Buffer]:
        """The buffers of a PDU whose header says `data_bytes`, with padding and digests."""
        buffers: list[Buffer] = [header]
        if self.header_digest:
            buffers.append(digest(header))
        if data_bytes:
            buffers.extend(data)
            if data_bytes & 3:
                buffers.append(padding(data_bytes))
            if self.data_digest:
                buffers.append(digest(*data, padding(data_bytes)))
        return buffers
