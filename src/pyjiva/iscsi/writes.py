"""Write data of a connection: takes it in, asks for more, starts the command when it is complete.  Pure.

R2Ts are sent within a budget for the whole connection, so that initiators cannot make us hold more data
than SOLICITED_BYTES_MAX (one command that is larger may always go).  `transfer` has the rules for one
command.
"""  # hot

import collections
from typing import TYPE_CHECKING, Final

import attrs

from pyjiva.block import Buffer
from pyjiva.iscsi.command import READ_FLAG, ScsiCommand
from pyjiva.iscsi.pdu import DATA_OUT, FINAL, READY_TO_TRANSFER, Opcode, Pdu, RejectReason
from pyjiva.iscsi.transfer import UNEXPECTED_DATA, DataTransfer
from pyjiva.scsi import AdditionalSense, Sense, SenseKey
from pyjiva.units import MIB

if TYPE_CHECKING:
    from pyjiva.iscsi.connection import Connection

__all__ = ["SOLICITED_BYTES_MAX", "WriteIntake"]

SOLICITED_BYTES_MAX: Final = 16 * MIB  # write data asked for and not yet written

_BAD_INFORMATION_UNIT: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT
)


@attrs.define(eq=False)
class WriteIntake:
    """The writes of one connection whose data is still coming."""

    connection: "Connection"
    solicited_bytes: int = 0
    _waiting: collections.deque[ScsiCommand] = attrs.field(factory=collections.deque, init=False)
    """Commands whose R2Ts wait for the budget."""

    def begin(self, command: ScsiCommand, data: Buffer) -> None:
        """A write has arrived, with `data` in it."""
        connection = self.connection
        parameters = connection.parameters
        final = command.flags & FINAL
        if command.flags & READ_FLAG:  # no command of ours goes both ways
            command.transfer = DataTransfer(0, 0, unsolicited_open=not final, failed=_BAD_INFORMATION_UNIT)
            self._go_on(command)
            return
        command.needed_bytes = connection.server.data_out_bytes(command)
        wanted = min(command.expected_bytes, command.needed_bytes)
        if final and wanted <= len(data) <= parameters.first_burst_length and parameters.immediate_data:
            if wanted:
                command.data_out = (data if wanted == len(data) else data[:wanted],)
                command.data_out_bytes = wanted
            connection.server.execute(command)
            return
        transfer = DataTransfer(
            wanted,
            min(parameters.first_burst_length, command.expected_bytes),
            unsolicited_open=not final,
        )
        command.transfer = transfer
        if (data and not parameters.immediate_data) or (not final and parameters.initial_r2t):
            transfer.failed = UNEXPECTED_DATA
        elif data:
            transfer.immediate(data)
        self._go_on(command)

    def data_out(self, pdu: Pdu) -> None:
        """One Data-Out PDU."""
        connection = self.connection
        _, flags, _, itt, tag, _, data_sn, offset_bytes = DATA_OUT.unpack(pdu.header)
        command = connection.commands.get(itt)
        if not pdu.data_intact:
            connection.reject(pdu, RejectReason.DATA_DIGEST_ERROR)
        if command is None or command.transfer is None:
            return  # of a command that was aborted, or answered before its data came
        command.transfer.receive(
            tag=tag,
            data_sn=data_sn,
            offset_bytes=offset_bytes,
            data=pdu.data,
            final=bool(flags & FINAL),
            intact=pdu.data_intact,
        )
        self._go_on(command)

    def _go_on(self, command: ScsiCommand) -> None:
        """Ask for more data, or carry the command out when it is all there."""
        transfer = command.transfer
        assert transfer is not None
        if transfer.complete:
            command.transfer = None
            if transfer.failed is not None:
                command.running = True
                command.fail(transfer.failed)
                return
            command.data_out = transfer.buffers
            command.data_out_bytes = transfer.received_bytes
            self.connection.server.execute(command)
        elif transfer.remaining_bytes and not transfer.unsolicited_open:
            if not command.solicited_bytes:
                if (
                    self.solicited_bytes
                    and self.solicited_bytes + transfer.remaining_bytes > SOLICITED_BYTES_MAX
                ):
                    if command not in self._waiting:
                        self._waiting.append(command)
                    return
                command.solicited_bytes = transfer.remaining_bytes
                self.solicited_bytes += command.solicited_bytes
            self._ask(command, transfer)

    def _ask(self, command: ScsiCommand, transfer: DataTransfer) -> None:
        connection = self.connection
        parameters = connection.parameters
        while True:
            sequence = transfer.ask(
                connection.next_tag(), parameters.max_burst_length, parameters.max_outstanding_r2t
            )
            if sequence is None:
                return
            header = READY_TO_TRANSFER.pack(
                Opcode.READY_TO_TRANSFER,
                FINAL,
                bytes(8),
                command.itt,
                sequence.target_transfer_tag,
                connection.stat_sn,
                connection.exp_cmd_sn,
                connection.max_cmd_sn,
                sequence.r2t_sn,
                sequence.offset_bytes,
                sequence.length_bytes,
            )
            connection.send(header)

    def give_back(self, command: ScsiCommand) -> None:
        """The command is finished: others may ask for as much."""
        self.solicited_bytes -= command.solicited_bytes
        waiting, self._waiting = self._waiting, collections.deque()
        for other in waiting:
            if other.transfer is not None and self.connection.commands.get(other.itt) is other:
                self._go_on(other)
