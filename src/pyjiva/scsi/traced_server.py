"""A device server that traces some of its commands: `block.trace`.  Pure.

It stands in the place of the plain one only where an operator asked for traces.
"""

from typing import Any, Final

import attrs

from pyjiva.block import Attribute, Sampler, Step
from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.codes import SenseKey, Status
from pyjiva.scsi.command_lookup import find
from pyjiva.scsi.device_server import DeviceServer
from pyjiva.scsi.task import Task

__all__ = ["TracedServer"]

#: Commands whose CDB has a range of blocks in the usual place.
_WITH_RANGE: Final = (
    *("READ(", "WRITE(", "VERIFY(", "SYNCHRONIZE CACHE(", "PRE-FETCH("),
    *("ORWRITE(", "WRITE SAME(", "WRITE AND VERIFY("),
)
_FIXED_MAX: Final = 0x71  # sense data up to this response code is in the fixed format (SPC-4 §4.5.3)


@attrs.define(eq=False, kw_only=True)
class TracedServer(DeviceServer):
    """As a DeviceServer."""

    sampler: Sampler

    def execute(self, task: Task) -> None:
        """See DeviceServer."""
        sampler = self.sampler
        if task.unit is None or not sampler.wants_next():
            DeviceServer.execute(self, task)  # not super(): attrs makes slotted classes anew
            return
        step = sampler.begin(_name(task), None, **_attributes(task))
        task.done = _Ended(step, task.done)
        DeviceServer.execute(self, task)
        if not task.running:
            step.stops("the order of commands", step.span.begin_ns)

    def _run(self, task: Task) -> None:
        ended = task.done
        if type(ended) is not _Ended:
            DeviceServer._run(self, task)
            return
        step, sampler = ended.step, self.sampler
        step.goes_on()
        before, sampler.current = sampler.current, step
        try:
            DeviceServer._run(self, task)
        finally:
            sampler.current = before


@attrs.frozen(eq=False)
class _Ended:
    """Takes the place of a task's `done`."""

    step: Step
    then: Any

    def __call__(self, task: Task) -> None:
        task.done = self.then
        sense, error = _sense(task), ""
        if task.aborted:
            error = "aborted"
        elif task.status:
            error = sense or Status(task.status).name
        self.step.end(error, status=Status(task.status).name)
        self.then(task)


def _name(task: Task) -> str:
    command = find(task.cdb)
    return f"{task.cdb[0]:#04x}" if command is None else command.name


def _attributes(task: Task) -> dict[str, Attribute]:
    command = find(task.cdb)
    found: dict[str, Attribute] = {
        "operation_code": task.cdb[0],
        "initiator": task.nexus.initiator_port,
    }
    if command is not None and command.name.startswith(_WITH_RANGE):
        found["lba"], found["blocks"], _ = block_range(task.cdb)
    return found


def _sense(task: Task) -> str:
    """Key and additional sense code, in words and numbers; empty: there is none."""
    sense = task.sense
    if len(sense) < 4:
        return ""
    fixed = sense[0] & 0x7F <= _FIXED_MAX
    key, code = (sense[2], sense[12:14]) if fixed else (sense[1], sense[2:4])
    return f"{SenseKey(key & 0x0F).name} {code.hex()}"
