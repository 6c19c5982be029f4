"""Task management functions (RFC 7143 §11.5-11.6; SAM-5 clause 7).  Pure.

A function is answered when nothing of the tasks that it aborted can still change the medium: tasks whose
data was still being collected, or that were held back, are simply taken out; of running ones the device
requests are awaited (`Quiescing`).  So an initiator that was told "function complete" may reuse the blocks
at once.

All sessions share one task set for each logical unit (TST 000b) and tasks that another initiator aborts
are not answered (TAS 0): their initiators get a unit attention instead.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from pyjiva.iscsi.command import Quiescing, ScsiCommand
from pyjiva.iscsi.connection import Connection
from pyjiva.iscsi.pdu import TaskFunction, TaskResult, serial_less
from pyjiva.scsi import LogicalUnit

__all__ = ["Request", "carry_out"]

Answer = Callable[[TaskResult], None]


@attrs.frozen(kw_only=True)
class Request:
    """A task management request."""

    function: int
    lun: bytes
    referenced_task_tag: int
    cmd_sn: int
    ref_cmd_sn: int


def carry_out(request: Request, connection: Connection, answer: Answer) -> None:
    """Do what is asked; `answer` is called when it is done, perhaps later."""
    handler = _FUNCTIONS.get(request.function)
    if handler is None:
        answer(TaskResult.NOT_SUPPORTED)
    else:
        handler(request, connection, answer)


def _abort_task(request: Request, connection: Connection, answer: Answer) -> None:
    command = connection.commands.get(request.referenced_task_tag)
    if command is None:
        # Answered, or never sent; or it waits for older ones, or was rejected for its digest: it must not
        # be carried out when it comes again.
        is_older = serial_less(request.ref_cmd_sn, request.cmd_sn)
        held_off = is_older and connection.forestall(request.ref_cmd_sn, request.referenced_task_tag)
        answer(TaskResult.COMPLETE if held_off else TaskResult.TASK_DOES_NOT_EXIST)
    elif command.unit is not connection.server.unit_at(request.lun):
        answer(TaskResult.TASK_DOES_NOT_EXIST)
    else:
        _abort([command], answer)


def _abort_task_set(request: Request, connection: Connection, answer: Answer) -> None:
    """Every older task of this session on the logical unit."""
    unit = connection.server.unit_at(request.lun)
    if unit is None:
        answer(TaskResult.LUN_DOES_NOT_EXIST)
        return
    connection.forestall_all(request.cmd_sn, [unit])
    _abort(
        [
            command
            for command in connection.commands.values()
            if command.unit is unit and (command.immediate or serial_less(command.cmd_sn, request.cmd_sn))
        ],
        answer,
    )


def _clear_task_set(request: Request, connection: Connection, answer: Answer) -> None:
    """Every task on the logical unit; other initiators that lose some get a unit attention."""
    unit = connection.server.unit_at(request.lun)
    if unit is None:
        answer(TaskResult.LUN_DOES_NOT_EXIST)
        return
    connection.forestall_all(request.cmd_sn, [unit])
    commands = _commands(unit)
    connection.server.cleared(unit, connection.nexus, {command.nexus: None for command in commands})
    _abort(commands, answer)


def _logical_unit_reset(request: Request, connection: Connection, answer: Answer) -> None:
    unit = connection.server.unit_at(request.lun)
    if unit is None:
        answer(TaskResult.LUN_DOES_NOT_EXIST)
        return
    connection.forestall_all(request.cmd_sn, [unit])
    connection.server.reset([unit])
    _abort(_commands(unit), answer)


def _target_reset(request: Request, connection: Connection, answer: Answer) -> None:
    """All logical units; what a cold reset does beyond that, the connection's host does after the answer."""
    units = connection.server.units.values()
    connection.forestall_all(request.cmd_sn, list(units))
    connection.server.reset(units)
    _abort([command for unit in units for command in _commands(unit)], answer)


def _reassign(_request: Request, _connection: Connection, answer: Answer) -> None:
    """Only with ErrorRecoveryLevel 2."""
    answer(TaskResult.REASSIGNMENT_NOT_SUPPORTED)


def _commands(unit: LogicalUnit) -> list[ScsiCommand]:
    return [task for task in unit.tasks if isinstance(task, ScsiCommand)]


def _abort(commands: Iterable[ScsiCommand], answer: Answer) -> None:
    quiescing = Quiescing(lambda: answer(TaskResult.COMPLETE))
    for command in commands:
        # An abort may set free a held command, which finishes at once: then it is not there any more.
        if command.connection.commands.get(command.itt) is command:
            command.connection.abort(command, quiescing)
    quiescing.leave()


_FUNCTIONS: Final[Mapping[int, Callable[[Request, Connection, Answer], None]]] = {
    TaskFunction.ABORT_TASK: _abort_task,
    TaskFunction.ABORT_TASK_SET: _abort_task_set,
    TaskFunction.CLEAR_TASK_SET: _clear_task_set,
    TaskFunction.LOGICAL_UNIT_RESET: _logical_unit_reset,
    TaskFunction.TARGET_WARM_RESET: _target_reset,
    TaskFunction.TARGET_COLD_RESET: _target_reset,
    TaskFunction.TASK_REASSIGN: _reassign,
}
