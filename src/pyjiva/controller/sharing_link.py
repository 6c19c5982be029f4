"""Payloads to and from replicas on the controller's machine go through shared memory.  Pure.

Theory.  A `SharingLink` stands between the data path and the stream of one replica, which knows nothing of
it.  Of a WRITE whose payload lies in the shared memory it sends only where that is; for a READ it says
where the data is to be put.  Everything else, and everything while the replica has not mapped the memory,
goes over the stream as it is.

Whatever a replica was told of is *lent* until it has answered: a view of it is kept, so that nobody is given
that part of the memory.  When a replica is lost with something lent, it may use it for as long as it likes:
the memory is abandoned, and the others are told of a new one.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer
from pyjiva.block_sums import sums_of_all
from pyjiva.replication import (
    ANSWER,
    PARTS_MAX,
    Flag,
    Frame,
    FrameType,
    Status,
    decode_done,
    encode_message,
    refer,
)
from pyjiva.transport import Stream
from pyjiva.units import KIB, STORED_BLOCK_BYTES

__all__ = ["Memory", "Sharing", "SharingLink"]

SHARED_BYTES_MIN: Final = 32 * KIB  # to copy less costs no more than to say where it is
_NUMBERS: Final = struct.Struct("<5xBHQ16xQ")  # type, code, request id and length in a frame's header
_RANGE: Final = struct.Struct("<8xQ8xQQ")  # request id, offset and length
_READ: Final = int(FrameType.READ)
_WRITE: Final = int(FrameType.WRITE)
_DONE: Final = int(FrameType.DONE)
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
class _LastSums:
    """The checksums of a write are those for every replica that it goes to, one after the other."""

    _key: tuple[int, int, int] = (0, 0, 0)
    _sums: bytes = b""

    def of(self, header: bytes, payload: Sequence[Buffer]) -> bytes:
        """Of the blocks of the frame's payload; none if it does not begin and end where blocks do."""
        key = _, offset, length = _RANGE.unpack_from(header)
        if key != self._key:
            whole = not (offset | length) % STORED_BLOCK_BYTES
            self._key, self._sums = key, sums_of_all(payload) if whole else b""
        return self._sums


@attrs.define(eq=False)
class SharingLink:  # hot
    """Where the frames for one replica go (`data_path.Link`)."""

    stream: Stream
    memory: Memory
    sums: "_LastSums"
    mapped: int | None = attrs.field(default=None, init=False)
    """The generation that the replica has mapped."""
    _lent: dict[int, Sequence[Buffer]] = attrs.field(factory=dict, init=False)
    """By the id of a request without an answer: what the replica may use."""

    @property
    def lends(self) -> bool:
        """Whether the replica may be using a part of the memory."""
        return bool(self._lent)

    def send(self, *buffers: Buffer) -> None:
        """One frame, header first."""
        if self.mapped == self.memory.generation:
            type_, code, request_id, length = _NUMBERS.unpack_from(buffers[0])
            if length >= SHARED_BYTES_MIN:
                if type_ == _WRITE:
                    buffers = self._refer_to_data(request_id, buffers)
                elif type_ == _READ and not code & _LZ4:
                    buffers = self._refer_to_room(request_id, buffers, length)
        self.stream.send(*buffers)

    def _refer_to_data(self, request_id: int, buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        header, *payload = buffers
        if len(payload) > PARTS_MAX:
            return buffers
        parts = []
        for part in payload:
            if not len(part) or (place := self.memory.place(part)) is None:
                return buffers
            parts.append((place, len(part)))
        self._lent[request_id] = payload
        return refer(bytes(header), parts, self.sums.of(bytes(header), payload))

    def _refer_to_room(
        self, request_id: int, buffers: tuple[Buffer, ...], length_bytes: int
    ) -> tuple[Buffer, ...]:
        if (room := self.memory.take_shared(length_bytes)) is None:
            return buffers
        place = self.memory.place(room)
        assert place is not None
        self._lent[request_id] = (room,)
        return refer(bytes(buffers[0]), [(place, length_bytes)])

    def received(self, frame: Frame) -> Frame:
        """An answer, with its payload wherever that lies.  Raises RemoteProtocolError."""
        if not self._lent:
            return frame
        if frame.type == _DONE:
            for request_id in decode_done(frame.payload):
                self._lent.pop(request_id, None)
            return frame
        lent = self._lent.pop(frame.request_id, None)
        if lent is None or frame.type != _READ | ANSWER or frame.code != Status.OK:
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
    _sums: _LastSums = attrs.field(factory=_LastSums, init=False)
    _links: dict[int, SharingLink] = attrs.field(factory=dict, init=False)

    def link(self, member: int, stream: Stream) -> "Stream | SharingLink":
        """What the frames for `member` are to be given to."""
        if self.memory is None or not stream.is_local:
            return stream
        self._links[member] = link = SharingLink(stream, self.memory, self._sums)
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
