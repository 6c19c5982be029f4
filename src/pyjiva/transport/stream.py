"""What a batched stream offers: a socket's (`stream_io`), or a simulated network's (`testing`).  Pure."""

from collections.abc import Callable
from typing import Protocol

from pyjiva.transport.receive_buffer import ReceiveBuffer

__all__ = ["Stream", "serve_by_filling"]


class Stream(Protocol):
    """One connection; see `stream_io.BatchedStream` for what each part promises."""

    buffer: ReceiveBuffer

    @property
    def queued_bytes(self) -> int:
        """What was handed to `send` and has not left yet."""

    @property
    def received_bytes(self) -> int:
        """All that ever came in."""

    async def fill(self, wanted_bytes: int = 0) -> bool:
        """Wait until something has arrived and take it into `buffer`; False when the connection has ended."""

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        """Take what arrives into `buffer` and call `arrived`, again and again, until it returns False or the
        connection has ended; returns whether that still stands.  `wanted_bytes`: as for `fill`.

        `arrived` must not wait; what it raises is raised here.
        """

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Queue `buffers`; they leave at the end of the batch."""

    async def wait_sent(self) -> None:
        """Wait until everything that was queued has left."""

    def shut_down(self) -> None:
        """End the connection in both directions."""

    @property
    def is_local(self) -> bool:
        """Whether the peer is reached by an address of this machine."""

    @property
    def peer_address(self) -> tuple[str, int]:
        """Host and port of the peer."""


async def serve_by_filling(
    stream: Stream, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]
) -> bool:
    """`serve` by a task that waits."""
    while await stream.fill(wanted_bytes()):
        if not arrived():
            return True
    return False
