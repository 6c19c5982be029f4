"""READ, WRITE, WRITE ATOMIC and SYNCHRONIZE CACHE (SBC-3 §5.8-5.11, 5.18-5.19, 5.31-5.34).  Pure.

A short transfer (the transport has fewer bytes than the CDB asks for) writes the whole blocks that came;
the transport reports the residual.  A READ with FUA must come from the medium: what is cached is flushed
first.
"""  # hot

import struct
from collections.abc import Callable
from typing import Final

from pyjiva.block import ATOMIC_BYTES_MAX, Flush, Read, Write
from pyjiva.scsi.cdb import block_range, fields_10, fields_12, fields_16
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, sense_of
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import TRANSFER_BYTES_MAX, LogicalUnit

__all__ = [
    "FORCE_UNIT_ACCESS",
    "OUT_OF_RANGE",
    "read_6",
    "read_10",
    "read_12",
    "read_16",
    "synchronize_cache_10",
    "synchronize_cache_16",
    "transfer_bytes",
    "write_6",
    "write_10",
    "write_12",
    "write_16",
    "write_atomic_16",
    "write_atomic_bytes",
]

FORCE_UNIT_ACCESS: Final = 0x08
_CDB_WRITE_ATOMIC: Final = struct.Struct(">BBQHHBB")  # boundary and length where others have one length
OUT_OF_RANGE: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)


def transfer_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """How much data-out a command wants that transfers every block it names; 0 if it will fail anyway."""
    lba, count, _ = block_range(cdb)
    length = count << unit.block_shift
    return 0 if lba + count > unit.blocks or length > TRANSFER_BYTES_MAX else length


def read_10(unit: LogicalUnit, task: Task) -> None:
    """READ(10): the one that most initiators use."""
    flags, lba, count = fields_10(task.cdb)
    _read(unit, task, lba, count, flags, 7)


def read_16(unit: LogicalUnit, task: Task) -> None:
    """READ(16)."""
    flags, lba, count = fields_16(task.cdb)
    _read(unit, task, lba, count, flags, 10)


def read_12(unit: LogicalUnit, task: Task) -> None:
    """READ(12)."""
    flags, lba, count = fields_12(task.cdb)
    _read(unit, task, lba, count, flags, 6)


def read_6(unit: LogicalUnit, task: Task) -> None:
    """READ(6): 0 blocks means 256."""
    lba, count, where = block_range(task.cdb)
    _read(unit, task, lba, count, 0, where)


def _read(unit: LogicalUnit, task: Task, lba: int, count: int, flags: int, count_byte: int) -> None:
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    if not count:
        task.finish()
        return
    shift = unit.block_shift
    length = count << shift
    if length > TRANSFER_BYTES_MAX:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    request = Read(lba << shift, length, task.read_done)
    if flags & FORCE_UNIT_ACCESS:
        unit.device.submit(Flush(_then(unit, task, request)))
    else:
        unit.device.submit(request)


def _then(unit: LogicalUnit, task: Task, request: Read) -> Callable[[Flush], None]:
    def flushed(flush: Flush) -> None:
        if flush.error is not None:
            task.fail(sense_of(flush.error))
        elif task.aborted:
            task.finish()
        else:
            unit.device.submit(request)

    return flushed


def write_10(unit: LogicalUnit, task: Task) -> None:
    """WRITE(10)."""
    flags, lba, count = fields_10(task.cdb)
    _write(unit, task, lba, count, flags, 7)


def write_16(unit: LogicalUnit, task: Task) -> None:
    """WRITE(16)."""
    flags, lba, count = fields_16(task.cdb)
    _write(unit, task, lba, count, flags, 10)


def write_12(unit: LogicalUnit, task: Task) -> None:
    """WRITE(12)."""
    flags, lba, count = fields_12(task.cdb)
    _write(unit, task, lba, count, flags, 6)


def write_6(unit: LogicalUnit, task: Task) -> None:
    """WRITE(6): 0 blocks means 256."""
    lba, count, where = block_range(task.cdb)
    _write(unit, task, lba, count, 0, where)


def _write(unit: LogicalUnit, task: Task, lba: int, count: int, flags: int, count_byte: int) -> None:
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    shift = unit.block_shift
    length = count << shift
    if length > TRANSFER_BYTES_MAX:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    data = task.data_out
    if task.data_out_bytes != length:
        assert task.data_out_bytes < length
        length = task.data_out_bytes >> shift << shift
        data = (b"".join(data)[:length],)
    if not length:
        task.finish()
        return
    fua = bool(flags & FORCE_UNIT_ACCESS)
    unit.device.submit(Write(lba << shift, length, data, task.request_done, fua))


def write_atomic_16(unit: LogicalUnit, task: Task) -> None:
    """WRITE ATOMIC(16) (SBC-4 §5.48): a power cut leaves all of the blocks as they were or all written.

    A transfer that is shorter than the CDB says is refused: there is no part of such a write.
    """
    _, flags, lba, _, count, _, _ = _CDB_WRITE_ATOMIC.unpack_from(task.cdb)
    length = count << unit.block_shift
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
    elif length > ATOMIC_BYTES_MAX:
        task.fail(invalid_field_in_cdb(12))
    elif task.data_out_bytes != length:
        task.fail(Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT))
    elif not count:
        task.finish()
    else:
        fua = bool(flags & FORCE_UNIT_ACCESS)
        offset = lba << unit.block_shift
        unit.device.submit(Write(offset, length, task.data_out, task.request_done, fua, atomic=True))


def write_atomic_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """How much data-out a WRITE ATOMIC(16) wants; 0 if it will fail anyway."""
    _, _, lba, _, count, _, _ = _CDB_WRITE_ATOMIC.unpack_from(cdb)
    length = count << unit.block_shift
    return 0 if lba + count > unit.blocks or length > ATOMIC_BYTES_MAX else length


def synchronize_cache_10(unit: LogicalUnit, task: Task) -> None:
    """SYNCHRONIZE CACHE(10): everything is flushed, whatever range is named."""
    _, lba, count = fields_10(task.cdb)
    _synchronize(unit, task, lba, count)


def synchronize_cache_16(unit: LogicalUnit, task: Task) -> None:
    """SYNCHRONIZE CACHE(16)."""
    _, lba, count = fields_16(task.cdb)
    _synchronize(unit, task, lba, count)


def _synchronize(unit: LogicalUnit, task: Task, lba: int, count: int) -> None:
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    # IMMED is a permission to answer early; answering when it is done is always right.
    unit.device.submit(Flush(task.request_done))
