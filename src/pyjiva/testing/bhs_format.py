"""Every iSCSI basic header segment as RFC 7143 clause 11 draws it: for people, and the oracle of `iscsi.pdu`.

`HEADERS[opcode]` parses and builds the 48 bytes of one PDU type.  Fields have the RFC's names in snake case;
reserved bytes are required to be zero when a header is built and are not looked at when it is parsed.
"""

from typing import Any, Final

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    Const,
    Construct,
    Flag,
    Int8ub,
    Int16ub,
    Int24ub,
    Int32ub,
    Padding,
    Struct,
)

from pyjiva.iscsi.pdu import Opcode

__all__ = ["HEADERS"]


def _first_byte(opcode: Opcode) -> Construct:
    return BitStruct(Padding(1), "immediate" / Flag, "opcode" / Const(int(opcode), BitsInteger(6)))


_ONE: Final = Const(1, BitsInteger(1))
_LENGTHS: Final = ("total_ahs_length" / Int8ub, "data_segment_length" / Int24ub)
_REQUEST_NUMBERS: Final = ("cmd_sn" / Int32ub, "exp_stat_sn" / Int32ub)
_RESPONSE_NUMBERS: Final = ("stat_sn" / Int32ub, "exp_cmd_sn" / Int32ub, "max_cmd_sn" / Int32ub)
_FINAL: Final = BitStruct("final" / Flag, Padding(7))
_FINAL_CONTINUE: Final = BitStruct("final" / Flag, "continue_" / Flag, Padding(6))
_STAGES: Final = BitStruct(
    "transit" / Flag,
    "continue_" / Flag,
    Padding(2),
    "current_stage" / BitsInteger(2),
    "next_stage" / BitsInteger(2),
)
_RESIDUAL_BITS: Final = ("overflow" / Flag, "underflow" / Flag)

