"""Text segments: any bytes give pairs or a protocol error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.text import NEGOTIATION_BYTES_MAX, TextCollector, decode_text, encode_text, first_part

KEYS = st.text("ABCxyz019.-+@_/#", min_size=1, max_size=63)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=60)


@given(pairs=st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_pairs_come_back(pairs: list[tuple[str, str]]) -> None:
    assert decode_text(encode_text(pairs)) == pairs


@given(data=st.binary(max_size=200))
def test_any_bytes_give_pairs_or_a_protocol_error(data: bytes) -> None:
    try:
        pairs = decode_text(data)
    except RemoteProtocolError:
        return
    assert decode_text(encode_text(pairs)) == pairs


@pytest.mark.parametrize(
    "data", [b"novalue\0", b"=x\0", b"k" * 64 + b"=1\0", b"a b=1\0", b"k=\xff\0", b"a=1\0" * 257]
)
def test_malformed_text_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_text(data)


@given(pairs=st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=8), size=st.integers(1, 40))
def test_parts_are_put_together(pairs: list[tuple[str, str]], size: int) -> None:
    collector, rest = TextCollector(), encode_text(pairs)
    result = None
    while rest:
        part, rest = first_part(rest, size)
        result = collector.add(part, more=bool(rest))
    assert result == pairs


def test_endless_request_is_refused() -> None:
    collector = TextCollector()
    collector.add(bytes(NEGOTIATION_BYTES_MAX), more=True)
    with pytest.raises(RemoteProtocolError):
        collector.add(b"x", more=True)
