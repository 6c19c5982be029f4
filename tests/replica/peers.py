"""A replica's peer that keeps what it is told, and frames to tell it."""

from pyjiva.replica.session import Phase, Session
from pyjiva.replication import Frame, FrameDecoder, encode_header
from pyjiva.transport import ReceiveBuffer

__all__ = ["FakePeer", "request", "session_in"]


class FakePeer:
    """Decodes answers as a controller would."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder(ReceiveBuffer(), payload_bytes_max=2**25)
        self.is_shut_down = False

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        for buffer in buffers:
            self._decoder.buffer.receive_data(buffer)

    def shut_down(self) -> None:
        self.is_shut_down = True

    def answers(self) -> list[Frame]:
        """What has come since the last call."""
        frames = []
        while (frame := self._decoder.next_frame()) is not None:
            frames.append(frame)
        return frames

    def answer(self) -> Frame:
        """The one answer that has come since the last call."""
        (frame,) = self.answers()
        return frame


def request(
    type_: int,
    *,
    payload: bytes = b"",
    code: int = 0,
    request_id: int = 1,
    epoch: int = 1,
    offset_bytes: int = 0,
    length_bytes: int = 0,
    stable: int = 0,
) -> Frame:
    """A frame as it arrives."""
    header = encode_header(
        type_,
        code=code,
        request_id=request_id,
        epoch=epoch,
        offset_bytes=offset_bytes,
        length_bytes=length_bytes,
        stable=stable,
        payload=[payload] if payload else (),
    )
    decoder = FrameDecoder(ReceiveBuffer(), payload_bytes_max=2**25)
    decoder.buffer.receive_data(header + payload)
    frame = decoder.next_frame()
    assert frame is not None
    return frame


def session_in(phase: Phase, peer: FakePeer) -> Session:
    """A session that has come so far."""
    return Session(peer, nonce="cd" * 32, phase=phase)
