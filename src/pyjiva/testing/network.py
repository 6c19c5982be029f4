"""A network of memory streams for simulations: delay, loss of connections, partitions, from one `Random`.

A stream keeps its order, as TCP does; streams are not ordered among each other.  While two nodes are cut
off from each other nothing arrives between them, nobody is told, and what was on its way arrives when the
cut ends, unless the connection was ended in the meantime.  Not modelled: bandwidth, a full socket.
"""

import collections
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import attrs
import trio

from pyjiva.transport import ReceiveBuffer, serve_by_filling

__all__ = ["FRAME_TYPE", "MemoryStream", "Network", "Tap"]

Serve = Callable[["MemoryStream"], Awaitable[None]]
Tap = Callable[[str, str, bytes], None]
"""(from, to, one frame) as it leaves; may cut the way, so that the frame does not arrive."""
FRAME_TYPE: Final = slice(5, 6)  # where a frame has it (`replication.frame`)


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class MemoryStream:
    """One end of a connection (`transport.Stream`)."""

    network: "Network"
    here: str
    there: str
    buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer, init=False)
    queued_bytes: int = attrs.field(default=0, init=False)
    received_bytes: int = attrs.field(default=0, init=False)
    peer: "MemoryStream" = attrs.field(init=False)
    ended: bool = attrs.field(default=False, init=False)
    _inbox: collections.deque[bytes] = attrs.field(factory=collections.deque, init=False)
    _arrived: trio.Event = attrs.field(factory=trio.Event, init=False)
    outgoing: collections.deque[bytes] = attrs.field(factory=collections.deque, init=False)
    """On its way to the peer."""

    async def fill(self, wanted_bytes: int = 0) -> bool:
        """As BatchedStream's."""
        while not self._inbox and not self.ended:
            self._arrived = trio.Event()
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        if not self._inbox:
            return False
        data = b"".join(self._inbox)
        self._inbox.clear()
        self.buffer.receive_data(data)
        self.received_bytes += len(data)
        return True

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        """As BatchedStream's."""
        return await serve_by_filling(self, wanted_bytes, arrived)

    def send(self, *buffers: bytes | bytearray | memoryview) -> None:
        """As BatchedStream's; it leaves at once, and arrives after the network's delay, in order."""
        if not self.ended:
            self.network.deliver(self, b"".join(buffers))

    async def wait_sent(self) -> None:
        """Everything has left."""
        await trio.lowlevel.checkpoint()

    def shut_down(self) -> None:
        """End the connection; the peer hears of it if it can."""
        if not self.ended:
            self.end()
            self.network.deliver(self, b"")

    def end(self) -> None:
        """This end is gone."""
        self.ended = True
        self._arrived.set()

    def arrive(self, data: bytes) -> None:
        """Bytes from the peer; none: it ended the connection."""
        if not self.ended:
            if data:
                self._inbox.append(data)
                self._arrived.set()
            else:
                self.end()

    @property
    def is_local(self) -> bool:
        """Each node is a machine, unless they are `neighbours`."""
        return self.network.neighbours

    @property
    def peer_address(self) -> tuple[str, int]:
        """The peer's name."""
        return self.there, 0


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class Network:
    """Nodes by name, and the ways between them."""

    random: Random
    nursery: trio.Nursery
    delay_s_max: float = 0.01
    late_s_max: float = 0.2
    neighbours: bool = False
    """Whether each node may look at the others' files (`peeking`)."""
    taps: list[Tap] = attrs.field(factory=list, init=False)
    _servers: dict[str, Serve] = attrs.field(factory=dict, init=False)
    _cuts: dict[tuple[str, str], trio.Event] = attrs.field(factory=dict, init=False)
    """(from, to): set when it is mended."""
    _frozen: dict[str, trio.Event] = attrs.field(factory=dict, init=False)
    """Nodes that hear and say nothing, though nothing is closed; set when they thaw."""
    _streams: dict[MemoryStream, None] = attrs.field(factory=dict, init=False)

    def listen(self, name: str, serve: Serve | None) -> None:
        """Hand new connections to `name` to `serve`; None: nobody is there any more."""
        if serve is None:
            self._servers.pop(name, None)
        else:
            self._servers[name] = serve

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Let nothing pass from `one` to `other`, nor back unless `one_way`."""
        for way in [(one, other)] if one_way else [(one, other), (other, one)]:
            self._cuts.setdefault(way, trio.Event())

    def mend(self) -> None:
        """End all cuts."""
        cuts, self._cuts = self._cuts, {}
        for mended in cuts.values():
            mended.set()

    def freeze(self, name: str) -> None:
        """As if `name`'s process were stopped: what is on its way to it and from it waits until `thaw`."""
        self._frozen.setdefault(name, trio.Event())

    def thaw(self, name: str) -> None:
        """Let `name` go on; it finds everything that has come meanwhile."""
        if name in self._frozen:
            self._frozen.pop(name).set()

    def _obstacle(self, sender: MemoryStream) -> trio.Event | None:
        cut = self._cuts.get((sender.here, sender.there))
        if cut is not None:
            return cut
        frozen = [self._frozen[name] for name in (sender.here, sender.there) if name in self._frozen]
        return frozen[0] if frozen else None

    def break_connections(self, name: str) -> None:
        """`name`'s process is gone: its connections end, as far as the peers can hear it."""
        for stream in list(self._streams):
            if stream.here == name:
                stream.shut_down()

    def deliver(self, sender: MemoryStream, data: bytes) -> None:
        """Bring `data` to the other end after a delay, after all that was sent before it."""
        for tap in self.taps:
            tap(sender.here, sender.there, data)
        sender.outgoing.append(data)
        if len(sender.outgoing) == 1:
            self.nursery.start_soon(self._carry, sender)

    async def _carry(self, sender: MemoryStream) -> None:
        while sender.outgoing:
            await trio.sleep(self.random.random() * self.delay_s_max)
            while (mended := self._obstacle(sender)) is not None:
                await mended.wait()
                # Sometimes late enough to meet the frames of a newer connection.
                await trio.sleep(self.random.random() * self.late_s_max)
            # Everything that has queued up since arrives together, as one receive would find it.
            for _ in range(len(sender.outgoing)):
                sender.peer.arrive(sender.outgoing[0])
                sender.outgoing.popleft()

    @asynccontextmanager
    async def connect(self, here: str, there: str) -> AsyncIterator[MemoryStream]:
        """A connection from `here` to `there`; ends with the block.  Raises OSError, trio.TooSlowError."""
        await trio.sleep(self.random.random() * self.delay_s_max)
        cut = (here, there) in self._cuts or (there, here) in self._cuts
        if cut or here in self._frozen or there in self._frozen:
            await trio.sleep(3)
            raise trio.TooSlowError
        serve = self._servers.get(there)
        if serve is None:
            raise OSError("nobody listens")
        near, far = MemoryStream(self, here, there), MemoryStream(self, there, here)
        near.peer, far.peer = far, near
        self._streams[near] = self._streams[far] = None
        self.nursery.start_soon(self._serve, serve, far)
        try:
            yield near
        finally:
            near.shut_down()
            self._streams.pop(near, None)

    async def _serve(self, serve: Serve, stream: MemoryStream) -> None:
        try:
            await serve(stream)
        finally:
            stream.shut_down()
            self._streams.pop(stream, None)
