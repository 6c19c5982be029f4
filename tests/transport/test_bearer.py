"""Tokens: what one is, who is admitted, and that it shows nowhere."""

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token

SECRET = "3f9a-._~+/Zz0123456789=="


@pytest.mark.parametrize("text", [SECRET, f"  {SECRET}\n", "a" * 16, "a" * 512])
def test_white_space_around_it_does_not_count(text: str) -> None:
    assert Token.parse(text).headers() == {"Authorization": f"Bearer {text.strip()}"}


@pytest.mark.parametrize(
    "text", ["", "a" * 15, "a" * 513, "a" * 16 + "é", "two words of many letters", "=" * 20]
)
def test_what_is_none_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Token.parse(text)
    assert not text or text not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ([f"Bearer {SECRET}"], True),
        ([f"bearer {SECRET}"], True),
        ([f"BEARER  {SECRET} "], True),
        ([], False),
        ([""], False),
        (["Bearer"], False),
        (["Bearer "], False),
        ([SECRET], False),
        ([f"Basic {SECRET}"], False),
        ([f"Bearer {SECRET}x"], False),
        ([f"Bearer {SECRET[:-1]}"], False),
        ([f"Bearer {SECRET.lower()}"], False),
        ([f"Bearer {SECRET}", f"Bearer {SECRET}"], False),
        ([f"Bearer {SECRET}", "Basic eA=="], False),
    ],
)
def test_who_is_admitted(headers: list[str], admitted: bool) -> None:
    assert Token.parse(SECRET).admits([header.encode() for header in headers]) is admitted


@given(st.binary().filter(lambda data: SECRET.encode() not in data))
def test_no_guess_is_admitted(data: bytes) -> None:
    assert not Token.parse(SECRET).admits([data])
    assert not Token.parse(SECRET).admits([b"Bearer " + data])


def test_it_does_not_show() -> None:
    token = Token.parse(SECRET)
    assert SECRET not in f"{token} {token!r}"
