"""Lists of extents on the wire."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.extent import Extent, merge_extents
from pyjiva.replication import decode_extents, encode_extents
from pyjiva.replication.extents import EXTENTS_MAX

WITHIN = Extent(1000, 100_000)
INSIDE = st.lists(st.builds(Extent, st.integers(1000, 90_000), st.integers(1, 500)), max_size=20).map(
    merge_extents
)


@given(INSIDE)
def test_what_is_sent_arrives(extents: list[Extent]) -> None:
    payload = encode_extents(extents)
    assert len(payload) == 16 * len(extents)
    assert decode_extents(payload, WITHIN) == extents
    assert decode_extents(memoryview(payload), WITHIN) == extents


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ([(999, 10)], "begins before the range"),
        ([(100_999, 2)], "ends after the range"),
        ([(2000, 0)], "is empty"),
        ([(2000, 10), (2009, 10)], "overlaps the one before"),
        ([(3000, 10), (2000, 10)], "comes before the one before"),
        ([(2**64 - 1, 2**64 - 1)], "has an end that no 64 bits hold"),
    ],
)
def test_an_extent_out_of_place_is_refused(pairs: list[tuple[int, int]], what: str) -> None:
    payload = b"".join(struct.pack("<QQ", *pair) for pair in pairs)
    with pytest.raises(RemoteProtocolError, match="not sorted inside"):
        decode_extents(payload, WITHIN)


@given(st.binary(max_size=80))
def test_any_bytes_give_extents_or_a_protocol_error(payload: bytes) -> None:
    try:
        extents = decode_extents(payload, Extent(0, 2**64))
    except RemoteProtocolError:
        return
    assert encode_extents(extents) == payload


def test_a_list_that_is_too_long_says_rather_too_much_than_too_little() -> None:
    extents = [Extent(2 * n, 1) for n in range(EXTENTS_MAX + 5)]
    within = Extent(0, 2 * len(extents))
    shortened = decode_extents(encode_extents(extents), within)
    assert len(shortened) == EXTENTS_MAX
    assert shortened[:-1] == extents[: EXTENTS_MAX - 1]
    assert shortened[-1].end_bytes == extents[-1].end_bytes
    with pytest.raises(RemoteProtocolError, match="bytes"):
        decode_extents(b"".join(struct.pack("<QQ", 2 * n, 1) for n in range(EXTENTS_MAX + 1)), within)
