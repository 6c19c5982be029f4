"""What is fuzzed: each target takes any bytes, and raises only when pyjiva has a bug.

A protocol error, a refusal or sense data is an answer.  Anything else that comes out, an answer that is not
whole, or something that was taken and not given back, is a bug.  None of these use a socket, a clock or
chance, so an input always does the same.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from pyjiva.backup import Manifest
from pyjiva.backup.configuration import Configuration
from pyjiva.backup.envelope import Kind, unwrap, wrap
from pyjiva.backup.locks import Lock
from pyjiva.backup.manifest import Checkpoint
from pyjiva.backup.objects import DamagedError
from pyjiva.backup.table import ChunkTable
from pyjiva.block import Buffer, MemoryDevice, Space
from pyjiva.errors import ConfigError, RemoteProtocolError
from pyjiva.iscsi.access import InitiatorRules
from pyjiva.iscsi.authentication import NO_AUTHENTICATION, Authentication
from pyjiva.iscsi.chap import BINARY_BYTES_MAX, Chap, ChapSecrets, OwnSecret, parse_binary, parse_secrets
from pyjiva.iscsi.connection import COMMAND_WINDOW, Connection
from pyjiva.iscsi.control import Control, Peer
from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.login import LOGIN_SEGMENT_BYTES, LoginMachine, Stage
from pyjiva.iscsi.parameters import KEYS, Parameters, parse_number
from pyjiva.iscsi.pdu import (
    DATA_OUT,
    LOGIN_REQUEST,
    NO_TAG,
    OPCODE_MASK,
    SCSI_COMMAND,
    AsyncEvent,
    LoginStatus,
    Opcode,
    serial_add,
)
from pyjiva.iscsi.text import decode_text, encode_text
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus, Status, Task, UnitIdentity
from pyjiva.testing.target import HeldDevice
from pyjiva.transport import EndOfBatch, ReceiveBuffer
from pyjiva.units import KIB
from tests.fuzz.commands import IDENTITY, INITIATOR_PORTS, command_of
from tests.fuzz.source import Source

__all__ = ["FIRST_CMD_SN", "PDUS", "TARGETS"]

DEVICE_BYTES: Final = 256 * KIB
SEGMENT_BYTES: Final = 64 * KIB
OBJECT_BYTES_MAX: Final = 64 * KIB
FIRST_CMD_SN: Final = 0xFFFF_FFF0  # so that the numbers wrap
INITIATOR, TARGET = "iqn.i", "iqn.t"
SECRETS: Final = ChapSecrets({"alice": b"initiator-secret"}, OwnSecret("target", b"target-own-secret"))
PDU_OPCODES: Final = [int(opcode) for opcode in Opcode]
KNOWN_STATUSES: Final = frozenset(int(status) for status in Status)


@attrs.define
class Room:
    """A space source."""

    space: Space | None = attrs.field(factory=lambda: Space(DEVICE_BYTES, DEVICE_BYTES))


ROOM: Final = Room()


def check(condition: object, what: str) -> None:
    """As `assert`, but its words stay when asserts are taken out."""
    if not condition:
        raise AssertionError(what)


@attrs.define
class Out:
    """Keeps what is sent."""

    sent: list[Buffer] = attrs.field(factory=list)
    queued_bytes: int = 0

    def send(self, *buffers: Buffer) -> None:
        """Of a connection's `out`."""
        self.sent.extend(buffers)

    def check_whole(self, framing: Framing) -> None:
        """Everything that was sent is whole PDUs with right digests."""
        wire = Framing(ReceiveBuffer(), 1 << 24, framing.header_digest, framing.data_digest)
        for buffer in self.sent:
            wire.receive_data(buffer)
            while (pdu := wire.next_pdu()) is not None:
                check(pdu.data_intact, "a wrong data digest of ours")
        check(len(wire.buffer) == 0, "a PDU that is cut short")


@attrs.define
class Policy:
    """A target that lets everybody in, with or without CHAP."""

    chap: bool
    admitted: int = 0

    def has_target(self, target_name: str) -> bool:
        """Of a LoginPolicy."""
        return target_name == TARGET

    def allows(self, initiator_name: str, host: str) -> bool:
        """Of a LoginPolicy."""
        return initiator_name == INITIATOR

    def authentication(self, initiator_name: str, *, discovery: bool) -> Authentication:
        """Of a LoginPolicy."""
        return Chap(SECRETS, bytes) if self.chap else NO_AUTHENTICATION

    def admit(self, login: LoginMachine) -> int | LoginStatus:
        """Of a LoginPolicy."""
        self.admitted += 1
        return 1


