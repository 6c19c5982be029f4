"""`maya.kube.answer`: what answers mean, and that any bytes are an answer or a KubeError."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.kube import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    WatchEvent,
    WatchKind,
)
from pyjiva.maya.kube.answer import MESSAGE_MAX, error_of, is_of_object, read_event, read_object

KEYS = ["type", "object", "code", "reason", "message", "details", "name", "kind"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", KubeError),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (422, "Invalid", KubeError),
        (500, "InternalError", KubeError),
        (504, "Timeout", KubeError),
    ],
)
def test_statuses_are_told_apart(code: int, reason: str, kind: type[KubeError]) -> None:
    body = json.dumps({"kind": "Status", "reason": reason, "message": "because", "code": code}).encode()
    error = error_of("get /x", code, body)
    assert type(error) is kind
    assert (str(error), error.status, error.reason) == ("get /x: because", code, reason)


def test_what_a_proxy_says_is_shown_and_cut() -> None:
    error = error_of("get /x", 502, b"<html>" + b"x" * 9999)
    assert error.status == 502
    assert str(error).startswith("get /x: <html>xxx") and len(str(error)) < MESSAGE_MAX + 20


def test_a_missing_object_is_told_from_a_missing_kind() -> None:
    assert is_of_object(b'{"reason": "NotFound", "details": {"name": "m", "kind": "configmaps"}}')
    assert not is_of_object(b'{"reason": "NotFound", "details": {}}')
    assert not is_of_object(b"404 page not found\n")


def test_lines_of_a_watch_are_events_or_the_end() -> None:
    value = {"metadata": {"name": "m"}}
    line = json.dumps({"type": "MODIFIED", "object": value})
    assert read_event("watch", line) == WatchEvent(WatchKind.MODIFIED, value)
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    with pytest.raises(Gone, match="watch: too old"):
        read_event("watch", json.dumps({"type": "ERROR", "object": status}))
    with pytest.raises(KubeError) as raised:
        read_event("watch", json.dumps({"type": "ERROR", "object": {"code": 500}}))
    assert raised.value.status == 500
    for line in ("", "{}", "[]", "{", '{"type": "NEW", "object": {}}', '{"type": "ERROR", "object": 1}'):
        with pytest.raises(KubeError):
            read_event("watch", line)


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()), code=st.integers(100, 599))
def test_any_bytes_are_an_answer_or_an_error_of_ours(body: bytes, code: int) -> None:
    assert isinstance(error_of("get", code, body), KubeError)
    is_of_object(body)
    for read in (
        lambda: read_object("get", body),
        lambda: read_event("watch", body.decode(errors="replace")),
    ):
        try:
            read()
        except KubeError:
            continue
