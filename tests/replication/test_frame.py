"""Frames on the wire: whole, in pieces, with more behind them, and never anything from broken bytes."""

import zlib
from typing import Any

import pytest
import xxhash
from construct import Bytes, Const, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError, StorageFailure
from pyjiva.replication import (
    ANSWER,
    FAILURE_OF_STATUS,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    STATUS_OF_FAILURE,
    Frame,
    FrameDecoder,
    FrameType,
    encode_header,
)
from pyjiva.replication.frame import CONTROL_PAYLOAD_BYTES_MAX
from pyjiva.transport import ReceiveBuffer

#: The header as the module's docstring describes it: the oracle.
HEADER: Struct = Struct(
    "magic" / Const(b"PJVR"),
    "version" / Int8ul,
    "type" / Int8ul,
    "code" / Int16ul,
    "request_id" / Int64ul,
    "epoch" / Int64ul,
    "offset_bytes" / Int64ul,
    "length_bytes" / Int64ul,
    "stable" / Int64ul,
    "digest" / Int64ul,
    "size" / Int32ul,
    "checksum" / Bytes(4),
)

U64 = st.integers(0, 2**64 - 1)
FIELDS = st.fixed_dictionaries(
    {
        "type": st.sampled_from([t | bit for t in FrameType for bit in (0, ANSWER)]),
        "code": st.integers(0, 2**16 - 1),
        "request_id": U64,
        "epoch": U64,
        "offset_bytes": U64,
        "length_bytes": U64,
        "stable": U64,
    }
)


def encode(fields: dict[str, int], *payload: bytes) -> bytes:
    """A whole frame."""
    fields = dict(fields)
    return encode_header(fields.pop("type"), **fields, payload=payload) + b"".join(payload)


def checksummed(fields: dict[str, Any]) -> bytes:
    """A header by the oracle, whatever it says, with a right checksum."""
    head: bytes = HEADER.build({**fields, "checksum": bytes(4)})[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little")


def decoder(data: bytes = b"", *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> FrameDecoder:
    """A decoder that has received `data`."""
    buffer = ReceiveBuffer()
    buffer.receive_data(data)
    return FrameDecoder(buffer, payload_bytes_max)


def fields_of(frame: Frame) -> dict[str, int]:
    """What FIELDS draws."""
    return {
        name: getattr(frame, name)
        for name in ("type", "code", "request_id", "epoch", "offset_bytes", "length_bytes", "stable")
    }


@given(FIELDS, st.lists(st.binary(max_size=30), max_size=3))
def test_a_header_is_what_its_description_says(fields: dict[str, int], payload: list[bytes]) -> None:
    whole = b"".join(payload)
    digest = xxhash.xxh3_64_intdigest(whole)
    expected = checksummed({"version": 1, **fields, "digest": digest, "size": len(whole)})
    assert encode(fields, *payload) == expected + whole
    assert len(expected) == HEADER_BYTES == 64


@given(st.lists(st.tuples(FIELDS, st.binary(max_size=100)), max_size=4), st.binary(max_size=20))
def test_frames_come_out_whole_with_bytes_behind_them(
    frames: list[tuple[dict[str, int], bytes]], trailing: bytes
) -> None:
    receiver = decoder(b"".join(encode(fields, payload) for fields, payload in frames) + trailing[:10])
    for fields, payload in frames:
        frame = receiver.next_frame()
        assert frame is not None
        assert (fields_of(frame), bytes(frame.payload)) == (fields, payload)
    assert receiver.next_frame() is None
    assert len(receiver.buffer) == len(trailing[:10])


@given(FIELDS, st.binary(max_size=100))
def test_a_frame_comes_out_with_its_last_byte(fields: dict[str, int], payload: bytes) -> None:
    data = encode(fields, payload)
    receiver = decoder()
    for number, byte in enumerate(data, 1):
        assert receiver.next_frame() is None
        assert number - 1 < receiver.wanted_bytes <= len(data)
        receiver.buffer.receive_data(bytes([byte]))
    frame = receiver.next_frame()
    assert frame is not None
    assert (fields_of(frame), bytes(frame.payload)) == (fields, payload)


@pytest.mark.parametrize("payload", [b"", b"some payload of no matter what length"])
def test_every_flipped_bit_is_noticed(payload: bytes) -> None:
    data = encode({"type": FrameType.WRITE, "request_id": 7, "epoch": 3, "offset_bytes": 4096}, payload)
    assert decoder(data).next_frame() is not None
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            decoder(bytes(broken)).next_frame()


def drain(receiver: FrameDecoder) -> int:
    """How many frames come out."""
    count = 0
    while receiver.next_frame() is not None:
        count += 1
    return count


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_protocol_error(data: bytes) -> None:
    receiver = decoder(data)
    try:
        assert drain(receiver) == 0  # nobody guesses a checksum
    except RemoteProtocolError:
        assert len(data) >= HEADER_BYTES
    else:
        assert len(data) < HEADER_BYTES


@given(
    fields=FIELDS,
    version=st.sampled_from([0, 1, 1, 1, 2, 255]),
    type_=st.sampled_from(FrameType) | st.integers(0, 255),
    size=st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 2**32 - 1)),
    payload=st.binary(max_size=40),
    right=st.booleans(),
)
def test_any_header_with_a_right_checksum_gives_a_frame_or_a_protocol_error(
    *, fields: dict[str, int], version: int, type_: int, size: int, payload: bytes, right: bool
) -> None:
    digest = xxhash.xxh3_64_intdigest(payload[:size]) if right else 0
    receiver = decoder(
        checksummed({**fields, "version": version, "type": type_, "digest": digest, "size": size}) + payload
    )
    allowed = version == 1 and type_ & 0x7F in list(FrameType) and size <= PAYLOAD_BYTES_MAX
    if allowed and len(payload) < size:
        assert receiver.next_frame() is None
        assert receiver.wanted_bytes == HEADER_BYTES + size
    elif allowed and right:
        frame = receiver.next_frame()
        assert frame is not None
        assert bytes(frame.payload) == payload[:size]
    else:
        with pytest.raises(RemoteProtocolError):
            receiver.next_frame()


