"""What a controller asks for, from its connection to whoever carries it out.  Pure; hot."""

from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.replica.session import Session
from pyjiva.replication import Frame, FrameDecoder
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.units import KIB

__all__ = ["BYTES_PER_BATCH", "FRAMES_PER_BATCH", "Arrivals"]

#: A batch ends after so many frames, or bytes that they ask for or bring, though more have been received: the
#: controller works on the first answers while the rest is carried out.  With fewer, the sends would cost more
#: than the wait: at queue depth 32 it is five or six now.
FRAMES_PER_BATCH: Final = 6
BYTES_PER_BATCH: Final = 32 * KIB
QUEUED_BYTES_MAX: Final = 64 * 1024 * 1024  # a controller that does not read its answers is not read from


@attrs.define(eq=False)
class Arrivals:  # hot
    """Of one connection: what its stream's `serve` is given."""

    stream: Stream
    session: Session
    decoder: FrameDecoder
    batch: EndOfBatch
    is_data: Callable[[Frame], bool]
    data_received: Callable[[Session, Frame], None]
    control_received: Callable[[Session, Frame], None]

    def wanted_bytes(self) -> int:
        """How many bytes the next frame needs."""
        return self.decoder.wanted_bytes

    def arrived(self) -> bool:
        """Start all that is there whole, and end the batch, or several; false: the controller is to take its
        answers first.  Raises RemoteProtocolError: the connection is to be closed.
        """
        frames = size_bytes = 0
        while (frame := self.decoder.next_frame()) is not None:
            if self.is_data(frame):
                self.data_received(self.session, frame)
            else:
                self.control_received(self.session, frame)
            frames += 1
            size_bytes += frame.length_bytes
            if frames == FRAMES_PER_BATCH or size_bytes >= BYTES_PER_BATCH:
                self.batch.end()
                frames = size_bytes = 0
        self.batch.end()
        return self.stream.queued_bytes <= QUEUED_BYTES_MAX
