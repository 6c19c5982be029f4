"""The `Struct` layouts of `iscsi.pdu` against the full description of `testing.bhs_format`."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.iscsi import pdu
from pyjiva.iscsi.pdu import Opcode
from pyjiva.testing.bhs_format import HEADERS

U8, U16, U32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)

# Layout, opcode, and the names of what `unpack` gives ("flags" and "first" are whole bytes)
REQUESTS: list[tuple[struct.Struct, Opcode, list[str]]] = [
    (pdu.SCSI_COMMAND, Opcode.SCSI_COMMAND,
     ["lun", "initiator_task_tag", "expected_data_transfer_length", "cmd_sn", "exp_stat_sn", "cdb"]),
    (pdu.DATA_OUT, Opcode.DATA_OUT,
     ["lun", "initiator_task_tag", "target_transfer_tag", "exp_stat_sn", "data_sn", "buffer_offset"]),
    (pdu.NOP_OUT, Opcode.NOP_OUT,
     ["lun", "initiator_task_tag", "target_transfer_tag", "cmd_sn", "exp_stat_sn"]),
    (pdu.TASK_MANAGEMENT_REQUEST, Opcode.TASK_MANAGEMENT_REQUEST,
     ["lun", "initiator_task_tag", "referenced_task_tag", "cmd_sn", "exp_stat_sn", "ref_cmd_sn",
      "exp_data_sn"]),
    (pdu.LOGIN_REQUEST, Opcode.LOGIN_REQUEST,
     ["version_max", "version_min", "isid", "tsih", "initiator_task_tag", "cid", "cmd_sn", "exp_stat_sn"]),
    (pdu.TEXT_REQUEST, Opcode.TEXT_REQUEST,
     ["lun", "initiator_task_tag", "target_transfer_tag", "cmd_sn", "exp_stat_sn"]),
    (pdu.LOGOUT_REQUEST, Opcode.LOGOUT_REQUEST, ["initiator_task_tag", "cid", "cmd_sn", "exp_stat_sn"]),
]  # fmt: skip

# Layout, opcode, the values to pack after opcode and flags, and where they must be found
RESPONSES: list[tuple[struct.Struct, Opcode, list[str | int]]] = [
    (pdu.DATA_IN, Opcode.DATA_IN,
     [0, "status", "data_segment_length", "lun", "initiator_task_tag", "target_transfer_tag", "stat_sn",
      "exp_cmd_sn", "max_cmd_sn", "data_sn", "buffer_offset", "residual_count"]),
    (pdu.SCSI_RESPONSE, Opcode.SCSI_RESPONSE,
     ["response", "status", "data_segment_length", "initiator_task_tag", "stat_sn", "exp_cmd_sn",
      "max_cmd_sn", "exp_data_sn", "residual_count"]),
    (pdu.READY_TO_TRANSFER, Opcode.READY_TO_TRANSFER,
     ["lun", "initiator_task_tag", "target_transfer_tag", "stat_sn", "exp_cmd_sn", "max_cmd_sn", "r2t_sn",
      "buffer_offset", "desired_data_transfer_length"]),
    (pdu.NOP_IN, Opcode.NOP_IN,
     ["data_segment_length", "lun", "initiator_task_tag", "target_transfer_tag", "stat_sn", "exp_cmd_sn",
      "max_cmd_sn"]),
    (pdu.TASK_MANAGEMENT_RESPONSE, Opcode.TASK_MANAGEMENT_RESPONSE,
     ["response", "initiator_task_tag", "stat_sn", "exp_cmd_sn", "max_cmd_sn"]),
    (pdu.TEXT_RESPONSE, Opcode.TEXT_RESPONSE,
     ["data_segment_length", "lun", "initiator_task_tag", "target_transfer_tag", "stat_sn", "exp_cmd_sn",
      "max_cmd_sn"]),
    (pdu.LOGOUT_RESPONSE, Opcode.LOGOUT_RESPONSE,
     ["response", "initiator_task_tag", "stat_sn", "exp_cmd_sn", "max_cmd_sn", "time2wait", "time2retain"]),
    (pdu.ASYNC_MESSAGE, Opcode.ASYNC_MESSAGE,
     ["data_segment_length", "lun", 0xFFFFFFFF, "stat_sn", "exp_cmd_sn", "max_cmd_sn", "async_event",
      "async_vcode", "parameter_1", "parameter_2", "parameter_3"]),
    (pdu.REJECT, Opcode.REJECT,
     ["reason", "data_segment_length", 0xFFFFFFFF, "stat_sn", "exp_cmd_sn", "max_cmd_sn"]),
]  # fmt: skip

BYTE_FIELDS = {"lun": 8, "isid": 6, "cdb": 16}
SMALL_FIELDS = {
    "status", "response", "reason", "async_event", "async_vcode", "parameter_1", "parameter_2", "parameter_3",
    "time2wait", "time2retain", "data_segment_length", "version_max", "version_min",
}  # fmt: skip


def value_of(name: str, data: st.DataObject) -> Any:
    if name in BYTE_FIELDS:
        return data.draw(st.binary(min_size=BYTE_FIELDS[name], max_size=BYTE_FIELDS[name]))
    return data.draw(U8 if name in SMALL_FIELDS else U16 if name in ("tsih", "cid") else U32)


@pytest.mark.parametrize(
    ("layout", "opcode", "names"), REQUESTS, ids=lambda value: getattr(value, "name", "")
)
@settings(max_examples=25)
@given(data=st.data())
def test_requests_are_read_as_the_standard_draws_them(
    layout: struct.Struct, opcode: Opcode, names: list[str], data: st.DataObject
) -> None:
    header = bytes([opcode]) + data.draw(st.binary(min_size=47, max_size=47))
    if opcode in (Opcode.TASK_MANAGEMENT_REQUEST, Opcode.NOP_OUT, Opcode.LOGOUT_REQUEST):
        header = header[:1] + bytes([header[1] | 0x80]) + header[2:]
    described = HEADERS[opcode].parse(header)
    values = layout.unpack(header)
    assert values[0] == header[0]
    assert values[1] == header[1]
    assert list(values[2:]) == [described[name] for name in names]


@given(st.binary(min_size=48, max_size=48))
def test_the_fields_of_a_command_are_those_of_its_layout(header: bytes) -> None:
    _, flags, lun, tag, length, cmd_sn, _, cdb = pdu.SCSI_COMMAND.unpack(header)
    assert pdu.command_fields(header) == (flags, lun, tag, length, cmd_sn, cdb)


@given(U8, U8, *[U32] * 5)
def test_headers_of_words_are_those_that_the_layouts_make(
    flags: int, status: int, length: int, tag: int, stat_sn: int, exp_cmd_sn: int, max_cmd_sn: int
) -> None:
    first, numbers = Opcode.DATA_IN << 24 | flags << 16 | status, (stat_sn, exp_cmd_sn, max_cmd_sn)
    made = pdu.header_of_words(first, length, 0, 0, tag, pdu.NO_TAG, *numbers)
    assert made == pdu.DATA_IN.pack(
        Opcode.DATA_IN, flags, 0, status, length, bytes(8), tag, pdu.NO_TAG, *numbers, 0, 0, 0
    )
    first = Opcode.SCSI_RESPONSE << 24 | flags << 16
    made = pdu.header_of_words(first, 0, 0, 0, tag, 0, *numbers)
    assert made == pdu.SCSI_RESPONSE.pack(Opcode.SCSI_RESPONSE, flags, 0, 0, 0, tag, *numbers, 0, 0)


@pytest.mark.parametrize(
    ("layout", "opcode", "names"), RESPONSES, ids=lambda value: getattr(value, "name", "")
)
@settings(max_examples=25)
@given(data=st.data())
def test_responses_are_written_as_the_standard_draws_them(
    layout: struct.Struct, opcode: Opcode, names: list[str | int], data: st.DataObject
) -> None:
    values = [name if isinstance(name, int) else value_of(name, data) for name in names]
    described = HEADERS[opcode].parse(layout.pack(opcode, 0x80, *values))
    for name, value in zip(names, values, strict=True):
        if isinstance(name, str):
            assert described[name] == value, name


def test_login_status_is_class_and_detail() -> None:
    header = pdu.LOGIN_RESPONSE.pack(0x23, 0x87, 0, 0, 5, b"isid12", 7, 8, 9, 10, 11, 0x0203)
    described = HEADERS[Opcode.LOGIN_RESPONSE].parse(header)
    assert (described.status_class, described.status_detail) == (2, 3)
    assert (described.flags.transit, described.flags.current_stage, described.flags.next_stage) == (
        True,
        1,
        3,
    )
    assert (described.isid, described.tsih, described.stat_sn, described.max_cmd_sn) == (b"isid12", 7, 9, 11)


@given(a=U32, distance=st.integers(1, (1 << 31) - 1))
def test_serial_numbers_wrap(a: int, distance: int) -> None:
    b = pdu.serial_add(a, distance)
    assert pdu.serial_less(a, b)
    assert not pdu.serial_less(b, a)
    assert not pdu.serial_less(a, a)


@pytest.mark.parametrize(("length", "expected"), [(0, 0), (1, 3), (2, 2), (3, 1), (4, 0), (4097, 3)])
def test_padding_fills_four_bytes(length: int, expected: int) -> None:
    assert len(pdu.padding(length)) == expected
