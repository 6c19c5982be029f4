"""What one member answers, from its connection into the data path.  Pure; hot."""

from collections.abc import Callable

import attrs

from pyjiva.controller.data_path import DataPath
from pyjiva.controller.path_times import PathTimes
from pyjiva.controller.sharing_link import Sharing
from pyjiva.replication import Frame, FrameDecoder
from pyjiva.transport import EndOfBatch

__all__ = ["Answers"]


@attrs.define(eq=False)
class Answers:  # hot
    """Of one connection: what its stream's `serve` is given."""

    member_id: int
    decoder: FrameDecoder
    data: DataPath
    sharing: Sharing
    times: PathTimes
    batch: EndOfBatch
    traced: Callable[[int, Frame], None] | None = None
    """Told of every frame before the data path is."""

    def wanted_bytes(self) -> int:
        """How many bytes the next frame needs."""
        return self.decoder.wanted_bytes

    def arrived(self) -> bool:
        """Take all frames that are there whole.  Raises RemoteProtocolError: the replica sent what it must
        not.
        """
        self.times.arrived()
        while (frame := self.decoder.next_frame()) is not None:
            if self.traced is not None:
                self.traced(self.member_id, frame)
            self.data.answered(self.member_id, self.sharing.received(self.member_id, frame))
        self.batch.end()
        return True
