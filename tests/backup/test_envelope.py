"""Wrapping objects: what was wrapped comes back, and nothing else is ever taken for it."""

from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyjiva.backup.encryption import AesGcm
from pyjiva.backup.envelope import NONCE_BYTES, Cipher, Kind, unwrap, wrap
from pyjiva.backup.objects import DamagedError

KEY = "chunks/ab/abcd"
CIPHERS: list[Cipher | None] = [None, AesGcm.of(bytes(32))]
MAX = 1 << 20


def wrapped(content: bytes, cipher: Cipher | None, kind: Kind = Kind.CHUNK) -> bytes:
    """With a nonce of zeros."""
    return wrap(kind, KEY, content, cipher, bytes(NONCE_BYTES))


CONTENTS = st.binary(max_size=300) | st.builds(bytes.__mul__, st.binary(max_size=8), st.integers(0, 200))


@given(content=CONTENTS, kind=st.sampled_from(Kind), cipher=st.sampled_from(CIPHERS))
@example(content=b"", kind=Kind.CHUNK, cipher=None)
def test_what_was_wrapped_comes_back(content: bytes, kind: Kind, cipher: Cipher | None) -> None:
    assert unwrap(kind, KEY, wrapped(content, cipher, kind), cipher, MAX) == content


@pytest.mark.parametrize("cipher", CIPHERS)
def test_what_can_be_squeezed_is(cipher: Cipher | None) -> None:
    assert len(wrapped(b"pyjiva" * 10_000, cipher)) < 1000


@given(content=CONTENTS, cipher=st.sampled_from(CIPHERS), data=st.data())
def test_a_flipped_bit_is_noticed(content: bytes, cipher: Cipher | None, data: st.DataObject) -> None:
    changed = bytearray(wrapped(content, cipher))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedError, match=KEY):
        unwrap(Kind.CHUNK, KEY, bytes(changed), cipher, MAX)


@given(content=CONTENTS, cipher=st.sampled_from(CIPHERS), data=st.data())
def test_an_object_that_is_cut_short_or_too_long_is_noticed(
    content: bytes, cipher: Cipher | None, data: st.DataObject
) -> None:
    whole = wrapped(content, cipher)
    for changed in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(DamagedError):
            unwrap(Kind.CHUNK, KEY, changed, cipher, MAX)


@given(anything=st.binary(max_size=100), header=st.booleans(), cipher=st.sampled_from(CIPHERS))
def test_any_bytes_are_damage_and_nothing_worse(anything: bytes, header: bool, cipher: Cipher | None) -> None:
    with pytest.raises(DamagedError):
        unwrap(Kind.CHUNK, KEY, b"PJBK\1\1" * header + anything, cipher, MAX)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_an_object_of_another_name_or_kind_is_noticed(cipher: Cipher | None) -> None:
    whole = wrapped(b"content", cipher)
    for read in (partial(unwrap, Kind.CHUNK, "chunks/ab/other"), partial(unwrap, Kind.TABLE, KEY)):
        with pytest.raises(DamagedError):
            read(whole, cipher, MAX)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(DamagedError, match="not sealed with this key"):
        unwrap(Kind.CHUNK, KEY, wrapped(b"content", CIPHERS[1]), AesGcm.of(b"\1" * 32), MAX)


@pytest.mark.parametrize(("written", "read"), [(0, 1), (1, 0)])
def test_a_plain_object_in_an_encrypted_store_is_refused_and_the_other_way_round(
    written: int, read: int
) -> None:
    with pytest.raises(DamagedError, match="unlike the store"):
        unwrap(Kind.CHUNK, KEY, wrapped(b"content", CIPHERS[written]), CIPHERS[read], MAX)


def test_what_claims_to_be_longer_than_it_may_be_is_refused_before_memory_is_taken() -> None:
    whole = wrapped(bytes(1 << 20), None)
    with pytest.raises(DamagedError, match="claims 1048576 bytes, at most 1000"):
        unwrap(Kind.CHUNK, KEY, whole, None, 1000)


def test_a_newer_format_is_named() -> None:
    whole = bytearray(wrapped(b"", None))
    whole[4] = 2
    with pytest.raises(DamagedError, match="has format 2, this pyjiva reads 1"):
        unwrap(Kind.CHUNK, KEY, bytes(whole), None, MAX)


def test_the_content_is_not_to_be_seen_in_an_encrypted_object() -> None:
    assert b"secret" not in wrapped(b"a secret", CIPHERS[1])
    assert b"secret" in wrapped(b"a secret", None)
