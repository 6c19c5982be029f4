"""EXTENDED COPY (LID1) and RECEIVE COPY RESULTS: the unit copies its own blocks (SPC-4 §5.17, §6.4, §6.20).
Pure.

Supported are what block devices need: identification descriptors (E4h) that name this unit by a designator of
its VPD page 83h, and segments from block device to block device (02h).  All descriptors are checked before
the first block is copied, as far as that can be known; then segment after segment is copied, in pieces.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from pyjiva.block import Read, Write
from pyjiva.scsi.codes import AdditionalSense, SenseKey, Status
from pyjiva.scsi.inquiry import unit_designators
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, invalid_field_in_parameter_list
from pyjiva.scsi.task import Task
from pyjiva.scsi.third_party_copy import (
    BLOCK_TO_BLOCK,
    CSCD_BYTES,
    CSCD_MAX,
    IDENTIFICATION,
    LIST_BYTES_MAX,
    SEGMENT_BYTES,
    SEGMENT_BYTES_MAX,
    SEGMENTS_MAX,
    Result,
)
from pyjiva.scsi.unit import LogicalUnit
from pyjiva.units import MIB

__all__ = ["RECEIVE_COPY_RESULTS", "extended_copy", "parameter_list_bytes"]

PIECE_BYTES: Final = 1 * MIB  # read and written at a time

_HEADER: Final = struct.Struct(">BBH4xII")  # SPC-4 table 113
_SEGMENT: Final = struct.Struct(">BBHHH2xHQQ")  # SPC-4 table 131
_NO_LIST_ID: Final = 0b11
_RESERVED_USAGE: Final = 0b01
_DISK: Final = 0x00

_LENGTH_ERROR: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR)
_TOO_MANY_TARGETS: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.TOO_MANY_TARGET_DESCRIPTORS)
_TOO_MANY_SEGMENTS: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.TOO_MANY_SEGMENT_DESCRIPTORS)
_TARGET_TYPE: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)
_SEGMENT_TYPE: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE
)
_INLINE_DATA: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INLINE_DATA_LENGTH_EXCEEDED)
_UNREACHABLE: Final = Sense(SenseKey.COPY_ABORTED, AdditionalSense.UNREACHABLE_COPY_TARGET)
_NOT_REACHABLE: Final = Sense(SenseKey.COPY_ABORTED, AdditionalSense.COPY_TARGET_DEVICE_NOT_REACHABLE)
_WRONG_TYPE: Final = Sense(SenseKey.COPY_ABORTED, AdditionalSense.INCORRECT_COPY_TARGET_DEVICE_TYPE)
# The copy manager sees this by itself: no device has failed, and SPC-4 has no code for it.
_BEYOND_THE_END: Final = Sense(SenseKey.COPY_ABORTED, AdditionalSense.NO_ADDITIONAL_SENSE_INFORMATION)
_DEVICE_FAILURE: Final = Sense(SenseKey.COPY_ABORTED, AdditionalSense.THIRD_PARTY_DEVICE_FAILURE)


@attrs.frozen
class Segment:
    """Blocks to copy within the unit."""

    source: int
    target: int
    blocks: int


def parameter_list_bytes(_unit: LogicalUnit, cdb: bytes) -> int:
    """The parameter list length, unless it is longer than can be."""
    length = int.from_bytes(cdb[10:14], "big")
    return length if length <= _HEADER.size + LIST_BYTES_MAX else 0


def extended_copy(unit: LogicalUnit, task: Task) -> None:
    """EXTENDED COPY (LID1)."""
    length = int.from_bytes(task.cdb[10:14], "big")
    if not length:
        task.finish()
        return
    data = b"".join(task.data_out)[:length]
    if len(data) < length:
        task.fail(_LENGTH_ERROR)
        return
    parsed = parse_parameter_list(unit, data)
    if isinstance(parsed, Sense):
        task.fail(parsed)
        return
    list_id, segments = parsed
    result = Result() if list_id is None else unit.copies.begin(task.nexus.initiator_port, list_id)
    _CopyRun(unit, task, segments, result).step()


def parse_parameter_list(unit: LogicalUnit, data: bytes) -> tuple[int | None, list[Segment]] | Sense:
    """(list identifier, segments); or why the command fails."""
    if len(data) < _HEADER.size:
        return _LENGTH_ERROR
    list_id, flags, targets_bytes, segments_bytes, inline_bytes = _HEADER.unpack_from(data)
    if targets_bytes + segments_bytes + inline_bytes > min(len(data) - _HEADER.size, LIST_BYTES_MAX):
        return _LENGTH_ERROR
    usage = flags >> 3 & 3
    if usage == _RESERVED_USAGE:
        return invalid_field_in_parameter_list(1, bit=4)
    if usage == _NO_LIST_ID and list_id:
        return invalid_field_in_parameter_list(0)
    if targets_bytes % CSCD_BYTES:
        return invalid_field_in_parameter_list(2)
    if targets_bytes // CSCD_BYTES > CSCD_MAX:
        return _TOO_MANY_TARGETS
    if inline_bytes:
        return _INLINE_DATA
    end_of_targets = _HEADER.size + targets_bytes
    targets = [data[at : at + CSCD_BYTES] for at in range(_HEADER.size, end_of_targets, CSCD_BYTES)]
    for target in targets:
        if target[0] != IDENTIFICATION:
            return _TARGET_TYPE
    listed = data[end_of_targets : end_of_targets + segments_bytes]
    segments = _parse_segments(unit, listed, targets, end_of_targets)
    if isinstance(segments, Sense):
        return segments
    return None if usage == _NO_LIST_ID else list_id, segments


def _parse_segments(
    unit: LogicalUnit, listed: bytes, targets: Sequence[bytes], offset: int
) -> list[Segment] | Sense:
    if len(listed) // SEGMENT_BYTES > SEGMENTS_MAX:
        return _TOO_MANY_SEGMENTS
    found = []
    for at in range(0, len(listed), SEGMENT_BYTES):
        if listed[at] != BLOCK_TO_BLOCK:
            return _SEGMENT_TYPE
        if len(listed) - at < SEGMENT_BYTES:
            return _LENGTH_ERROR
        _, _, length, source, target, blocks, source_lba, target_lba = _SEGMENT.unpack_from(listed, at)
        if length != SEGMENT_BYTES - 4:
            return invalid_field_in_parameter_list(offset + at + 2)
        if blocks << unit.block_shift > SEGMENT_BYTES_MAX:
            return invalid_field_in_parameter_list(offset + at + 10)
        for index in (source, target):
            problem = _UNREACHABLE if index >= len(targets) else _problem(unit, targets[index])
            if problem is not None:
                return problem
        if max(source_lba, target_lba) + blocks > unit.blocks:
            return _BEYOND_THE_END
        found.append(Segment(source_lba, target_lba, blocks))
    return found


def _problem(unit: LogicalUnit, target: bytes) -> Sense | None:
    """Why a CSCD descriptor that is used does not name this unit (SPC-4 table 122; LU ID TYPE is ignored)."""
    if target[1] & 0x1F != _DISK:
        return _WRONG_TYPE
    designator = target[4] & 0x0F, target[5] & 0x3F, target[8 : 8 + min(target[7], 20)]
    if designator not in unit_designators(unit):
        return _NOT_REACHABLE
    block_bytes = int.from_bytes(target[29:32], "big")
    return None if block_bytes in (0, unit.block_size_bytes) else _WRONG_TYPE


@attrs.define(eq=False)
class _CopyRun:
    """Reads a piece and writes it, until all segments are copied."""

    unit: LogicalUnit
    task: Task
    segments: Sequence[Segment]
    result: Result
    _done_blocks: int = attrs.field(default=0, init=False)
    """Of the segment under way."""
    _copied_bytes: int = attrs.field(default=0, init=False)
    _in_step: bool = attrs.field(default=False, init=False)
    _answered: bool = attrs.field(default=False, init=False)

    def step(self) -> None:
        """Go on; a loop, not a recursion, while the device answers at once."""
        if self._in_step:
            self._answered = True
            return
        self._in_step = True
        while self._start_piece():
            if not self._answered:
                break
        self._in_step = False

    def _start_piece(self) -> bool:
        """Begin the next piece; False: the task is finished."""
        segments, unit = self.segments, self.unit
        while self.result.segments < len(segments):
            if self._done_blocks < segments[self.result.segments].blocks:
                break
            self.result.segments, self._done_blocks = self.result.segments + 1, 0
        else:
            self._end(1)
            return False
        if self.task.aborted:
            self._end(2)
            return False
        segment = segments[self.result.segments]
        blocks = min(segment.blocks - self._done_blocks, PIECE_BYTES >> unit.block_shift)
        offset = segment.source + self._done_blocks << unit.block_shift
        self._answered = False
        unit.device.submit(Read(offset, blocks << unit.block_shift, self._read))
        return True

    def _read(self, request: Read) -> None:
        if request.error is not None or self.task.aborted:
            self._fail(request)
            return
        unit = self.unit
        offset = self.segments[self.result.segments].target + self._done_blocks << unit.block_shift
        unit.device.submit(Write(offset, request.length_bytes, request.data, self._written))

    def _written(self, request: Write) -> None:
        if request.error is not None:
            self._fail(request)
            return
        self._done_blocks += request.length_bytes >> self.unit.block_shift
        self._copied_bytes += request.length_bytes
        self.result.mebibytes = self._copied_bytes // MIB
        self.step()

    def _fail(self, request: Any) -> None:
        if request.error is None:
            self._end(2)
            return
        self.result.sense = _DEVICE_FAILURE.encode()
        self.result.status = 2
        self.task.fail(_DEVICE_FAILURE)

    def _end(self, status: int) -> None:
        self.result.status = status
        self.task.finish()


# RECEIVE COPY RESULTS


def copy_status(unit: LogicalUnit, task: Task) -> None:
    """COPY STATUS (SPC-4 table 293)."""
    result = unit.copies.find(task.nexus.initiator_port, task.cdb[2])
    if result is None:
        task.fail(invalid_field_in_cdb(2))
        return
    mebibytes = 0x03  # transfer count units, SPC-4 table 295
    data = struct.pack(">IBHBI", 8, result.status, result.segments, mebibytes, result.mebibytes)
    task.give(data, _allocation(task))


def operating_parameters(unit: LogicalUnit, task: Task) -> None:
    """OPERATING PARAMETERS (SPC-4 table 298): no inline and no held data, no streams."""
    supports_no_list_id = 0x01
    codes = bytes([BLOCK_TO_BLOCK, IDENTIFICATION])
    data = struct.pack(
        ">B3xHHIIIII2xHBBBB3xB",
        supports_no_list_id,
        CSCD_MAX,
        SEGMENTS_MAX,
        LIST_BYTES_MAX,
        SEGMENT_BYTES_MAX,
        0,
        0,
        0,
        1,  # total concurrent copies
        1,
        unit.block_shift,
        0,
        0,
        len(codes),
    )
    data += codes
    task.give(struct.pack(">I", len(data)) + data, _allocation(task))


def failed_segment_details(unit: LogicalUnit, task: Task) -> None:
    """FAILED SEGMENT DETAILS (SPC-4 table 300); of a copy that did not fail there are none."""
    result = unit.copies.find(task.nexus.initiator_port, task.cdb[2])
    if result is None:
        task.fail(invalid_field_in_cdb(2))
        return
    data = b""
    if result.sense:
        data = struct.pack(">52xBxH", Status.CHECK_CONDITION, len(result.sense)) + result.sense
    task.give(struct.pack(">I", len(data)) + data, _allocation(task))


def _allocation(task: Task) -> int:
    return int.from_bytes(task.cdb[10:14], "big")


#: Service action → name and handler (SPC-4 table 291).
RECEIVE_COPY_RESULTS: Final[dict[int, tuple[str, Callable[[LogicalUnit, Task], None]]]] = {
    0x00: ("COPY STATUS", copy_status),
    0x03: ("OPERATING PARAMETERS", operating_parameters),
    0x04: ("FAILED SEGMENT DETAILS", failed_segment_details),
}
