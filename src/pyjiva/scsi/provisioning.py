"""UNMAP, WRITE SAME and GET LBA STATUS: blocks that are mapped, deallocated or all alike (SBC-3 §4.7,
§5.28, §5.43-5.44, §5.6).  Pure.

Unmapped blocks read as zeros (LBPRZ), so WRITE SAME with zeros never sends data to the device.  Another
pattern is written in pieces, one after the other, each looking first whether the task was aborted.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import attrs

from pyjiva.block import BlockStatus, Unmap, Write, WriteZeroes
from pyjiva.errors import StorageError
from pyjiva.extent import Extent, merge_extents
from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.inquiry import UNMAP_BYTES_MAX, UNMAP_DESCRIPTORS_MAX, WRITE_SAME_BYTES_MAX
from pyjiva.scsi.read_write import OUT_OF_RANGE
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, invalid_field_in_parameter_list, sense_of
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit
from pyjiva.units import GIB, MIB

__all__ = ["get_lba_status", "unmap", "unmap_data_bytes", "write_same", "write_same_data_bytes"]

PATTERN_BYTES: Final = 1 * MIB  # written at a time by WRITE SAME
LBA_STATUS_BYTES_MAX: Final = 1 * GIB  # looked at by one GET LBA STATUS; it may end early (SBC-3 §5.6.1)
LBA_STATUS_DESCRIPTORS_MAX: Final = 4096

_PARAMETER_LIST_LENGTH_ERROR: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR
)
_UNMAP_HEADER: Final = struct.Struct(">HH4x")
_UNMAP_DESCRIPTOR: Final = struct.Struct(">QI4x")
_UNMAP_BIT: Final = 0x08
_NO_DATA_OUT_BUFFER: Final = 0x01
_MAPPED: Final = 0
_DEALLOCATED: Final = 1


def unmap_data_bytes(_unit: LogicalUnit, cdb: bytes) -> int:
    """The parameter list length of an UNMAP."""
    return int.from_bytes(cdb[7:9], "big")


def unmap(unit: LogicalUnit, task: Task) -> None:
    """UNMAP: all ranges are checked before the first is unmapped."""
    wanted = unmap_data_bytes(unit, task.cdb)
    data = b"".join(task.data_out)
    if not wanted:
        task.finish()
        return
    if len(data) < wanted or len(data) < _UNMAP_HEADER.size:
        task.fail(_PARAMETER_LIST_LENGTH_ERROR)
        return
    _, descriptors_bytes = _UNMAP_HEADER.unpack_from(data)
    # SBC-3 §5.28.2: a descriptor that is cut off is ignored, as are bytes after the last.
    count = min(descriptors_bytes, len(data) - _UNMAP_HEADER.size) // _UNMAP_DESCRIPTOR.size
    if count > UNMAP_DESCRIPTORS_MAX:
        task.fail(invalid_field_in_parameter_list(2))
        return
    extents, total = [], 0
    for index in range(count):
        start = _UNMAP_HEADER.size + index * _UNMAP_DESCRIPTOR.size
        lba, blocks = _UNMAP_DESCRIPTOR.unpack_from(data, start)
        if lba + blocks > unit.blocks:
            task.fail(OUT_OF_RANGE)
            return
        total += blocks << unit.block_shift
        if total > UNMAP_BYTES_MAX:
            task.fail(invalid_field_in_parameter_list(start + 8))
            return
        extents.append(Extent(lba << unit.block_shift, blocks << unit.block_shift))
    _UnmapRun(task, len(merged := merge_extents(extents))).submit(unit, merged)


@attrs.define(eq=False)
class _UnmapRun:
    """Finishes the task when the last of its ranges is done."""

    task: Task
    outstanding: int
    error: StorageError | None = None

    def submit(self, unit: LogicalUnit, extents: Sequence[Extent]) -> None:
        if not extents:
            self.task.finish()
        for extent in extents:
            unit.device.submit(Unmap(extent.offset_bytes, extent.length_bytes, self._done))

    def _done(self, request: Unmap) -> None:
        self.error = self.error or request.error
        self.outstanding -= 1
        if not self.outstanding:
            if self.error is not None:
                self.task.fail(sense_of(self.error))
            else:
                self.task.finish()


def write_same_data_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """One block, or nothing if the CDB says so."""
    return 0 if _has_no_data(cdb) else unit.block_size_bytes


def _has_no_data(cdb: bytes) -> bool:
    return len(cdb) >= 16 and cdb[0] == 0x93 and bool(cdb[1] & _NO_DATA_OUT_BUFFER)


def write_same(unit: LogicalUnit, task: Task) -> None:
    """WRITE SAME(10) and (16): one block over a range; 0 blocks means "to the end" (WSNZ=0)."""
    cdb = task.cdb
    lba, count, count_byte = block_range(cdb)
    if lba + count > unit.blocks or (not count and lba >= unit.blocks):
        task.fail(OUT_OF_RANGE)
        return
    count = count or unit.blocks - lba
    shift = unit.block_shift
    length = count << shift
    if length > WRITE_SAME_BYTES_MAX:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    block = b"".join(task.data_out)
    if _has_no_data(cdb):
        block = bytes(unit.block_size_bytes)
    elif task.expected_bytes != unit.block_size_bytes or len(block) < unit.block_size_bytes:
        # Not exactly one block was offered: the initiator and we do not mean the same.
        task.fail(Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT))
        return
    offset = lba << shift
    if any(block):
        _PatternRun(unit, task, offset, length, block * min(count, PATTERN_BYTES >> shift)).step()
    elif cdb[1] & _UNMAP_BIT:
        unit.device.submit(Unmap(offset, length, task.request_done))
    else:
        unit.device.submit(WriteZeroes(offset, length, task.request_done))


@attrs.define(eq=False)
class _PatternRun:
    """Writes `pattern` again and again until the range is full."""

    unit: LogicalUnit
    task: Task
    offset_bytes: int
    remaining_bytes: int
    pattern: bytes
    _in_submit: bool = False
    _answered: bool = False

    def step(self) -> None:
        """Write piece after piece; a loop, not a recursion, while the device answers at once."""
        while True:
            length = min(self.remaining_bytes, len(self.pattern))
            if not length or self.task.aborted:
                self.task.finish()
                return
            data = memoryview(self.pattern)[:length]
            offset = self.offset_bytes
            self.offset_bytes += length
            self.remaining_bytes -= length
            self._in_submit, self._answered = True, False
            self.unit.device.submit(Write(offset, length, (data,), self._done))
            self._in_submit = False
            if not self._answered:
                return

    def _done(self, request: Any) -> None:
        if request.error is not None:
            self.task.fail(sense_of(request.error))
        elif self._in_submit:
            self._answered = True
        else:
            self.step()


def get_lba_status(unit: LogicalUnit, task: Task) -> None:
    """GET LBA STATUS: mapped and deallocated runs from a starting address on."""
    lba, allocation = struct.unpack_from(">QI", task.cdb, 2)
    if lba >= unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    blocks = min(unit.blocks - lba, LBA_STATUS_BYTES_MAX >> unit.block_shift)

    def done(request: BlockStatus) -> None:
        if request.error is not None:
            task.fail(sense_of(request.error))
            return
        descriptors = b"".join(
            struct.pack(">QIB3x", start, count, status)
            for start, count, status in _runs(unit, lba, blocks, request.allocated)
        )
        task.give(struct.pack(">I4x", 4 + len(descriptors)) + descriptors, allocation)

    unit.device.submit(BlockStatus(lba << unit.block_shift, blocks << unit.block_shift, done))


def _runs(
    unit: LogicalUnit, lba: int, blocks: int, allocated: Sequence[Extent]
) -> list[tuple[int, int, int]]:
    """(first block, number of blocks, status): a block with one allocated byte is mapped."""
    shift, mask = unit.block_shift, unit.block_size_bytes - 1
    mapped = merge_extents(
        Extent(
            extent.offset_bytes >> shift,
            (extent.end_bytes + mask >> shift) - (extent.offset_bytes >> shift),
        )
        for extent in allocated
    )  # in blocks here, not bytes
    runs, position, end = [], lba, lba + blocks
    for run in mapped[:LBA_STATUS_DESCRIPTORS_MAX]:
        if run.offset_bytes > position:
            runs.append((position, run.offset_bytes - position, _DEALLOCATED))
        runs.append((run.offset_bytes, run.length_bytes, _MAPPED))
        position = run.end_bytes
    if position < end and len(mapped) <= LBA_STATUS_DESCRIPTORS_MAX:
        runs.append((position, end - position, _DEALLOCATED))
    return runs
