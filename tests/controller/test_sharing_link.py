"""Links that share a memory: replicas see what was meant; nobody else is given what they may still use."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from pyjiva.block import Buffer
from pyjiva.block_sums import sums_of
from pyjiva.controller.sharing_link import SHARED_BYTES_MIN, Sharing, SharingLink, StreamLink
from pyjiva.replication import (
    ANSWER,
    Flag,
    Frame,
    FrameDecoder,
    FrameType,
    RequestFrame,
    Status,
    decode_message,
    decode_reference,
    encode_done,
)
from pyjiva.transport import ReceiveBuffer
from pyjiva.transport.shared_memory_sys import MappedMemory, MemoryName, SharedBuffers
from pyjiva.units import KIB

READ, WRITE = FrameType.READ, FrameType.WRITE
LARGE = 128 * KIB


def request(type_: FrameType, id_: int, *payload: Buffer, length: int = 0, **fields: Any) -> RequestFrame:
    """As the data path makes them."""
    length = length or sum(map(len, payload))
    return RequestFrame(type_, id_, 0, 0, length_bytes=length, payload=payload, **fields)


class FakeStream:
    """Keeps what is sent, as frames; and is a replica that maps what it is told of."""

    def __init__(self, *, is_local: bool = True) -> None:
        self.is_local = is_local
        self.decoder = FrameDecoder(ReceiveBuffer(), 2**26)
        self.memory: MappedMemory | None = None
        self.open: dict[int, Frame] = {}

    def send(self, *buffers: Buffer) -> None:
        self.decoder.buffer.receive_data(b"".join(buffers))

    def frame(self) -> Frame:
        """The next one that has come."""
        frame = self.decoder.next_frame()
        assert frame is not None
        return frame

    def parts(self, frame: Frame) -> list[memoryview]:
        """Where its payload lies."""
        assert self.memory is not None
        reference = decode_reference(frame.payload, frame.offset_bytes, frame.length_bytes)
        return [self.memory.view(*part) for part in reference.parts]


class World:
    """Two replicas on this machine."""

    def __init__(self) -> None:
        self.buffers = SharedBuffers()
        self.asked: list[tuple[int, FrameType, Callable[[Frame | None], None], Sequence[Buffer]]] = []
        self.sharing = Sharing(self.buffers, lambda *call: self.asked.append(call))
        self.streams: dict[int, FakeStream] = {}
        self.links: dict[int, Any] = {}
        self.ids = 0
        for member in (1, 2):
            self.connect(member)

    def connect(self, member: int, *, is_local: bool = True) -> None:
        self.streams[member] = FakeStream(is_local=is_local)
        self.links[member] = self.sharing.link(member, self.streams[member])  # type: ignore[arg-type]
        self.sharing.offer(member)
        self.answer_offers()

    def answer_offers(self, status: Status = Status.OK) -> None:
        """What replicas do that were told of a memory."""
        asked, self.asked = self.asked, []
        for member, type_, answered, payload in asked:
            assert type_ is FrameType.SHARE
            name = decode_message(bytes(payload[0]), MemoryName)
            if status is Status.OK:
                self.streams[member].memory = MappedMemory.of(name)
            answered(Frame(type_ | ANSWER, status, 0, 0, 0, 0, 0, memoryview(b"")))

    def send(self, member: int, type_: FrameType, *payload: Buffer, length: int = 0, **fields: Any) -> Frame:
        """Ask; the frame that the replica gets."""
        self.ids += 1
        self.links[member].send(request(type_, self.ids, *payload, length=length, **fields))
        return self.streams[member].frame()

    def answer(self, member: int, frame: Frame, payload: bytes = b"", code: int = Status.OK) -> Frame:
        """The answer to `frame`, as the data path gets it."""
        said = Frame(
            frame.type | ANSWER, code, frame.request_id, 0, 0, 0, 0, memoryview(payload)
        )  # fmt: skip
        return self.sharing.received(member, said)


def test_what_was_received_into_the_memory_is_not_sent() -> None:
    world = World()
    data = world.buffers.take(LARGE)
    data[:] = Random(1).randbytes(LARGE)
    for member in (1, 2):
        frame = world.send(member, WRITE, data[: LARGE // 2], data[LARGE // 2 :])
        assert frame.code == Flag.SHARED
        assert b"".join(world.streams[member].parts(frame)) == data
        assert decode_reference(frame.payload, 0, LARGE).sums == sums_of(data)
        assert len(frame.payload) < 1000


def test_replicas_are_told_in_the_same_words_where_it_lies() -> None:
    world = World()
    asked = request(WRITE, 7, world.buffers.take(LARGE))
    world.links[1].send(asked)
    said = asked.referring
    world.links[2].send(asked)
    assert asked.referring is said
    first, second = world.streams[1].frame(), world.streams[2].frame()
    assert (first.code, first.payload) == (second.code, second.payload) == (Flag.SHARED, said[1])
    assert all(link.lends for link in world.links.values())


def test_what_was_said_of_another_memory_is_not_repeated() -> None:
    """The frame comes again to a replica that has mapped the next one."""
    world = World()
    asked = request(WRITE, 7, world.buffers.take(LARGE))
    world.links[1].send(asked)
    world.sharing.lost(1)
    world.answer_offers()
    world.links[2].send(asked)
    frame = world.streams[2].frame()
    assert (frame.code, len(frame.payload)) == (0, LARGE)


def test_checksums_are_those_of_this_write() -> None:
    """A part of the payload goes under the same id to a replica that is rebuilt."""
    world = World()
    data = world.buffers.take(LARGE)
    data[:] = Random(2).randbytes(LARGE)
    world.links[1].send(request(WRITE, 7, data))
    world.links[2].send(request(WRITE, 7, data[: LARGE // 2]))
    first, second = world.streams[1].frame(), world.streams[2].frame()
    assert decode_reference(first.payload, 0, LARGE).sums == sums_of(data)
    assert decode_reference(second.payload, 0, LARGE // 2).sums == sums_of(data[: LARGE // 2])


@pytest.mark.parametrize("offset", [512, 4096 - 512])
def test_parts_of_blocks_have_a_digest_instead(offset: int) -> None:
    world = World()
    data = world.buffers.take(LARGE)
    frame = world.send(1, WRITE, data, offset_bytes=offset)
    reference = decode_reference(frame.payload, offset, LARGE)
    assert (reference.sums, reference.digest != 0) == (b"", True)


def test_a_read_is_put_into_the_memory() -> None:
    world = World()
    frame = world.send(1, READ, length=LARGE)
    assert frame.code == Flag.SHARED
    (room,) = world.streams[1].parts(frame)
    room[:] = Random(3).randbytes(LARGE)
    answer = world.answer(1, frame)
    assert answer.payload == room
    assert (answer.type, answer.request_id) == (READ | ANSWER, frame.request_id)


def test_a_refused_read_has_no_data() -> None:
    world = World()
    frame = world.send(1, READ, length=LARGE)
    answer = world.answer(1, frame, b"why", Status.READ_ERROR)
    assert (answer.code, bytes(answer.payload)) == (Status.READ_ERROR, b"why")
    assert not world.links[1].lends


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        (READ, {"length": SHARED_BYTES_MIN - 1}),
        (READ, {"length": LARGE, "code": Flag.LZ4}),
        (READ, {"length": 64 * 1024 * KIB}),
        (FrameType.HASH, {"length": LARGE}),
        (FrameType.UNMAP, {"length": LARGE}),
    ],
)
def test_what_does_not_pay_or_is_no_payload_goes_as_it_is(type_: FrameType, fields: dict[str, Any]) -> None:
    world = World()
    frame = world.send(1, type_, **fields)
    assert not frame.code & Flag.SHARED
    assert not world.links[1].lends


def test_data_from_elsewhere_is_sent() -> None:
    world = World()
    shared = world.buffers.take(LARGE)
    cases: list[list[Buffer]] = [[bytes(LARGE)], [shared, bytes(512)], [shared[:512]], [shared, b""]]
    for payload in cases:
        frame = world.send(1, WRITE, *payload)
        assert not frame.code & Flag.SHARED
        assert bytes(frame.payload) == b"".join(payload)


def test_a_replica_that_cannot_reach_it_is_sent_everything() -> None:
    world = World()
    world.streams[1] = FakeStream()
    link = world.sharing.link(1, world.streams[1])  # type: ignore[arg-type]
    world.links[1] = link
    world.sharing.offer(1)
    data = world.buffers.take(LARGE)
    assert not world.send(1, WRITE, data).code & Flag.SHARED  # it has not answered
    world.answer_offers(Status.NOT_SUPPORTED)
    assert not world.send(1, WRITE, data).code & Flag.SHARED
    world.connect(1, is_local=False)
    assert not isinstance(world.links[1], SharingLink)
    assert not world.send(1, WRITE, data).code & Flag.SHARED
    assert world.send(2, WRITE, data).code & Flag.SHARED


def test_without_a_memory_links_are_streams() -> None:
    sharing = Sharing(None, lambda *_: None)
    stream = FakeStream()
    assert type(sharing.link(1, stream)) is StreamLink  # type: ignore[arg-type]
    sharing.offer(1)
    sharing.lost(1)


def test_the_others_go_on_with_a_new_one_when_one_is_lost() -> None:
    world = World()
    data = world.buffers.take(LARGE)
    world.send(1, WRITE, data)
    world.send(2, WRITE, data)
    world.sharing.lost(1)
    assert world.buffers.generation == 1
    assert not world.send(2, WRITE, data).code & Flag.SHARED  # it lies in the old one
    world.answer_offers()
    assert not world.send(2, WRITE, data).code & Flag.SHARED
    assert world.send(2, WRITE, world.buffers.take(LARGE)).code & Flag.SHARED


def test_what_many_are_answered_for_at_once_is_not_lent_any_more() -> None:
    world = World()
    frames = [world.send(1, WRITE, world.buffers.take(LARGE)) for _ in range(3)]
    for ids, lends in (
        ((7, frames[0].request_id, frames[2].request_id), True),
        ((frames[1].request_id,), False),
    ):
        said = Frame(FrameType.DONE, 0, 0, 0, 0, 0, 0, memoryview(encode_done(ids)))
        assert world.sharing.received(1, said) is said
        assert world.links[1].lends is lends


def test_one_that_uses_nothing_is_lost_without_harm() -> None:
    world = World()
    frame = world.send(1, WRITE, world.buffers.take(LARGE))
    world.answer(1, frame)
    world.sharing.lost(1)
    assert (world.buffers.generation, world.asked) == (0, [])


class Lives(RuleBasedStateMachine):
    """Requests, answers and losses in any order: what a replica was lent does not change under its hands."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.lent: list[tuple[int, Frame, list[memoryview], bytes]] = []
        """Of writes without an answer, also to replicas that are lost: what they see, and ought to see."""
        self.rooms: list[tuple[int, Frame, list[memoryview]]] = []
        self.lost: list[tuple[list[memoryview], bytes]] = []
        self.number = 0

    def check(self) -> None:
        for parts, content in [(p, c) for _, _, p, c in self.lent] + self.lost:
            assert b"".join(parts) == content

    @rule(member=st.sampled_from([1, 2]), blocks=st.integers(24, 40))
    def write(self, member: int, blocks: int) -> None:
        self.number += 1
        data = self.world.buffers.take(blocks * 4096)
        data[:] = self.number.to_bytes(8, "little") * (len(data) // 8)
        frame = self.world.send(member, WRITE, data)
        if frame.code & Flag.SHARED:
            parts = self.world.streams[member].parts(frame)
            self.lent.append((member, frame, parts, bytes(data)))
        self.check()

    @rule(member=st.sampled_from([1, 2]))
    def read(self, member: int) -> None:
        frame = self.world.send(member, READ, length=LARGE)
        if frame.code & Flag.SHARED:
            self.rooms.append((member, frame, self.world.streams[member].parts(frame)))
        self.check()

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def answer_write(self, data: st.DataObject) -> None:
        member, frame, _, _ = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        self.world.answer(member, frame)
        self.check()

    @precondition(lambda self: self.rooms)
    @rule(data=st.data())
    def answer_read(self, data: st.DataObject) -> None:
        self.number += 1
        member, frame, (room,) = self.rooms.pop(data.draw(st.integers(0, len(self.rooms) - 1)))
        room[:] = self.number.to_bytes(8, "little") * (LARGE // 8)
        assert self.world.answer(member, frame).payload == room
        self.check()

    @rule(member=st.sampled_from([1, 2]))
    def lose(self, member: int) -> None:
        """It goes on with what it was asked, and comes back by another connection."""
        self.lost += [(parts, content) for other, _, parts, content in self.lent if other == member]
        self.lent = [each for each in self.lent if each[0] != member]
        late = [room for other, _, (room,) in self.rooms if other == member]
        self.rooms = [each for each in self.rooms if each[0] != member]
        self.world.sharing.lost(member)
        self.world.connect(member)
        for room in late:  # its disk answers only now
            room[:] = b"\xee" * LARGE
        self.check()

    @rule()
    def trim(self) -> None:
        self.world.buffers.trim()
        self.check()

    def teardown(self) -> None:
        self.world.buffers.close()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
