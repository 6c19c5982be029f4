"""Cutting several buffers gives what cutting their bytes gives, without a copy."""

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.buffers import Buffer, first_bytes, left_after, word_at

PIECES = st.lists(st.binary(max_size=9), max_size=6)


def kinds(pieces: list[bytes]) -> list[Buffer]:
    """The same in all kinds of buffers."""
    make = (bytes, bytearray, memoryview)
    return [make[number % 3](piece) for number, piece in enumerate(pieces)]


@given(PIECES, st.integers(0, 60))
def test_the_first_bytes_and_what_is_left_make_up_the_whole(pieces: list[bytes], count: int) -> None:
    whole, buffers = b"".join(pieces), kinds(pieces)
    assert b"".join(first_bytes(buffers, count)) == whole[:count]
    assert b"".join(left_after(buffers, count)) == whole[count:]
    assert b"".join(buffers) == whole


@given(PIECES, st.integers(0, 60))
def test_nothing_is_left_when_all_were_taken(pieces: list[bytes], more: int) -> None:
    assert left_after(kinds(pieces), sum(map(len, pieces)) + more) == []
    assert first_bytes(kinds(pieces), 0) == []


def test_nothing_is_copied() -> None:
    one, two, three = bytearray(b"one"), bytearray(b"two"), bytearray(b"three")
    first, left = first_bytes([one, two, three], 4), left_after([one, two, three], 4)
    assert first[0] is one
    assert left[1] is three
    two[:] = b"TWO"
    assert (b"".join(first), b"".join(left)) == (b"oneT", b"WOthree")


@given(st.binary(min_size=4, max_size=20), st.integers(0, 16))
def test_a_word_is_four_bytes_the_most_significant_first(header: bytes, offset: int) -> None:
    offset = min(offset, len(header) - 4)
    assert word_at(header, offset) == int.from_bytes(header[offset : offset + 4], "big")
