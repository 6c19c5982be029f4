"""The PDUs that answer a command when neither one Data-In nor a plain response does: residuals, several PDUs,
digests, sense data.  Pure.

RFC 7143 §11.4, §11.7.
"""  # hot

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pyjiva.block import Buffer
from pyjiva.iscsi.command import OVERFLOW, READ_FLAG, UNDERFLOW, WRITE_FLAG, ScsiCommand
from pyjiva.iscsi.pdu import DATA_IN, FINAL, NO_TAG, SCSI_RESPONSE, Opcode
from pyjiva.scsi import Status

if TYPE_CHECKING:
    from pyjiva.iscsi.connection import Connection

__all__ = ["DATA_IN_FINAL_STATUS", "answer_at_length"]

# Plain integers: a member of an enum costs a look-up through its metaclass each time.
_DATA_IN_OPCODE: Final = int(Opcode.DATA_IN)
_SCSI_RESPONSE_OPCODE: Final = int(Opcode.SCSI_RESPONSE)
_CHECK_CONDITION: Final = int(Status.CHECK_CONDITION)
_GOOD: Final = int(Status.GOOD)
DATA_IN_FINAL_STATUS: Final = 0x81  # F and S bits: the last Data-In, with the status


def answer_at_length(connection: "Connection", command: ScsiCommand) -> None:
    """Any residual, several PDUs, digests, sense data."""
    expected = command.expected_bytes
    if command.flags & WRITE_FLAG:
        moved, sent = command.data_out_bytes, 0
        full = command.needed_bytes
    else:
        full = command.data_in_bytes
        moved = sent = min(full, expected) if command.flags & READ_FLAG else 0
    if command.status == _CHECK_CONDITION:
        full = max(full, moved) if command.flags & WRITE_FLAG else 0
    residual_flag, residual = _residual(full, expected)
    if sent and command.status == _GOOD:
        _send_data_in(connection, command, sent, residual_flag, residual)
        return
    sense = command.sense
    data = len(sense).to_bytes(2, "big") + sense if sense else b""
    header = SCSI_RESPONSE.pack(
        _SCSI_RESPONSE_OPCODE,
        FINAL | residual_flag,
        0,  # command completed at target
        command.status,
        len(data),
        command.itt,
        connection.take_stat_sn(),
        connection.exp_cmd_sn,
        connection.max_cmd_sn,
        0,
        residual,
    )
    connection.send(header, data)


def _send_data_in(
    connection: "Connection", command: ScsiCommand, data_bytes: int, residual_flag: int, residual: int
) -> None:
    """Data-In PDUs, the last with the status (§11.7.3)."""
    parameters = connection.parameters
    sizes = list(
        _data_in_sizes(data_bytes, parameters.max_recv_data_segment_length, parameters.max_burst_length)
    )
    last = len(sizes) - 1
    offset = 0
    pieces = slices(command.data_in, (size for size, _ in sizes))
    for number, ((size, ends_burst), piece) in enumerate(zip(sizes, pieces, strict=True)):
        has_status = number == last
        flags = FINAL if ends_burst else 0
        if has_status:
            flags = DATA_IN_FINAL_STATUS | residual_flag
        header = DATA_IN.pack(
            _DATA_IN_OPCODE,
            flags,
            0,
            command.status if has_status else 0,
            size,
            b"",
            command.itt,
            NO_TAG,
            connection.take_stat_sn() if has_status else 0,
            connection.exp_cmd_sn,
            connection.max_cmd_sn,
            number,
            offset,
            residual if has_status else 0,
        )
        connection.out.send(*connection.framing.encode(header, piece, size))
        offset += size


def _residual(full_bytes: int, expected_bytes: int) -> tuple[int, int]:
    """Flag and count (§11.4.5.1)."""
    if full_bytes > expected_bytes:
        return OVERFLOW, full_bytes - expected_bytes
    if full_bytes < expected_bytes:
        return UNDERFLOW, expected_bytes - full_bytes
    return 0, 0


def _data_in_sizes(data_bytes: int, segment_max: int, burst_max: int) -> Iterator[tuple[int, bool]]:
    """(bytes, ends its burst) of each PDU: no sequence is longer than MaxBurstLength."""
    burst = 0
    while data_bytes:
        size = min(data_bytes, segment_max, burst_max - burst)
        burst += size
        data_bytes -= size
        ends = burst == burst_max or not data_bytes
        yield size, ends
        if ends:
            burst = 0


def slices(buffers: Sequence[Buffer], sizes: Iterator[int]) -> Iterator[list[Buffer]]:
    """`buffers` cut anew into pieces of `sizes` bytes, without a copy."""
    sources = iter(buffers)
    view = memoryview(b"")
    for size in sizes:
        piece: list[Buffer] = []
        while size:
            while not view:
                view = memoryview(next(sources))
            piece.append(view[:size])
            view, size = view[size:], size - len(piece[-1])
        yield piece
