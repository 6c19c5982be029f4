"""What a session says beside SCSI: NOP, Text, Logout, task management, asynchronous messages.  Pure.

RFC 7143 §11.5-11.6, §11.9-11.11, §11.14-11.15, §11.18-11.19.
"""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import attrs

from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi import task_management
from pyjiva.iscsi.command import Quiescing
from pyjiva.iscsi.connection import Connection
from pyjiva.iscsi.parameters import Phase, negotiate
from pyjiva.iscsi.pdu import (
    ASYNC_MESSAGE,
    FINAL,
    LOGOUT_REQUEST,
    LOGOUT_RESPONSE,
    NO_TAG,
    NOP_IN,
    NOP_OUT,
    TASK_MANAGEMENT_REQUEST,
    TASK_MANAGEMENT_RESPONSE,
    TEXT_REQUEST,
    TEXT_RESPONSE,
    AsyncEvent,
    LogoutReason,
    LogoutResult,
    Opcode,
    Pdu,
    RejectReason,
    TaskFunction,
    TaskResult,
)
from pyjiva.iscsi.text import TextCollector, encode_text, first_part

__all__ = ["Control", "Peer", "SessionHost"]

PENDING_FUNCTIONS_MAX: Final = 16  # task management requests that wait for aborted tasks
LOGOUT_TIME_S: Final = 5  # what an initiator is given to log out after it was asked to
_CONTINUE: Final = 0x40


@attrs.frozen
class Peer:
    """Who is at the other end, and how it came."""

    initiator_name: str
    host: str
    """Its address."""
    portal: str
    """Where it reached us, as it goes into TargetAddress."""


class SessionHost(Protocol):
    """What a session asks of the target that it belongs to."""

    def send_targets(self, wanted: str, peer: Peer) -> Sequence[tuple[str, str]] | None:
        """The answer to SendTargets=`wanted` for `peer`; None: that cannot be asked."""

    def drop_sessions(self) -> None:
        """TARGET COLD RESET: end every connection."""


