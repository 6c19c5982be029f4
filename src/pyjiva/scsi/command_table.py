"""The one table of commands: what is in it is carried out and reported, what is not is refused.  Pure.

`usage` is the CDB usage data of REPORT SUPPORTED OPERATION CODES (SPC-4 §6.37): a 1 for every bit that the
handler looks at.  A CDB with any other bit set is refused with a pointer to it, so a request for something
that we do not do (protection information, NACA, ANCHOR, ...) cannot be taken for one that we do.

`conflict` says what a reservation of another initiator does to the command (SPC-4 table 65, SBC-3 table 13);
commands with rules of their own (PERSISTENT RESERVE OUT, RESERVE, RELEASE) look themselves.
"""

import enum
import struct
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.scsi import (
    extended_copy,
    inquiry,
    log,
    medium,
    mode,
    persistent_reserve,
    provisioning,
    read_modify_write,
    read_write,
    report,
    sanitize,
    verify,
)
from pyjiva.scsi.codes import OperationCode
from pyjiva.scsi.reservation import Conflict
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["COMMANDS", "Command", "Conflict", "Direction"]

Handler = Callable[[LogicalUnit, Task], None]


class Direction(enum.Enum):
    """Which way data goes."""

    NONE = "none"
    IN = "in"
    OUT = "out"


@attrs.frozen(eq=False)
class Command:
    """One row."""

    name: str
    operation_code: OperationCode
    service_action: int | None
    usage: bytes
    direction: Direction
    conflict: Conflict
    handler: Handler
    data_out_bytes: Callable[[LogicalUnit, bytes], int] | None = None
    """How much data the command wants from the initiator."""
    ignores_attention: bool = False
    """Answered although a unit attention is pending (SAM-5 §5.14)."""
    writes_medium: bool = False
    """Refused while the unit is write protected."""
    refused_bits: tuple[tuple[int, int], ...] = attrs.field(init=False)
    """The bits that must be zero: bytes of the CDB that have such, and which these are."""

    @refused_bits.default
    def _default_refused_bits(self) -> tuple[tuple[int, int], ...]:
        return tuple((place, bits ^ 0xFF) for place, bits in enumerate(self.usage) if place and bits != 0xFF)

    def conflict_of(self, cdb: bytes) -> Conflict:
        """NEVER, RESERVED, READS or WRITES: `conflict`, where it depends on the CDB with that looked at."""
        match self.conflict:
            case Conflict.STOPPING:
                return Conflict.NEVER if cdb[4] & 0x01 and not cdb[4] & 0xF0 else Conflict.WRITES
            case Conflict.PREVENTING:
                return Conflict.WRITES if cdb[4] & 0x03 else Conflict.NEVER
            case conflict:
                return conflict

    def invalid_field(self, cdb: bytes) -> Sense:
        """Sense that points to the first bit of `cdb` that must be zero."""
        for index, (byte, usage) in enumerate(zip(cdb, self.usage, strict=False)):
            if index and byte & ~usage:
                return invalid_field_in_cdb(index, bit=(byte & ~usage).bit_length() - 1)
        raise AssertionError("only called for a CDB with such a bit")


def _report_supported_operation_codes(_unit: LogicalUnit, task: Task) -> None:
    """REPORT SUPPORTED OPERATION CODES (SPC-4 §6.37), from this table."""
    options, operation_code, service_action, allocation = struct.unpack_from(">BBHI", task.cdb, 2)
    with_timeouts, option = options & 0x80, options & 0x07
    if option == 0:
        data = b"".join(_command_descriptor(command, with_timeouts) for command in COMMANDS)
        task.give(struct.pack(">I", len(data)) + data, allocation)
        return
    if option > 3:
        task.fail(invalid_field_in_cdb(2, bit=2))
        return
    rows = [command for command in COMMANDS if command.operation_code == operation_code]
    has_service_actions = any(command.service_action is not None for command in rows)
    if option == 1 and has_service_actions:
        task.fail(invalid_field_in_cdb(3))
        return
    if option == 2 and rows and not has_service_actions:
        task.fail(invalid_field_in_cdb(4))
        return
    found = [command for command in rows if command.service_action in (None, service_action)]
    if option == 3 and not has_service_actions and service_action:
        found = []
    task.give(_one_command(found[0] if found else None, with_timeouts), allocation)


_TIMEOUTS: Final = struct.pack(">HBBII", 10, 0, 0, 0, 0)  # SPC-4 table 303: none given


