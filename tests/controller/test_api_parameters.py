"""What requests say: every text is a value, or is refused as a parameter."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller import api_parameters as api
from pyjiva.transport.problem import ProblemError, Reason
from pyjiva.transport.query import flag

READERS: list[Callable[[dict[str, str], str], Any]] = [
    api.count,
    flag,
    api.size,
    api.optional_size,
    api.number,
    api.limit_number,
    api.limit_size,
]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (api.count, "0", 0),
        (api.count, "9223372036854775807", 2**63 - 1),
        (flag, "0", False),
        (flag, "1", True),
        (api.size, "20GiB", 20 << 30),
        (api.optional_size, "15 kb", 15000),
        (api.number, "2.5", 2.5),
        (api.number, "1e+16", 1e16),
        (api.limit_number, "none", None),
        (api.limit_number, "500", 500.0),
        (api.limit_size, "none", None),
        (api.limit_size, "50MiB", 50 << 20),
    ],
)
def test_what_is_meant(read: Callable[[dict[str, str], str], Any], text: str, value: object) -> None:
    assert read({"name": text}, "name") == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (api.count, ""),
        (api.count, "-1"),
        (api.count, "9223372036854775808"),
        (api.count, "١"),
        (api.count, "9" * 5000),
        (flag, "yes"),
        (flag, ""),
        (api.size, "large"),
        (api.size, "9" * 5000),
        (api.size, "0"),
        (api.size, "1.5k"),
        (api.size, " 1k"),
        (api.size, "1k\n"),
        (api.size, ""),
        (api.number, "many"),
        (api.number, "1_000"),
        (api.number, " 1"),
        (api.number, "nan"),
        (api.number, "inf"),
        (api.number, ""),
        (api.limit_size, "None"),
    ],
)
def test_what_means_nothing(read: Callable[[dict[str, str], str], Any], text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        read({"name": text}, "name")
    assert caught.value.problem.reason == Reason.INVALID_PARAMETER.value
    assert len(caught.value.problem.detail) < 200


@pytest.mark.parametrize("read", READERS)
@given(text=st.text() | st.from_regex(r"[0-9.eE+-]{1,400}", fullmatch=True))
def test_any_text_is_a_value_or_refused(read: Callable[[dict[str, str], str], Any], text: str) -> None:
    with contextlib.suppress(ProblemError):  # any other error fails
        read({"name": text}, "name")


def test_what_is_not_given_is_none_or_refused() -> None:
    assert api.optional_size({}, "rate") is None
    assert flag({}, "witness") is False
    for read in (api.count, api.size, api.number):
        with pytest.raises(ProblemError):
            read({}, "name")


@pytest.mark.parametrize(
    "text",
    [
        "host:1",
        "node-1.example_net.:9502",
        "10.0.0.21:65535",
        "[::1]:9502",
        "[fe80::1:2]:9502",
        "a" * 63 + ":1",
        126 * "a." + "b:1",
    ],
)
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert str(api.address({"address": text}, "address", 3, witness=True)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":1",
        "host:",
        "host:0",
        "host:01",
        "host:65536",
        "::1:9502",
        "[]:1",
        "[host]:1",
        "a b:1",
        "é:1",
        "host:1\n",
        "http://host:1",
        "a" * 64 + ":1",
        "a..b:1",
        ".:1",
        126 * "a." + "b:12",
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    with pytest.raises(ProblemError, match="HOST:PORT"):
        api.address({"address": text}, "address", 3, witness=False)


@pytest.mark.parametrize("text", ["a=b", "a=", "a=b=c"])
def test_a_label_is_a_key_and_a_value(text: str) -> None:
    assert "=".join(api.label(text)) == text


def test_labels_are_counted_as_they_are_given() -> None:
    assert api.labels(["a=b"] * api.LABELS_MAX) == {"a": "b"}
    with pytest.raises(ProblemError, match="at most 64"):
        api.labels(["a=b"] * (api.LABELS_MAX + 1))


@pytest.mark.parametrize("text", ["a" * 257 + "=", "a=" + "b" * 256])
def test_a_label_is_not_longer_than_a_replica_keeps(text: str) -> None:
    assert api.label(text[:-1] if text.endswith("b") else text[1:])
    with pytest.raises(ProblemError, match="at most 256 characters"):
        api.label(text)


@pytest.mark.parametrize("text", ["", "a", "=a"])
def test_anything_else_is_no_label(text: str) -> None:
    with pytest.raises(ProblemError, match="KEY=VALUE"):
        api.label(text)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "é", "a" * 129, "a\n"])
def test_no_snapshot_is_called_so(name: str) -> None:
    with pytest.raises(ProblemError):
        api.snapshot_name(name)
