"""A small scripted iSCSI initiator: every PDU can be sent and received by hand, common exchanges in one call.

It does what a test tells it to, right or wrong; nothing is retried or hidden.  Answers that come while
another one is waited for are kept.  Write data goes out as the negotiated parameters allow, R2Ts are served.
"""

import collections
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from pyjiva.iscsi.framing import Framing
from pyjiva.iscsi.pdu import (
    DATA_IN,
    DATA_OUT,
    FINAL,
    IMMEDIATE,
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    LOGOUT_REQUEST,
    NO_TAG,
    NOP_OUT,
    OPCODE_MASK,
    READY_TO_TRANSFER,
    SCSI_COMMAND,
    SCSI_RESPONSE,
    TASK_MANAGEMENT_REQUEST,
    TEXT_REQUEST,
    Opcode,
    Pdu,
    TaskFunction,
)
from pyjiva.iscsi.text import decode_text, encode_text
from pyjiva.testing.initiator_answers import Answer, ConnectionEnded, LoginAnswer
from pyjiva.transport import ReceiveBuffer

__all__ = [
    "INITIATOR_NAME",
    "OFFER",
    "Answer",
    "ConnectionEnded",
    "Initiator",
    "LoginAnswer",
    "open_initiator",
]

INITIATOR_NAME: Final = "iqn.2026-01.test:initiator"
RECEIVE_BYTES: Final = 65536
ANSWER_TIME_S: Final = 10.0

OFFER: Final[Mapping[str, str]] = {
    "HeaderDigest": "None",
    "DataDigest": "None",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "1048576",
    "FirstBurstLength": "262144",
    "MaxOutstandingR2T": "4",
    "MaxConnections": "1",
    "MaxRecvDataSegmentLength": "262144",
    "ErrorRecoveryLevel": "0",
}

_OVERFLOW: Final = 0x04
_UNDERFLOW: Final = 0x02
_HAS_STATUS: Final = 0x01


@attrs.define(eq=False)
class _Pending:
    data: bytes
    answer: Answer = attrs.field(factory=Answer)
    done: bool = False


