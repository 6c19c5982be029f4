"""iSCSI PDUs: operation codes, field layouts, reasons, limits (RFC 7143 clause 11).  Pure.

Every basic header segment (BHS) is 48 bytes; each `Struct` below unpacks a whole one, skipping what a
target does not look at.  `pyjiva.testing.bhs_format` describes the same in full, for people and as the
tests' oracle.
"""  # hot

import enum
import struct
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.buffers import Buffer, word_at
from pyjiva.compiled import native

__all__ = [
    "ASYNC_MESSAGE",
    "BHS_BYTES",
    "DATA_IN",
    "DATA_OUT",
    "FINAL",
    "IMMEDIATE",
    "LOGIN_REQUEST",
    "LOGIN_RESPONSE",
    "LOGOUT_REQUEST",
    "LOGOUT_RESPONSE",
    "NOP_IN",
    "NOP_OUT",
    "NO_TAG",
    "OPCODE_MASK",
    "READY_TO_TRANSFER",
    "REJECT",
    "SCSI_COMMAND",
    "SCSI_RESPONSE",
    "SERIAL_MASK",
    "TASK_MANAGEMENT_REQUEST",
    "TASK_MANAGEMENT_RESPONSE",
    "TEXT_REQUEST",
    "TEXT_RESPONSE",
    "AsyncEvent",
    "LoginStatus",
    "LogoutReason",
    "LogoutResult",
    "Opcode",
    "Pdu",
    "RejectReason",
    "TaskFunction",
    "TaskResult",
    "command_fields",
    "header_of_words",
    "padding",
    "serial_add",
    "serial_less",
]

BHS_BYTES: Final = 48
NO_TAG: Final = 0xFFFF_FFFF
IMMEDIATE: Final = 0x40
OPCODE_MASK: Final = 0x3F
FINAL: Final = 0x80
SERIAL_MASK: Final = 0xFFFF_FFFF


class Opcode(enum.IntEnum):
    """RFC 7143 §11.2.1.2."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    READY_TO_TRANSFER = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


class RejectReason(enum.IntEnum):
    """RFC 7143 §11.17.1."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    IMMEDIATE_COMMAND_REJECT = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    LONG_OPERATION_REJECT = 0x0A
    WAITING_FOR_LOGOUT = 0x0C


class LoginStatus(enum.IntEnum):
    """Status class and detail of a Login Response (RFC 7143 §11.13.5)."""

    SUCCESS = 0x0000
    TARGET_MOVED_TEMPORARILY = 0x0101
    TARGET_MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_NOT_SUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_DURING_LOGIN = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class TaskFunction(enum.IntEnum):
    """RFC 7143 §11.5.1."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class TaskResult(enum.IntEnum):
    """RFC 7143 §11.6.1."""

    COMPLETE = 0
    TASK_DOES_NOT_EXIST = 1
    LUN_DOES_NOT_EXIST = 2
    TASK_STILL_ALLEGIANT = 3
    REASSIGNMENT_NOT_SUPPORTED = 4
    NOT_SUPPORTED = 5
    AUTHORIZATION_FAILED = 6
    REJECTED = 255


class LogoutReason(enum.IntEnum):
    """RFC 7143 §11.14.1."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    REMOVE_FOR_RECOVERY = 2


class LogoutResult(enum.IntEnum):
    """RFC 7143 §11.15.1."""

    CLOSED = 0
    CONNECTION_NOT_FOUND = 1
    RECOVERY_NOT_SUPPORTED = 2
    CLEANUP_FAILED = 3


class AsyncEvent(enum.IntEnum):
    """RFC 7143 §11.9.1."""

    SCSI_EVENT = 0
    LOGOUT_REQUESTED = 1
    CONNECTION_WILL_DROP = 2
    SESSION_WILL_DROP = 3
    NEGOTIATION_REQUESTED = 4
    ALL_TASKS_ABORTED = 5


# What the initiator sends; "s" fields are LUNs, CDBs and ISIDs
SCSI_COMMAND: Final = struct.Struct(">BB6x8sIIII16s")  # opcode flags LUN ITT EDTL CmdSN ExpStatSN CDB
DATA_OUT: Final = struct.Struct(">BB6x8sII4xI4xII4x")  # opcode flags LUN ITT TTT ExpStatSN DataSN offset
NOP_OUT: Final = struct.Struct(">BB6x8sIIII16x")  # opcode flags LUN ITT TTT CmdSN ExpStatSN
TASK_MANAGEMENT_REQUEST: Final = struct.Struct(
    ">BB6x8sIIIIII8x"
)  # opcode function LUN ITT referenced-tag CmdSN ExpStatSN RefCmdSN ExpDataSN
LOGIN_REQUEST: Final = struct.Struct(
    ">BBBB4x6sHIH2xII16x"
)  # opcode flags version-max version-min ISID TSIH ITT CID CmdSN ExpStatSN
TEXT_REQUEST: Final = struct.Struct(">BB6x8sIIII16x")  # opcode flags LUN ITT TTT CmdSN ExpStatSN
LOGOUT_REQUEST: Final = struct.Struct(">BB14xIH2xII16x")  # opcode reason ITT CID CmdSN ExpStatSN

