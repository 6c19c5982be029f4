"""A store's configuration, and the keys that follow from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup.configuration import Configuration
from pyjiva.backup.objects import DamagedError
from pyjiva.errors import ConfigError

SALT = bytes(range(16))
SECRET = b"0123456789abcdef"
PLAIN = Configuration.new(chunk_bytes=1 << 20, salt=SALT, secret=None)
ENCRYPTED = Configuration.new(chunk_bytes=1 << 20, salt=SALT, secret=SECRET)


@pytest.mark.parametrize("configuration", [PLAIN, ENCRYPTED])
def test_it_comes_back(configuration: Configuration) -> None:
    assert Configuration.decode(configuration.encode()) == configuration


@pytest.mark.parametrize(
    ("configuration", "secret", "why"),
    [
        (PLAIN, SECRET, "not encrypted, but a key was given"),
        (ENCRYPTED, None, "encrypted: give its key"),
        (ENCRYPTED, b"another key of 16", "not its key"),
    ],
)
def test_a_wrong_key_is_refused(configuration: Configuration, secret: bytes | None, why: str) -> None:
    with pytest.raises(ConfigError, match=f"the-store.*{why}"):
        configuration.keys(secret, "the-store")


def test_a_changed_configuration_does_not_fit_its_key() -> None:
    fields = json.loads(ENCRYPTED.encode())
    for change in ({"chunk_bytes": 1 << 19}, {"salt": "00" * 16}):
        changed = Configuration.decode(json.dumps(fields | change).encode())
        with pytest.raises(ConfigError, match="not its key"):
            changed.keys(SECRET, "store")


def test_names_of_an_encrypted_store_cannot_be_guessed_from_the_content() -> None:
    plain, keyed = PLAIN.keys(None, ""), ENCRYPTED.keys(SECRET, "")
    other = Configuration.new(chunk_bytes=1 << 20, salt=bytes(16), secret=SECRET).keys(SECRET, "")
    names = {keys.name_of(b"content") for keys in (plain, keyed, other)}
    assert len(names) == 3
    assert keyed.name not in (keyed.cipher, SECRET)
    assert "name=" not in repr(keyed)
    assert keyed.name_of(b"content") == ENCRYPTED.keys(SECRET, "").name_of(b"content")


NAMES = st.sampled_from(["format", "chunk_bytes", "salt", "encryption", "key_check"])
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.just(1) | st.just("00" * 16)


@given(
    anything=st.binary(max_size=100)
    | (VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(NAMES, VALUES)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_anything_else_is_refused(anything: bytes) -> None:
    with pytest.raises((DamagedError, ConfigError)):
        Configuration.decode(anything)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(ConfigError, match="has format 2"):
        Configuration.decode(b'{"format": 2}')


@pytest.mark.parametrize("chunk_bytes", [0, 4095, 5000, 1 << 25])
def test_chunks_have_a_size_that_works(chunk_bytes: int) -> None:
    with pytest.raises(ConfigError, match="power of two"):
        Configuration.new(chunk_bytes=chunk_bytes, salt=SALT, secret=None)