def test_an_empty_payload_has_a_checksum_too() -> None:
    fields = {
        "type": FrameType.PING,
        "code": 0,
        "request_id": 0,
        "epoch": 0,
        "offset_bytes": 0,
        "length_bytes": 0,
    }
    with pytest.raises(RemoteProtocolError, match="wrong checksum"):
        decoder(checksummed({**fields, "stable": 0, "version": 1, "digest": 0, "size": 0})).next_frame()


def test_a_stranger_cannot_make_us_buffer_much() -> None:
    data = encode({"type": FrameType.HELLO}, bytes(CONTROL_PAYLOAD_BYTES_MAX + 1))
    with pytest.raises(RemoteProtocolError, match="at most 65536 allowed now"):
        decoder(data[:HEADER_BYTES], payload_bytes_max=CONTROL_PAYLOAD_BYTES_MAX).next_frame()
    assert decoder(data).next_frame() is not None
    assert FrameDecoder(ReceiveBuffer()).payload_bytes_max == CONTROL_PAYLOAD_BYTES_MAX


def test_what_is_refused_is_named() -> None:
    fields = {
        "type": 1,
        "code": 0,
        "request_id": 0,
        "epoch": 0,
        "offset_bytes": 0,
        "length_bytes": 0,
        "stable": 0,
    }
    with pytest.raises(RemoteProtocolError, match="starts with b'GET '"):
        decoder(b"GET / HTTP/1.1\r\n".ljust(64, b"\n")).next_frame()
    with pytest.raises(RemoteProtocolError, match="frame version 9: this side speaks 1"):
        decoder(checksummed({**fields, "version": 9, "digest": 0, "size": 0})).next_frame()
    with pytest.raises(RemoteProtocolError, match="unknown frame type 99"):
        decoder(checksummed({**fields, "type": 99, "version": 1, "digest": 0, "size": 0})).next_frame()


def test_payloads_stay_as_they_were_while_more_arrives() -> None:
    receiver = decoder(encode({"type": FrameType.WRITE}, b"first" * 1000))
    frame = receiver.next_frame()
    assert frame is not None
    for _ in range(100):
        receiver.buffer.receive_data(encode({"type": FrameType.WRITE}, b"later" * 10_000))
        assert receiver.next_frame() is not None
    assert bytes(frame.payload) == b"first" * 1000


def test_every_failure_of_a_disk_has_a_status_and_back() -> None:
    assert set(STATUS_OF_FAILURE) == set(StorageFailure)
    assert {failure: FAILURE_OF_STATUS[status] for failure, status in STATUS_OF_FAILURE.items()} == {
        failure: failure for failure in StorageFailure
    }
