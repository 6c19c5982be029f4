"""A connection in full feature phase without sockets: any PDUs, and the books afterwards."""

import contextlib
import struct

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.block import Buffer, MemoryDevice, Read
from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.connection import COMMAND_WINDOW, Connection
from pyjiva.iscsi.control import Control, Peer
from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.parameters import Parameters
from pyjiva.iscsi.pdu import DATA_OUT, NOP_OUT, SCSI_COMMAND, TEXT_REQUEST, Opcode, serial_add
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus, UnitIdentity
from pyjiva.testing.bhs_format import HEADERS
from pyjiva.testing.target import HeldDevice
from pyjiva.transport import EndOfBatch, ReceiveBuffer
from pyjiva.units import MIB

FIRST_CMD_SN = 0xFFFF_FFF0  # so that the numbers wrap


@attrs.define
class Out:
    """Keeps what is sent; `sent` is parsed by the tests."""

    sent: list[Buffer] = attrs.field(factory=list)
    queued_bytes: int = 0

    def send(self, *buffers: Buffer) -> None:
        self.sent.extend(buffers)


@attrs.define
class Host:
    """A target with nothing to tell."""

    def send_targets(self, wanted: str, peer: Peer) -> list[tuple[str, str]]:
        return [("TargetName", "iqn.t")]

    def drop_sessions(self) -> None:
        """Nothing to drop."""


@attrs.define
class World:
    """One connection over memory."""

    out: Out
    connection: Connection
    device: HeldDevice

    def responses(self) -> list[tuple[int, bytes]]:
        """(operation code, header) of every PDU sent so far."""
        wire = Framing(ReceiveBuffer(), 1 << 24)
        found = []
        for buffer in self.out.sent:
            wire.receive_data(buffer)
            while (pdu := wire.next_pdu()) is not None:
                found.append((pdu.header[0], pdu.header))
        assert len(wire.buffer) == 0, "every PDU is whole"
        return found


def world(**parameters: object) -> World:
    batch = EndOfBatch()
    device = HeldDevice(MemoryDevice(4 * MIB), batch)
    server = DeviceServer({0: LogicalUnit(device, UnitIdentity("id"), 512)})
    nexus = Nexus("iqn.i,i,0x00")
    server.attach(nexus)
    server.units[0].attentions.clear()
    out = Out()
    connection = Connection(
        out, Framing(ReceiveBuffer(), 65536), server, nexus, Parameters(**parameters), 1, FIRST_CMD_SN,  # type: ignore[arg-type]
    )  # fmt: skip
    Control(connection, Host(), False, "iqn.t", Peer("iqn.i", "127.0.0.1", "127.0.0.1:3260"), 1, lambda: None)
    return World(out, connection, device)


def feed(here: World, data: bytes) -> None:
    here.connection.framing.receive_data(data)
    here.connection.receive_all()


def with_length(header: bytes, data: bytes) -> bytes:
    return header[:4] + b"\0" + len(data).to_bytes(3, "big") + header[8:] + data + bytes(-len(data) % 4)


CDBS = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.builds(
        lambda opcode, lba, count: struct.pack(">BBIBHB", opcode, 0, lba, 0, count, 0).ljust(16, b"\0"),
        st.sampled_from([0x00, 0x12, 0x28, 0x2A, 0x2F, 0x35, 0x41, 0x42, 0xA0]),
        st.integers(0, 9000),
        st.integers(0, 70),
    ),
)
TAGS = st.integers(0, 5)
NUMBERS = st.integers(0, 40).map(lambda distance: serial_add(FIRST_CMD_SN, distance))
DATA = st.one_of(st.just(b""), st.just(bytes(512)), st.binary(max_size=64))
COMMANDS = st.builds(
    lambda immediate, flags, lun, itt, expected, cmd_sn, cdb, data: with_length(
        SCSI_COMMAND.pack(1 | immediate, flags, bytes([0, lun]), itt, expected, cmd_sn, 0, cdb), data
    ),
    st.sampled_from([0, 0x40]), st.integers(0, 255), st.integers(0, 1), TAGS,
    st.sampled_from([0, 100, 512, 4096, 35840, 0xFFFFFFFF]), NUMBERS, CDBS, DATA,
)  # fmt: skip
DATA_OUTS = st.builds(
    lambda flags, itt, tag, data_sn, offset, data: with_length(
        DATA_OUT.pack(Opcode.DATA_OUT, flags, b"", itt, tag, 0, data_sn, offset), data
    ),
    st.sampled_from([0, 0x80]), TAGS, st.sampled_from([0, 1, 2, 0xFFFFFFFF]), st.integers(0, 2),
    st.sampled_from([0, 64, 512]), DATA,
)  # fmt: skip
OTHERS = st.builds(
    lambda opcode, rest, cmd_sn, data: with_length(
        (bytes([opcode]) + rest)[:24] + cmd_sn.to_bytes(4, "big") + rest[27:], data
    ),
    st.sampled_from([int(opcode) for opcode in HEADERS] + [0x10, 0x1E]).flatmap(
        lambda opcode: st.sampled_from([opcode, opcode | 0x40])
    ),
    st.binary(min_size=47, max_size=47), NUMBERS, DATA,
)  # fmt: skip


