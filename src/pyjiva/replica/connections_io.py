"""Connections of controllers to a replica or a witness: sockets, TLS, strangers, frames.  The trio shell.

Who has not proved the key is a stranger: it has HANDSHAKE_S, small frames, and a share of few places.  What a
frame asks for is the business of whoever serves (`ReplicaDaemon`, `WitnessDaemon`).
"""

import secrets
from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from pyjiva.errors import RemoteProtocolError
from pyjiva.replica.arrivals import Arrivals
from pyjiva.replica.session import Phase, Session
from pyjiva.replication import NONCE_BYTES, PAYLOAD_BYTES_MAX, Frame, FrameDecoder
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.near_io import near_listener
from pyjiva.transport.slots import Slots
from pyjiva.transport.stream_io import own_stream
from pyjiva.transport.tls_stream_io import server_stream
from pyjiva.transport.tls_sys import Tls

__all__ = ["Connections"]

HANDSHAKE_S: Final = 5.0  # a stranger is gone after this
STRANGERS_MAX: Final = 32  # connections that have not proved the key
#: Of one address, so that one machine leaves room for others.  A controller that is cut off and tries again
#: and again has two or three at once.
STRANGERS_PER_ADDRESS_MAX: Final = 8
_log = structlog.get_logger(__name__)


@attrs.frozen
class _Stranger:
    """What is given back or lifted when the key was proved."""

    host: str
    scope: trio.CancelScope
    decoder: FrameDecoder


@attrs.define(eq=False)
class Connections:
    """All of one daemon."""

    batch: EndOfBatch
    tls: Tls | None
    """What controllers have to speak; None: frames as they are."""
    is_data: Callable[[Frame], bool]
    """Which frames are for `data_received`, without a wait; a witness has none."""
    data_received: Callable[[Session, Frame], None]
    control_received: Callable[[Session, Frame], None]
    """All other frames.  Raises RemoteProtocolError: the connection ends."""
    left: Callable[[Session], None]
    """The connection has ended."""
    _slots: Slots = attrs.field(factory=partial(Slots, STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX), init=False)
    _strangers: dict[Session, _Stranger] = attrs.field(factory=dict, init=False)
    _streams: list[Stream] = attrs.field(factory=list, init=False)
    _ended_bytes: int = attrs.field(default=0, init=False)
    """Received on connections that have ended."""

    @property
    def received_bytes(self) -> int:
        """On all connections since the start, with headers and what strangers sent."""
        return self._ended_bytes + sum(stream.received_bytes for stream in self._streams)

    async def serve(
        self, host: str, port: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve controllers on `host`:`port`, and on the Unix socket beside it, until cancelled; reports the
        port.  Raises OSError: it is taken.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        port = int(listeners[0].socket.getsockname()[1])
        if self.tls is None and (near := near_listener(port)) is not None:
            listeners.append(near)
        task_status.started(port)
        await trio.serve_listeners(self._serve_socket, listeners)

    async def _serve_socket(self, socket_stream: trio.SocketStream) -> None:
        async with own_stream(socket_stream, self.batch) as stream:
            await self.serve_connection(stream)

    async def serve_connection(self, stream: Stream) -> None:
        """Serve one controller until its connection ends."""
        host = stream.peer_address[0]
        if not self._slots.take(host):
            _log.warning(
                "connection refused: too many that have not proved the key", host=host, reason="strangers"
            )
            return
        secure = None
        try:
            secure = await self._secure(stream)
        finally:
            if secure is None:
                self._slots.give_back(host)
        if secure is None:
            return
        session = Session(secure, secrets.token_hex(NONCE_BYTES))
        self._streams.append(secure)
        try:
            await self._pump(secure, session, host)
        finally:
            self._streams.remove(secure)
            self._ended_bytes += stream.received_bytes
            self._no_stranger(session)
            session.phase = Phase.REPLACED
            self.left(session)

    async def _secure(self, stream: Stream) -> Stream | None:
        """What the frames come over; None: the peer's TLS is none that counts, and the log has it."""
        if self.tls is None:
            return stream
        reason = f"no TLS handshake within {HANDSHAKE_S:g} s"
        with trio.move_on_after(HANDSHAKE_S):
            try:
                return await server_stream(stream, self.tls.server, self.batch)
            except RemoteProtocolError as error:
                reason = str(error)
        host, port = stream.peer_address
        _log.warning("connection refused", peer=f"{host}:{port}", reason=reason)
        return None

    async def _pump(self, stream: Stream, session: Session, host: str) -> None:
        decoder = FrameDecoder(stream.buffer)
        arrivals = Arrivals(
            stream, session, decoder, self.batch, self.is_data, self.data_received, self.control_received
        )
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + HANDSHAKE_S
            self._strangers[session] = _Stranger(host, scope, decoder)
            try:
                while await stream.serve(arrivals.wanted_bytes, arrivals.arrived):
                    await stream.wait_sent()
            except RemoteProtocolError as error:
                host, port = stream.peer_address
                _log.warning("connection closed", peer=f"{host}:{port}", reason=str(error))
                with trio.move_on_after(1):
                    await stream.wait_sent()
        if scope.cancelled_caught:
            _log.warning("connection closed", reason=f"no proof of the key within {HANDSHAKE_S:g} s")

    def proved(self, session: Session) -> None:
        """It is no stranger any more: it may stay, and send large frames."""
        if (stranger := self._no_stranger(session)) is not None:
            stranger.scope.deadline = float("inf")
            stranger.decoder.payload_bytes_max = PAYLOAD_BYTES_MAX

    def _no_stranger(self, session: Session) -> _Stranger | None:
        if (stranger := self._strangers.pop(session, None)) is not None:
            self._slots.give_back(stranger.host)
        return stranger