def _command_descriptor(command: Command, with_timeouts: int) -> bytes:
    """SPC-4 table 299."""
    service_action = command.service_action or 0
    flags = (0x02 if with_timeouts else 0) | (0x01 if command.service_action is not None else 0)
    descriptor = struct.pack(
        ">BBHBBH", command.operation_code, 0, service_action, 0, flags, len(command.usage)
    )
    return descriptor + (_TIMEOUTS if with_timeouts else b"")


def _one_command(command: Command | None, with_timeouts: int) -> bytes:
    """SPC-4 table 301."""
    if command is None:
        return struct.pack(">BBH", 0, 1, 0)  # not supported
    supported_as_standard = 0x03
    flags = supported_as_standard | (0x80 if with_timeouts else 0)
    data = struct.pack(">BBH", 0, flags, len(command.usage)) + command.usage
    return data + (_TIMEOUTS if with_timeouts else b"")


_NONE, _IN, _OUT = Direction.NONE, Direction.IN, Direction.OUT
_OP = OperationCode


def _command(
    name: str,
    operation_code: OperationCode,
    usage: str,
    direction: Direction,
    conflict: Conflict,
    handler: Handler,
    *,
    service_action: int | None = None,
    data_out_bytes: Callable[[LogicalUnit, bytes], int] | None = None,
    ignores_attention: bool = False,
    writes_medium: bool | None = None,
) -> Command:
    """A row; `usage` is written without the operation code, and a service action is filled in.

    A command that takes data and conflicts as writes do writes to the medium, if it is not said otherwise.
    """
    cdb_usage = bytearray([operation_code]) + bytes.fromhex(usage)
    if service_action is not None:
        cdb_usage[1] |= service_action
    assert len(cdb_usage) == {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}[operation_code >> 5]
    assert (direction is _OUT) == (data_out_bytes is not None)
    return Command(
        name,
        operation_code,
        service_action,
        bytes(cdb_usage),
        direction,
        conflict,
        handler,
        data_out_bytes,
        ignores_attention,
        direction is _OUT and conflict is Conflict.WRITES if writes_medium is None else writes_medium,
    )


_NEVER, _READS, _WRITES = Conflict.NEVER, Conflict.READS, Conflict.WRITES
_RESERVED = Conflict.RESERVED
_transfer = read_write.transfer_bytes