_LAYOUTS: Final[dict[Opcode, tuple[Any, ...]]] = {
    Opcode.SCSI_COMMAND: (
        "flags"
        / BitStruct("final" / Flag, "read" / Flag, "write" / Flag, Padding(2), "attribute" / BitsInteger(3)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "expected_data_transfer_length" / Int32ub,
        *_REQUEST_NUMBERS,
        "cdb" / Bytes(16),
    ),
    Opcode.SCSI_RESPONSE: (
        "flags"
        / BitStruct(
            _ONE,
            Padding(2),
            "bidirectional_overflow" / Flag,
            "bidirectional_underflow" / Flag,
            *_RESIDUAL_BITS,
            Padding(1),
        ),
        "response" / Int8ub,
        "status" / Int8ub,
        *_LENGTHS,
        Padding(8),
        "initiator_task_tag" / Int32ub,
        "snack_tag" / Int32ub,
        *_RESPONSE_NUMBERS,
        "exp_data_sn" / Int32ub,
        "bidirectional_residual_count" / Int32ub,
        "residual_count" / Int32ub,
    ),
    Opcode.TASK_MANAGEMENT_REQUEST: (
        "flags" / BitStruct(_ONE, "function" / BitsInteger(7)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "referenced_task_tag" / Int32ub,
        *_REQUEST_NUMBERS,
        "ref_cmd_sn" / Int32ub,
        "exp_data_sn" / Int32ub,
        Padding(8),
    ),
    Opcode.TASK_MANAGEMENT_RESPONSE: (
        "flags" / BitStruct(_ONE, Padding(7)),
        "response" / Int8ub,
        Padding(1),
        *_LENGTHS,
        Padding(8),
        "initiator_task_tag" / Int32ub,
        Padding(4),
        *_RESPONSE_NUMBERS,
        Padding(12),
    ),
    Opcode.DATA_OUT: (
        "flags" / _FINAL,
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        Padding(4),
        "exp_stat_sn" / Int32ub,
        Padding(4),
        "data_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        Padding(4),
    ),
    Opcode.DATA_IN: (
        "flags"
        / BitStruct("final" / Flag, "acknowledge" / Flag, Padding(3), *_RESIDUAL_BITS, "has_status" / Flag),
        Padding(1),
        "status" / Int8ub,
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_RESPONSE_NUMBERS,
        "data_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        "residual_count" / Int32ub,
    ),
    Opcode.READY_TO_TRANSFER: (
        "flags" / BitStruct(_ONE, Padding(7)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_RESPONSE_NUMBERS,
        "r2t_sn" / Int32ub,
        "buffer_offset" / Int32ub,
        "desired_data_transfer_length" / Int32ub,
    ),
    Opcode.ASYNC_MESSAGE: (
        "flags" / BitStruct(_ONE, Padding(7)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        Const(0xFFFFFFFF, Int32ub),
        Padding(4),
        *_RESPONSE_NUMBERS,
        "async_event" / Int8ub,
        "async_vcode" / Int8ub,
        "parameter_1" / Int16ub,
        "parameter_2" / Int16ub,
        "parameter_3" / Int16ub,
        Padding(4),
    ),
    Opcode.TEXT_REQUEST: (
        "flags" / _FINAL_CONTINUE,
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_REQUEST_NUMBERS,
        Padding(16),
    ),
    Opcode.TEXT_RESPONSE: (
        "flags" / _FINAL_CONTINUE,
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_RESPONSE_NUMBERS,
        Padding(12),
    ),
    Opcode.LOGIN_REQUEST: (
        "flags" / _STAGES,
        "version_max" / Int8ub,
        "version_min" / Int8ub,
        *_LENGTHS,
        "isid" / Bytes(6),
        "tsih" / Int16ub,
        "initiator_task_tag" / Int32ub,
        "cid" / Int16ub,
        Padding(2),
        *_REQUEST_NUMBERS,
        Padding(16),
    ),
    Opcode.LOGIN_RESPONSE: (
        "flags" / _STAGES,
        "version_max" / Int8ub,
        "version_active" / Int8ub,
        *_LENGTHS,
        "isid" / Bytes(6),
        "tsih" / Int16ub,
        "initiator_task_tag" / Int32ub,
        Padding(4),
        *_RESPONSE_NUMBERS,
        "status_class" / Int8ub,
        "status_detail" / Int8ub,
        Padding(10),
    ),
    Opcode.LOGOUT_REQUEST: (
        "flags" / BitStruct(_ONE, "reason_code" / BitsInteger(7)),
        Padding(2),
        *_LENGTHS,
        Padding(8),
        "initiator_task_tag" / Int32ub,
        "cid" / Int16ub,
        Padding(2),
        *_REQUEST_NUMBERS,
        Padding(16),
    ),
    Opcode.LOGOUT_RESPONSE: (
        "flags" / BitStruct(_ONE, Padding(7)),
        "response" / Int8ub,
        Padding(1),
        *_LENGTHS,
        Padding(8),
        "initiator_task_tag" / Int32ub,
        Padding(4),
        *_RESPONSE_NUMBERS,
        Padding(4),
        "time2wait" / Int16ub,
        "time2retain" / Int16ub,
        Padding(4),
    ),
    Opcode.REJECT: (
        "flags" / BitStruct(_ONE, Padding(7)),
        "reason" / Int8ub,
        Padding(1),
        *_LENGTHS,
        Padding(8),
        Const(0xFFFFFFFF, Int32ub),
        Padding(4),
        *_RESPONSE_NUMBERS,
        "data_sn" / Int32ub,
        Padding(8),
    ),
    Opcode.NOP_OUT: (
        "flags" / BitStruct(_ONE, Padding(7)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_REQUEST_NUMBERS,
        Padding(16),
    ),
    Opcode.NOP_IN: (
        "flags" / BitStruct(_ONE, Padding(7)),
        Padding(2),
        *_LENGTHS,
        "lun" / Bytes(8),
        "initiator_task_tag" / Int32ub,
        "target_transfer_tag" / Int32ub,
        *_RESPONSE_NUMBERS,
        Padding(12),
    ),
}

HEADERS: Final[dict[Opcode, Construct]] = {
    opcode: Struct("first" / _first_byte(opcode), *fields) for opcode, fields in _LAYOUTS.items()
}

for _header in HEADERS.values():
    assert _header.sizeof() == 48
