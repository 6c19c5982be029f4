"""One connection to one replica: the handshake, after which `Answers` takes what comes.  The trio shell."""

import hmac
import secrets

from pyjiva.controller.options import ControllerOptions, ReplicaAddress
from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import (
    ANSWER,
    EPOCH_MAX,
    NONCE_BYTES,
    PAYLOAD_BYTES_MAX,
    PROTOCOL_VERSION,
    Authenticate,
    Frame,
    FrameDecoder,
    FrameType,
    Hello,
    HelloAnswer,
    Refusal,
    ReplicaReport,
    Status,
    controller_proof,
    decode_message,
    encode_header,
    encode_message,
    replica_proof,
)
from pyjiva.transport import EndOfBatch, Stream

__all__ = ["shake_hands"]


async def shake_hands(
    stream: Stream,
    decoder: FrameDecoder,
    options: ControllerOptions,
    address: ReplicaAddress,
    controller_id: str,
    batch: EndOfBatch,
) -> ReplicaReport:
    """Prove the key to the replica and have it proved; returns what the replica says of itself.

    Raises RemoteProtocolError: it refused, it does not know the key, or it is another replica than
    configured.
    """
    hello = Hello((PROTOCOL_VERSION,), options.volume_id, controller_id, secrets.token_hex(NONCE_BYTES))
    frame = await _ask(stream, decoder, FrameType.HELLO, encode_message(hello), batch)
    answer = decode_message(frame.payload, HelloAnswer)
    if answer.version != PROTOCOL_VERSION:
        raise RemoteProtocolError(
            f"speaks version {answer.version}, this controller speaks {PROTOCOL_VERSION}"
        )
    expected = replica_proof(options.key, hello, answer.replica_id, answer.nonce)
    if not hmac.compare_digest(expected.encode(), answer.proof.encode()):
        raise RemoteProtocolError("has another volume key")
    if answer.replica_id != address.replica_id:
        raise RemoteProtocolError(f"says that it is replica {answer.replica_id}: check the addresses")
    proof = controller_proof(options.key, hello, answer.replica_id, answer.nonce)
    frame = await _ask(stream, decoder, FrameType.AUTHENTICATE, encode_message(Authenticate(proof)), batch)
    report = decode_message(frame.payload, ReplicaReport)
    # It may have been made larger since the volume began.  A witness holds no data, and may know no size.
    if not report.witness and (
        report.size_bytes < options.size_bytes or report.block_size_bytes != options.block_size_bytes
    ):
        raise RemoteProtocolError(
            f"has {report.size_bytes} bytes in blocks of {report.block_size_bytes}, "
            f"the volume has {options.size_bytes} in blocks of {options.block_size_bytes}"
        )
    if not 0 <= report.promised_epoch <= EPOCH_MAX:
        raise RemoteProtocolError(f"says that it has promised epoch {report.promised_epoch}")
    decoder.payload_bytes_max = PAYLOAD_BYTES_MAX
    return report


async def _ask(
    stream: Stream, decoder: FrameDecoder, type_: FrameType, payload: bytes, batch: EndOfBatch
) -> Frame:
    """Send one frame of the handshake and wait for its answer."""
    stream.send(encode_header(type_, payload=[payload]), payload)
    batch.end()
    while (frame := decoder.next_frame()) is None:
        if not await stream.fill(decoder.wanted_bytes):
            raise RemoteProtocolError("closed the connection during the handshake")
    if frame.type != type_ | ANSWER:
        raise RemoteProtocolError(f"answered {type_.name} by a frame of type {frame.type}")
    if frame.code != Status.OK:
        raise RemoteProtocolError(f"refused: {decode_message(frame.payload, Refusal).reason}")
    return frame
