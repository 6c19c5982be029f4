"""Many requests that were carried out, in one frame: what goes in comes out, anything else is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import (
    DONE_IDS_MAX,
    FrameDecoder,
    FrameType,
    decode_done,
    encode_done,
    encode_header,
)
from pyjiva.transport import ReceiveBuffer

IDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=DONE_IDS_MAX)


def frame(ids: list[int]) -> bytes:
    """A whole DONE."""
    payload = encode_done(ids)
    return encode_header(FrameType.DONE, epoch=3, payload=(payload,)) + payload


@given(IDS, IDS, st.binary(max_size=20))
def test_frames_come_out_as_they_went_in_whatever_follows(
    first: list[int], second: list[int], trailing: bytes
) -> None:
    decoder = FrameDecoder(ReceiveBuffer())
    decoder.buffer.receive_data(frame(first) + frame(second) + trailing)
    for ids in (first, second):
        found = decoder.next_frame()
        assert found is not None
        assert (found.type, found.epoch, list(decode_done(found.payload))) == (FrameType.DONE, 3, ids)
    assert len(decoder.buffer) == len(trailing)


@given(IDS)
def test_a_frame_comes_out_with_its_last_byte(ids: list[int]) -> None:
    decoder = FrameDecoder(ReceiveBuffer())
    for byte in frame(ids):
        assert decoder.next_frame() is None
        decoder.buffer.receive_data(bytes([byte]))
    found = decoder.next_frame()
    assert found is not None
    assert list(decode_done(found.payload)) == ids


@given(st.binary(max_size=8 * DONE_IDS_MAX + 9))
def test_any_bytes_give_ids_or_a_protocol_error(payload: bytes) -> None:
    if payload and len(payload) % 8 == 0 and len(payload) <= 8 * DONE_IDS_MAX:
        expected = [each for (each,) in struct.iter_unpack("<Q", payload)]
        assert list(decode_done(memoryview(payload))) == expected
    else:
        with pytest.raises(RemoteProtocolError, match=f"DONE with {len(payload)} bytes"):
            decode_done(memoryview(payload))


@pytest.mark.parametrize("size", [0, 1, 7, 9, 8 * DONE_IDS_MAX + 1, 8 * (DONE_IDS_MAX + 1)])
def test_what_is_no_number_of_ids_is_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"DONE with {size} bytes"):
        decode_done(memoryview(bytes(size)))


@pytest.mark.parametrize("count", [0, DONE_IDS_MAX + 1])
def test_what_nobody_would_take_is_not_made(count: int) -> None:
    with pytest.raises(AssertionError):
        encode_done([1] * count)
