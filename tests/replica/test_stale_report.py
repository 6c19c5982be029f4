"""What a replica said of itself must not be old when it promises: who has every write is decided by it."""

from contextlib import AsyncExitStack
from pathlib import Path

import trio

from pyjiva.controller import ControllerOptions, ReplicaAddress
from pyjiva.controller.link_io import shake_hands
from pyjiva.replication import ANSWER, FrameDecoder, FrameType, ReplicaReport, Status, encode_header
from pyjiva.testing.cluster import KEY, VOLUME_ID, Cluster, open_cluster
from pyjiva.transport import EndOfBatch
from pyjiva.transport.stream_io import BatchedStream, open_stream


class Controller:
    """Enough of one to be promised something."""

    def __init__(self, cluster: Cluster, stack: AsyncExitStack, id_: str) -> None:
        self.address = ReplicaAddress(1, "127.0.0.1", cluster.ports[1])
        self.options = ControllerOptions(
            volume_name="test",
            volume_id=VOLUME_ID,
            size_bytes=cluster.size_bytes,
            block_size_bytes=cluster.block_size_bytes,
            replicas=(self.address,),
            key=KEY,
            new_volume=True,
        )
        self.stack, self.id, self.batch = stack, id_, EndOfBatch()
        self.stream: BatchedStream
        self.decoder: FrameDecoder

    async def connect(self) -> ReplicaReport:
        """Connect anew."""
        opened = open_stream(self.address.host, self.address.port, self.batch, 5)
        self.stream = await self.stack.enter_async_context(opened)
        self.decoder = FrameDecoder(self.stream.buffer)
        return await shake_hands(self.stream, self.decoder, self.options, self.address, self.id, self.batch)

    async def promised(self, epoch: int) -> bool:
        """Whether the epoch was promised; False: the connection has ended instead."""
        self.stream.send(encode_header(FrameType.PROMISE, epoch=epoch))
        self.batch.end()
        with trio.fail_after(10):
            while (frame := self.decoder.next_frame()) is None:
                if not await self.stream.fill(self.decoder.wanted_bytes):
                    return False
        assert (frame.type, frame.code) == (FrameType.PROMISE | ANSWER, Status.OK)
        return True


async def test_who_was_told_of_a_replica_before_it_promised_to_another_is_told_again(tmp_path: Path) -> None:
    """Else it could take who is in sync in the other's record for one that never heard of that epoch, and
    wait for ever (seed 465 of `tests/sim`).
    """
    async with open_cluster(tmp_path, replicas=1) as cluster, AsyncExitStack() as stack:
        first, second = Controller(cluster, stack, "a" * 16), Controller(cluster, stack, "b" * 16)
        assert (await second.connect()).promised_epoch == 0
        assert (await first.connect()).promised_epoch == 0
        assert await first.promised(4)
        assert not await second.promised(5)
        assert (await second.connect()).promised_epoch == 4
        assert await second.promised(5)
        assert await second.promised(6), "what it was promised itself is no news"
