"""The data of one write on its way in: immediate, unsolicited, solicited (RFC 7143 §4.2.5, §11.7, §11.8).
Pure.

Large pieces are kept as they come, in order (DataPDUInOrder=Yes, DataSequenceInOrder=Yes); small ones are put
together, as a view of one byte would keep a whole receive buffer.  What the command does not want is counted
and dropped.  A sequence error fails the command, not the connection: its remaining
sequences are taken in, then it is answered.
"""  # hot

from typing import Final

import attrs

from pyjiva.block import Buffer
from pyjiva.iscsi.pdu import NO_TAG
from pyjiva.scsi import AdditionalSense, Sense, SenseKey
from pyjiva.units import KIB

__all__ = ["DataTransfer", "ReadyToTransfer"]

LARGE_PIECE_BYTES: Final = 64 * KIB  # initiators send 256 KiB where they can; copying less takes a few µs

UNEXPECTED_DATA: Final = Sense(SenseKey.ABORTED_COMMAND, AdditionalSense.UNEXPECTED_UNSOLICITED_DATA)
WRONG_AMOUNT: Final = Sense(SenseKey.ABORTED_COMMAND, AdditionalSense.NOT_ENOUGH_UNSOLICITED_DATA)
DIGEST_ERROR: Final = Sense(SenseKey.ABORTED_COMMAND, AdditionalSense.PROTOCOL_SERVICE_CRC_ERROR)


@attrs.define(eq=False)
class ReadyToTransfer:
    """One sequence that was asked for."""

    target_transfer_tag: int
    r2t_sn: int
    offset_bytes: int
    length_bytes: int
    received_bytes: int = 0
    next_data_sn: int = 0


@attrs.define(eq=False)
class DataTransfer:
    """What has come and what is still to come."""

    wanted_bytes: int
    """How much of the data the command uses: R2Ts ask for no more."""
    unsolicited_bytes_max: int
    """FirstBurstLength or the expected length, whichever is less."""
    unsolicited_open: bool
    """The initiator has not yet said that its unsolicited data ends (F bit)."""
    buffers: list[Buffer] = attrs.field(factory=list)
    received_bytes: int = 0
    """Kept bytes: the data from 0 up to here is complete."""
    failed: Sense | None = None
    _unsolicited_bytes: int = 0
    _unsolicited_data_sn: int = 0
    _asked_bytes: int = 0
    _next_r2t_sn: int = 0
    _outstanding: dict[int, ReadyToTransfer] = attrs.field(factory=dict)

    @property
    def complete(self) -> bool:
        """Nothing more is to come."""
        if self.unsolicited_open or self._outstanding:
            return False
        return self.failed is not None or self.received_bytes >= self.wanted_bytes

    @property
    def remaining_bytes(self) -> int:
        """What must still be asked for."""
        return 0 if self.failed else self.wanted_bytes - max(self.received_bytes, self._asked_bytes)

    def immediate(self, data: Buffer) -> None:
        """Data in the command itself."""
        if len(data) > self.unsolicited_bytes_max:
            self.failed = UNEXPECTED_DATA
            return
        self._unsolicited_bytes = len(data)
        self._keep(data)

    def _keep(self, data: Buffer) -> None:
        room = self.wanted_bytes - self.received_bytes
        if room > 0 and data:
            kept = data if len(data) <= room else data[:room]
            self.received_bytes += len(kept)
            if len(kept) >= LARGE_PIECE_BYTES:
                self.buffers.append(kept)
            elif self.buffers and type(self.buffers[-1]) is bytearray:
                self.buffers[-1] += kept
            else:
                self.buffers.append(bytearray(kept))

    def receive(
        self, *, tag: int, data_sn: int, offset_bytes: int, data: Buffer, final: bool, intact: bool
    ) -> None:
        """One Data-Out PDU."""
        if not intact:
            self.failed = DIGEST_ERROR
        if tag == NO_TAG:
            self._receive_unsolicited(data_sn, offset_bytes, data, final)
        else:
            self._receive_solicited(tag, data_sn, offset_bytes, data, final)

    def _receive_unsolicited(self, data_sn: int, offset_bytes: int, data: Buffer, final: bool) -> None:
        if not self.unsolicited_open:
            self.failed = UNEXPECTED_DATA
            return
        if data_sn != self._unsolicited_data_sn or offset_bytes != self._unsolicited_bytes:
            self.failed = self.failed or WRONG_AMOUNT
        elif self._unsolicited_bytes + len(data) > self.unsolicited_bytes_max:
            self.failed = self.failed or UNEXPECTED_DATA
        elif not self.failed:
            self._keep(data)
        self._unsolicited_data_sn += 1
        self._unsolicited_bytes += len(data)
        if final:
            self.unsolicited_open = False

    def _receive_solicited(
        self, tag: int, data_sn: int, offset_bytes: int, data: Buffer, final: bool
    ) -> None:
        sequence = self._outstanding.get(tag)
        if sequence is None:
            self.failed = self.failed or UNEXPECTED_DATA
            return
        expected = sequence.offset_bytes + sequence.received_bytes
        sequence.received_bytes += len(data)
        in_order = data_sn == sequence.next_data_sn and offset_bytes == expected == self.received_bytes
        if not in_order or sequence.received_bytes > sequence.length_bytes:
            self.failed = self.failed or WRONG_AMOUNT
        elif not self.failed:
            self._keep(data)
        sequence.next_data_sn += 1
        if final:
            if sequence.received_bytes != sequence.length_bytes:
                self.failed = self.failed or WRONG_AMOUNT
            del self._outstanding[tag]

    def ask(self, tag: int, length_max: int, outstanding_max: int) -> ReadyToTransfer | None:
        """The next sequence to ask for; None when nothing may be asked for now."""
        if self.unsolicited_open or len(self._outstanding) >= outstanding_max:
            return None
        self._asked_bytes = max(self._asked_bytes, self.received_bytes)
        length = min(self.remaining_bytes, length_max)
        if length <= 0:
            return None
        sequence = ReadyToTransfer(tag, self._next_r2t_sn, self._asked_bytes, length)
        self._next_r2t_sn += 1
        self._asked_bytes += length
        self._outstanding[tag] = sequence
        return sequence