# Login

NAMES: Final = [("InitiatorName", INITIATOR), ("TargetName", TARGET)]
KEY_NAMES: Final = [*KEYS, "X-unknown", "x"]
VALUES: Final = [
    "Yes", "No", "None", "CRC32C", "None,CRC32C", "CHAP", "CHAP,None", "7,5", "5", "0", "1", "512", "262144",
    "16777215", "0x10", "0x", "0bAA==", "Reject", "NotUnderstood", "Irrelevant", "Discovery", "Normal", "All",
    "alice", "", "1~2", "0x" + "00" * 32,
]  # fmt: skip


def _pairs(source: Source) -> list[tuple[str, str]]:
    return [
        (source.pick(KEY_NAMES), source.text().decode("latin-1") if source.flag() else source.pick(VALUES))
        for _ in range(source.byte() % 8)
    ]


def _login_request(source: Source) -> bytes:
    flags = source.byte()
    if source.flag():
        text = source.text()
    else:
        text = encode_text([*(NAMES if source.flag() else []), *_pairs(source)])[:LOGIN_SEGMENT_BYTES]
    header = LOGIN_REQUEST.pack(
        Opcode.LOGIN_REQUEST | 0x40, flags, 0, source.byte() & 1, bytes(6), 0, 1, 1, FIRST_CMD_SN, 0
    )
    return _with_length(header, text)


def fuzz_login(data: bytes) -> None:
    """Bytes of a connection from its first one on: framing and the login machine."""
    source = Source(data)
    policy = Policy(chap=source.flag())
    machine = LoginMachine(policy, COMMAND_WINDOW, "10.0.0.1")
    framing = Framing(ReceiveBuffer(), LOGIN_SEGMENT_BYTES)
    out = Out()
    with contextlib.suppress(RemoteProtocolError):
        while source and machine.stage not in (Stage.FULL_FEATURE, Stage.FAILED):
            framing.receive_data(source.text() if source.byte() & 7 == 0 else _login_request(source))
            while machine.stage not in (Stage.FULL_FEATURE, Stage.FAILED):
                pdu = framing.next_pdu()
                if pdu is None:
                    break
                reply = machine.receive(pdu)
                check(len(reply.data) <= LOGIN_SEGMENT_BYTES, "an answer longer than the segment")
                out.send(*framing.encode(reply.header, (reply.data,), len(reply.data)))
    check(policy.admitted == (machine.stage is Stage.FULL_FEATURE), "admitted without a login")
    out.check_whole(framing)
    if policy.chap and machine.stage is Stage.FULL_FEATURE:
        # `bytes` draws zeros: a proof can be found, but only by who has the secret.
        raise AssertionError("logged in without the secret")


# Full feature phase


@attrs.define
class Host:
    """A target with one name."""

    def send_targets(self, wanted: str, peer: Peer) -> list[tuple[str, str]] | None:
        """Of a SessionHost."""
        return [("TargetName", TARGET)] if wanted else None

    def drop_sessions(self) -> None:
        """Of a SessionHost: there is one, and it is about to end."""


