"""One SCSI command on its way through the device server, and the initiator that sent it.  Pure.

The transport makes a Task (iSCSI: a subclass with its own fields), lets it `enter` the task set, fills in
`data_out` and has it executed.  A handler fills in the answer and calls `finish`, perhaps much later, from
a device's `done`; `finish` calls `task.done(task)` exactly once.
"""  # hot

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pyjiva.block import Buffer, Read
from pyjiva.scsi.codes import Status
from pyjiva.scsi.sense import Sense, sense_of

if TYPE_CHECKING:
    from pyjiva.scsi.command_table import Command
    from pyjiva.scsi.unit import LogicalUnit

__all__ = ["Nexus", "Quiescing", "Task"]


@attrs.define(eq=False)
class Nexus:
    """An initiator port as the logical units see it (SAM-5 I_T nexus)."""

    initiator_port: str
    """Name and session identifier: the same again after the initiator has come back."""
    lost: bool = False
    """The session has ended; what it had in flight may still be in flight."""


@attrs.define(eq=False)
class Quiescing:
    """Counts aborted tasks that may still change the medium; `then` is called when there are none left."""

    then: Callable[[], None]
    outstanding: int = 1  # one for whoever is still adding tasks

    def leave(self) -> None:
        """One less to wait for."""
        self.outstanding -= 1
        if not self.outstanding:
            self.then()


@attrs.define(eq=False)
class Task:
    """A command, its data and its answer."""

    cdb: bytes
    nexus: Nexus
    done: Callable[[Any], None]
    attribute: int
    expected_bytes: int = 0
    """What the initiator offers or has room for, whatever the CDB says (iSCSI: EDTL)."""
    unit: "LogicalUnit | None" = None
    looked_at: "Command | None" = None
    """The row of the command table, once it is known that `cdb` asks for nothing that the row refuses."""
    data_out: Sequence[Buffer] = ()
    """What the initiator sent, at most what the command asked for."""
    data_out_bytes: int = 0
    status: int = 0
    data_in: Sequence[Buffer] = ()
    data_in_bytes: int = 0
    sense: bytes = b""
    running: bool = False
    """Given to its handler: device requests may be outstanding until `finish`."""
    exclusive: tuple[int, int] | None = None
    """Blocks (first, end) that it has for itself, or waits to have (`LogicalUnit.exclusively`)."""
    aborted: bool = False
    """Nobody wants the answer; no further device request may be started."""
    quiescings: tuple[Quiescing, ...] = ()
    """Who waits for the end of this aborted task: `done` lets each of them `leave`."""

    def abort(self, quiescing: Quiescing | None) -> None:
        """No answer is wanted any more; `quiescing` waits if the task may still change the medium."""
        if not self.running:
            assert self.unit is not None
            self.unit.drop(self)
            return
        self.aborted = True
        if quiescing is not None:
            quiescing.outstanding += 1
            self.quiescings = (*self.quiescings, quiescing)

    def finish(self) -> None:
        """The answer is complete and nothing of this task is outstanding any more."""
        self.done(self)  # before others may start: answers go out in the order of the tasks
        unit = self.unit
        if unit is not None:
            unit.left(self)

    def give(self, data: bytes, allocation_length_bytes: int) -> None:
        """Finish with parameter data, cut to what the CDB has room for (SPC-4 §4.2.5.6)."""
        data = data[:allocation_length_bytes]
        if data:
            self.data_in = (data,)
            self.data_in_bytes = len(data)
        self.finish()

    def fail(self, sense: Sense) -> None:
        """Finish with CHECK CONDITION."""
        unit = self.unit
        self.status = Status.CHECK_CONDITION
        self.sense = sense.encode(descriptors=unit is not None and unit.mode.descriptor_sense)
        self.data_in = ()
        self.data_in_bytes = 0
        self.finish()

    def conflict(self) -> None:
        """Finish with RESERVATION CONFLICT."""
        self.status = Status.RESERVATION_CONFLICT
        self.finish()

    def read_done(self, request: Read) -> None:
        """The device has read: the data is the answer."""
        if request.error is not None:
            self.fail(sense_of(request.error))
            return
        self.data_in = request.data
        self.data_in_bytes = request.length_bytes
        self.finish()

    def request_done(self, request: Any) -> None:
        """A device request that gives nothing but an error was the last step."""
        if request.error is not None:
            self.fail(sense_of(request.error))
        else:
            self.finish()