COMMANDS: Final[tuple[Command, ...]] = (
    _command("TEST UNIT READY", _OP.TEST_UNIT_READY, "00 000000 00", _NONE, _RESERVED, report.unit_is_ready),
    _command("REQUEST SENSE", _OP.REQUEST_SENSE, "01 0000ff 00", _IN, _NEVER, report.request_sense,
             ignores_attention=True),
    _command("READ(6)", _OP.READ_6, "1f ffff ff 00", _IN, _READS, read_write.read_6),
    _command("WRITE(6)", _OP.WRITE_6, "1f ffff ff 00", _OUT, _WRITES, read_write.write_6,
             data_out_bytes=_transfer),
    _command("INQUIRY", _OP.INQUIRY, "01 ff ffff 00", _IN, _NEVER, inquiry.inquiry, ignores_attention=True),
    _command("MODE SENSE(6)", _OP.MODE_SENSE_6, "08 ff ff ff 00", _IN, _READS, mode.mode_sense_6),
    _command("START STOP UNIT", _OP.START_STOP_UNIT, "01 00 0f f7 00", _NONE, Conflict.STOPPING,
             report.start_stop_unit),
    _command("PREVENT ALLOW MEDIUM REMOVAL", _OP.PREVENT_ALLOW_MEDIUM_REMOVAL, "00 0000 01 00", _NONE,
             Conflict.PREVENTING, report.prevent_allow_medium_removal),
    _command("READ CAPACITY(10)", _OP.READ_CAPACITY_10, "00 ffffffff 000000 00", _IN, _NEVER,
             report.read_capacity_10),
    _command("READ(10)", _OP.READ_10, "18 ffffffff 1f ffff 00", _IN, _READS, read_write.read_10),
    _command("WRITE(10)", _OP.WRITE_10, "18 ffffffff 1f ffff 00", _OUT, _WRITES, read_write.write_10,
             data_out_bytes=_transfer),
    _command("VERIFY(10)", _OP.VERIFY_10, "16 ffffffff 1f ffff 00", _OUT, _READS, verify.verify,
             data_out_bytes=verify.verify_data_bytes),
    _command("SYNCHRONIZE CACHE(10)", _OP.SYNCHRONIZE_CACHE_10, "06 ffffffff 1f ffff 00", _NONE, _WRITES,
             read_write.synchronize_cache_10),
    _command("WRITE SAME(10)", _OP.WRITE_SAME_10, "08 ffffffff 1f ffff 00", _OUT, _WRITES,
             provisioning.write_same, data_out_bytes=provisioning.write_same_data_bytes),
    _command("UNMAP", _OP.UNMAP, "00 00000000 1f ffff 00", _OUT, _WRITES, provisioning.unmap,
             data_out_bytes=provisioning.unmap_data_bytes),
    _command("MODE SENSE(10)", _OP.MODE_SENSE_10, "18 ff ff 000000 ffff 00", _IN, _READS, mode.mode_sense_10),
    _command("READ(16)", _OP.READ_16, "18 ffffffffffffffff ffffffff 1f 00", _IN, _READS, read_write.read_16),
    _command("WRITE(16)", _OP.WRITE_16, "18 ffffffffffffffff ffffffff 1f 00", _OUT, _WRITES,
             read_write.write_16, data_out_bytes=_transfer),
    _command("VERIFY(16)", _OP.VERIFY_16, "16 ffffffffffffffff ffffffff 1f 00", _OUT, _READS, verify.verify,
             data_out_bytes=verify.verify_data_bytes),
    _command("SYNCHRONIZE CACHE(16)", _OP.SYNCHRONIZE_CACHE_16, "06 ffffffffffffffff ffffffff 1f 00", _NONE,
             _WRITES, read_write.synchronize_cache_16),
    _command("WRITE SAME(16)", _OP.WRITE_SAME_16, "09 ffffffffffffffff ffffffff 1f 00", _OUT, _WRITES,
             provisioning.write_same, data_out_bytes=provisioning.write_same_data_bytes),
    _command("COMPARE AND WRITE", _OP.COMPARE_AND_WRITE, "18 ffffffffffffffff 000000 ff 1f 00", _OUT, _WRITES,
             read_modify_write.compare_and_write, data_out_bytes=read_modify_write.compare_and_write_bytes),
    _command("WRITE ATOMIC(16)", _OP.WRITE_ATOMIC_16, "18 ffffffffffffffff 0000 ffff 1f 00", _OUT, _WRITES,
             read_write.write_atomic_16, data_out_bytes=read_write.write_atomic_bytes),
    _command("ORWRITE(16)", _OP.ORWRITE_16, "18 ffffffffffffffff ffffffff 1f 00", _OUT, _WRITES,
             read_modify_write.orwrite_16, data_out_bytes=read_modify_write.orwrite_bytes),
    _command("WRITE AND VERIFY(10)", _OP.WRITE_AND_VERIFY_10, "16 ffffffff 1f ffff 00", _OUT, _WRITES,
             verify.write_and_verify, data_out_bytes=_transfer),
    _command("WRITE AND VERIFY(12)", _OP.WRITE_AND_VERIFY_12, "16 ffffffff ffffffff 1f 00", _OUT, _WRITES,
             verify.write_and_verify, data_out_bytes=_transfer),
    _command("WRITE AND VERIFY(16)", _OP.WRITE_AND_VERIFY_16, "16 ffffffffffffffff ffffffff 1f 00", _OUT,
             _WRITES, verify.write_and_verify, data_out_bytes=_transfer),
    _command("PRE-FETCH(10)", _OP.PRE_FETCH_10, "02 ffffffff 1f ffff 00", _NONE, _READS, medium.pre_fetch),
    _command("PRE-FETCH(16)", _OP.PRE_FETCH_16, "02 ffffffffffffffff ffffffff 1f 00", _NONE, _READS,
             medium.pre_fetch),
    _command("READ DEFECT DATA(10)", _OP.READ_DEFECT_DATA_10, "00 1f 00000000 ffff 00", _IN, _READS,
             medium.read_defect_data_10),
    _command("READ DEFECT DATA(12)", _OP.READ_DEFECT_DATA_12, "1f ffffffff ffffffff 00 00", _IN, _READS,
             medium.read_defect_data_12),
    _command("READ CAPACITY(16)", _OP.SERVICE_ACTION_IN_16, "00 0000000000000000 ffffffff 00 00", _IN, _NEVER,
             report.read_capacity_16, service_action=0x10),
    _command("GET LBA STATUS", _OP.SERVICE_ACTION_IN_16, "00 ffffffffffffffff ffffffff 00 00", _IN, _READS,
             provisioning.get_lba_status, service_action=0x12),
    _command("REPORT LUNS", _OP.REPORT_LUNS, "00 ff 000000 ffffffff 00 00", _IN, _NEVER, report.report_luns,
             ignores_attention=True),
    _command("REPORT SUPPORTED OPERATION CODES", _OP.MAINTENANCE_IN, "00 87 ff ffff ffffffff 00 00", _IN,
             _READS, _report_supported_operation_codes, service_action=0x0C),
    _command("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", _OP.MAINTENANCE_IN, "00 00 00 0000 ffffffff 00 00",
             _IN, _READS, report.report_supported_task_management_functions, service_action=0x0D),
    _command("REPORT TARGET PORT GROUPS", _OP.MAINTENANCE_IN, "e0 00 00 0000 ffffffff 00 00", _IN, _NEVER,
             report.report_target_port_groups, service_action=0x0A),
    _command("SEND DIAGNOSTIC", _OP.SEND_DIAGNOSTIC, "04 00 0000 00", _NONE, _WRITES, report.send_diagnostic),
    _command("READ(12)", _OP.READ_12, "18 ffffffff ffffffff 1f 00", _IN, _READS, read_write.read_12),
    _command("WRITE(12)", _OP.WRITE_12, "18 ffffffff ffffffff 1f 00", _OUT, _WRITES, read_write.write_12,
             data_out_bytes=_transfer),
    _command("VERIFY(12)", _OP.VERIFY_12, "16 ffffffff ffffffff 1f 00", _OUT, _READS, verify.verify,
             data_out_bytes=verify.verify_data_bytes),

    _command("EXTENDED COPY(LID1)", _OP.EXTENDED_COPY, "00 0000000000000000 ffffffff 00 00", _OUT, _WRITES,
             extended_copy.extended_copy, service_action=0x00,
             data_out_bytes=extended_copy.parameter_list_bytes),
    *(_command(f"RECEIVE COPY RESULTS, {name}", _OP.RECEIVE_COPY_RESULTS,
               "00 ff 00000000000000 ffffffff 00 00", _IN, _NEVER, handler, service_action=action)
      for action, (name, handler) in extended_copy.RECEIVE_COPY_RESULTS.items()),

    _command("SANITIZE, OVERWRITE", _OP.SANITIZE, "a0 0000000000 ffff 00", _OUT, _WRITES, sanitize.overwrite,
             service_action=0x01, data_out_bytes=sanitize.parameter_list_bytes),
    *(_command(f"SANITIZE, {name}", _OP.SANITIZE, "a0 0000000000 ffff 00", _NONE, _WRITES, handler,
               service_action=action, writes_medium=True)
      for action, (name, handler) in sanitize.SANITIZE.items() if action != 0x01),

    # Reservations, mode and log parameters
    *(_command(f"PERSISTENT RESERVE IN, {name}", _OP.PERSISTENT_RESERVE_IN, "00 0000000000 ffff 00", _IN,
               _RESERVED, handler, service_action=action)
      for action, (name, handler) in enumerate(persistent_reserve.PERSISTENT_RESERVE_IN)),
    *(_command(f"PERSISTENT RESERVE OUT, {name}", _OP.PERSISTENT_RESERVE_OUT, "00 ff 0000 ffffffff 00", _OUT,
               _RESERVED, persistent_reserve.persistent_reserve_out, service_action=action,
               data_out_bytes=persistent_reserve.parameter_list_bytes)
      for action, name in enumerate(persistent_reserve.PERSISTENT_RESERVE_OUT)),
    _command("RESERVE(6)", _OP.RESERVE_6, "00 00 0000 00", _NONE, _NEVER, persistent_reserve.reserve),
    _command("RELEASE(6)", _OP.RELEASE_6, "00 00 0000 00", _NONE, _NEVER, persistent_reserve.release),
    _command("RESERVE(10)", _OP.RESERVE_10, "00 0000000000 0000 00", _NONE, _NEVER,
             persistent_reserve.reserve),
    _command("RELEASE(10)", _OP.RELEASE_10, "00 0000000000 0000 00", _NONE, _NEVER,
             persistent_reserve.release),
    _command("MODE SELECT(6)", _OP.MODE_SELECT_6, "11 0000 ff 00", _OUT, _WRITES, mode.mode_select_6,
             data_out_bytes=mode.parameter_list_6_bytes, writes_medium=False),
    _command("MODE SELECT(10)", _OP.MODE_SELECT_10, "11 0000000000 ffff 00", _OUT, _WRITES,
             mode.mode_select_10, data_out_bytes=mode.parameter_list_10_bytes, writes_medium=False),
    _command("LOG SENSE", _OP.LOG_SENSE, "00 ff ff 00 ffff ffff 00", _IN, _NEVER, log.log_sense),
)  # fmt: skip
