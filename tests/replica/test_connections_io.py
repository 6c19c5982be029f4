"""What one receive brings is handled to its end, and answered in batches, in order."""

import itertools
from collections.abc import Callable, Sequence

import attrs
import pytest
import trio

from pyjiva.replica.arrivals import BYTES_PER_BATCH, FRAMES_PER_BATCH
from pyjiva.replica.connections_io import Connections
from pyjiva.replica.session import Session
from pyjiva.replication import Frame, FrameType, encode_header
from pyjiva.transport import EndOfBatch, ReceiveBuffer, serve_by_filling

WRITE = FrameType.WRITE


@attrs.define(eq=False)
class FakeStream:
    """Gives what it was told to, a receive at a time, and keeps what is sent together."""

    batch: EndOfBatch
    receives: list[bytes]
    buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    queued_bytes: int = 0
    received_bytes: int = 0
    peer_address: tuple[str, int] = ("127.0.0.1", 1)
    is_local: bool = True
    sends: list[bytes] = attrs.field(factory=list)
    _queued: list[bytes] = attrs.field(factory=list)

    async def fill(self, wanted_bytes: int = 0) -> bool:
        assert not self._queued, "nothing may wait for what is still to come"
        await trio.lowlevel.checkpoint()
        if not self.receives:
            return False
        self.buffer.receive_data(self.receives.pop(0))
        return True

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        return await serve_by_filling(self, wanted_bytes, arrived)

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        if not self._queued:
            self.batch.at_very_end(self._send_now)
        self._queued += map(bytes, buffers)

    def _send_now(self) -> None:
        self.sends.append(b"".join(self._queued))
        self._queued.clear()

    async def wait_sent(self) -> None:
        self.batch.end()

    def shut_down(self) -> None:
        self.receives.clear()


async def serve(*receives: bytes, data: Sequence[FrameType] = (WRITE,)) -> list[list[int]]:
    """Serve a controller that sends these; the ids of what was answered together.  Ids are bytes here."""
    batch = EndOfBatch()
    stream = FakeStream(batch, list(receives))

    def started(session: Session, frame: Frame) -> None:
        session.peer.send(bytes([frame.request_id]))

    connections = Connections(batch, None, lambda frame: frame.type in data, started, started, lambda _: None)
    await connections.serve_connection(stream)
    return [list(send) for send in stream.sends]


def frames(first: int, end: int, length_bytes: int = 512) -> bytes:
    """The bytes of WRITEs with these ids."""
    return b"".join(
        encode_header(WRITE, request_id=id_, length_bytes=length_bytes) for id_ in range(first, end)
    )


@pytest.mark.parametrize("data", [(WRITE,), ()])
@pytest.mark.parametrize("count", [1, FRAMES_PER_BATCH - 1, FRAMES_PER_BATCH, FRAMES_PER_BATCH + 1, 32])
async def test_many_small_frames_are_answered_in_several_sends(count: int, data: list[FrameType]) -> None:
    """Of either kind: data frames, and all others."""
    sends = await serve(frames(0, count), data=data)
    assert list(itertools.chain(*sends)) == list(range(count))
    assert [len(send) for send in sends[:-1]] == [FRAMES_PER_BATCH] * ((count - 1) // FRAMES_PER_BATCH)


@pytest.mark.parametrize(
    ("length_bytes", "together"),
    [
        (BYTES_PER_BATCH, 1),
        (BYTES_PER_BATCH - 1, 2),
        (BYTES_PER_BATCH // 2, 2),
        (BYTES_PER_BATCH // 4, 4),
        (1 << 30, 1),
    ],
)
async def test_large_frames_are_answered_sooner(length_bytes: int, together: int) -> None:
    sends = await serve(frames(0, 2 * together, length_bytes))
    assert sends == [list(range(together)), list(range(together, 2 * together))]


async def test_each_receive_begins_a_batch() -> None:
    """What it brings is not waited for, nor is what comes with the next one."""
    count = FRAMES_PER_BATCH - 1
    whole = frames(0, 2 * count + 1)
    middle = len(frames(0, count)) + 10
    assert await serve(whole[:middle], whole[middle:]) == [
        list(range(count)),
        [*range(count, 2 * count + 1)],
    ]


async def test_what_came_before_a_broken_frame_is_answered() -> None:
    sends = await serve(frames(0, FRAMES_PER_BATCH + 2) + b"x" * 64)
    assert list(itertools.chain(*sends)) == list(range(FRAMES_PER_BATCH + 2))
