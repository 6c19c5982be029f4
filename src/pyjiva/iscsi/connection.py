"""A connection in full feature phase: commands, data and answers, their numbers and limits.  Pure.

RFC 7143 §4.2, §11.

`receive_all` takes every complete PDU out of the buffer; what they cause is sent through `out` at once or
when a device answers.  No task, no queue: a READ from a device that answers in place is two function calls
deep in here.

Numbering (§4.2.2).  With one connection a session, commands come in CmdSN order; one that comes early (after
a PDU with a wrong data digest was rejected) waits in `_early`.  The window is real: MaxCmdSN grows by one
with every command that is answered, so at most COMMAND_WINDOW are in the target at a time.

Memory is bounded by: the window, the budgets for solicited write data (R2Ts wait for it) and for read data
(large reads wait for it), and the limit on bytes queued for sending: beyond it no further PDU is looked at.
While a device is late, only what needs a budget waits: pings are answered, so that initiators stay.
"""  # hot

import collections
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import attrs

from pyjiva.buffers import Buffer, word_at
from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.answers import DATA_IN_FINAL_STATUS, answer_at_length
from pyjiva.iscsi.command import ATTRIBUTE_MASK, READ_FLAG, WRITE_FLAG, Quiescing, ScsiCommand
from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.parameters import Parameters
from pyjiva.iscsi.pdu import (
    FINAL,
    IMMEDIATE,
    NO_TAG,
    OPCODE_MASK,
    REJECT,
    SERIAL_MASK,
    Opcode,
    Pdu,
    RejectReason,
    command_fields,
    header_of_words,
    serial_less,
)
from pyjiva.iscsi.transfer import UNEXPECTED_DATA
from pyjiva.iscsi.writes import WriteIntake
from pyjiva.scsi import TRANSFER_BYTES_MAX, DeviceServer, LogicalUnit, Nexus, Status
from pyjiva.units import KIB, MIB

__all__ = ["COMMAND_WINDOW", "Connection", "Outgoing"]

COMMAND_WINDOW: Final = (
    128  # commands in the target at a time, for each session: as Linux' default queue depth
)
IMMEDIATE_COMMANDS_MAX: Final = 16  # they are outside the window, so they need a bound of their own
READING_BYTES_MAX: Final = 32 * MIB  # read data that devices were asked for, in reads that are not small
SMALL_READ_BYTES: Final = 64 * KIB  # a whole window of small reads is 8 MiB: they need no budget
QUEUED_BYTES_MAX: Final = 8 * MIB  # answers that the initiator has not taken: then nothing more is read

_CMD_SN_OFFSET: Final = 24
_EXTENDED_CDB: Final = 1  # type of additional header segment
# Plain integers: a member of an enum costs a look-up through its metaclass each time.
_DATA_IN_WITH_STATUS: Final = Opcode.DATA_IN << 24 | DATA_IN_FINAL_STATUS << 16
_RESPONSE_ALONE: Final = Opcode.SCSI_RESPONSE << 24 | FINAL << 16
_GOOD: Final = int(Status.GOOD)
_DATA_OUT_OPCODE: Final = int(Opcode.DATA_OUT)
_SCSI_COMMAND_OPCODE: Final = int(Opcode.SCSI_COMMAND)


class Outgoing(Protocol):
    """Where PDUs go: a BatchedStream."""

    @property
    def queued_bytes(self) -> int:
        """What was handed to `send` and has not left yet."""

    def send(self, *buffers: Buffer) -> None:
        """Queue buffers; they leave at the end of the batch."""


