"""Frames about the volume as it was become requests to the device, and their results become
answers.  Pure.

A snapshot is read by number, compared, and, on a replica that is being brought up, made good.  Nothing here
is hot: host I/O never looks back.
"""

from collections.abc import Callable
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer
from pyjiva.errors import RemoteProtocolError
from pyjiva.replica.data_path import SqueezeSoon, refuse_storage
from pyjiva.replica.session import Peer, refuse
from pyjiva.replication import (
    ANSWER,
    PAYLOAD_BYTES_MAX,
    Flag,
    Frame,
    FrameType,
    Status,
    encode_extents,
    encode_header,
    unsqueeze,
)
from pyjiva.snapshot import Past, PastVerb

__all__ = ["PAST", "start_past"]

#: What a frame asks for.
PAST: Final[dict[FrameType, PastVerb]] = {
    FrameType.PAST_READ: PastVerb.READ,
    FrameType.PAST_WRITE: PastVerb.WRITE,
    FrameType.PAST_UNMAP: PastVerb.ZERO,
    FrameType.PAST_BLOCK_STATUS: PastVerb.MAP,
    FrameType.PAST_HASH: PastVerb.HASH,
    FrameType.PAST_SPOIL: PastVerb.SPOIL,
    FrameType.PAST_CHANGED: PastVerb.CHANGED,
}


class _Device(Protocol):
    @property
    def size_bytes(self) -> int:
        """Of the volume."""

    def submit(self, request: Past) -> None:
        """See BlockDevice."""


@attrs.frozen
class _Answer:
    """How the answer to `frame` is given."""

    peer: Peer
    frame: Frame
    squeeze_soon: SqueezeSoon

    def __call__(self, request: Past) -> None:
        frame = self.frame
        if request.error is not None:
            refuse_storage(self.peer, frame, request.error)
            return
        if request.verb is PastVerb.READ and frame.code & Flag.LZ4:
            self.squeeze_soon(self.peer, frame, request.data)
            return
        payload = _PAYLOAD[request.verb](request)
        header = encode_header(
            frame.type | ANSWER, request_id=frame.request_id, epoch=frame.epoch, payload=payload
        )
        self.peer.send(header, *payload)


_PAYLOAD: Final[dict[PastVerb, Callable[[Past], list[bytes]]]] = {
    PastVerb.READ: lambda request: list(map(bytes, request.data)),
    PastVerb.WRITE: lambda _: [],
    PastVerb.ZERO: lambda _: [],
    PastVerb.SPOIL: lambda _: [],
    PastVerb.MAP: lambda request: [encode_extents(request.extents)],
    PastVerb.CHANGED: lambda request: [encode_extents(request.extents)],
    PastVerb.HASH: lambda request: [request.digest],
}


def start_past(device: _Device, peer: Peer, frame: Frame, squeeze_soon: SqueezeSoon) -> None:
    """Start what one of the frames in PAST asks for."""
    verb = PAST[FrameType(frame.type)]
    if verb is PastVerb.READ and frame.length_bytes > PAYLOAD_BYTES_MAX:
        refuse(peer, frame, Status.BAD_REQUEST, f"{frame.length_bytes} bytes: at most {PAYLOAD_BYTES_MAX}")
        return
    done = _Answer(peer, frame, squeeze_soon)
    request = Past(verb, frame.stable, frame.offset_bytes, frame.length_bytes, done)
    if verb is PastVerb.CHANGED:
        request.since, request.offset_bytes, request.length_bytes = frame.offset_bytes, 0, device.size_bytes
    elif verb is PastVerb.WRITE:
        payload: Buffer = frame.payload
        if frame.code & Flag.LZ4:
            try:
                payload = unsqueeze(frame.payload, min(frame.length_bytes, PAYLOAD_BYTES_MAX))
            except RemoteProtocolError as error:
                refuse(peer, frame, Status.BAD_REQUEST, str(error))
                return
        if len(payload) != frame.length_bytes:
            reason = f"{frame.length_bytes} bytes came as {len(payload)}"
            refuse(peer, frame, Status.BAD_REQUEST, reason)
            return
        request.data = (payload,)
    device.submit(request)
