"""Server-sent events as text: https://html.spec.whatwg.org/multipage/server-sent-events.html.  Pure."""

from collections.abc import Iterable, Iterator
from typing import Final

import attrs

__all__ = ["COMMENT", "EVENT_STREAM", "HEARTBEAT_S", "ServerSentEvent", "decode_events"]

EVENT_STREAM: Final = "text/event-stream"
COMMENT: Final = ":\n\n"
"""What a listener passes over: sent so that a connection that is gone is noticed, by either side."""
HEARTBEAT_S: Final = 15.0  # after so much silence


@attrs.frozen
class ServerSentEvent:
    """One event; none of its parts has a line break."""

    id: str
    kind: str
    data: str

    def encode(self) -> str:
        """As it is sent."""
        return f"id: {self.id}\nevent: {self.kind}\ndata: {self.data}\n\n"


def decode_events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """The events of a stream, as their last line comes; what is no event is passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield ServerSentEvent(fields.get("id", ""), fields.get("event", "message"), fields["data"])
            fields = {}