@attrs.define(eq=False)
class Control:
    """The handlers of one connection."""

    connection: Connection
    host: SessionHost
    discovery: bool
    target_name: str
    peer: Peer
    cid: int
    finished: Callable[[], None]
    """Called when the connection is to be closed after what is queued was sent."""
    _collector: TextCollector = attrs.field(factory=TextCollector, init=False)
    _text_tag: int = attrs.field(default=NO_TAG, init=False)
    _text_itt: int = attrs.field(default=NO_TAG, init=False)
    _unsent_text: bytes = attrs.field(default=b"", init=False)
    _pending_functions: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        handlers = self.connection.handlers
        handlers[Opcode.NOP_OUT] = self._nop_out
        handlers[Opcode.TEXT_REQUEST] = self._text
        handlers[Opcode.LOGOUT_REQUEST] = self._logout
        handlers[Opcode.TASK_MANAGEMENT_REQUEST] = self._task_management
        if self.discovery:  # §4.3: only text requests, and a logout that closes the session
            handlers[Opcode.SCSI_COMMAND] = lambda pdu: self.connection.refuse_command(
                pdu, RejectReason.PROTOCOL_ERROR
            )
            handlers[Opcode.TASK_MANAGEMENT_REQUEST] = self._refuse

    def _refuse(self, pdu: Pdu) -> None:
        self.connection.reject(pdu, RejectReason.PROTOCOL_ERROR)

    # NOP

    def _nop_out(self, pdu: Pdu) -> None:
        """Echo a ping; the answer to our own ping needs nothing: its arrival is the news."""
        connection = self.connection
        _, _, lun, itt, _, _, _ = NOP_OUT.unpack(pdu.header)
        if itt == NO_TAG:
            return
        if self.discovery:
            self._refuse(pdu)
            return
        data = pdu.data[: connection.parameters.max_recv_data_segment_length]
        header = NOP_IN.pack(
            Opcode.NOP_IN, FINAL, len(data), lun, itt, NO_TAG, connection.take_stat_sn(),
            connection.exp_cmd_sn, connection.max_cmd_sn,
        )  # fmt: skip
        connection.send(header, data)

    def ping(self) -> None:
        """A NOP-In that the initiator must answer."""
        connection = self.connection
        header = NOP_IN.pack(
            Opcode.NOP_IN, FINAL, 0, b"", NO_TAG, connection.next_tag(), connection.stat_sn,
            connection.exp_cmd_sn, connection.max_cmd_sn,
        )  # fmt: skip
        connection.send(header)

    # Text

    def _text(self, pdu: Pdu) -> None:
        _, flags, _, itt, tag, _, _ = TEXT_REQUEST.unpack(pdu.header)
        if tag == NO_TAG:  # a new negotiation; what was left of an old one is void
            self._reset_text()
            self._text_itt = itt
        elif (tag, itt) != (self._text_tag, self._text_itt):
            self.connection.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        final, more = bool(flags & FINAL), bool(flags & _CONTINUE)
        if (final and more) or (self._unsent_text and (more or pdu.data)):
            self._reset_text()
            self.connection.reject(pdu, RejectReason.PROTOCOL_ERROR)
            return
        if self._unsent_text:
            self._send_text(itt, final=final)
            return
        try:
            pairs = self._collector.add(bytes(pdu.data), more=more)
            answers = None if pairs is None else self._answers(pairs)
        except RemoteProtocolError:  # §7.12: the negotiation failed, what held before it holds on
            self._reset_text()
            self.connection.reject(pdu, RejectReason.PROTOCOL_ERROR)
            return
        if answers is None:
            self._text_response(itt, 0, b"")
            return
        self._unsent_text = encode_text(answers)
        self._send_text(itt, final=final)

    def _reset_text(self) -> None:
        self._collector = TextCollector()
        self._unsent_text, self._text_tag = b"", NO_TAG

    def _answers(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Raises RemoteProtocolError: this cannot be negotiated; then nothing is changed."""
        if len({key for key, _ in pairs}) < len(pairs):
            raise RemoteProtocolError("a key stands twice in one negotiation")
        parameters = attrs.evolve(self.connection.parameters)
        answers: list[tuple[str, str]] = []
        for key, value in pairs:
            if key == "SendTargets":
                # §4.3: in a normal session the question can only be for the session's own target
                wanted = value or ("" if self.discovery else self.target_name)
                if not self.discovery and wanted != self.target_name:
                    raise RemoteProtocolError("SendTargets for another target in a normal session")
                targets = self.host.send_targets(wanted, self.peer)
                if targets is None:
                    raise RemoteProtocolError("SendTargets without a value in a discovery session")
                answers.extend(targets)
                continue
            answer = negotiate(
                parameters, key, value, phase=Phase.FULL_FEATURE, discovery=self.discovery, initial=False
            )
            if answer is not None:
                answers.append((key, answer))
        self.connection.parameters = parameters
        self.connection.parameters_changed()
        return answers

    def _send_text(self, itt: int, *, final: bool) -> None:
        part, self._unsent_text = first_part(
            self._unsent_text, self.connection.parameters.max_recv_data_segment_length
        )
        if self._unsent_text:
            self._text_response(itt, _CONTINUE, part)
        else:
            self._text_response(itt, FINAL if final else 0, part)

    def _text_response(self, itt: int, flags: int, data: bytes) -> None:
        connection = self.connection
        self._text_tag = NO_TAG if flags & FINAL else connection.next_tag()
        header = TEXT_RESPONSE.pack(
            Opcode.TEXT_RESPONSE, flags, len(data), b"", itt, self._text_tag, connection.take_stat_sn(),
            connection.exp_cmd_sn, connection.max_cmd_sn,
        )  # fmt: skip
        connection.send(header, data)

    # Logout

    def _logout(self, pdu: Pdu) -> None:
        """The answer waits until no task of the session can change the medium any more."""
        _, reason, itt, cid, _, _ = LOGOUT_REQUEST.unpack(pdu.header)
        match reason & 0x7F:
            case other if self.discovery and other != LogoutReason.CLOSE_SESSION:
                self._refuse(pdu)
            case LogoutReason.CLOSE_CONNECTION if cid != self.cid:
                self._logged_out(itt, LogoutResult.CONNECTION_NOT_FOUND)
            case LogoutReason.CLOSE_SESSION | LogoutReason.CLOSE_CONNECTION:
                quiescing = Quiescing(lambda: self._logged_out(itt, LogoutResult.CLOSED))
                for command in list(self.connection.commands.values()):
                    self.connection.abort(command, quiescing)
                quiescing.leave()
            case LogoutReason.REMOVE_FOR_RECOVERY:
                self._logged_out(itt, LogoutResult.RECOVERY_NOT_SUPPORTED)
            case _:
                self.connection.reject(pdu, RejectReason.INVALID_PDU_FIELD)

    def _logged_out(self, itt: int, result: LogoutResult) -> None:
        connection = self.connection
        if connection.closed:
            return
        header = LOGOUT_RESPONSE.pack(
            Opcode.LOGOUT_RESPONSE, FINAL, result, itt, connection.take_stat_sn(), connection.exp_cmd_sn,
            connection.max_cmd_sn, 0, 0,
        )  # fmt: skip
        connection.send(header)
        if result is LogoutResult.CLOSED:
            self.finished()

    # Task management

    def _task_management(self, pdu: Pdu) -> None:
        """The answer waits until nothing of the aborted tasks can land any more."""
        _, function, lun, itt, referenced, cmd_sn, _, ref_cmd_sn, _ = TASK_MANAGEMENT_REQUEST.unpack(
            pdu.header
        )
        if self._pending_functions == PENDING_FUNCTIONS_MAX:
            self._task_management_response(itt, TaskResult.REJECTED)
            return
        self._pending_functions += 1

        def answer(result: TaskResult) -> None:
            self._pending_functions -= 1
            if self.connection.closed:
                return
            self._task_management_response(itt, result)
            if function & 0x7F == TaskFunction.TARGET_COLD_RESET and result is TaskResult.COMPLETE:
                self.host.drop_sessions()

        task_management.carry_out(
            task_management.Request(
                function=function & 0x7F,
                lun=lun,
                referenced_task_tag=referenced,
                cmd_sn=cmd_sn,
                ref_cmd_sn=ref_cmd_sn,
            ),
            self.connection,
            answer,
        )

    def _task_management_response(self, itt: int, result: TaskResult) -> None:
        connection = self.connection
        header = TASK_MANAGEMENT_RESPONSE.pack(
            Opcode.TASK_MANAGEMENT_RESPONSE, FINAL, result, itt, connection.take_stat_sn(),
            connection.exp_cmd_sn, connection.max_cmd_sn,
        )  # fmt: skip
        connection.send(header)

    # Asynchronous messages

    def announce(self, event: AsyncEvent) -> None:
        """Tell the initiator that the target asks it to log out, or drops the session."""
        connection = self.connection
        if event is AsyncEvent.LOGOUT_REQUESTED:
            parameters = (0, 0, LOGOUT_TIME_S)
        else:
            parameters = (self.cid, connection.parameters.default_time2wait_s, 0)
        header = ASYNC_MESSAGE.pack(
            Opcode.ASYNC_MESSAGE, FINAL, 0, b"", NO_TAG, connection.take_stat_sn(), connection.exp_cmd_sn,
            connection.max_cmd_sn, event, 0, *parameters,
        )  # fmt: skip
        connection.send(header)