@attrs.define(eq=False)
class Initiator:
    """One connection to a target."""

    stream: trio.abc.Stream
    framing: Framing = attrs.field(factory=lambda: Framing(ReceiveBuffer(), (1 << 24) - 1))
    cmd_sn: int = 1
    exp_stat_sn: int = 0
    max_cmd_sn: int = 0
    isid: bytes = b"\x80\x12\x34\x56\x78\x9a"
    keys: dict[str, str] = attrs.field(factory=dict)
    """What the target answered during login."""
    serve_r2ts: bool = True
    """False: the test serves R2Ts itself."""
    others: collections.deque[Pdu] = attrs.field(factory=collections.deque)
    """PDUs that nobody waited for."""
    answer_time_s: float = ANSWER_TIME_S
    """How long the target may be silent while something is waited for."""
    _next_itt: int = 1
    _pending: dict[int, _Pending] = attrs.field(factory=dict)

    # PDUs

    async def send(self, header: bytes, data: bytes = b"") -> None:
        """One PDU; the length field of `header` is filled in."""
        header = header[:5] + len(data).to_bytes(3, "big") + header[8:]
        await self.stream.send_all(
            b"".join(bytes(b) for b in self.framing.encode(header, (data,), len(data)))
        )

    async def receive(self) -> Pdu:
        """The next PDU, whatever it is.  Raises ConnectionEnded."""
        with trio.fail_after(self.answer_time_s):
            while (pdu := self.framing.next_pdu()) is None:
                try:
                    data = await self.stream.receive_some(RECEIVE_BYTES)
                except trio.BrokenResourceError:
                    data = b""
                if not data:
                    raise ConnectionEnded
                self.framing.receive_data(data)
        assert pdu.data_intact
        opcode = pdu.header[0] & OPCODE_MASK
        if opcode not in (Opcode.LOGIN_RESPONSE,):
            self.max_cmd_sn = int.from_bytes(pdu.header[32:36], "big")
        return pdu

    async def receive_opcode(self, opcode: Opcode) -> Pdu:
        """The next PDU of one kind; answers of commands on the way are kept."""
        for pdu in self.others:
            if pdu.header[0] & OPCODE_MASK == opcode:
                self.others.remove(pdu)
                return pdu
        while True:
            pdu = await self.receive()
            if pdu.header[0] & OPCODE_MASK == opcode:
                return pdu
            await self._keep(pdu)

    async def wait_closed(self) -> None:
        """Wait until the target has closed the connection."""
        try:
            while True:
                await self._keep(await self.receive())
        except ConnectionEnded:
            return

    def take_itt(self) -> int:
        """An initiator task tag that is not in use."""
        self._next_itt += 1
        return self._next_itt

    def take_cmd_sn(self) -> int:
        """The next CmdSN, used up."""
        self.cmd_sn = (self.cmd_sn + 1) & 0xFFFF_FFFF
        return (self.cmd_sn - 1) & 0xFFFF_FFFF

    # Login

    async def login_request(
        self,
        *,
        flags: int,
        text: bytes = b"",
        tsih: int = 0,
        itt: int = 0,
        cid: int = 1,
        version_min: int = 0,
    ) -> LoginAnswer:
        """One Login Request and its response."""
        header = LOGIN_REQUEST.pack(
            Opcode.LOGIN_REQUEST | IMMEDIATE,
            flags,
            0,
            version_min,
            self.isid,
            tsih,
            itt,
            cid,
            self.cmd_sn,
            self.exp_stat_sn,
        )
        await self.send(header, text)
        pdu = await self.receive()
        assert pdu.header[0] == Opcode.LOGIN_RESPONSE
        _, reply_flags, _, _, _, _, tsih, _, stat_sn, exp_cmd_sn, max_cmd_sn, status = LOGIN_RESPONSE.unpack(
            pdu.header
        )
        self.exp_stat_sn, self.max_cmd_sn = stat_sn + 1, max_cmd_sn
        assert exp_cmd_sn == self.cmd_sn
        keys = dict(decode_text(bytes(pdu.data)))
        self.keys.update(keys)
        return LoginAnswer(status, keys, tsih, bool(reply_flags & 0x80), reply_flags & 3)

    async def login(
        self, target_name: str = "", *, offer: Mapping[str, str] = OFFER, tsih: int = 0, **names: str
    ) -> LoginAnswer:
        """A login in one request, without a security stage; a discovery session without a target name."""
        keys = {"InitiatorName": INITIATOR_NAME}
        keys |= {"TargetName": target_name} if target_name else {"SessionType": "Discovery"}
        keys |= {**names, **offer}
        answer = await self.login_request(flags=0x87, text=encode_text(keys.items()), tsih=tsih)
        if answer.status == 0:
            self.framing.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
            self.framing.data_digest = self.keys.get("DataDigest") == "CRC32C"
        return answer

    # SCSI

    async def send_command(
        self,
        cdb: bytes,
        *,
        data: bytes = b"",
        read_bytes: int = 0,
        expected_bytes: int | None = None,
        immediate_bytes: int | None = None,
        lun: int = 0,
        attribute: int = 1,
        immediate: bool = False,
        flags: int | None = None,
        cmd_sn: int | None = None,
    ) -> int:
        """Send a command with its unsolicited data; returns its task tag."""
        itt = self.take_itt()
        unsolicited = self._unsolicited_bytes(len(data))
        if immediate_bytes is None:
            immediate_bytes = unsolicited if self.keys.get("ImmediateData", "Yes") == "Yes" else 0
        more = self.keys.get("InitialR2T") == "No" and immediate_bytes < unsolicited
        if flags is None:
            flags = (0 if more else FINAL) | (0x40 if read_bytes else 0) | (0x20 if data else 0) | attribute
        expected = expected_bytes if expected_bytes is not None else (len(data) or read_bytes)
        header = SCSI_COMMAND.pack(
            Opcode.SCSI_COMMAND | (IMMEDIATE if immediate else 0),
            flags,
            bytes([0, lun]) + bytes(6),
            itt,
            expected,
            cmd_sn if cmd_sn is not None else (self.cmd_sn if immediate else self.take_cmd_sn()),
            self.exp_stat_sn,
            cdb.ljust(16, b"\0")[:16],
        )
        self._pending[itt] = _Pending(data)
        await self.send(header, data[:immediate_bytes])
        if more:
            await self.send_data(itt, NO_TAG, immediate_bytes, data[immediate_bytes:unsolicited])
        return itt

    def _unsolicited_bytes(self, data_bytes: int) -> int:
        first_burst = self._number("FirstBurstLength", 65536)
        if self.keys.get("InitialR2T") != "No" and self.keys.get("ImmediateData", "Yes") != "Yes":
            return 0
        return min(data_bytes, first_burst)

    def _number(self, key: str, default: int) -> int:
        value = self.keys.get(key, "")
        return int(value) if value.isdecimal() else default

    async def send_data(
        self, itt: int, tag: int, offset: int, data: bytes, *, first_data_sn: int = 0, final: bool = True
    ) -> None:
        """Data-Out PDUs, as large as the target takes them."""
        segment = self._number("MaxRecvDataSegmentLength", 8192)
        for number, start in enumerate(range(0, len(data), segment)):
            piece = data[start : start + segment]
            last = final and start + segment >= len(data)
            header = DATA_OUT.pack(
                Opcode.DATA_OUT,
                FINAL if last else 0,
                bytes(8),
                itt,
                tag,
                self.exp_stat_sn,
                first_data_sn + number,
                offset + start,
            )
            await self.send(header, piece)

    async def result(self, itt: int) -> Answer:
        """Wait for the answer of one command."""
        pending = self._pending[itt]
        while not pending.done:
            await self._keep(await self.receive())
        del self._pending[itt]
        return pending.answer

    async def command(self, cdb: bytes, **options: Any) -> Answer:
        """Send a command and wait for its answer (options: see `send_command`)."""
        return await self.result(await self.send_command(cdb, **options))

    async def _keep(self, pdu: Pdu) -> None:
        match pdu.header[0] & OPCODE_MASK:
            case Opcode.SCSI_RESPONSE:
                _, flags, _, status, _, itt, stat_sn, _, _, _, residual = SCSI_RESPONSE.unpack(pdu.header)
                self.exp_stat_sn = stat_sn + 1
                answer = self._finish(itt, status, flags, residual)
                if answer is not None and pdu.data:
                    answer.sense = bytes(pdu.data[2:])
            case Opcode.DATA_IN:
                self._data_in(pdu)
            case Opcode.READY_TO_TRANSFER if self.serve_r2ts:
                _, _, _, itt, tag, _, _, _, _, offset, length = READY_TO_TRANSFER.unpack(pdu.header)
                data = self._pending[itt].data
                await self.send_data(itt, tag, offset, data[offset : offset + length])
            case _:
                self.others.append(pdu)

    def _data_in(self, pdu: Pdu) -> None:
        _, flags, _, status, _, _, itt, _, stat_sn, _, _, data_sn, offset, residual = DATA_IN.unpack(
            pdu.header
        )
        answer = self._pending[itt].answer
        assert data_sn == len(answer.data_in_pdus)
        assert offset == len(answer.data)
        answer.data += pdu.data
        answer.data_in_pdus.append((flags, offset, len(pdu.data)))
        if flags & _HAS_STATUS:
            self.exp_stat_sn = stat_sn + 1
            self._finish(itt, status, flags, residual)

    def _finish(self, itt: int, status: int, flags: int, residual: int) -> Answer | None:
        pending = self._pending.get(itt)
        if pending is None:
            return None
        assert not pending.done, "two answers for one command"
        pending.done = True
        pending.answer.status = status
        if flags & _OVERFLOW:
            residual = -residual
        elif not flags & _UNDERFLOW:
            assert residual == 0
        pending.answer.residual = residual
        return pending.answer

    def is_answered(self, itt: int) -> bool:
        """Whether the answer of a command has been received."""
        return self._pending[itt].done

    # The rest

    async def text(
        self, text: bytes, *, flags: int = FINAL, tag: int = NO_TAG, itt: int | None = None
    ) -> Pdu:
        """A Text Request and its response."""
        header = TEXT_REQUEST.pack(
            Opcode.TEXT_REQUEST,
            flags,
            b"",
            self.take_itt() if itt is None else itt,
            tag,
            self.take_cmd_sn(),
            self.exp_stat_sn,
        )
        await self.send(header, text)
        return await self.receive()

    async def ping(self, data: bytes = b"") -> Pdu:
        """A NOP-Out and its echo."""
        header = NOP_OUT.pack(
            Opcode.NOP_OUT | IMMEDIATE, FINAL, b"", self.take_itt(), NO_TAG, self.cmd_sn, self.exp_stat_sn
        )
        await self.send(header, data)
        return await self.receive_opcode(Opcode.NOP_IN)

    async def send_task_management(
        self, function: TaskFunction, *, lun: int = 0, referenced: int = NO_TAG, ref_cmd_sn: int = 0
    ) -> None:
        """An immediate task management request."""
        header = TASK_MANAGEMENT_REQUEST.pack(
            Opcode.TASK_MANAGEMENT_REQUEST | IMMEDIATE,
            FINAL | function,
            bytes([0, lun]) + bytes(6),
            self.take_itt(),
            referenced,
            self.cmd_sn,
            self.exp_stat_sn,
            ref_cmd_sn,
            0,
        )
        await self.send(header)

    async def task_management(self, function: TaskFunction, **options: Any) -> int:
        """A task management request; returns the response code."""
        await self.send_task_management(function, **options)
        return (await self.receive_opcode(Opcode.TASK_MANAGEMENT_RESPONSE)).header[2]

    async def logout(self, *, reason: int = 0, cid: int = 1) -> int:
        """A Logout Request; returns the response code."""
        header = LOGOUT_REQUEST.pack(
            Opcode.LOGOUT_REQUEST | IMMEDIATE,
            FINAL | reason,
            self.take_itt(),
            cid,
            self.cmd_sn,
            self.exp_stat_sn,
        )
        await self.send(header)
        return (await self.receive_opcode(Opcode.LOGOUT_RESPONSE)).header[2]


@asynccontextmanager
async def open_initiator(host: str, port: int) -> AsyncIterator[Initiator]:
    """Connect to a portal."""
    stream = await trio.open_tcp_stream(host, port)
    async with stream:
        yield Initiator(stream)
