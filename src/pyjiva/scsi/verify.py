"""VERIFY and WRITE AND VERIFY, (10), (12) and (16): the medium can be read, or holds what the initiator sends
(SBC-3 §5.29-5.31, §5.36-5.38).  Pure.

WRITE AND VERIFY has its blocks for itself from the write to the end, so that it does not compare with what
another command has written meanwhile.
"""

from typing import Any, Final

import attrs

from pyjiva.block import Read, Write
from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.read_write import OUT_OF_RANGE, transfer_bytes
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, sense_of
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import TRANSFER_BYTES_MAX, LogicalUnit
from pyjiva.units import MIB

__all__ = ["verify", "verify_data_bytes", "write_and_verify"]

READ_BYTES: Final = 1 * MIB  # read and compared at a time

# BYTCHK (SBC-3 table 105)
_MEDIUM_ONLY: Final = 0
_COMPARE_ALL: Final = 1
_COMPARE_ONE_BLOCK: Final = 3


def _byte_check(cdb: bytes) -> int:
    return cdb[1] >> 1 & 3


def verify_data_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """Nothing, every block, or one block, as BYTCHK says."""
    check = _byte_check(cdb)
    if check == _COMPARE_ALL:
        return transfer_bytes(unit, cdb)
    return unit.block_size_bytes if check == _COMPARE_ONE_BLOCK else 0


def verify(unit: LogicalUnit, task: Task) -> None:
    """VERIFY; 0 blocks is no error."""
    lba, count, count_byte = block_range(task.cdb)
    check = _byte_check(task.cdb)
    if check not in (_MEDIUM_ONLY, _COMPARE_ALL, _COMPARE_ONE_BLOCK):
        task.fail(invalid_field_in_cdb(1, bit=2))
        return
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    length = count << unit.block_shift
    if length > TRANSFER_BYTES_MAX and check == _COMPARE_ALL:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    expected = b"".join(task.data_out)
    if check == _COMPARE_ONE_BLOCK and length:
        if len(expected) < unit.block_size_bytes:
            task.fail(
                Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)
            )
            return
        expected *= min(count, READ_BYTES >> unit.block_shift)
    elif check == _COMPARE_ALL:
        length = min(length, len(expected) >> unit.block_shift << unit.block_shift)
    VerifyRun(unit, task, lba << unit.block_shift, length, expected, repeats=check != _COMPARE_ALL).step()


def write_and_verify(unit: LogicalUnit, task: Task) -> None:
    """WRITE AND VERIFY: to the medium, then as VERIFY of the same blocks."""
    lba, count, count_byte = block_range(task.cdb)
    check = _byte_check(task.cdb)
    if check not in (_MEDIUM_ONLY, _COMPARE_ALL):
        task.fail(invalid_field_in_cdb(1, bit=2))
        return
    if lba + count > unit.blocks:
        task.fail(OUT_OF_RANGE)
        return
    if count << unit.block_shift > TRANSFER_BYTES_MAX:
        task.fail(invalid_field_in_cdb(count_byte))
        return
    length = task.data_out_bytes >> unit.block_shift << unit.block_shift
    data = b"".join(task.data_out)[:length]
    if not length:
        task.finish()
        return
    offset = lba << unit.block_shift

    def write() -> None:
        if task.aborted:
            task.finish()
        else:
            unit.device.submit(Write(offset, length, (data,), written, force_unit_access=True))

    def written(request: Write) -> None:
        if request.error is not None:
            task.fail(sense_of(request.error))
        else:
            expected = data if check == _COMPARE_ALL else b""
            VerifyRun(unit, task, offset, length, expected, repeats=False).step()

    unit.exclusively(task, lba, lba + (length >> unit.block_shift), write)


@attrs.define(eq=False)
class VerifyRun:
    """Reads piece after piece and compares it with `expected`, if there is any."""

    unit: LogicalUnit
    task: Task
    offset_bytes: int
    remaining_bytes: int
    expected: bytes
    repeats: bool
    _position: int = 0
    _in_submit: bool = False
    _answered: bool = False

    def step(self) -> None:
        """Go on until all is read; a loop, not a recursion, while the device answers at once."""
        while True:
            length = min(self.remaining_bytes, READ_BYTES)
            if not length or self.task.aborted:
                self.task.finish()
                return
            self._in_submit, self._answered = True, False
            self.unit.device.submit(Read(self.offset_bytes, length, self._done))
            self._in_submit = False
            if not self._answered:
                return

    def _done(self, request: Any) -> None:
        if request.error is not None:
            self.task.fail(sense_of(request.error))
            return
        length = request.length_bytes
        if self.expected:
            start = 0 if self.repeats else self._position
            found, wanted = b"".join(request.data), self.expected[start : start + length]
            if found != wanted:
                first = next(i for i in range(length) if found[i] != wanted[i])
                self.task.fail(
                    Sense(
                        SenseKey.MISCOMPARE,
                        AdditionalSense.MISCOMPARE_DURING_VERIFY,
                        information=self._position + first,
                    )
                )
                return
        self._position += length
        self.offset_bytes += length
        self.remaining_bytes -= length
        if self._in_submit:
            self._answered = True
        else:
            self.step()