def _with_length(header: bytes, data: bytes, additional: bytes = b"") -> bytes:
    lengths = bytes([len(additional) // 4]) + len(data).to_bytes(3, "big")
    return header[:4] + lengths + header[8:] + additional + data + bytes(-len(data) % 4)


def _scsi_command(source: Source) -> bytes:
    cdb, data = command_of(source)
    expected = source.pick([0, len(data), 512, 4096, 65536, 1 << 20, 0xFFFF_FFFF, source.number(2)])
    header = SCSI_COMMAND.pack(
        Opcode.SCSI_COMMAND | (source.byte() & 0x40), source.byte(), bytes([0, source.byte() & 1]),
        source.byte() & 15, expected, _cmd_sn(source), 0, cdb,
    )  # fmt: skip
    additional = source.take(4 * (source.byte() % 6)) if source.byte() & 7 == 0 else b""
    return _with_length(header, data, additional[: len(additional) & ~3])


def _cmd_sn(source: Source) -> int:
    return serial_add(FIRST_CMD_SN, source.byte() & 63)


def _data_out(source: Source) -> bytes:
    tag = source.pick([NO_TAG, 0, 1, 2, 3])
    offset, data_sn = source.pick([0, 512, 1024, source.number(2)]), source.byte() & 3
    header = DATA_OUT.pack(
        Opcode.DATA_OUT, source.byte() & 0x80, b"", source.byte() & 15, tag, 0, data_sn, offset
    )
    return _with_length(header, source.payload())


def _other_pdu(source: Source) -> bytes:
    opcode = source.pick(PDU_OPCODES) if source.byte() & 7 else source.byte() & OPCODE_MASK
    rest = source.sparse(47)
    header = (bytes([opcode | source.byte() & 0x40]) + rest)[:24] + _cmd_sn(source).to_bytes(4, "big")
    data = (
        encode_text(_pairs(source)) if opcode == Opcode.TEXT_REQUEST and source.flag() else source.payload()
    )
    if source.flag():
        header = header[:20] + NO_TAG.to_bytes(4, "big") + header[24:]
    return _with_length(header + rest[27:], data)


def _bytes(source: Source) -> bytes:
    return source.text()


PDUS: Final[list[Callable[[Source], bytes]]] = [
    *([_scsi_command] * 4), *([_data_out] * 2), *([_other_pdu] * 3), _bytes,
]  # fmt: skip


def fuzz_connection(data: bytes) -> None:
    """A session in full feature phase, over a device that answers at once or late."""
    source = Source(data)
    options = source.byte()
    device = HeldDevice(MemoryDevice(DEVICE_BYTES), EndOfBatch(), holding=bool(options & 1))
    server = DeviceServer({0: LogicalUnit(device, UnitIdentity("id"), 512)})
    nexus = Nexus("iqn.i,i,0x00")
    server.attach(nexus)
    parameters = Parameters(
        initial_r2t=bool(options & 2), immediate_data=bool(options & 4),
        max_burst_length=source.pick([512, 4096, 262144]), max_outstanding_r2t=1 + (options >> 3 & 3),
    )  # fmt: skip
    out = Out()
    framing = Framing(ReceiveBuffer(), SEGMENT_BYTES)
    connection = Connection(out, framing, server, nexus, parameters, 1, FIRST_CMD_SN)
    discovery = bool(options & 32)
    peer = Peer(INITIATOR, "10.0.0.1", "10.0.0.2:3260")
    control = Control(connection, Host(), discovery, TARGET, peer, 1, finished=lambda: None)
    if options & 64:
        server.units[0].attentions.clear()
    broken = False
    try:
        while source:
            if source.byte() & 7 == 0:
                _happen(source, device, control)
            framing.receive_data(source.pick(PDUS)(source))
            connection.receive_all()
            check(len(connection.commands) <= COMMAND_WINDOW + 16, "more commands than the window has")
    except RemoteProtocolError:  # the PDU that it stopped at may hold a place that nobody needs any more
        broken = True
    connection.close()
    device.holding = False
    while device.held:
        device.release()
    out.check_whole(framing)
    _check_books(connection, broken=broken)


def _happen(source: Source, device: HeldDevice, control: Control) -> None:
    """Something that does not come from the initiator."""
    match source.byte() & 3:
        case 0:
            device.release(source.byte() & 3)
        case 1:
            device.holding = not device.holding
        case 2:
            control.ping()
        case 3:
            control.announce(source.pick(list(AsyncEvent)))


def _check_books(connection: Connection, *, broken: bool) -> None:
    """Everything that was taken for a command has been given back."""
    check(not connection.commands, "a command is left")
    check(connection._reading_bytes == 0, "budget for read data is left")
    check(connection.writes.solicited_bytes == 0, "budget for write data is left")
    check(not connection.server.units[0].tasks, "a task is left")
    if broken:
        return
    check(connection._immediate_count == 0, "an immediate command is left")
    window = (connection.max_cmd_sn - connection.exp_cmd_sn + 1) & 0xFFFF_FFFF
    check(window == COMMAND_WINDOW, "a place in the window is lost")


# The device server


def fuzz_device_server(data: bytes) -> None:
    """Commands with any CDB and data from two initiators, one after the other or held."""
    source = Source(data)
    device = HeldDevice(MemoryDevice(DEVICE_BYTES), EndOfBatch(), holding=source.flag())
    unit = LogicalUnit(device, IDENTITY, source.pick([512, 4096]), space_source=source.pick([None, ROOM]))
    server = DeviceServer({0: unit})
    nexuses = [Nexus(port) for port in INITIATOR_PORTS]
    for nexus in nexuses:
        server.attach(nexus)
    unit.attentions.clear()
    started: list[Task] = []
    answered: list[Task] = []
    while source:
        cdb, payload = command_of(source)
        expected = max(len(payload), source.pick([0, 512, 65536]))
        nexus, attribute = source.pick(nexuses), source.byte() & 3
        task = Task(cdb, nexus, answered.append, attribute, expected)
        server.enter(task, bytes([0, 0 if source.byte() & 15 else 1]) + bytes(6))
        wanted = min(server.data_out_bytes(task), len(payload))
        check(wanted >= 0, "a negative amount of data")
        task.data_out, task.data_out_bytes = (payload[:wanted],), wanted
        started.append(task)
        server.execute(task)
        if source.flag():
            device.release(source.byte() & 3)
            unit.review_space()
    device.holding = False
    while device.held:
        device.release()
    check(len(answered) == len(started), "a command was not answered once")
    check(set(map(id, answered)) == set(map(id, started)), "a command was answered twice")
    check(not unit.tasks, "a task is left")
    for task in answered:
        _check_answer(task)


def _check_answer(task: Task) -> None:
    check(task.status in KNOWN_STATUSES, f"status {task.status:#x}")
    check(sum(len(piece) for piece in task.data_in) == task.data_in_bytes, "data and its length differ")
    if task.status == Status.CHECK_CONDITION:
        check(task.sense and task.sense[0] & 0x7F in (0x70, 0x72), "CHECK CONDITION without sense data")
        check(len(task.sense) <= 252, "sense data too long")
    else:
        check(not task.sense, "sense data without CHECK CONDITION")


# Values


def fuzz_values(data: bytes) -> None:
    """Text segments, numbers, binary values, files of secrets, rules for initiators."""
    with contextlib.suppress(RemoteProtocolError):
        for key, value in decode_text(data):
            check(0 < len(key) <= 63, "a key of a wrong length")
            number, binary = parse_number(value), parse_binary(value)
            check(number is None or 0 <= number < 1 << 64, "a number out of range")
            check(binary is None or 0 < len(binary) <= BINARY_BYTES_MAX, "a binary value out of range")
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ConfigError):
        check(all(len(secret) >= 12 for secret in parse_secrets(text, "file").values()), "a short secret")
    with contextlib.suppress(ConfigError):
        InitiatorRules.parse(text.split("\n")).allow(text[:40], "10.0.0.1")


# Backups


def fuzz_backup(data: bytes) -> None:
    """Objects of a store of backups, each from its first byte on, and behind an envelope that is right."""
    source = Source(data)
    kind = source.pick(list(Kind))
    rest = source.take(len(data))
    with contextlib.suppress(DamagedError):
        content = unwrap(kind, "k", rest, None, OBJECT_BYTES_MAX)
        check(len(content) <= OBJECT_BYTES_MAX, "more than was allowed")
    wrapped = wrap(kind, "k", rest, None, b"")
    check(unwrap(kind, "k", wrapped, None, len(rest)) == rest, "not what was wrapped")
    with contextlib.suppress(DamagedError):
        table = ChunkTable.decode(rest, "k")
        check(table.encode() == rest, "another table than was read")
        check(sum(1 for _ in table) == table.chunks, "not as many chunks as it says")
        check(all(hole.end_bytes <= table.size_bytes for hole in table.holes()), "a hole beyond the end")
    with contextlib.suppress(DamagedError):
        check(Checkpoint.decode(rest, "k").encode() == rest, "another checkpoint than was read")
    with contextlib.suppress(DamagedError):
        manifest = Manifest.decode(rest, "k")
        check(Manifest.decode(manifest.encode(), "k") == manifest, "another manifest than was read")
    with contextlib.suppress(DamagedError):
        lock = Lock.decode(rest, "k")
        check(Lock.decode(lock.encode(), "k") == lock, "another lock than was read")
    with contextlib.suppress(DamagedError, ConfigError):
        configuration = Configuration.decode(rest)
        check(Configuration.decode(configuration.encode()) == configuration, "another configuration")


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "login": fuzz_login,
    "connection": fuzz_connection,
    "device-server": fuzz_device_server,
    "values": fuzz_values,
    "backup": fuzz_backup,
}
