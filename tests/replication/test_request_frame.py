"""What a controller asks for becomes bytes when somebody needs them, once, and as it was then."""

from random import Random
from typing import Any

import pytest

from pyjiva.block_sums import sums_of, sums_of_all
from pyjiva.replication import FrameDecoder, FrameType, RequestFrame, encode_header, refer, request_frame
from pyjiva.transport import ReceiveBuffer

DATA = Random(1).randbytes(8192)


def frame_of(*payload: Any, offset: int = 4096) -> RequestFrame:
    return RequestFrame(FrameType.WRITE, 7, 2, 5, offset, sum(map(len, payload)), 1, payload)


def test_it_is_the_frame_that_was_meant() -> None:
    decoder = FrameDecoder(ReceiveBuffer(), 2**20)
    decoder.buffer.receive_data(b"".join(frame_of(DATA[:100], DATA[100:]).buffers()))
    frame = decoder.next_frame()
    assert frame is not None
    assert (frame.type, frame.code, frame.request_id, frame.epoch) == (FrameType.WRITE, 1, 7, 2)
    assert (frame.stable, frame.offset_bytes, frame.length_bytes) == (5, 4096, 8192)
    assert frame.payload == DATA


@pytest.mark.patches
def test_header_and_checksums_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole is not hashed for a payload that does not travel."""
    hashed: list[tuple[str, int]] = []

    def note_header(*args: Any, payload: Any, **fields: Any) -> bytes:
        hashed.append(("header", sum(map(len, payload))))
        return encode_header(*args, payload=payload, **fields)

    def note_sums(payload: Any) -> bytes:
        hashed.append(("sums", sum(map(len, payload))))
        return sums_of_all(payload)

    monkeypatch.setattr(request_frame, "encode_header", note_header)
    monkeypatch.setattr(request_frame, "sums_of_all", note_sums)
    frame = frame_of(DATA)
    assert hashed == []
    first = refer(frame, [(0, 8192)])
    assert refer(frame, [(0, 8192)]) == first
    reference = ("header", len(first[1]))
    assert hashed == [("sums", 8192), reference, reference]
    assert frame.buffers() is frame.buffers()
    assert hashed == [("sums", 8192), reference, reference, ("header", 8192)]


@pytest.mark.parametrize(("offset", "length"), [(512, 4096), (4096, 512), (4096, 0)])
def test_checksums_are_of_whole_blocks(offset: int, length: int) -> None:
    assert frame_of(DATA[:length], offset=offset).sums() == b""


def test_checksums_do_not_care_where_the_parts_of_a_payload_end() -> None:
    assert frame_of(DATA[:100], DATA[100:]).sums() == sums_of(DATA) == frame_of(DATA).sums()


def test_what_is_kept_stays_as_it_was() -> None:
    memory = bytearray(DATA)
    frame = frame_of(memory)
    before = frame.buffers()[0]
    frame.keep()
    memory[:] = bytes(len(memory))
    assert frame.buffers() == (before, DATA)
