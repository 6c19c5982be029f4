"""TLS over a batched stream: the same promises, with what goes out and comes in encrypted.

The records are made in memory (`ssl.MemoryBIO`), so that `send` stays a call that never waits: it encrypts at
once, and the stream below sends at the end of the batch.  `fill` waits for the stream below.
"""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import attrs
import trio

from pyjiva.errors import RemoteProtocolError
from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.receive_buffer import ReceiveBuffer
from pyjiva.transport.stream import Stream, serve_by_filling
from pyjiva.transport.stream_io import open_stream

__all__ = ["TlsStream", "client_stream", "open_tls_stream", "server_stream"]


@attrs.define(eq=False)
class TlsStream:
    """A Stream over another one."""

    _below: Stream
    _tls: ssl.SSLObject
    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)

    @property
    def queued_bytes(self) -> int:
        """Part of Stream: of records."""
        return self._below.queued_bytes

    @property
    def received_bytes(self) -> int:
        """Part of Stream: of records."""
        return self._below.received_bytes

    async def fill(self, wanted_bytes: int = 0) -> bool:
        """Part of Stream.  Raises RemoteProtocolError: what came is not what TLS allows."""
        tail = self.buffer.tail(wanted_bytes)
        waited = False
        while True:
            try:
                count = cast(int, self._tls.read(len(tail), tail))  # with a buffer: how many
            except ssl.SSLWantReadError:
                self._flush()
                if not await self._take_in():
                    return False  # without a close_notify: frames say themselves where they end
                waited = True
                continue
            except ssl.SSLZeroReturnError:
                return False
            except ssl.SSLError as error:
                raise _not_tls(error) from error
            break
        if not waited:
            await trio.lowlevel.checkpoint()
        self.buffer.received(count)
        return count > 0

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        """Part of Stream."""
        return await serve_by_filling(self, wanted_bytes, arrived)

    async def _take_in(self) -> bool:
        """Wait for records; False when the connection has ended."""
        if not await self._below.fill():
            return False
        buffer = self._below.buffer
        records = buffer.peek(len(buffer))
        assert records is not None
        self._incoming.write(records)
        buffer.skip(len(records))
        return True

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Part of Stream."""
        for buffer in buffers:
            left = memoryview(buffer)
            while left:
                left = left[self._tls.write(left) :]
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.send(self._outgoing.read())

    async def wait_sent(self) -> None:
        """Part of Stream."""
        await self._below.wait_sent()

    def shut_down(self) -> None:
        """Part of Stream."""
        self._below.shut_down()

    @property
    def is_local(self) -> bool:
        """Part of Stream."""
        return self._below.is_local

    @property
    def peer_address(self) -> tuple[str, int]:
        """Part of Stream."""
        return self._below.peer_address

    async def shake_hands(self, batch: EndOfBatch) -> None:
        """Raises RemoteProtocolError: the peer shows no certificate that counts, or speaks no TLS 1.3."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                batch.end()
                if not await self._take_in():
                    raise RemoteProtocolError("closed the connection during the TLS handshake") from None
            except ssl.SSLError as error:
                self._flush()  # the alert that tells the peer why
                batch.end()
                await self._below.wait_sent()
                raise _not_tls(error) from error
            else:
                break
        self._flush()
        batch.end()


async def server_stream(below: Stream, context: ssl.SSLContext, batch: EndOfBatch) -> TlsStream:
    """The server's end, with the handshake done.  Raises RemoteProtocolError."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stream = TlsStream(below, context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing)
    await stream.shake_hands(batch)
    return stream


async def client_stream(below: Stream, context: ssl.SSLContext, host: str, batch: EndOfBatch) -> TlsStream:
    """The client's end, with the handshake done: the server's certificate is for `host`.

    Raises RemoteProtocolError.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stream = TlsStream(below, context.wrap_bio(incoming, outgoing, server_hostname=host), incoming, outgoing)
    await stream.shake_hands(batch)
    return stream


@asynccontextmanager
async def open_tls_stream(
    host: str, port: int, batch: EndOfBatch, timeout_s: float, context: ssl.SSLContext
) -> AsyncIterator[TlsStream]:
    """Connect to `host`:`port`, and shake hands.

    Raises OSError: nobody answers there; trio.TooSlowError: either takes longer than `timeout_s`;
    RemoteProtocolError: who answers is not who should.
    """
    async with open_stream(host, port, batch, timeout_s) as below:
        with trio.fail_after(timeout_s):
            stream = await client_stream(below, context, host, batch)
        yield stream


def _not_tls(error: ssl.SSLError) -> RemoteProtocolError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return RemoteProtocolError(f"TLS: {error.verify_message}")
    return RemoteProtocolError(f"TLS: {str(error.reason or error).lower().replace('_', ' ')}")
