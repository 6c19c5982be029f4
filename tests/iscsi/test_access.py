"""Who may log in, by name and by address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.iscsi.access import EVERYBODY, InitiatorRules, _matches

A, B = "iqn.2004-10.com.example:a", "iqn.2004-10.com.example:b"
CASES = [
    ((), A, "10.0.0.1", True),
    ((A,), A, "10.0.0.1", True),
    ((A,), A.upper(), "10.0.0.1", True),
    ((A,), B, "10.0.0.1", False),
    ((A,), A + "x", "10.0.0.1", False),
    ((A, B), B, "10.0.0.1", True),
    (("iqn.2004-10.com.example:*",), B, "10.0.0.1", True),
    (("*:b",), B, "10.0.0.1", True),
    (("*:b",), A, "10.0.0.1", False),
    (("iqn.*.example:?",), A, "10.0.0.1", False),
    (("*",), "anybody", "", True),
    (("10.0.0.0/8",), A, "10.2.3.4", True),
    (("10.0.0.0/8",), A, "11.2.3.4", False),
    (("10.0.0.1",), A, "10.0.0.1", True),
    (("10.0.0.1",), A, "10.0.0.2", False),
    (("10.0.0.0/8",), A, "::ffff:10.0.0.1", True),
    (("fd00::/64",), A, "fd00::1", True),
    (("fd00::/64",), A, "fd00:0:0:1::1", False),
    (("fe80::/10",), A, "fe80::1%eth0", True),
    (("fd00::/64",), A, "10.0.0.1", False),
    (("10.0.0.0/8",), A, "", False),
    ((A, "10.0.0.0/8"), A, "10.0.0.1", True),
    ((A, "10.0.0.0/8"), A, "11.0.0.1", False),
    ((A, "10.0.0.0/8"), B, "10.0.0.1", False),
]


@pytest.mark.parametrize(("rules", "name", "host", "allowed"), CASES)
def test_rules(rules: tuple[str, ...], name: str, host: str, allowed: bool) -> None:
    assert InitiatorRules.parse(rules).allow(name, host) is allowed


@pytest.mark.parametrize("text", ["", "me", "10.0.0.1/8", "10.0.0.256", "fd00::/129", "example.com"])
def test_rule_that_is_neither_name_nor_network(text: str) -> None:
    with pytest.raises(ConfigError, match="initiator"):
        InitiatorRules.parse([text])


@given(name=st.text(max_size=20), host=st.text(max_size=20))
def test_any_name_and_address_is_judged(name: str, host: str) -> None:
    assert EVERYBODY.allow(name, host)
    assert not InitiatorRules.parse(["10.0.0.0/8", A]).allow(name, host)


@given(pieces=st.lists(st.text("ab", max_size=3), min_size=1, max_size=5), fill=st.text("abc", max_size=3))
def test_wildcards_match_what_was_filled_in(pieces: list[str], fill: str) -> None:
    assert _matches("*".join(pieces), fill.join(pieces))


@given(pattern=st.text("ab*", max_size=6), name=st.text("ab", max_size=6))
def test_wildcards_match_as_the_plain_definition_says(pattern: str, name: str) -> None:
    def matches(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(matches(pattern[1:], name[start:]) for start in range(len(name) + 1))
        return name[:1] == pattern[0] and matches(pattern[1:], name[1:])

    assert _matches(pattern, name) is matches(pattern, name)
