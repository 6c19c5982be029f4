"""Write data on its way in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.iscsi.pdu import NO_TAG
from pyjiva.iscsi.transfer import DIGEST_ERROR, LARGE_PIECE_BYTES, UNEXPECTED_DATA, WRONG_AMOUNT, DataTransfer


def solicit(transfer: DataTransfer, data: bytes, *, burst: int, outstanding: int, segment: int) -> None:
    """Ask and answer until the transfer is complete, as a correct initiator does."""
    tag = 0
    while not transfer.complete:
        sequences = []
        while (sequence := transfer.ask(tag, burst, outstanding)) is not None:
            sequences.append(sequence)
            tag += 1
        assert sequences, "neither complete nor anything asked for"
        assert len(sequences) <= outstanding
        for sequence in sequences:
            assert sequence.length_bytes <= burst
            end = sequence.offset_bytes + sequence.length_bytes
            for number, start in enumerate(range(sequence.offset_bytes, end, segment)):
                stop = min(start + segment, end)
                transfer.receive(
                    tag=sequence.target_transfer_tag, data_sn=number, offset_bytes=start,
                    data=data[start:stop], final=stop == end, intact=True,
                )  # fmt: skip


@given(
    data=st.binary(min_size=1, max_size=300),
    wanted=st.integers(1, 300),
    immediate=st.integers(0, 300),
    unsolicited=st.integers(0, 300),
    burst=st.integers(1, 100),
    outstanding=st.integers(1, 4),
    segment=st.integers(1, 60),
)
def test_correct_initiator_delivers_what_is_wanted(
    data: bytes, wanted: int, immediate: int, unsolicited: int, burst: int, outstanding: int, segment: int
) -> None:
    wanted, immediate = min(wanted, len(data)), min(immediate, len(data))
    unsolicited = min(max(immediate, unsolicited), len(data))
    transfer = DataTransfer(wanted, unsolicited, unsolicited_open=unsolicited > immediate)
    if immediate:
        transfer.immediate(data[:immediate])
    for number, start in enumerate(range(immediate, unsolicited, segment)):
        assert not transfer.complete
        stop = min(start + segment, unsolicited)
        transfer.receive(
            tag=NO_TAG, data_sn=number, offset_bytes=start, data=data[start:stop],
            final=stop == unsolicited, intact=True,
        )  # fmt: skip
    solicit(transfer, data, burst=burst, outstanding=outstanding, segment=segment)
    assert transfer.failed is None
    assert b"".join(transfer.buffers) == data[:wanted]
    assert transfer.received_bytes == wanted


def receive(transfer: DataTransfer, data: bytes, **changes: object) -> None:
    arguments = {"tag": NO_TAG, "data_sn": 0, "offset_bytes": 0, "final": True, "intact": True, **changes}
    transfer.receive(data=data, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"data_sn": 1}, WRONG_AMOUNT),
        ({"offset_bytes": 4}, WRONG_AMOUNT),
        ({"intact": False}, DIGEST_ERROR),
        ({"tag": 17}, UNEXPECTED_DATA),
    ],
)
def test_error_in_unsolicited_data_fails_the_command(changes: dict[str, object], failed: object) -> None:
    transfer = DataTransfer(8, 8, unsolicited_open=True)
    receive(transfer, b"12345678", **changes)
    assert transfer.failed == failed


def test_more_unsolicited_data_than_agreed_fails_the_command() -> None:
    transfer = DataTransfer(100, 8, unsolicited_open=True)
    receive(transfer, b"123456789")
    assert transfer.failed == UNEXPECTED_DATA
    assert transfer.complete
    transfer = DataTransfer(100, 8, unsolicited_open=False)
    transfer.immediate(b"123456789")
    assert transfer.failed == UNEXPECTED_DATA


def test_unsolicited_data_that_was_not_announced_fails_the_command() -> None:
    transfer = DataTransfer(8, 8, unsolicited_open=False)
    receive(transfer, b"1234")
    assert transfer.failed == UNEXPECTED_DATA


def test_failed_command_takes_in_its_outstanding_sequences_and_asks_for_no_more() -> None:
    transfer = DataTransfer(64, 0, unsolicited_open=False)
    first, second = transfer.ask(1, 16, 2), transfer.ask(2, 16, 2)
    assert first is not None
    assert second is not None
    assert transfer.ask(3, 16, 2) is None
    receive(transfer, bytes(16), tag=1, data_sn=27)
    assert transfer.failed == WRONG_AMOUNT
    assert not transfer.complete
    receive(transfer, bytes(16), tag=2, offset_bytes=16)
    assert transfer.complete
    assert transfer.ask(4, 16, 2) is None


def test_short_sequence_fails_the_command() -> None:
    transfer = DataTransfer(16, 0, unsolicited_open=False)
    assert transfer.ask(1, 16, 1) is not None
    receive(transfer, bytes(8), tag=1)
    assert transfer.failed == WRONG_AMOUNT


def test_small_pieces_are_put_together_and_large_ones_kept_as_they_came() -> None:
    """A view of one byte would hold a whole receive buffer, and be larger than what it shows."""
    large = memoryview(bytes(LARGE_PIECE_BYTES))
    transfer = DataTransfer(LARGE_PIECE_BYTES + 4000, 1 << 20, unsolicited_open=True)
    pieces: list[memoryview] = [*[memoryview(b"a")] * 1000, large, *[memoryview(b"bc")] * 1500]
    offset = 0
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        transfer.receive(
            tag=NO_TAG, data_sn=number, offset_bytes=offset, data=piece, final=last, intact=True
        )  # fmt: skip
        offset += len(piece)
    assert transfer.complete and transfer.failed is None
    assert [len(buffer) for buffer in transfer.buffers] == [1000, LARGE_PIECE_BYTES, 3000]
    assert transfer.buffers[1] is large
    assert b"".join(transfer.buffers) == b"".join(pieces)