@settings(max_examples=100)
@given(
    pdus=st.lists(st.one_of(COMMANDS, COMMANDS, DATA_OUTS, OTHERS), max_size=25),
    hold=st.booleans(),
    immediate_data=st.booleans(),
    initial_r2t=st.booleans(),
)
def test_any_pdus_give_answers_or_a_protocol_error(
    pdus: list[bytes], hold: bool, immediate_data: bool, initial_r2t: bool
) -> None:
    here = world(immediate_data=immediate_data, initial_r2t=initial_r2t)
    here.device.holding = hold
    with contextlib.suppress(RemoteProtocolError):  # the books must be right then, too
        for pdu in pdus:
            feed(here, pdu)
    here.connection.close()
    while here.device.held:
        here.device.release()
    here.responses()
    check_books(here)


def check_books(here: World) -> None:
    """Everything that was taken for a command has been given back."""
    connection = here.connection
    assert connection.commands == {}
    assert connection._reading_bytes == 0
    assert connection.writes.solicited_bytes == 0
    assert connection._immediate_count == 0
    assert not connection.server.units[0].tasks
    assert (connection.max_cmd_sn - connection.exp_cmd_sn + 1) & 0xFFFF_FFFF == COMMAND_WINDOW


@given(data=st.binary(max_size=400))
def test_any_bytes_give_answers_or_a_protocol_error(data: bytes) -> None:
    here = world()
    try:
        feed(here, data)
    except RemoteProtocolError:
        return
    here.responses()


def test_bytes_may_come_one_by_one() -> None:
    whole, single = world(), world()
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0).ljust(16, b"\0")
    stream = b"".join(
        SCSI_COMMAND.pack(1, 0xC1, b"", number, 512, serial_add(FIRST_CMD_SN, number), 0, cdb)
        for number in range(20)
    )
    feed(whole, stream)
    for byte in stream:
        feed(single, bytes([byte]))
    assert b"".join(whole.out.sent) == b"".join(single.out.sent)
    assert [opcode for opcode, _ in whole.responses()] == [Opcode.DATA_IN] * 20


def test_nothing_is_taken_in_while_the_initiator_does_not_read() -> None:
    here = world()
    here.out.queued_bytes = 1 << 30
    here.connection.framing.receive_data(
        TEXT_REQUEST.pack(Opcode.TEXT_REQUEST | 0x40, 0x80, b"", 1, 0xFFFFFFFF, 0, 0)
    )
    assert here.connection.receive_all()
    assert here.out.sent == []
    here.out.queued_bytes = 0
    assert not here.connection.receive_all()
    assert here.responses()


