"""What a member answers is taken whole, and what it starts leaves once, at the end."""

from types import SimpleNamespace
from typing import Any

import pytest

from pyjiva.controller.answers import Answers
from pyjiva.replication import ANSWER, HEADER_BYTES, Frame, FrameDecoder, FrameType, encode_header
from pyjiva.transport import EndOfBatch, ReceiveBuffer

pytestmark = pytest.mark.patches  # a compiled class takes no stand-ins
TWO = b"".join(encode_header(FrameType.WRITE | ANSWER, request_id=number, epoch=1) for number in (1, 2))


@pytest.mark.parametrize("is_traced", [False, True])
def test_all_that_is_there_is_taken_before_the_batch_ends(is_traced: bool) -> None:
    told: list[str] = []
    batch = EndOfBatch()

    def answered(member_id: int, frame: Frame) -> None:
        told.append(f"{frame.request_id} of {member_id}")
        if frame.request_id == 1:
            batch.at_end(lambda: told.append("end"))

    def received(_: int, frame: Frame) -> Frame:
        return frame

    data: Any = SimpleNamespace(answered=answered)
    sharing: Any = SimpleNamespace(received=received)
    times: Any = SimpleNamespace(arrived=lambda: told.append("arrived"))

    def traced(_: int, frame: Frame) -> None:
        told.append(f"traced {frame.request_id}")

    decoder = FrameDecoder(ReceiveBuffer())
    answers = Answers(7, decoder, data, sharing, times, batch, traced if is_traced else None)
    decoder.buffer.receive_data(TWO + TWO[:10])
    assert answers.arrived()
    traces = [["traced 1"], ["traced 2"]] if is_traced else [[], []]
    assert told == ["arrived", *traces[0], "1 of 7", *traces[1], "2 of 7", "end"]
    assert answers.wanted_bytes() == HEADER_BYTES
