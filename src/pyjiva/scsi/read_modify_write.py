"""COMPARE AND WRITE and ORWRITE(16): read, look, write, with nobody in between (SBC-3 §5.2, §5.8).  Pure.

Each has its blocks for itself from before the read to after the write (`LogicalUnit.exclusively`): no other
command of any initiator is carried out on them meanwhile.  There is one device server for a volume, so this
holds for all its replicas.
"""

import struct
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.block import Read, Write
from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.read_write import FORCE_UNIT_ACCESS, OUT_OF_RANGE, transfer_bytes
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, sense_of
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import COMPARE_AND_WRITE_BLOCKS_MAX, TRANSFER_BYTES_MAX, LogicalUnit

__all__ = ["compare_and_write", "compare_and_write_bytes", "orwrite_16", "orwrite_bytes"]

# operation code, flags, logical block address, reserved, number of blocks, ...
_COMPARE_AND_WRITE_CDB: Final = struct.Struct(">BBQ3xBBB")
_COUNT_BYTE: Final = 13
_TOO_LITTLE_DATA: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT
)


def compare_and_write_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """Two times the blocks: what must be there, then what shall be."""
    _, _, lba, count, _, _ = _COMPARE_AND_WRITE_CDB.unpack_from(cdb)
    if count > COMPARE_AND_WRITE_BLOCKS_MAX or lba + count > unit.blocks:
        return 0
    return int(2 * count << unit.block_shift)


def compare_and_write(unit: LogicalUnit, task: Task) -> None:
    """COMPARE AND WRITE; 0 blocks is no error."""
    _, flags, lba, count, _, _ = _COMPARE_AND_WRITE_CDB.unpack_from(task.cdb)
    if count > COMPARE_AND_WRITE_BLOCKS_MAX:
        task.fail(invalid_field_in_cdb(_COUNT_BYTE))
        return
    length = count << unit.block_shift
    if task.expected_bytes != 2 * length:
        # Meant for another number of blocks, perhaps 256 in a field of eight bits: no lock is taken by that.
        task.fail(invalid_field_in_cdb(_COUNT_BYTE))
        return
    data = _data(unit, task, lba, count, 2 * length)
    if data is None:
        return

    def change(found: bytes) -> bytes | None:
        if found == data[:length]:
            return data[length:]
        first = next(i for i in range(length) if found[i] != data[i])
        task.fail(Sense(SenseKey.MISCOMPARE, AdditionalSense.MISCOMPARE_DURING_VERIFY, information=first))
        return None

    _ReadModifyWrite(unit, task, lba, length, change, bool(flags & FORCE_UNIT_ACCESS)).begin()


def orwrite_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """The blocks that it names."""
    return transfer_bytes(unit, cdb)


def orwrite_16(unit: LogicalUnit, task: Task) -> None:
    """ORWRITE(16): bits that are set in the data are set on the medium."""
    lba, count, count_byte = block_range(task.cdb)
    length = count << unit.block_shift
    if length > TRANSFER_BYTES_MAX:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    data = _data(unit, task, lba, count, length)
    if data is None:
        return

    def change(found: bytes) -> bytes:
        bits = int.from_bytes(found, "little") | int.from_bytes(data, "little")
        return bits.to_bytes(length, "little")

    _ReadModifyWrite(unit, task, lba, length, change, bool(task.cdb[1] & FORCE_UNIT_ACCESS)).begin()


def _data(unit: LogicalUnit, task: Task, lba: int, count: int, wanted_bytes: int) -> bytes | None:
    """All the data that came; None when the task is finished, for there is nothing to do or it is wrong."""
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
    elif not count:
        task.finish()
    elif task.data_out_bytes < wanted_bytes:
        task.fail(_TOO_LITTLE_DATA)
    else:
        return b"".join(task.data_out)
    return None


@attrs.define(eq=False)
class _ReadModifyWrite:
    """One run: wait for the range, read, `change`, write."""

    unit: LogicalUnit
    task: Task
    lba: int
    length_bytes: int
    change: Callable[[bytes], bytes | None]
    """What to write instead; None: the task is finished."""
    force_unit_access: bool

    def begin(self) -> None:
        count = self.length_bytes >> self.unit.block_shift
        self.unit.exclusively(self.task, self.lba, self.lba + count, self._read)

    def _read(self) -> None:
        if self.task.aborted:
            self.task.finish()
            return
        offset = self.lba << self.unit.block_shift
        self.unit.device.submit(Read(offset, self.length_bytes, self._found))

    def _found(self, request: Read) -> None:
        task = self.task
        if request.error is not None:
            task.fail(sense_of(request.error))
        elif task.aborted:
            task.finish()
        elif (data := self.change(b"".join(request.data))) is not None:
            self.unit.device.submit(
                Write(request.offset_bytes, len(data), (data,), task.request_done, self.force_unit_access)
            )
