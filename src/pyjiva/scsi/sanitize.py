"""SANITIZE: overwrite or erase everything, whatever happens meanwhile (SBC-3 §4.11, §5.23).  Pure.

    SANITIZE ──has all blocks for itself──▶ saved ──▶ RUNNING ──passes, flush──▶ saved as over ──▶ done
                                                         │ the device fails
                                                         ▼
                                                      FAILED ──EXIT FAILURE MODE, if it was allowed──▶ done

While it runs every command but a few is answered NOT READY, with the progress; after a failure MEDIUM ERROR,
until another SANITIZE, or EXIT FAILURE MODE if AUSE allowed that.  What is to be done is in the unit's store
before it begins: a new process goes on with it from the start.  So commands are refused, too, while the store
cannot be told that it is over: what they wrote would be erased.  No abort and no reset ends it.

A cryptographic erase is not supported: nothing is encrypted.  Blocks of snapshots are not blocks of the unit.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

import attrs

from pyjiva.block import PARAMETERS_BYTES_MAX, Flush, Unmap, Write
from pyjiva.errors import StorageError
from pyjiva.scsi.codes import AdditionalSense, OperationCode, SenseKey
from pyjiva.scsi.saved import SanitizeJob, encode_saved
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb, invalid_field_in_parameter_list, sense_of
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit
from pyjiva.units import MIB

__all__ = ["SANITIZE", "parameter_list_bytes", "refusal", "resume"]

PATTERN_BYTES: Final = 1 * MIB  # written at a time
ERASE_BYTES: Final = 64 * MIB  # unmapped at a time

_IMMEDIATE: Final = 0x80
_ALLOW_UNRESTRICTED_EXIT: Final = 0x20
_INVERT: Final = 0x80
_TEST: Final = 0x60
_COUNT: Final = 0x1F
_HEADER_BYTES: Final = 4
_PROGRESS_MAX: Final = 0xFFFF
_FAILED: Final = Sense(SenseKey.MEDIUM_ERROR, AdditionalSense.SANITIZE_COMMAND_FAILED)
_NO_ROOM: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INSUFFICIENT_RESOURCES)

#: What is answered all the time (SBC-3 §4.11.2).
_ALWAYS: Final = frozenset(
    {
        *(OperationCode.INQUIRY, OperationCode.REPORT_LUNS, OperationCode.REQUEST_SENSE),
        *(OperationCode.LOG_SENSE, OperationCode.MAINTENANCE_IN, OperationCode.PERSISTENT_RESERVE_IN),
    }
)


def refusal(unit: LogicalUnit, cdb: bytes) -> Sense | None:
    """Why a command is not carried out at present; None: it is."""
    if cdb[0] in _ALWAYS:
        return None
    if unit.sanitizing is not None:
        return progress(unit)
    if unit.saved.sanitize is not None and cdb[0] != OperationCode.SANITIZE:
        return _FAILED
    return None


def progress(unit: LogicalUnit) -> Sense | None:
    """NOT READY with how far it is, in 65536ths; None when nothing runs."""
    run = unit.sanitizing
    if run is None:
        return None
    part = min(_PROGRESS_MAX, run.done_bytes * 0x10000 // max(1, run.total_bytes))
    return Sense(
        SenseKey.NOT_READY,
        AdditionalSense.SANITIZE_IN_PROGRESS,
        sense_key_specific=struct.pack(">BH", 0x80, part),
    )


def parameter_list_bytes(unit: LogicalUnit, cdb: bytes) -> int:
    """Header and pattern of an overwrite."""
    length = int.from_bytes(cdb[7:9], "big")
    return length if length <= _HEADER_BYTES + unit.block_size_bytes else 0


def overwrite(unit: LogicalUnit, task: Task) -> None:
    """OVERWRITE: a pattern of at most a block over everything, one time or several."""
    length = int.from_bytes(task.cdb[7:9], "big")
    if not _HEADER_BYTES < length <= _HEADER_BYTES + unit.block_size_bytes:
        task.fail(invalid_field_in_cdb(7))
        return
    data = b"".join(task.data_out)
    if len(data) < length:
        task.fail(Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR))
        return
    flags, pattern_bytes = struct.unpack_from(">BxH", data)
    if flags & _TEST:
        task.fail(invalid_field_in_parameter_list(0, bit=6))
    elif not flags & _COUNT:
        task.fail(invalid_field_in_parameter_list(0, bit=4))
    elif not 0 < pattern_bytes <= length - _HEADER_BYTES:
        task.fail(invalid_field_in_parameter_list(2))
    else:
        pattern = data[_HEADER_BYTES : _HEADER_BYTES + pattern_bytes]
        _begin(unit, task, SanitizeJob(pattern, flags & _COUNT, bool(flags & _INVERT), _may_exit(task)))


def block_erase(unit: LogicalUnit, task: Task) -> None:
    """BLOCK ERASE: everything is unmapped, and reads as zeros."""
    if any(task.cdb[7:9]):
        task.fail(invalid_field_in_cdb(7))
    else:
        _begin(unit, task, SanitizeJob(b"", 1, False, _may_exit(task)))


def exit_failure_mode(unit: LogicalUnit, task: Task) -> None:
    """EXIT FAILURE MODE: after a failure, if the SANITIZE that failed allowed it."""
    job = unit.saved.sanitize
    if any(task.cdb[7:9]):
        task.fail(invalid_field_in_cdb(7))
    elif job is None:
        task.finish()
    elif not job.may_exit:
        task.fail(_FAILED)
    else:
        _save(unit, None, lambda error: _finish(task, error))


#: Service action → name and handler (SBC-3 table 111).
SANITIZE: Final = {
    0x01: ("OVERWRITE", overwrite),
    0x02: ("BLOCK ERASE", block_erase),
    0x1F: ("EXIT FAILURE MODE", exit_failure_mode),
}


def resume(unit: LogicalUnit) -> None:
    """Go on with what the process before this one had begun."""
    job = unit.saved.sanitize
    if job is not None and not job.failed:
        _Run(unit, job, None).start()


def _may_exit(task: Task) -> bool:
    return bool(task.cdb[1] & _ALLOW_UNRESTRICTED_EXIT)


def _finish(task: Task, error: StorageError | None) -> None:
    if error is None:
        task.finish()
    else:
        task.fail(sense_of(error))


def _save(unit: LogicalUnit, job: SanitizeJob | None, done: Callable[[StorageError | None], None]) -> None:
    def turn() -> None:
        unit.save(attrs.evolve(unit.saved, sanitize=job), stored)

    def stored(error: StorageError | None) -> None:
        unit.restrict()
        done(error)
        unit.turns.leave()

    unit.turns.take(turn)


def _begin(unit: LogicalUnit, task: Task, job: SanitizeJob) -> None:
    if len(encode_saved(attrs.evolve(unit.saved, sanitize=job))) > PARAMETERS_BYTES_MAX:
        task.fail(_NO_ROOM)
        return

    def alone() -> None:
        if task.aborted:
            task.finish()
        else:
            _save(unit, job, saved)

    def saved(error: StorageError | None) -> None:
        if error is not None:
            task.fail(sense_of(error))
            return
        immediate = bool(task.cdb[1] & _IMMEDIATE)
        run = _Run(unit, job, None if immediate else task)
        run.start()
        if immediate:
            task.finish()
        elif run.task is not None:
            unit.shares_again(task)  # those that wait are refused, as those that come are

    unit.exclusively(task, 0, unit.blocks, alone)


@attrs.define(eq=False)
class _Run:
    """One that runs."""

    unit: LogicalUnit
    job: SanitizeJob
    task: Task | None
    """Who waits for its end."""
    done_bytes: int = attrs.field(default=0, init=False)
    total_bytes: int = attrs.field(init=False)
    _in_step: bool = attrs.field(default=False, init=False)
    _answered: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.total_bytes = self.job.passes * (self.unit.blocks << self.unit.block_shift)

    def start(self) -> None:
        """From now on other commands are refused."""
        self.unit.sanitizing = self
        self.unit.restrict()
        self._step()

    def _step(self) -> None:
        """Go on; a loop, not a recursion, while the device answers at once."""
        if self._in_step:
            self._answered = True
            return
        self._in_step = True
        while True:
            if self.task is not None and self.task.aborted:
                task, self.task = self.task, None
                task.finish()  # the command; what it began goes on
            self._answered = False
            if self.done_bytes == self.total_bytes:
                self.unit.device.submit(Flush(self._flushed))
                break
            self._submit_piece()
            if not self._answered:
                break
        self._in_step = False

    def _submit_piece(self) -> None:
        size = self.unit.blocks << self.unit.block_shift
        number, offset = divmod(self.done_bytes, size)
        if not self.job.pattern:
            self.unit.device.submit(Unmap(offset, min(ERASE_BYTES, size - offset), self._written))
            return
        pattern = self.job.pattern
        if self.job.invert and number % 2:
            pattern = bytes(byte ^ 0xFF for byte in pattern)
        block = self.unit.block_size_bytes
        whole = (pattern * (block // len(pattern) + 1))[:block]  # begins anew with each block
        length = min(PATTERN_BYTES, size - offset)
        self.unit.device.submit(Write(offset, length, (whole * (length // block),), self._written))

    def _written(self, request: Any) -> None:
        if request.error is not None:
            self._failed()
        else:
            self.done_bytes += request.length_bytes
            self._step()

    def _flushed(self, request: Flush) -> None:
        if request.error is not None:
            self._failed()
        else:
            _save(self.unit, None, self._over)

    def _failed(self) -> None:
        failed = attrs.evolve(self.job, failed=True)
        _save(self.unit, failed, lambda error: self._end(_FAILED if error is None else sense_of(error)))

    def _over(self, error: StorageError | None) -> None:
        self._end(None if error is None else sense_of(error))

    def _end(self, sense: Sense | None) -> None:
        self.unit.sanitizing = None
        self.unit.restrict()
        task, self.task = self.task, None
        if task is None:
            return
        if sense is None:
            task.finish()
        else:
            task.fail(sense)
