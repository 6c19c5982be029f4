"""The device server: gives each command to its handler, or refuses it.  Pure.

Order of the checks (SPC-4 §4.2, SAM-5 §5.3.3, §5.14): does the logical unit exist, is the command supported,
is a unit attention pending, is there a conflicting reservation, is the CDB valid; then the handler, in which
the device is asked.
"""  # hot

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.scsi.codes import AdditionalSense, OperationCode, PeripheralType, SenseKey
from pyjiva.scsi.command_lookup import find, has_service_actions, refuses
from pyjiva.scsi.command_table import Command
from pyjiva.scsi.inquiry import standard_data
from pyjiva.scsi.report import report_lun_list
from pyjiva.scsi.sanitize import refusal, resume
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb
from pyjiva.scsi.task import Nexus, Task
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["DeviceServer", "lun_field"]

LUN_MAX: Final = 255  # one level, peripheral addressing (SAM-5 §4.7.7.2)

RESET: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
CLEARED: Final = Sense(SenseKey.UNIT_ATTENTION, AdditionalSense.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
_UNKNOWN_COMMAND: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_COMMAND_OPERATION_CODE)
_WRITE_PROTECTED: Final = Sense(SenseKey.DATA_PROTECT, AdditionalSense.WRITE_PROTECTED)
_NO_SUCH_UNIT: Final = Sense(SenseKey.ILLEGAL_REQUEST, AdditionalSense.LOGICAL_UNIT_NOT_SUPPORTED)


def lun_field(lun: int) -> bytes:
    """The eight bytes of a LUN on the wire (peripheral device addressing)."""
    return bytes([0, lun]) + bytes(6)


def _flat_lun_field(lun: int) -> bytes:
    return bytes([0x40, lun]) + bytes(6)


@attrs.define(eq=False)
class DeviceServer:
    """The logical units of one target."""

    units: Mapping[int, LogicalUnit]
    target_port_name: str = ""
    _by_field: dict[bytes, LogicalUnit] = attrs.field(factory=dict, init=False)
    _luns: tuple[bytes, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for lun, unit in sorted(self.units.items()):
            if not 0 <= lun <= LUN_MAX:
                raise ConfigError(f"LUN {lun}: choose 0 to {LUN_MAX}")
            self._by_field[lun_field(lun)] = unit
            self._by_field[_flat_lun_field(lun)] = unit
        self._luns = tuple(lun_field(lun) for lun in sorted(self.units))
        for unit in self.units.values():
            unit.luns = self._luns
            unit.target_port_name = self.target_port_name
            resume(unit)

    def attach(self, nexus: Nexus) -> None:
        """A session begins."""
        for unit in self.units.values():
            unit.attach(nexus)

    def detach(self, nexus: Nexus) -> None:
        """A session has ended; its tasks were dropped or aborted before."""
        nexus.lost = True
        for unit in self.units.values():
            unit.detach(nexus)

    def unit_at(self, lun: bytes) -> LogicalUnit | None:
        """The unit that a LUN field addresses."""
        return self._by_field.get(lun)

    def enter(self, task: Task, lun: bytes) -> None:
        """A command has arrived: it is in the task set from now on."""
        unit = self._by_field.get(lun)
        if unit is not None:
            unit.enter(task)

    def data_out_bytes(self, task: Task) -> int:
        """How many bytes the command wants from the initiator; 0 also if it will be refused anyway."""
        unit = task.unit
        command = find(task.cdb)
        if unit is None or command is None or command.data_out_bytes is None:
            return 0
        if refuses(command, task.cdb):
            return 0
        task.looked_at = command
        return command.data_out_bytes(unit, task.cdb)

    def execute(self, task: Task) -> None:
        """The command's data is complete: carry it out.  The answer may come at once or much later."""
        unit = task.unit
        if unit is None:
            self._execute_without_unit(task)
        elif unit.strict and unit.hold(task, self._run):
            return
        else:
            self._run(task)

    def _run(self, task: Task) -> None:
        unit = task.unit
        assert unit is not None
        task.running = True
        cdb = task.cdb
        looked_at = task.looked_at
        command = find(cdb) if looked_at is None else looked_at
        if command is None:
            task.fail(invalid_field_in_cdb(1, bit=4) if has_service_actions(cdb) else _UNKNOWN_COMMAND)
            return
        if unit.attentions and not command.ignores_attention:
            attention = unit.take_attention(task.nexus)
            if attention is not None:
                task.fail(attention)
                return
        if unit.restricted and self._restricts(unit, task, command):
            return
        if looked_at is None and refuses(command, cdb):
            task.fail(command.invalid_field(cdb))
            return
        command.handler(unit, task)

    def _restricts(self, unit: LogicalUnit, task: Task, command: Command) -> bool:
        """Whether the command is refused, and answered, because of a reservation or write protection."""
        if unit.conflicts(task.nexus, command.conflict_of(task.cdb)):
            task.conflict()
            return True
        if (refused := refusal(unit, task.cdb)) is not None:
            task.fail(refused)
            return True
        if command.writes_medium and unit.write_protected:
            task.fail(_WRITE_PROTECTED)
            return True
        return False

    def _execute_without_unit(self, task: Task) -> None:
        """SPC-4 §4.2.2 and §6.6: three commands are answered for a LUN that does not exist."""
        task.running = True
        match task.cdb[0]:
            case OperationCode.INQUIRY if task.cdb[1] & 1 or task.cdb[2]:
                task.fail(invalid_field_in_cdb(1 if task.cdb[1] & 1 else 2))
            case OperationCode.INQUIRY:
                task.give(
                    standard_data(PeripheralType.NOT_CAPABLE, None), int.from_bytes(task.cdb[3:5], "big")
                )
            case OperationCode.REPORT_LUNS:
                report_lun_list(self._luns, task)
            case OperationCode.REQUEST_SENSE:
                task.give(_NO_SUCH_UNIT.encode(descriptors=bool(task.cdb[1] & 1)), task.cdb[4])
            case _:
                task.fail(_NO_SUCH_UNIT)

    # What task management needs

    def reset(self, units: Iterable[LogicalUnit]) -> None:
        """What a LOGICAL UNIT or TARGET RESET does beside aborting tasks; every initiator is told."""
        for unit in units:
            unit.reset()
            unit.establish_attention(RESET)

    def cleared(self, unit: LogicalUnit, by: Nexus, others: Iterable[Nexus]) -> None:
        """Unit attention to the initiators whose commands CLEAR TASK SET of another one took away."""
        for nexus in others:
            if nexus is not by:
                unit.establish_attention_for(nexus, CLEARED)