@attrs.define(eq=False)
class Connection:
    """The only connection of a session (MaxConnections=1)."""

    out: Outgoing
    framing: Framing
    server: DeviceServer
    nexus: Nexus
    parameters: Parameters
    stat_sn: int
    exp_cmd_sn: int
    commands: dict[int, ScsiCommand] = attrs.field(factory=dict, init=False)
    """Commands in the target, by initiator task tag."""
    handlers: dict[int, Callable[[Pdu], None]] = attrs.field(factory=dict, init=False)
    """By operation code; `control` adds those that carry no SCSI data."""
    writes: WriteIntake = attrs.field(init=False)
    closed: bool = attrs.field(default=False, init=False)
    _send: Callable[[*tuple[Buffer, ...]], None] = attrs.field(init=False)
    """`out.send`, looked for once."""
    _done: Callable[[Any], None] = attrs.field(init=False)
    """`answer`, bound once."""
    _end_cmd_sn: int = attrs.field(init=False)
    """MaxCmdSN + 1."""
    _early: dict[int, Pdu | None] = attrs.field(factory=dict, init=False)
    """Commands before which others are missing, by CmdSN; None: one that must not be carried out."""
    _immediate_count: int = attrs.field(default=0, init=False)
    _next_tag: int = attrs.field(default=0, init=False)
    _reading_bytes: int = attrs.field(default=0, init=False)
    _starting_reads: bool = attrs.field(default=False, init=False)
    _waiting_reads: collections.deque[ScsiCommand] = attrs.field(factory=collections.deque, init=False)
    _whole_data_in_bytes: int = attrs.field(init=False)
    """Read data up to this size goes out as one PDU without further ado; 0 with digests."""

    def __attrs_post_init__(self) -> None:
        self._end_cmd_sn = (self.exp_cmd_sn + COMMAND_WINDOW) & SERIAL_MASK
        self._send = self.out.send
        self._done = self.answer
        self.writes = WriteIntake(self)
        self.handlers[_SCSI_COMMAND_OPCODE] = self._scsi_command
        self.parameters_changed()

    def parameters_changed(self) -> None:
        """The initiator has declared another MaxRecvDataSegmentLength."""
        parameters = self.parameters
        whole = min(parameters.max_recv_data_segment_length, parameters.max_burst_length)
        self._whole_data_in_bytes = 0 if self.framing.header_digest or self.framing.data_digest else whole

    # Receiving

    def receive_all(self) -> bool:
        """Handle every complete PDU; True if it stopped early, because too much waits to be sent.

        Raises RemoteProtocolError: the connection must be closed.
        """
        framing, out = self.framing, self.out
        while True:
            if out.queued_bytes > QUEUED_BYTES_MAX:
                return True
            pdu = framing.next_pdu()
            if pdu is None:
                return False
            self.receive(pdu)

    def receive(self, pdu: Pdu) -> None:
        """One PDU, in whatever order it came."""
        first = pdu.header[0]
        opcode = first & OPCODE_MASK
        if opcode == _DATA_OUT_OPCODE:
            self.writes.data_out(pdu)
            return
        handler = self.handlers.get(opcode)
        if handler is None:
            self.reject(pdu, _REASONS.get(opcode, RejectReason.COMMAND_NOT_SUPPORTED))
        elif not pdu.data_intact:
            self.reject(pdu, RejectReason.DATA_DIGEST_ERROR)
        elif first & IMMEDIATE:
            handler(pdu)
        else:
            cmd_sn = word_at(pdu.header, _CMD_SN_OFFSET)
            if cmd_sn != self.exp_cmd_sn or cmd_sn == self._end_cmd_sn:
                self._out_of_order(cmd_sn, pdu)
                return
            self.exp_cmd_sn = (cmd_sn + 1) & SERIAL_MASK
            if opcode != _SCSI_COMMAND_OPCODE:  # a command keeps its place in the window until its answer
                self._end_cmd_sn = (self._end_cmd_sn + 1) & SERIAL_MASK
            handler(pdu)
            if self._early:
                self._catch_up()

    def _out_of_order(self, cmd_sn: int, pdu: Pdu) -> None:
        """Outside the window a command is ignored (§4.2.2.1), inside it waits for those before it."""
        distance = (cmd_sn - self.exp_cmd_sn) & SERIAL_MASK
        if distance < (self._end_cmd_sn - self.exp_cmd_sn) & SERIAL_MASK:
            # With a copy of its data: a view would keep a whole receive buffer for as long as it waits.
            waiting = Pdu(pdu.header, bytes(pdu.data), pdu.additional)
            self._early.setdefault(cmd_sn, waiting)

    def _catch_up(self) -> None:
        while self.exp_cmd_sn in self._early:
            pdu = self._early.pop(self.exp_cmd_sn)
            self.exp_cmd_sn = (self.exp_cmd_sn + 1) & SERIAL_MASK
            if pdu is None:
                self._end_cmd_sn = (self._end_cmd_sn + 1) & SERIAL_MASK
                continue
            opcode = pdu.header[0] & OPCODE_MASK
            if opcode != _SCSI_COMMAND_OPCODE:
                self._end_cmd_sn = (self._end_cmd_sn + 1) & SERIAL_MASK
            self.handlers[opcode](pdu)

    def _scsi_command(self, pdu: Pdu) -> None:
        header = pdu.header
        flags, lun, itt, expected_bytes, cmd_sn, cdb = command_fields(header)
        immediate = header[0] & IMMEDIATE
        if itt in self.commands or itt == NO_TAG:
            self.refuse_command(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        if immediate:
            if self._immediate_count == IMMEDIATE_COMMANDS_MAX:
                self.refuse_command(pdu, RejectReason.IMMEDIATE_COMMAND_REJECT)
                return
            self._immediate_count += 1
        if pdu.additional:
            cdb = _long_cdb(cdb, pdu.additional)
        command = ScsiCommand(
            cdb,
            self.nexus,
            self._done,
            flags & ATTRIBUTE_MASK,
            expected_bytes,
            connection=self,
            itt=itt,
            flags=flags,
            immediate=immediate,
            cmd_sn=cmd_sn,
        )
        self.commands[itt] = command
        server = self.server
        server.enter(command, lun)
        if flags & WRITE_FLAG:
            self.writes.begin(command, pdu.data)
            return
        if len(pdu.data):
            command.running = True
            command.fail(UNEXPECTED_DATA)
        elif expected_bytes > SMALL_READ_BYTES:
            self._waiting_reads.append(command)
            self._start_reads()
        else:
            server.execute(command)

    def _start_reads(self) -> None:
        """Start large reads in their order, as far as the budget goes; one may always run."""
        if self._starting_reads:  # one that was just started is answered already: the loop below goes on
            return
        self._starting_reads = True
        waiting = self._waiting_reads
        while waiting:
            command = waiting[0]
            size = min(command.expected_bytes, TRANSFER_BYTES_MAX)
            if self._reading_bytes and self._reading_bytes + size > READING_BYTES_MAX:
                break
            waiting.popleft()
            if self.commands.get(command.itt) is command:  # not aborted while it waited
                command.reading_bytes = size
                self._reading_bytes += size
                self.server.execute(command)
        self._starting_reads = False

    def refuse_command(self, pdu: Pdu, reason: RejectReason) -> None:
        """Reject a SCSI command, which gives its place in the window back."""
        if not pdu.header[0] & IMMEDIATE:
            self._end_cmd_sn = (self._end_cmd_sn + 1) & SERIAL_MASK
        self.reject(pdu, reason)

    def next_tag(self) -> int:
        """A target transfer tag that is not in use."""
        tag = self._next_tag
        self._next_tag = (tag + 1) % NO_TAG
        return tag

    # Answers

    def answer(self, task: Any) -> None:
        """`done` of every command: its answer goes out, unless nobody wants it any more."""
        command: ScsiCommand = task  # whose fields are found faster, compiled, than those of anything
        self._forget(command)
        if command.aborted:
            for quiescing in command.quiescings:
                quiescing.leave()
            return
        data_bytes = command.data_in_bytes
        if (
            data_bytes
            and data_bytes == command.expected_bytes
            and data_bytes <= self._whole_data_in_bytes
            and not data_bytes & 3
            and command.flags & READ_FLAG
        ):
            header = header_of_words(
                _DATA_IN_WITH_STATUS | command.status,
                data_bytes,
                0,
                0,
                command.itt,
                NO_TAG,
                self.take_stat_sn(),
                self.exp_cmd_sn,
                self.max_cmd_sn,
            )
            data_in = command.data_in
            if len(data_in) == 1:  # as nearly always: nothing is to be put together for the call
                self._send(header, data_in[0])
            else:
                self._send(header, *data_in)
        elif (
            command.flags & WRITE_FLAG
            and command.status == _GOOD
            and command.needed_bytes == command.expected_bytes
            and not self.framing.header_digest
        ):
            self._send(
                header_of_words(
                    _RESPONSE_ALONE,
                    0,
                    0,
                    0,
                    command.itt,
                    0,
                    self.take_stat_sn(),
                    self.exp_cmd_sn,
                    self.max_cmd_sn,
                )
            )
        else:
            answer_at_length(self, command)

    def _forget(self, command: ScsiCommand) -> None:
        del self.commands[command.itt]
        if command.immediate:
            self._immediate_count -= 1
        else:
            self._end_cmd_sn = (self._end_cmd_sn + 1) & SERIAL_MASK
        if command.reading_bytes:
            self._reading_bytes -= command.reading_bytes
            self._start_reads()
        elif command.solicited_bytes:
            self.writes.give_back(command)

    def take_stat_sn(self) -> int:
        """The number of the next status, used up."""
        stat_sn = self.stat_sn
        self.stat_sn = (stat_sn + 1) & SERIAL_MASK
        return stat_sn

    @property
    def max_cmd_sn(self) -> int:
        """The last CmdSN that the initiator may send."""
        return (self._end_cmd_sn - 1) & SERIAL_MASK

    def send(self, header: bytes, data: Buffer = b"") -> None:
        """A PDU with at most one buffer of data."""
        self.out.send(*self.framing.encode(header, (data,), len(data)))

    def reject(self, pdu: Pdu, reason: RejectReason) -> None:
        """Reject with the header that was wrong (§11.17)."""
        header = REJECT.pack(
            Opcode.REJECT, FINAL, reason, len(pdu.header), NO_TAG, self.take_stat_sn(), self.exp_cmd_sn,
            self.max_cmd_sn,
        )  # fmt: skip
        self.send(header, pdu.header)

    # Aborts

    def abort(self, command: ScsiCommand, quiescing: Quiescing | None) -> None:
        """The command gets no answer; `quiescing` waits if it may still change the medium."""
        if command.running:
            command.aborted = True
            if quiescing is not None:
                quiescing.outstanding += 1
                command.quiescings = (*command.quiescings, quiescing)
            return
        if command.unit is not None:
            command.unit.drop(command)
        self._forget(command)

    def forestall(self, cmd_sn: int, itt: int) -> bool:
        """Take command `cmd_sn` as received, but never carry it out; False: it was received before, is not
        in the window, or has another task tag (§11.5.1, ABORT TASK).
        """
        window = (self._end_cmd_sn - self.exp_cmd_sn) & SERIAL_MASK
        if (cmd_sn - self.exp_cmd_sn) & SERIAL_MASK >= window:
            return False
        early = self._early.get(cmd_sn)
        if early is not None and early.header[16:20] != itt.to_bytes(4, "big"):
            return False
        self._early[cmd_sn] = None
        self._catch_up()
        return True

    def forestall_all(self, before_cmd_sn: int, units: Collection[LogicalUnit]) -> None:
        """Never carry out the commands for `units` that came early and are older than `before_cmd_sn`."""
        for cmd_sn, pdu in self._early.items():
            if (
                pdu is not None
                and pdu.header[0] & OPCODE_MASK == _SCSI_COMMAND_OPCODE
                and serial_less(cmd_sn, before_cmd_sn)
                and self.server.unit_at(pdu.header[8:16]) in units
            ):
                self._early[cmd_sn] = None

    def close(self) -> None:
        """The connection has ended: nothing is sent any more, what was not started never starts."""
        self.closed = True
        for command in list(self.commands.values()):
            self.abort(command, None)
        self.server.detach(self.nexus)


_REASONS: Final = {int(Opcode.SNACK_REQUEST): RejectReason.SNACK_REJECT}


def _long_cdb(cdb: bytes, additional: bytes) -> bytes:
    """The CDB with what an extended CDB header adds (§11.2.2.3).  Raises RemoteProtocolError: malformed."""
    start = 0
    while start + 4 <= len(additional):
        length, kind = int.from_bytes(additional[start : start + 2], "big"), additional[start + 2]
        if start + 3 + length > len(additional):
            raise RemoteProtocolError("additional header segment is cut short")
        if kind & 0x3F == _EXTENDED_CDB:
            return cdb + additional[start + 4 : start + 3 + length]
        start += (3 + length + 3) & ~3
    return cdb
