"""Frames that say where a payload lies: what was meant comes out, and nothing else is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block_sums import sums_of
from pyjiva.buffers import Buffer
from pyjiva.errors import RemoteProtocolError
from pyjiva.replication import (
    PARTS_MAX,
    Flag,
    FrameDecoder,
    FrameType,
    RequestFrame,
    decode_reference,
    digest_of,
    refer,
)
from pyjiva.transport import ReceiveBuffer

READ = RequestFrame(FrameType.READ, 1, 1, 0)
PARTS = st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2**20)), min_size=1, max_size=20)


def payload_of(buffers: tuple[Buffer, ...]) -> memoryview:
    """Of a frame."""
    _, payload = buffers
    return memoryview(payload)


@given(parts=PARTS, code=st.sampled_from([0, 1, 4]), ids=st.tuples(*[st.integers(0, 2**63)] * 4))
def test_what_was_referred_to_is_what_is_found(
    parts: list[tuple[int, int]], code: int, ids: tuple[int, int, int, int]
) -> None:
    request_id, epoch, stable, offset = ids
    length = sum(size for _, size in parts)
    one = RequestFrame(FrameType.WRITE, request_id, epoch, stable, offset, length, code, (b"one", b"two"))
    decoder = FrameDecoder(ReceiveBuffer())
    decoder.buffer.receive_data(b"".join(refer(one, parts)))
    frame = decoder.next_frame()
    assert frame is not None
    assert (frame.type, frame.code) == (FrameType.WRITE, code | Flag.SHARED)
    assert (frame.request_id, frame.epoch, frame.stable) == (request_id, epoch, stable)
    assert (frame.offset_bytes, frame.length_bytes) == (offset, length)
    found = decode_reference(frame.payload, offset, length)
    assert (list(found.parts), found.sums) == (parts, b"")
    assert (
        found.digest
        == digest_of((memoryview(b"onetwo"),))
        == digest_of([memoryview(b"one"), memoryview(b"two")])
    )


def test_checksums_come_along() -> None:
    data = bytes(range(256)) * 32
    frame = RequestFrame(FrameType.WRITE, 1, 1, 0, 4096, 8192, payload=(data[:4096], data[4096:]))
    found = decode_reference(payload_of(refer(frame, [(4096, 8192)])), 4096, 8192)
    assert (found.sums, found.digest) == (sums_of(data), 0)


@pytest.mark.parametrize(
    ("parts", "sums", "offset", "length"),
    [
        ([(0, 4096)], b"", 0, 4095),
        ([(0, 4096), (4096, 1)], b"", 0, 4096),
        ([(0, 0)], b"", 0, 0),
        ([(0, 4096)], bytes(8), 512, 4096),
        ([(0, 4608)], bytes(16), 0, 4608),
        ([(0, 8192)], bytes(8), 0, 8192),
        ([(0, 4096)], bytes(7), 0, 4096),
        ([(0, 2**26)], b"", 0, 2**26),
    ],
)
def test_what_does_not_fit_the_range_is_refused(
    parts: list[tuple[int, int]], sums: bytes, offset: int, length: int
) -> None:
    _, payload = refer(READ, parts)
    payload = bytes(payload) + sums
    with pytest.raises(RemoteProtocolError):
        decode_reference(memoryview(payload), offset, length)


def test_more_parts_than_one_write_takes_are_refused() -> None:
    payload = payload_of(refer(READ, [(n, 1) for n in range(PARTS_MAX)]))
    assert len(decode_reference(payload, 0, PARTS_MAX).parts) == PARTS_MAX
    more = b"".join((payload[:8], (PARTS_MAX + 1).to_bytes(4, "little"), payload[12:], payload[12:24]))
    with pytest.raises(RemoteProtocolError, match="parts"):
        decode_reference(memoryview(more), 0, PARTS_MAX + 1)


@given(payload=st.binary(max_size=100), offset=st.integers(0, 2**64 - 1), length=st.integers(0, 2**64 - 1))
def test_any_bytes_are_a_reference_or_an_error(payload: bytes, offset: int, length: int) -> None:
    try:
        found = decode_reference(memoryview(payload), offset, length)
    except RemoteProtocolError:
        return
    assert found.length_bytes == length
