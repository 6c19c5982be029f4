"""iSCSI TransportIDs."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.scsi.sense import Sense
from pyjiva.scsi.transport_id import TransportId, decode_transport_ids, encode_transport_id

NAMES = st.text(st.sampled_from("abcxyz0189-.:,i"), min_size=1, max_size=223)
ISIDS = st.binary(min_size=6, max_size=6).map(bytes.hex)


def encoded(text: bytes, kind: int = 0x45, size: int | None = None) -> bytes:
    size = max(20, len(text) + 4 & ~3) if size is None else size
    return struct.pack(">BxH", kind, size) + text.ljust(size, b"\0")


def test_port_is_encoded_as_the_standard_says() -> None:
    data = encode_transport_id("iqn.1994-05.com.example:a,i,0x00023d000001")
    assert data[:4] == bytes([0x45, 0, 0, 44])
    assert data[4:].rstrip(b"\0") == b"iqn.1994-05.com.example:a,i,0x00023d000001"
    assert len(encode_transport_id("a,i,0x000000000001")) == 24, "twenty bytes at least"
    assert encode_transport_id("ab,i,0x000000000001")[-1] == 0, "always terminated"
    assert len(encode_transport_id("abc,i,0x000000000001")) == 28


@given(ports=st.lists(st.tuples(NAMES, ISIDS), max_size=5), before=st.binary(max_size=8))
def test_ports_come_back_as_they_went(ports: list[tuple[str, str]], before: bytes) -> None:
    names = [f"{name},i,0x{isid}" for name, isid in ports]
    data = before + b"".join(map(encode_transport_id, names))
    decoded = decode_transport_ids(data, len(before))
    assert isinstance(decoded, tuple)
    assert [transport_id.port for transport_id in decoded] == names
    assert all(transport_id.matches(name) for transport_id, name in zip(decoded, names, strict=True))


def test_name_alone_means_every_port_of_it() -> None:
    (found,) = decode_transport_ids(encoded(b"iqn.2026-01.test:a", kind=0x05), 0)  # type: ignore[misc]
    assert found == TransportId("iqn.2026-01.test:a", None)
    assert found.matches("iqn.2026-01.test:a,i,0x000000000001")
    assert not found.matches("iqn.2026-01.test:ab,i,0x000000000001")


def test_session_identifier_is_compared_as_a_number_would_be() -> None:
    (found,) = decode_transport_ids(encoded(b"name,i,0x23D000001"), 0)  # type: ignore[misc]
    assert found.port == "name,i,0x00023d000001"
    assert not found.matches("name,i,0x00023d000002")


@pytest.mark.parametrize(
    ("data", "byte"),
    [
        (encoded(b"name,i,0x1", kind=0x46), 0),
        (encoded(b"name,i,0x1", kind=0x85), 0),
        (encoded(b"name,i,0x1", kind=0x40), 0),
        (encoded(b"name,i,0x1", size=16), 2),
        (encoded(b"name,i,0x1", size=22), 2),
        (encoded(b"name,i,0x1", size=24)[:-1], 2),
        (encoded(b"name,i,0x1") + b"\x45", 24),
        (encoded(b"name"), 4),
        (encoded(b"name,i,0x"), 4),
        (encoded(b"name,i,0x1g"), 4),
        (encoded(b"name,i,0x0123456789abc"), 4),
        (encoded(b",i,0x1"), 4),
        (encoded(b"\xff,i,0x1"), 4),
        (encoded(b"a\nb,i,0x1"), 4),
        (encoded(b"a" * 224 + b",i,0x1"), 4),
        (encoded(b"", kind=0x05), 4),
    ],
)
def test_transport_id_that_is_none_is_refused_where_it_is_wrong(data: bytes, byte: int) -> None:
    sense = decode_transport_ids(data, 0)
    assert isinstance(sense, Sense)
    assert int.from_bytes(sense.sense_key_specific[1:], "big") == byte


@given(data=st.binary(max_size=120), start=st.integers(0, 8))
def test_any_bytes_give_transport_ids_or_sense(data: bytes, start: int) -> None:
    assert isinstance(decode_transport_ids(data, start), tuple | Sense)
