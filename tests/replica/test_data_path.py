"""Data frames over a device in memory: what is asked is done and answered, or refused and not done."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import Buffer, MemoryDevice, Request
from pyjiva.block_sums import sums_of
from pyjiva.errors import RemoteProtocolError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.replica.data_path import DataPath, answer_read
from pyjiva.replica.session import Peer, Phase, Session
from pyjiva.replica.unstable import UnstableWrites
from pyjiva.replication import (
    ANSWER,
    DONE_IDS_MAX,
    PAYLOAD_BYTES_MAX,
    Flag,
    Frame,
    FrameDecoder,
    FrameType,
    Refusal,
    RequestFrame,
    Status,
    decode_done,
    decode_extents,
    decode_message,
    refer,
    squeeze,
)
from pyjiva.transport import EndOfBatch, ReceiveBuffer
from pyjiva.transport.shared_memory_sys import MappedMemory, SharedBuffers
from tests.replica.peers import FakePeer, request, session_in

SIZE_BYTES = 64 * 4096
OF_THE_DAEMON = {type_ for type_ in FrameType if type_ >= FrameType.HASH}
CHANGES = (FrameType.WRITE, FrameType.UNMAP, FrameType.WRITE_ZEROES)


def squeeze_now(peer: Peer, frame: Frame, data: Sequence[Buffer]) -> None:
    """What the daemon does in a thread."""
    answer_read(peer, frame, data, squeeze(data))


class World:
    """A data path with its device, and one controller."""

    def __init__(self, phase: Phase = Phase.ATTACHED) -> None:
        self.device = MemoryDevice(SIZE_BYTES)
        self.unstable = UnstableWrites()
        self.unstable.accepted(1, in_sync=True, equal=True)
        self.batch = EndOfBatch()
        self.data = DataPath(self.device, self.unstable, 1, squeeze_now, self.batch)
        self.peer = FakePeer()
        self.session: Session = session_in(phase, self.peer)

    def ask(self, type_: FrameType, **fields: Any) -> Frame:
        """Send a frame; its answer."""
        self.data.frame_received(self.session, request(type_, **fields))
        self.batch.end()
        return self.peer.answer()

    def write(self, offset_bytes: int, payload: bytes, **fields: Any) -> Frame:
        """WRITE."""
        return self.ask(
            FrameType.WRITE, offset_bytes=offset_bytes, length_bytes=len(payload), payload=payload, **fields
        )


def reason(frame: Frame) -> str:
    """Why it was refused."""
    return decode_message(frame.payload, Refusal).reason


def test_what_was_written_is_read() -> None:
    world = World()
    answer = world.write(4000, b"x" * 200, request_id=77)
    assert (answer.type, answer.code, answer.request_id, answer.epoch) == (FrameType.WRITE | ANSWER, 0, 77, 1)
    answer = world.ask(FrameType.READ, offset_bytes=3999, length_bytes=202, request_id=78)
    assert (answer.type, answer.code, answer.request_id) == (FrameType.READ | ANSWER, 0, 78)
    assert bytes(answer.payload) == b"\0" + b"x" * 200 + b"\0"


@pytest.mark.parametrize(
    ("offset_bytes", "payload", "code", "is_told"),
    [
        (8192, b"x" * 4096, 0, True),
        (8192, b"x" * 8192, 0, False),
        (8192, b"x" * 512, 0, False),
        (8704, b"x" * 4096, 0, False),
        (8192, squeeze([b"x" * 4096]), Flag.LZ4, False),
    ],
)
def test_the_hash_of_one_block_goes_to_the_device(
    offset_bytes: int, payload: bytes, code: int, is_told: bool
) -> None:
    """It is that of the frame, which was compared with what came."""
    world = World()
    asked: list[Any] = []
    world.data.device = FakeDevice(asked.append)
    length_bytes = 4096 if code else len(payload)
    asking = request(
        FrameType.WRITE, offset_bytes=offset_bytes, length_bytes=length_bytes, payload=payload, code=code
    )
    world.data.frame_received(world.session, asking)
    assert asked[0].sums == (sums_of(payload) if is_told else None)


@pytest.mark.parametrize("type_", [FrameType.UNMAP, FrameType.WRITE_ZEROES])
def test_what_was_zeroed_reads_as_zeros(type_: FrameType) -> None:
    world = World()
    world.write(0, b"x" * 8192)
    answer = world.ask(type_, offset_bytes=100, length_bytes=5000)
    assert (answer.type, answer.code) == (type_ | ANSWER, 0)
    assert world.device.content(0, 8192) == b"x" * 100 + bytes(5000) + b"x" * 3092


def test_a_flush_reaches_the_device_and_so_does_forced_access() -> None:
    world = World()
    world.write(0, b"x")
    assert world.device.flush_count == 0
    assert world.ask(FrameType.FLUSH).type == FrameType.FLUSH | ANSWER
    assert world.device.flush_count == 1
    world.write(0, b"x", code=Flag.FORCE_UNIT_ACCESS)
    assert world.device.flush_count == 2


@pytest.mark.parametrize(
    "code", [0, Flag.FORCE_UNIT_ACCESS, Flag.ATOMIC, Flag.ATOMIC | Flag.FORCE_UNIT_ACCESS]
)
def test_an_atomic_write_reaches_the_device_as_one(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    seen: list[Any] = []
    submit = world.device.submit

    def spy(_: MemoryDevice, request: Request) -> None:
        seen.append(request)
        submit(request)

    monkeypatch.setattr(MemoryDevice, "submit", spy)
    world.write(0, b"x" * 1024, code=code)
    (write,) = seen
    assert write.atomic is bool(code & Flag.ATOMIC)
    assert write.force_unit_access is bool(code & Flag.FORCE_UNIT_ACCESS)


def test_block_status_names_what_is_allocated() -> None:
    world = World()
    world.write(8192, b"x" * 4096)
    answer = world.ask(FrameType.BLOCK_STATUS, offset_bytes=0, length_bytes=SIZE_BYTES)
    assert decode_extents(answer.payload, Extent(0, SIZE_BYTES)) == [Extent(8192, 4096)]


def test_it_handles_the_data_frames_of_every_block_device() -> None:
    world = World()
    handled = {type_ for type_ in FrameType if world.data.handles(request(type_))}
    assert handled == {type_ for type_ in FrameType if type_ >= FrameType.READ} - OF_THE_DAEMON


@pytest.mark.parametrize("epoch", [0, 2, 2**63])
@pytest.mark.parametrize("type_", [FrameType.READ, FrameType.FLUSH, *CHANGES])
def test_a_frame_of_another_epoch_does_nothing(type_: FrameType, epoch: int) -> None:
    world = World()
    world.write(0, b"before")
    world.data.promised_epoch = 3
    payload = b"after!" if type_ is FrameType.WRITE else b""
    answer = world.ask(type_, offset_bytes=0, length_bytes=6, payload=payload, epoch=epoch, stable=100)
    assert (answer.code, answer.epoch) == (Status.FENCED, 3)
    assert "epoch 3 is promised" in reason(answer)
    assert world.device.content(0, 6) == b"before"
    assert world.device.flush_count == 0
    assert world.unstable.extents() == [Extent(0, 6)]


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ATTACHED])
@pytest.mark.parametrize("type_", CHANGES)
def test_a_connection_that_is_not_attached_changes_nothing(type_: FrameType, phase: Phase) -> None:
    """Above all one that was replaced: its frames may have lain in a socket for long."""
    world = World()
    world.write(0, b"before")
    session = session_in(phase, world.peer)
    payload = b"after!" if type_ is FrameType.WRITE else b""
    with pytest.raises(RemoteProtocolError):
        world.data.frame_received(session, request(type_, length_bytes=6, payload=payload))
    answer = world.peer.answer()
    assert answer.code == (Status.FENCED if phase is Phase.REPLACED else Status.FORBIDDEN)
    assert world.device.content(0, 6) == b"before"
    assert world.unstable.extents() == [Extent(0, 6)]


@pytest.mark.parametrize(("said", "came"), [(6, 5), (5, 6), (0, 1), (2**63, 8)])
def test_a_write_whose_lengths_disagree_is_refused(said: int, came: int) -> None:
    world = World()
    answer = world.ask(FrameType.WRITE, length_bytes=said, payload=b"x" * came)
    assert answer.code == Status.BAD_REQUEST
    assert reason(answer) == f"WRITE of {said} bytes came with {came}"
    assert world.device.content(0, 10) == bytes(10)
    assert world.unstable.extents() == []


def test_what_is_squeezed_is_written_whole_and_can_be_read_squeezed() -> None:
    world, whole = World(), b"pyjiva  " * 1024
    squeezed = squeeze([whole])
    assert squeezed is not None
    fields = {"offset_bytes": 8192, "length_bytes": len(whole), "code": Flag.LZ4}
    assert world.ask(FrameType.WRITE, payload=squeezed, **fields).code == Status.OK
    plain = world.ask(FrameType.READ, offset_bytes=8192, length_bytes=len(whole))
    assert (bytes(plain.payload), plain.length_bytes) == (whole, 0)
    answered = world.ask(FrameType.READ, **fields)
    assert (bytes(answered.payload), answered.length_bytes) == (squeezed, len(whole))


def test_what_cannot_be_squeezed_is_answered_as_it_is() -> None:
    world, whole = World(), Random(1).randbytes(4096)
    world.write(0, whole)
    answered = world.ask(FrameType.READ, length_bytes=4096, code=Flag.LZ4)
    assert (bytes(answered.payload), answered.length_bytes) == (whole, 0)


@pytest.mark.parametrize("length_bytes", [0, 4095, 4097, PAYLOAD_BYTES_MAX + 1, 2**63])
def test_squeezed_bytes_of_another_length_are_refused(length_bytes: int) -> None:
    world, squeezed = World(), squeeze([bytes(4096)])
    assert squeezed is not None
    frame = world.ask(FrameType.WRITE, length_bytes=length_bytes, payload=squeezed, code=Flag.LZ4)
    assert frame.code == Status.BAD_REQUEST
    assert "lz4" in reason(frame) or "came with" in reason(frame)
    assert world.unstable.extents() == []


@given(st.binary(max_size=200), st.integers(0, 1000))
def test_any_bytes_that_claim_to_be_squeezed_are_written_or_refused(
    payload: bytes, length_bytes: int
) -> None:
    world = World()
    frame = world.ask(FrameType.WRITE, length_bytes=length_bytes, payload=payload, code=Flag.LZ4)
    assert frame.code in (Status.OK, Status.BAD_REQUEST)


def test_a_read_of_more_than_a_frame_holds_is_refused() -> None:
    answer = World().ask(FrameType.READ, length_bytes=PAYLOAD_BYTES_MAX + 1)
    assert answer.code == Status.BAD_REQUEST


@pytest.mark.parametrize("type_", [FrameType.READ, FrameType.BLOCK_STATUS, *CHANGES])
@pytest.mark.parametrize("offset_bytes", [SIZE_BYTES - 5, SIZE_BYTES, 2**64 - 1])
def test_beyond_the_end_is_refused(type_: FrameType, offset_bytes: int) -> None:
    payload = b"x" * 6 if type_ is FrameType.WRITE else b""
    answer = World().ask(type_, offset_bytes=offset_bytes, length_bytes=6, payload=payload)
    assert (answer.type, answer.code) == (type_ | ANSWER, Status.OUT_OF_RANGE)
    assert f"the device has {SIZE_BYTES}" in reason(answer)


@pytest.mark.parametrize("type_", [t for t in FrameType if t >= FrameType.READ and t not in OF_THE_DAEMON])
def test_what_the_disk_cannot_do_is_answered_by_its_failure(type_: FrameType) -> None:
    world = World()

    def fail(device: Request) -> None:
        device.error = StorageError(StorageFailure.NO_SPACE, "the disk is full")
        device.done(device)  # type: ignore[arg-type]

    world.data.device = FakeDevice(fail)
    payload = b"x" * 6 if type_ is FrameType.WRITE else b""
    answer = world.ask(type_, length_bytes=6, payload=payload)
    assert (answer.type, answer.code, reason(answer)) == (type_ | ANSWER, Status.NO_SPACE, "the disk is full")


class FakeDevice:
    """Does what it is told with each request."""

    size_bytes = SIZE_BYTES

    def __init__(self, submit: Callable[[Request], None]) -> None:
        self.submit = submit


def test_every_change_is_remembered_until_it_is_stable() -> None:
    world = World()
    world.write(0, b"x" * 10, request_id=1)
    world.ask(FrameType.UNMAP, offset_bytes=100, length_bytes=10, request_id=2)
    world.ask(FrameType.WRITE_ZEROES, offset_bytes=200, length_bytes=10, request_id=3)
    assert world.unstable.extents() == [Extent(0, 10), Extent(100, 10), Extent(200, 10)]
    world.ask(FrameType.READ, length_bytes=1, request_id=4, stable=2)
    assert world.unstable.extents() == [Extent(200, 10)]


def test_a_write_is_remembered_before_it_reaches_the_disk() -> None:
    world = World()
    seen = list[list[Extent] | None]()
    world.data.device = FakeDevice(lambda _: seen.append(world.unstable.extents()))
    world.data.frame_received(world.session, request(FrameType.WRITE, length_bytes=3, payload=b"abc"))
    assert seen == [[Extent(0, 3)]]
    assert world.peer.answers() == []  # the disk has not answered


class TestDone:
    """What was carried out and has nothing to show for it is said once, at the end of the batch."""

    @staticmethod
    def start(world: World, type_: FrameType, request_id: int, session: Session | None = None) -> None:
        payload = b"x" * 512 if type_ is FrameType.WRITE else b""
        length = 0 if type_ is FrameType.FLUSH else 512
        frame = request(
            type_, request_id=request_id, offset_bytes=512 * request_id, length_bytes=length, payload=payload
        )
        world.data.frame_received(session or world.session, frame)

    def test_all_kinds_are_in_one_frame_in_the_order_in_which_they_were_done(self) -> None:
        world = World()
        for id_, type_ in enumerate((*CHANGES, FrameType.FLUSH), 1):
            self.start(world, type_, id_)
        assert world.peer.answers() == []
        world.batch.end()
        answer = world.peer.answer()
        assert (answer.type, answer.code, answer.epoch) == (FrameType.DONE, Status.OK, 1)
        assert decode_done(answer.payload) == (1, 2, 3, 4)
        world.batch.end()
        assert world.peer.answers() == []

    def test_one_alone_is_answered_as_it_was_asked(self) -> None:
        world = World()
        for id_, type_ in enumerate((*CHANGES, FrameType.FLUSH), 1):
            self.start(world, type_, id_)
            world.batch.end()
            answer = world.peer.answer()
            assert (answer.type, answer.request_id, answer.epoch) == (type_ | ANSWER, id_, 1)

    def test_data_and_refusals_are_said_at_once(self) -> None:
        world = World()
        self.start(world, FrameType.WRITE, 1)
        self.start(world, FrameType.READ, 2)
        beyond = request(FrameType.UNMAP, request_id=3, offset_bytes=SIZE_BYTES, length_bytes=512)
        world.data.frame_received(world.session, beyond)
        self.start(world, FrameType.WRITE, 4)
        said = [(each.request_id, each.code) for each in world.peer.answers()]
        assert said == [(2, Status.OK), (3, Status.OUT_OF_RANGE)]
        world.batch.end()
        assert decode_done(world.peer.answer().payload) == (1, 4)

    def test_what_is_done_later_is_said_later(self) -> None:
        world = World()
        held: list[Any] = []
        world.data.device = FakeDevice(held.append)
        for id_ in (1, 2, 3):
            self.start(world, FrameType.WRITE, id_)
        world.batch.end()
        assert world.peer.answers() == []
        for each in (held[2], held[0]):
            each.done(each)
        world.batch.end()
        assert decode_done(world.peer.answer().payload) == (3, 1)
        held[1].done(held[1])
        world.batch.end()
        assert world.peer.answer().request_id == 2

    @pytest.mark.parametrize("more", [0, 1, 2, DONE_IDS_MAX + 1])
    def test_a_frame_has_no_more_than_a_controller_takes(self, more: int) -> None:
        world = World()
        for id_ in range(DONE_IDS_MAX + more):
            self.start(world, FrameType.FLUSH, id_)
        world.batch.end()
        said: list[int] = []
        for each in world.peer.answers():
            said += decode_done(each.payload) if each.type == FrameType.DONE else [each.request_id]
        assert said == list(range(DONE_IDS_MAX + more))

    def test_two_connections_are_told_of_their_own(self) -> None:
        """The writes of one that was replaced may end in the batch of the other."""
        world, other = World(), FakePeer()
        self.start(world, FrameType.WRITE, 1)
        self.start(world, FrameType.WRITE, 2)
        session = session_in(Phase.ATTACHED, other)
        self.start(world, FrameType.WRITE, 3, session)
        self.start(world, FrameType.WRITE, 4, session)
        world.batch.end()
        assert decode_done(world.peer.answer().payload) == (1, 2)
        assert decode_done(other.answer().payload) == (3, 4)


class TestSharedMemory:
    """Payloads that lie in a memory of the controller's."""

    @staticmethod
    def world() -> tuple[World, SharedBuffers]:
        world, buffers = World(), SharedBuffers()
        assert buffers.name is not None
        world.session.memory = MappedMemory.of(buffers.name)
        return world, buffers

    @staticmethod
    def ask(world: World, asked: RequestFrame, parts: list[tuple[int, int]]) -> Frame:
        decoder = FrameDecoder(ReceiveBuffer())
        decoder.buffer.receive_data(b"".join(refer(asked, parts)))
        frame = decoder.next_frame()
        assert frame is not None
        world.data.frame_received(world.session, frame)
        world.batch.end()
        return world.peer.answer()

    def write(
        self, world: World, buffers: SharedBuffers, data: bytes, offset: int = 4096, said: bytes = b""
    ) -> Frame:
        """`said`: what it is said to be."""
        room = buffers.take(2 * len(data) + 200_000)
        half = len(data) // 2
        room[1000 : 1000 + half], room[100_000 : 100_000 + len(data) - half] = data[:half], data[half:]
        places = [
            (buffers.place(room[at:]) or 0, size) for at, size in ((1000, half), (100_000, len(data) - half))
        ]
        asked = RequestFrame(FrameType.WRITE, 9, 1, 0, offset, len(data), payload=(said or data,))
        return self.ask(world, asked, places)

    @pytest.mark.parametrize("offset", [4096, 512])
    def test_what_lies_there_is_written(self, offset: int) -> None:
        """With checksums, and with a digest."""
        world, buffers = self.world()
        data = Random(1).randbytes(8192)
        answer = self.write(world, buffers, data, offset)
        assert (answer.type, answer.code, answer.request_id) == (FrameType.WRITE | ANSWER, Status.OK, 9)
        read = world.ask(FrameType.READ, offset_bytes=offset, length_bytes=8192)
        assert bytes(read.payload) == data
        assert world.data.shared_bytes == len(data)
        assert world.unstable.extents() == [Extent(offset, 8192)]

    def test_its_checksums_go_to_the_device_as_they_are(self) -> None:
        world, buffers = self.world()
        asked: list[Any] = []
        submit = world.device.submit

        def note(request: Any) -> None:
            asked.append(request)
            submit(request)

        world.data.device = FakeDevice(note)
        assert self.write(world, buffers, bytes(4096), said=b"x" * 4096).code == Status.OK
        assert asked[0].sums == sums_of(b"x" * 4096)

    def test_what_is_read_is_put_there(self) -> None:
        world, buffers = self.world()
        world.write(4096, b"x" * 5000)
        room = buffers.take(200_000)
        asked = RequestFrame(FrameType.READ, 5, 1, 0, 4095, 5002)
        answer = self.ask(world, asked, [(buffers.place(room[7:]) or 0, 5002)])
        assert (answer.type, answer.code, bytes(answer.payload)) == (FrameType.READ | ANSWER, Status.OK, b"")
        assert bytes(room[7:5009]) == b"\0" + b"x" * 5000 + b"\0"

    def test_a_failed_read_puts_nothing_there(self) -> None:
        world, buffers = self.world()
        room = buffers.take(200_000)
        asked = RequestFrame(FrameType.READ, 1, 1, 0, SIZE_BYTES, 512)
        assert self.ask(world, asked, [(buffers.place(room) or 0, 512)]).code == Status.OUT_OF_RANGE

    def test_data_that_is_not_what_was_meant_ends_the_connection(self) -> None:
        world, buffers = self.world()
        room = buffers.take(200_000)
        asked = RequestFrame(FrameType.WRITE, 1, 1, 0, 0, 512, payload=(b"x" * 512,))
        room[:512] = b"y" * 512
        with pytest.raises(RemoteProtocolError, match="checksum"):
            self.ask(world, asked, [(buffers.place(room) or 0, 512)])
        assert bytes(world.ask(FrameType.READ, length_bytes=512).payload) == bytes(512)

    def test_without_a_memory_it_is_refused(self) -> None:
        asked = RequestFrame(FrameType.READ, 1, 1, 0, 0, 512)
        with pytest.raises(RemoteProtocolError, match="not shared"):
            self.ask(World(), asked, [(4096, 512)])

    def test_a_place_outside_is_refused(self) -> None:
        world, _ = self.world()
        asked = RequestFrame(FrameType.READ, 1, 1, 0, 0, 512)
        with pytest.raises(RemoteProtocolError, match="lie not in"):
            self.ask(world, asked, [(0, 512)])

    @pytest.mark.parametrize(
        ("type_", "code"),
        [(FrameType.UNMAP, 0), (FrameType.FLUSH, 0), (FrameType.WRITE, Flag.LZ4), (FrameType.READ, Flag.LZ4)],
    )
    def test_other_frames_have_no_payload_there(self, type_: FrameType, code: int) -> None:
        world, buffers = self.world()
        room = buffers.take(200_000)
        asked = RequestFrame(type_, 1, 1, 0, 0, 512, code)
        assert self.ask(world, asked, [(buffers.place(room) or 0, 512)]).code == Status.BAD_REQUEST

    def test_a_read_has_one_place(self) -> None:
        world, buffers = self.world()
        place = buffers.place(buffers.take(200_000)) or 0
        asked = RequestFrame(FrameType.READ, 1, 1, 0, 0, 1024)
        assert self.ask(world, asked, [(place, 512), (place + 512, 512)]).code == Status.BAD_REQUEST

    def test_a_lower_epoch_is_fenced(self) -> None:
        world, buffers = self.world()
        world.data.promised_epoch = 2
        assert self.write(world, buffers, b"x" * 4096).code == Status.FENCED
