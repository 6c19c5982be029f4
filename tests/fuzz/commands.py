"""SCSI commands that a fuzzer's bytes choose: mostly ones that the device server takes, with lists that its
parsers read.

Most CDBs are of a command in the table, with bits that it looks at; lists are good ones with some bytes
changed.  Else nearly every input would end at the first check.
"""

import struct
from collections.abc import Sequence
from typing import Final

from pyjiva.scsi import OperationCode, UnitIdentity
from pyjiva.scsi.command_table import COMMANDS, Command
from tests.fuzz.source import Source

__all__ = ["IDENTITY", "INITIATOR_PORTS", "command_of"]

IDENTITY: Final = UnitIdentity("id")
INITIATOR_PORTS: Final = ("iqn.a,i,0x000000000000", "iqn.b,i,0x000000000000")
KEYS: Final = (0, 1, 1, 2)
OPCODES: Final = [int(opcode) for opcode in OperationCode]

_CONTROL: Final = bytes([0x0A, 10, 4, 0x10]) + bytes(8)
_RECOVERY: Final = bytes([0x01, 10, 0, 0, 0, 0, 0, 0x80]) + bytes(4)
_PROVISIONING: Final = struct.pack(">BBH12xBB2xI", 0x5C, 2, 20, 0x80, 1, 0)
_PAGES: Final = (b"", _CONTROL, _RECOVERY, _PROVISIONING, _CONTROL + _RECOVERY + _PROVISIONING)
_UNMAP: Final = struct.pack(">HH4xQI4xQI4x", 38, 32, 0, 1, 8, 16)
_OVERWRITE: Final = (struct.pack(">BxH4s", 1, 4, b"ABCD"), struct.pack(">BxH", 0x82, 512) + bytes(512))


def _transport_id(port: str) -> bytes:
    name = port.encode() + b"\0"
    name += bytes(-len(name) % 4)
    return struct.pack(">BxH", 0x45, len(name)) + name


def _copy_list() -> bytes:
    name = IDENTITY.network_address_authority
    target = struct.pack(">BBHBBBB20sI", 0xE4, 0, 0, 1, 3, 0, len(name), name, 512)
    segment = struct.pack(">BBHHH2xHQQ", 2, 0, 24, 0, 0, 4, 0, 8)
    return struct.pack(">BBH4xII", 1, 0, len(target), len(segment), 0) + target + segment


def _register(source: Source) -> bytes:
    data = struct.pack(">QQ4xB3x", source.pick(KEYS), source.pick(KEYS), source.pick([0, 1, 4, 8, 9]))
    if data[20] & 8:
        ids = _transport_id(source.pick(INITIATOR_PORTS))
        data += struct.pack(">I", len(ids)) + ids
    return data


def _move(source: Source) -> bytes:
    transport_id = _transport_id(source.pick(INITIATOR_PORTS))
    keys = source.pick(KEYS), source.pick(KEYS)
    return struct.pack(">QQxBHI", *keys, source.byte() & 3, 1, len(transport_id)) + transport_id


def _good_list(source: Source, command: Command) -> bytes:
    match command.operation_code:
        case OperationCode.UNMAP:
            return _UNMAP
        case OperationCode.MODE_SELECT_6:
            return bytes(4) + source.pick(_PAGES)
        case OperationCode.MODE_SELECT_10:
            return bytes(8) + source.pick(_PAGES)
        case OperationCode.EXTENDED_COPY:
            return _copy_list()
        case OperationCode.SANITIZE:
            return source.pick(_OVERWRITE)
        case OperationCode.PERSISTENT_RESERVE_OUT:
            return _move(source) if command.service_action == 7 else _register(source)
        case _:
            return source.payload()


#: Operation code → where its CDB has the length of the list.
_LENGTH_FIELDS: Final[dict[int, tuple[int, int]]] = {
    OperationCode.UNMAP: (7, 2),
    OperationCode.MODE_SELECT_6: (4, 1),
    OperationCode.MODE_SELECT_10: (7, 2),
    OperationCode.EXTENDED_COPY: (10, 4),
    OperationCode.SANITIZE: (7, 2),
    OperationCode.PERSISTENT_RESERVE_OUT: (5, 4),
}


#: Operation code → bytes of its CDB that must have one of few values to lead anywhere.
_NARROW_FIELDS: Final[dict[int, dict[int, Sequence[int]]]] = {
    OperationCode.INQUIRY: {1: (0, 1, 1), 2: (0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2)},
    OperationCode.LOG_SENSE: {2: (0x00, 0x0C), 3: (0x00, 0x00, 0xFF)},
    OperationCode.MODE_SENSE_6: {2: (0x3F, 0x01, 0x1C, 0xC1, 0x7F), 3: (0, 2, 0xFF)},
    OperationCode.MODE_SENSE_10: {2: (0x3F, 0x01, 0x1C, 0xC1, 0x7F), 3: (0, 2, 0xFF)},
    OperationCode.PERSISTENT_RESERVE_OUT: {2: range(9)},
}


def command_of(source: Source) -> tuple[bytes, bytes]:
    """A CDB, and the data that goes with it."""
    how = source.byte()
    if how & 15 == 0:
        first = source.pick(OPCODES) if source.flag() else source.byte()
        return bytes([first]) + source.take(15).ljust(15, b"\0"), source.payload()
    command = source.pick(COMMANDS)
    cdb = bytearray(source.sparse(len(command.usage)))
    if how & 0x10:  # else bits that must be zero may be set
        cdb = bytearray(bits & usage for bits, usage in zip(cdb, command.usage, strict=True))
    cdb[0] = command.operation_code
    if command.service_action is not None:
        cdb[1] = cdb[1] & 0xE0 | command.service_action
    if how & 0x20:
        for at, values in _NARROW_FIELDS.get(command.operation_code, {}).items():
            cdb[at] = source.pick(values)
    if command.data_out_bytes is None:
        if how & 0x20:
            _make_room(cdb, command.usage)
        return bytes(cdb).ljust(16, b"\0"), source.payload() if how & 0x40 else b""
    data = bytearray(_good_list(source, command))
    if how & 0x40:
        _spoil(source, data)
    at, size = _LENGTH_FIELDS.get(command.operation_code, (0, 0))
    if size and how & 0x80 == 0:
        cdb[at : at + size] = min(len(data), (1 << 8 * size) - 1).to_bytes(size, "big")
    if command.operation_code in (OperationCode.MODE_SELECT_6, OperationCode.MODE_SELECT_10) and how & 0x20:
        cdb[1] |= 0x10  # PF
    return bytes(cdb).ljust(16, b"\0"), bytes(data)


def _make_room(cdb: bytearray, usage: Sequence[int]) -> None:
    """Ask for all there is: set what may be an allocation length, just before the control byte."""
    for at in (len(cdb) - 2, len(cdb) - 3):
        if usage[at] == 0xFF:
            cdb[at] = 0xFF


def _spoil(source: Source, data: bytearray) -> None:
    for _ in range(1 + source.byte() % 4):
        at, value = source.number(2), source.byte()
        if data:
            data[at % len(data)] = value
    if source.flag():
        del data[source.number(2) % (len(data) + 1) :]
