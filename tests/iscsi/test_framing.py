"""PDUs through the framing: whole, byte by byte, with trailing bytes, and any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.framing import Framing, digest
from pyjiva.iscsi.pdu import Pdu
from pyjiva.transport import ReceiveBuffer

SEGMENT_MAX = 8192
HEADERS = st.binary(min_size=48, max_size=48)
PDUS = st.lists(st.tuples(HEADERS, st.binary(max_size=64), st.integers(0, 3)), min_size=1, max_size=6)


def framing(*, header_digest: bool = False, data_digest: bool = False) -> Framing:
    return Framing(ReceiveBuffer(), SEGMENT_MAX, header_digest, data_digest)


def drain(wire: Framing) -> list[Pdu]:
    pdus = []
    while (pdu := wire.next_pdu()) is not None:
        pdus.append(pdu)
    return pdus


def with_lengths(header: bytes, additional_words: int, data: bytes) -> bytes:
    return header[:4] + bytes([additional_words]) + len(data).to_bytes(3, "big") + header[8:]


def encode(wire: Framing, header: bytes, data: bytes, additional: bytes = b"") -> bytes:
    if not additional:
        return b"".join(bytes(part) for part in wire.encode(header, (data,), len(data)))
    whole = header + additional
    parts = [whole, digest(whole) if wire.header_digest else b""]
    if data:
        padded = data + bytes(-len(data) % 4)
        parts += [padded, digest(padded) if wire.data_digest else b""]
    return b"".join(parts)


@pytest.mark.parametrize("header_digest", [False, True])
@pytest.mark.parametrize("data_digest", [False, True])
@given(pdus=PDUS, cut=st.integers(1, 100))
def test_what_is_encoded_comes_out_again(
    header_digest: bool, data_digest: bool, pdus: list[tuple[bytes, bytes, int]], cut: int
) -> None:
    """Whole, in pieces of any size, and with the start of another PDU behind it."""
    wire = framing(header_digest=header_digest, data_digest=data_digest)
    stream, expected = b"", []
    for header, data, words in pdus:
        header = with_lengths(header, words, data)
        additional = bytes(range(4 * words))
        stream += encode(wire, header, data, additional)
        expected.append((header, data, additional))
    for size in (len(stream), 1, cut):
        wire = framing(header_digest=header_digest, data_digest=data_digest)
        found = []
        for start in range(0, len(stream), size):
            wire.receive_data(stream[start : start + size])
            found += drain(wire)
        wire.receive_data(b"\x01" * 47)
        assert wire.next_pdu() is None
        assert [(pdu.header, bytes(pdu.data), pdu.additional) for pdu in found] == expected
        assert all(pdu.data_intact for pdu in found)


@given(data=st.binary(max_size=600), header_digest=st.booleans(), data_digest=st.booleans())
def test_any_bytes_give_pdus_or_a_protocol_error(data: bytes, header_digest: bool, data_digest: bool) -> None:
    wire = framing(header_digest=header_digest, data_digest=data_digest)
    wire.receive_data(data)
    try:
        pdus = drain(wire)
    except RemoteProtocolError:
        return
    assert sum(len(pdu.header) + len(pdu.data) for pdu in pdus) <= len(data)
    assert wire.wanted_bytes <= 48 + 1020 + SEGMENT_MAX + 8


def test_longer_segment_than_agreed_is_refused() -> None:
    wire = framing()
    wire.receive_data(with_lengths(bytes(48), 0, bytes(SEGMENT_MAX + 1)))
    with pytest.raises(RemoteProtocolError, match="8193"):
        wire.next_pdu()


def test_wrong_header_digest_is_a_protocol_error() -> None:
    wire = framing(header_digest=True)
    wire.receive_data(bytes(48) + b"\0\0\0\0")
    with pytest.raises(RemoteProtocolError, match="digest"):
        wire.next_pdu()


def test_wrong_data_digest_is_reported_with_the_pdu() -> None:
    wire = framing(data_digest=True)
    stream = bytearray(encode(wire, with_lengths(bytes(48), 0, b"abcd"), b"abcd"))
    stream[-1] ^= 1
    wire.receive_data(bytes(stream))
    pdu = wire.next_pdu()
    assert pdu is not None
    assert not pdu.data_intact


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), "aa36918a"),
        (b"\xff" * 32, "43aba862"),
        (bytes(range(32)), "4e79dd46"),
        (bytes(reversed(range(32))), "5cdb3f11"),
    ],
)
def test_digest_of_the_rfcs_examples(data: bytes, expected: str) -> None:
    """RFC 7143 appendix A.4 (RFC 3720 B.4), bytes in the order of the wire."""
    assert digest(data).hex() == expected
    assert digest(data[:5], memoryview(data)[5:]).hex() == expected
