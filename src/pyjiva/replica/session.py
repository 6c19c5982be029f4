"""One controller connection as the replica sees it: who may ask what, and when.  Pure.

    GREETING ──HELLO──▶ CHALLENGED ──AUTHENTICATE──▶ KNOWN ──PROMISE──▶ ATTACHED
                                                                          │ another connection attaches
                                                                          ▼
                                                                       REPLACED

Only one connection at a time is ATTACHED.  A promise given on another connection replaces it: from that
moment none of its frames does anything, also those that lay unread in the socket of a process that was
stopped for a minute.  So a write that was given up by the controller cannot land later.
"""

import enum
import hmac
from typing import Final, Protocol

import attrs

from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import (
    ANSWER,
    PROTOCOL_VERSION,
    Authenticate,
    Frame,
    FrameType,
    Hello,
    HelloAnswer,
    Refusal,
    Status,
    controller_proof,
    decode_message,
    encode_header,
    encode_message,
    replica_proof,
)


class MappedMemory(Protocol):
    """See `transport.shared_memory_sys.MappedMemory`."""

    def view(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """A part of it.  Raises RemoteProtocolError: it does not lie in it."""


__all__ = ["ALLOWED", "Peer", "Phase", "Session", "answer"]


class Peer(Protocol):
    """Where answers go: a BatchedStream, or a list in tests."""

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Queue `buffers` for the controller."""

    def shut_down(self) -> None:
        """End the connection."""


class Phase(enum.Enum):
    """How far a connection has come."""

    GREETING = "greeting"
    CHALLENGED = "challenged"
    KNOWN = "known"
    ATTACHED = "attached"
    REPLACED = "replaced"


_DATA: Final = frozenset(t for t in FrameType if t >= FrameType.READ)
ALLOWED: Final[dict[Phase, frozenset[FrameType]]] = {
    Phase.GREETING: frozenset({FrameType.HELLO}),
    Phase.CHALLENGED: frozenset({FrameType.AUTHENTICATE}),
    Phase.KNOWN: frozenset({FrameType.PROMISE, FrameType.PING, FrameType.SHARE}),
    Phase.ATTACHED: frozenset({FrameType.PROMISE, FrameType.PING, FrameType.SHARE, FrameType.ACCEPT}) | _DATA,
    Phase.REPLACED: frozenset(),
}


@attrs.define(eq=False)
class Session:
    """The state of one connection."""

    peer: Peer
    nonce: str
    """Fresh for this connection (`replication.NONCE_BYTES` random bytes, hexadecimal)."""
    phase: Phase = Phase.GREETING
    hello: Hello | None = None
    memory: MappedMemory | None = None
    """What the controller shares with this replica."""
    reported_epoch: int = 0
    """What was promised when the controller was told of this replica."""

    def check_allowed(self, frame: Frame) -> None:
        """Raise RemoteProtocolError if `frame` must not come in this phase and tell the peer so."""
        if frame.type & ANSWER or frame.type not in ALLOWED[self.phase]:
            status = Status.FENCED if self.phase is Phase.REPLACED else Status.FORBIDDEN
            self._refuse(frame, status, f"frame type {frame.type} on a connection that is {self.phase.value}")

    def greet(self, frame: Frame, *, key: bytes, volume_id: str, replica_id: int) -> None:
        """Answer a HELLO by our own proof.  Raises RemoteProtocolError: other version or volume (and tells
        the peer).
        """
        hello = decode_message(frame.payload, Hello)
        if PROTOCOL_VERSION not in hello.versions:
            self._refuse(
                frame,
                Status.UNSUPPORTED_VERSION,
                f"the controller speaks versions {list(hello.versions)}, "
                f"this replica speaks {PROTOCOL_VERSION}",
            )
        if hello.volume_id != volume_id:
            self._refuse(frame, Status.WRONG_VOLUME, "this replica belongs to another volume")
        self.hello, self.phase = hello, Phase.CHALLENGED
        proof = replica_proof(key, hello, replica_id, self.nonce)
        answer(self.peer, frame, message=HelloAnswer(PROTOCOL_VERSION, replica_id, self.nonce, proof))

    def authenticate(self, frame: Frame, *, key: bytes, replica_id: int) -> None:
        """Check the controller's proof; the caller answers.  Raises RemoteProtocolError: it does not know
        the key.
        """
        assert self.hello is not None
        proof = decode_message(frame.payload, Authenticate).proof
        expected = controller_proof(key, self.hello, replica_id, self.nonce)
        if not hmac.compare_digest(proof.encode(), expected.encode()):
            self._refuse(frame, Status.FORBIDDEN, "the controller has another volume key")
        self.phase = Phase.KNOWN

    def _refuse(self, frame: Frame, status: Status, reason: str) -> None:
        refuse(self.peer, frame, status, reason)
        raise RemoteProtocolError(reason)


def answer(
    peer: Peer, frame: Frame, status: Status = Status.OK, *, message: object = None, epoch: int | None = None
) -> None:
    """Answer the control frame `frame`, with a message as payload if there is one."""
    payload = [encode_message(message)] if message is not None else []
    header = encode_header(
        frame.type | ANSWER,
        code=status,
        request_id=frame.request_id,
        epoch=frame.epoch if epoch is None else epoch,
        payload=payload,
    )
    peer.send(header, *payload)


def refuse(peer: Peer, frame: Frame, status: Status, reason: str, *, epoch: int | None = None) -> None:
    """Answer `frame` by a status that is not OK and the reason."""
    answer(peer, frame, status, message=Refusal(reason), epoch=epoch)
