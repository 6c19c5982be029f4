"""`GET /v1/events/stream`: what happens to a volume, as it happens.

A listener is a place in the history, not a queue: one that does not read costs nothing.  If what it would
read next was dropped from the history meanwhile, its stream ends; it may ask again for what is left.  All
streams end when the controller does.
"""

import json
from collections.abc import AsyncGenerator

import attrs
import trio

from pyjiva.controller.history import History, HistoryEvent
from pyjiva.transport.event_stream import COMMENT, HEARTBEAT_S, ServerSentEvent

__all__ = ["listen"]


async def listen(history: History, controller_id: str, last_event_id: str) -> AsyncGenerator[str, None]:
    """The stream's text: all that is known, or what came after `last_event_id` if this controller gave that.

    Other controllers count their events from 1 too, so an id names who counted.
    """
    whose, _, number = last_event_id.rpartition("-")
    ours = whose == controller_id and number.isdecimal() and len(number) < 20
    told = int(number) if ours and int(number) <= history.newest else 0  # one that we never gave says nothing
    yield COMMENT  # the head of the answer goes out with the first bytes only
    first, more = True, trio.Event()

    def wake() -> None:
        more.set()

    history.listeners.append(wake)
    try:
        while True:
            for event in history.after(told):
                if event.number != told + 1 and not first:
                    return
                yield _encode(event, controller_id)
                told, first = event.number, False
            if history.closed:
                if history.newest > told:
                    continue  # it happened while the last one was sent
                return
            with trio.move_on_after(HEARTBEAT_S) as silence:
                await more.wait()
            more = trio.Event()
            if silence.cancelled_caught:
                yield COMMENT
    finally:
        history.listeners.remove(wake)


def _encode(event: HistoryEvent, controller_id: str) -> str:
    data = json.dumps(attrs.asdict(event), ensure_ascii=False)
    return ServerSentEvent(f"{controller_id}-{event.number}", event.kind, data).encode()