# What the target sends; the I after the first four bytes is TotalAHSLength and DataSegmentLength
DATA_IN: Final = struct.Struct(
    ">BBBBI8sIIIIIIII"
)  # opcode flags 0 status length LUN ITT TTT StatSN ExpCmdSN MaxCmdSN DataSN offset residual
SCSI_RESPONSE: Final = struct.Struct(
    ">BBBBI8xI4xIIII4xI"
)  # opcode flags response status length ITT StatSN ExpCmdSN MaxCmdSN ExpDataSN residual
READY_TO_TRANSFER: Final = struct.Struct(
    ">BB6x8sIIIIIIII"
)  # opcode flags LUN ITT TTT StatSN ExpCmdSN MaxCmdSN R2TSN offset length
NOP_IN: Final = struct.Struct(">BB2xI8sIIIII12x")  # opcode flags length LUN ITT TTT StatSN ExpCmdSN MaxCmdSN
TASK_MANAGEMENT_RESPONSE: Final = struct.Struct(
    ">BBB13xI4xIII12x"
)  # opcode flags response ITT StatSN ExpCmdSN MaxCmdSN
LOGIN_RESPONSE: Final = struct.Struct(
    ">BBBBI6sHI4xIIIH10x"
)  # opcode flags version-max version-active length ISID TSIH ITT StatSN ExpCmdSN MaxCmdSN status
TEXT_RESPONSE: Final = struct.Struct(
    ">BB2xI8sIIIII12x"
)  # opcode flags length LUN ITT TTT StatSN ExpCmdSN MaxCmdSN
LOGOUT_RESPONSE: Final = struct.Struct(
    ">BBB13xI4xIII4xHH4x"
)  # opcode flags response ITT StatSN ExpCmdSN MaxCmdSN Time2Wait Time2Retain
ASYNC_MESSAGE: Final = struct.Struct(
    ">BB2xI8sI4xIIIBBHHH4x"
)  # opcode flags length LUN FFFFFFFF StatSN ExpCmdSN MaxCmdSN event vendor parameters 1 2 3
REJECT: Final = struct.Struct(
    ">BBB1xI8xI4xIII12x"
)  # opcode flags reason length FFFFFFFF StatSN ExpCmdSN MaxCmdSN

for _layout in (
    SCSI_COMMAND, DATA_OUT, NOP_OUT, TASK_MANAGEMENT_REQUEST, LOGIN_REQUEST, TEXT_REQUEST, LOGOUT_REQUEST,
    DATA_IN, SCSI_RESPONSE, READY_TO_TRANSFER, NOP_IN,
    TASK_MANAGEMENT_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, LOGOUT_RESPONSE, ASYNC_MESSAGE, REJECT,
):  # fmt: skip
    assert _layout.size == BHS_BYTES


@attrs.define(eq=False)
class Pdu:
    """One received PDU."""

    header: bytes
    """The basic header segment."""
    data: Buffer = b""
    """The data segment without its padding, valid for as long as it is held."""
    additional: bytes = b""
    """Additional header segments."""
    data_intact: bool = True
    """False: the data digest was wrong."""


_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")


_FIRST_WORDS: Final = struct.Struct(">9I12x")
header_of_words: Final[Callable[[int, int, int, int, int, int, int, int, int], bytes]] = (
    native("header_of_words") or _FIRST_WORDS.pack
)
"""A header of which only the first nine words of 32 bits are not 0: those of most answers, at little cost."""


def command_fields(header: bytes) -> tuple[int, bytes, int, int, int, bytes]:
    """Of a SCSI Command: flags, LUN, ITT, EDTL, CmdSN, CDB.  As SCSI_COMMAND, and faster when compiled."""
    return (
        header[1],
        header[8:16],
        word_at(header, 16),
        word_at(header, 20),
        word_at(header, 24),
        header[32:48],
    )


def padding(length_bytes: int) -> bytes:
    """What brings a data segment to a multiple of four bytes."""
    return _PADDING[length_bytes & 3]


def serial_add(number: int, count: int) -> int:
    """`number` + `count` in serial number arithmetic (RFC 1982, 32 bits)."""
    return (number + count) & SERIAL_MASK


def serial_less(a: int, b: int) -> bool:
    """Whether serial number `a` comes before `b`."""
    return a != b and (b - a) & SERIAL_MASK < 1 << 31
