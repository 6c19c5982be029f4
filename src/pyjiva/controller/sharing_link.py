"""Payloads to and from replicas on the controller's machine go through shared memory.  Pure.

Theory.  A `SharingLink` stands between the data path and the stream of one replica, which know nothing of
it.  Of a WRITE whose payload lies in the shared memory it sends only where that is; for a READ it says
where the data is to be put.  Everything else, and everything while the replica has not mapped the memory,
goes over the stream as it is.

Whatever a replica was told of is *lent* until it has answered: a view of it is kept, so that nobody is given
that part of the memory.  When a replica is lost with something lent, it may use it for as long as it likes:
the memory is abandoned, and the others are told of a new one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer
from pyjiva.replication import (
    ANSWER,
    PARTS_MAX,
    Flag,
    Frame,
    FrameType,
    RequestFrame,
    Status,
    decode_done,
    encode_message,
    refer,
)
from pyjiva.transport import Stream
from pyjiva.units import KIB

__all__ = ["Memory", "Sharing", "SharingLink", "StreamLink"]

SHARED_BYTES_MIN: Final = 32 * KIB  # to copy less costs no more than to say where it is
_READ: Final = int(FrameType.READ)
_WRITE: Final = int(FrameType.WRITE)
_DONE: Final = int(FrameType.DONE)
_OK: Final = int(Status.OK)
_LZ4: Final = int(Flag.LZ4)


class Memory(Protocol):
    """See `transport.shared_memory_sys.SharedBuffers`."""

    generation: int

    @property
    def name(self) -> object | None:
        """What a replica needs to find it."""

    def take_shared(self, size_bytes: int) -> memoryview | None:
        """A part of it that nobody uses."""

    def place(self, view: Buffer) -> int | None:
        """Where `view` lies in it."""

    def abandon(self) -> None:
        """Begin a new one."""


@attrs.define(eq=False)
class StreamLink:  # hot
    """Where the frames for a replica go that shares nothing (`data_path.Link`)."""

    stream: Stream

    def send(self, frame: RequestFrame) -> None:
        """See Link."""
        self.stream.send(*frame.buffers())


@attrs.define(eq=False)
class SharingLink:  # hot
    """Where the frames for one replica go (`data_path.Link`)."""

    stream: Stream
    memory: Memory
    mapped: int | None = attrs.field(default=None, init=False)
    """The generation that the replica has mapped."""
    _lent: dict[int, Sequence[Buffer]] = attrs.field(factory=dict, init=False)
    """By the id of a request without an answer: what the replica may use."""

    @property
    def lends(self) -> bool:
        """Whether the replica may be using a part of the memory."""
        return bool(self._lent)

    def send(self, frame: RequestFrame) -> None:
        """See Link."""
        self.stream.send(*self._said_by(frame))

    def _said_by(self, frame: RequestFrame) -> tuple[Buffer, ...]:
        """What the replica is to get, header first."""
        if frame.length_bytes >= SHARED_BYTES_MIN and self.mapped == self.memory.generation:
            if frame.type == _WRITE:
                if (frame.referring and frame.generation == self.mapped) or self._refer_to_data(frame):
                    self._lent[frame.request_id] = frame.payload
                    return frame.referring
            elif frame.type == _READ and not frame.code & _LZ4:
                return self._with_room(frame)
        return frame.buffers()

    def _with_room(self, frame: RequestFrame) -> tuple[Buffer, ...]:
        """A READ that says where the data is to be put, if there is room in the memory."""
        if (room := self.memory.take_shared(frame.length_bytes)) is None:
            return frame.buffers()
        place = self.memory.place(room)
        assert place is not None
        self._lent[frame.request_id] = (room,)
        return refer(frame, [(place, frame.length_bytes)])

    def _refer_to_data(self, frame: RequestFrame) -> bool:
        """Have `frame` say where its payload lies, if all of it lies in the memory."""
        if len(frame.payload) > PARTS_MAX:
            return False
        parts = []
        for part in frame.payload:
            if not len(part) or (place := self.memory.place(part)) is None:
                return False
            parts.append((place, len(part)))
        frame.referring, frame.generation = refer(frame, parts), self.memory.generation
        return True

    def received(self, frame: Frame) -> Frame:
        """An answer, with its payload wherever that lies.  Raises RemoteProtocolError."""
        if not self._lent:
            return frame
        if frame.type == _DONE:
            for request_id in decode_done(frame.payload):
                self._lent.pop(request_id, None)
            return frame
        lent = self._lent.pop(frame.request_id, None)
        if lent is None or frame.type != _READ | ANSWER or frame.code != _OK:
            return frame
        (room,) = lent
        assert type(room) is memoryview
        return Frame(
            frame.type, frame.code, frame.request_id, frame.epoch, frame.offset_bytes, frame.length_bytes,
            frame.stable, room,
        )  # fmt: skip


Call = Callable[[int, FrameType, Callable[[Frame | None], None], Sequence[Buffer]], None]
"""Ask a member, if it is connected; the answer, or None when it is lost."""


@attrs.define(eq=False)
class Sharing:
    """The links of one volume that share a memory."""

    memory: Memory | None
    """None: nothing is shared."""
    call: Call
    _links: dict[int, SharingLink] = attrs.field(factory=dict, init=False)

    def link(self, member: int, stream: Stream) -> "StreamLink | SharingLink":
        """What the frames for `member` are to be given to."""
        if self.memory is None or not stream.is_local:
            return StreamLink(stream)
        self._links[member] = link = SharingLink(stream, self.memory)
        return link

    def offer(self, member: int) -> None:
        """Tell `member` where the memory is, if it may reach it."""
        link = self._links.get(member)
        if link is None:
            return
        name = link.memory.name
        if name is not None:
            answered = partial(self._answered, link, link.memory.generation)
            self.call(member, FrameType.SHARE, answered, [encode_message(name)])

    def _answered(self, link: SharingLink, generation: int, frame: Frame | None) -> None:
        if frame is not None and frame.code == Status.OK:
            link.mapped = generation

    def received(self, member: int, frame: Frame) -> Frame:
        """See SharingLink."""
        link = self._links.get(member)
        return frame if link is None else link.received(frame)

    def lost(self, member: int) -> None:
        """The connection to `member` is gone."""
        link = self._links.pop(member, None)
        if link is not None and link.lends:
            link.memory.abandon()
            for other in self._links:
                self.offer(other)