def test_outstanding_reads_are_bounded() -> None:
    """A late device is not asked for more than the limit; small commands and pings go on meanwhile."""
    here = world()
    here.device.holding = True
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 8192, 0).ljust(16, b"\0")
    for number in range(12):
        cmd_sn = serial_add(FIRST_CMD_SN, number)
        feed(here, SCSI_COMMAND.pack(1, 0xC1, b"", number, 4 * MIB, cmd_sn, 0, cdb))
    assert len(here.device.held) == 8, "32 MiB"
    feed(here, NOP_OUT.pack(Opcode.NOP_OUT | 0x40, 0x80, b"", 99, 0xFFFFFFFF, 0, 0))
    assert [opcode for opcode, _ in here.responses()] == [Opcode.NOP_IN]
    here.device.release(3)
    assert len(here.device.held) == 8, "the next have taken their place"
    waiting = here.connection.commands[11]
    here.connection.abort(waiting, None)
    here.device.holding = False
    here.device.release()
    assert not here.connection.commands
    answered = [header for opcode, header in here.responses() if opcode == Opcode.DATA_IN and header[1] & 1]
    assert len(answered) == 11
    check_books(here)


def test_a_whole_window_of_waiting_reads_starts_without_deep_recursion() -> None:
    here = world()
    here.device.holding = True
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, 256, 0).ljust(16, b"\0")
    for number in range(COMMAND_WINDOW):
        cmd_sn = serial_add(FIRST_CMD_SN, number)
        feed(here, SCSI_COMMAND.pack(1, 0xC1, b"", number, 4 * MIB, cmd_sn, 0, cdb))
    assert len(here.device.held) == 8
    here.device.holding = False
    here.device.release(1)
    here.device.release()
    check_books(here)


@pytest.mark.parametrize("cuts", [(), (512,), (0, 100, 1024)])
def test_a_read_that_the_device_gives_in_several_buffers_goes_out_whole(cuts: tuple[int, ...]) -> None:
    here, content = world(), bytes(range(256)) * 8
    here.device.holding = True
    cdb = struct.pack(">BBIBHB", 0x28, 0, 0, 0, len(content) // 512, 0).ljust(16, b"\0")
    feed(here, SCSI_COMMAND.pack(1, 0xC1, b"", 7, len(content), FIRST_CMD_SN, 0, cdb))
    [read] = here.device.held
    assert isinstance(read, Read)
    ends = (*cuts, len(content))
    read.data = [content[start:end] for start, end in zip((0, *cuts), ends, strict=True)]
    read.done(read)
    wire = Framing(ReceiveBuffer(), 1 << 24)
    wire.receive_data(b"".join(here.out.sent))
    answer = wire.next_pdu()
    assert answer is not None
    assert (answer.header[0], answer.data) == (Opcode.DATA_IN, content)
    assert len(wire.buffer) == 0


def test_extended_cdb_is_put_together() -> None:
    here = world()
    header = SCSI_COMMAND.pack(1, 0x81, b"", 1, 0, FIRST_CMD_SN, 0, b"\x7f" + bytes(15))
    additional = struct.pack(">HBB", 17, 1, 0) + bytes(16)
    feed(here, header[:4] + bytes([5]) + header[5:] + additional)
    [(opcode, _)] = here.responses()
    assert opcode == Opcode.SCSI_RESPONSE  # INVALID COMMAND OPERATION CODE: we have no such command
    cut = struct.pack(">HBB", 99, 1, 0)
    header = SCSI_COMMAND.pack(1, 0x81, b"", 1, 0, serial_add(FIRST_CMD_SN, 1), 0, b"\x7f" + bytes(15))
    with pytest.raises(RemoteProtocolError):
        feed(here, header[:4] + bytes([1]) + header[5:] + cut)


def test_command_that_came_early_holds_no_view_of_what_was_received() -> None:
    here = world()
    header = SCSI_COMMAND.pack(
        1, 0xA1, b"", 1, 512, serial_add(FIRST_CMD_SN, 1), 0, write_cdb(0).ljust(16, b"\0")
    )
    feed(here, with_length(header, b"e" * 512))
    [early] = here.connection._early.values()
    assert early is not None
    assert type(early.data) is bytes
    feed(here, SCSI_COMMAND.pack(1, 0x81, b"", 2, 0, FIRST_CMD_SN, 0, bytes(16)))
    assert not here.connection.commands
    memory = here.device.device
    assert isinstance(memory, MemoryDevice)
    assert memory.content(0, 512) == b"e" * 512


def write_cdb(lba: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, 1, 0)
