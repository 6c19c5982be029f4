"""Server-sent events as text."""

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.transport.event_stream import COMMENT, ServerSentEvent, decode_events

LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]))


@given(st.lists(st.builds(ServerSentEvent, LINE, LINE, LINE)))
def test_what_is_encoded_is_decoded(events: list[ServerSentEvent]) -> None:
    text = COMMENT.join(event.encode() for event in events)
    assert list(decode_events(text.split("\n"))) == events


def test_an_event_is_told_with_its_last_line() -> None:
    lines = iter(ServerSentEvent("1", "volume", "{}").encode().split("\n"))
    assert next(decode_events(lines)) == ServerSentEvent("1", "volume", "{}")


def test_what_is_no_event_is_passed_over() -> None:
    assert list(decode_events([":", "", "id: 4", "", "data", "odd: 1", ""])) == [
        ServerSentEvent("", "message", "")
    ]


@given(st.lists(st.text()))
def test_any_lines_are_events_or_nothing(lines: list[str]) -> None:
    for event in decode_events(lines):
        assert isinstance(event.data, str)
