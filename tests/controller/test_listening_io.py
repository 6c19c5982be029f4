"""Who listens to a volume hears each event once, as far as the history reaches."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from trio.testing import MockClock

from pyjiva.controller.history import EVENTS_MAX, History
from pyjiva.controller.listening_io import listen
from pyjiva.transport.event_stream import COMMENT, HEARTBEAT_S, decode_events


def happened(history: History, count: int = 1) -> None:
    for _ in range(count):
        history.add(1.5, "replica", 2, "in-sync → out\nno answer")


def number(text: str) -> int:
    (event,) = decode_events(text.split("\n"))
    assert event.kind == "replica"
    content = json.loads(event.data)
    assert event.id == f"me-{content['number']}"
    assert (content["at_s"], content["replica"], content["text"]) == (1.5, 2, "in-sync → out\nno answer")
    return int(content["number"])


async def numbers(stream: AsyncGenerator[str, None], count: int) -> list[int]:
    return [number(await anext(stream)) for _ in range(count)]


async def begun(history: History, last_event_id: str = "") -> AsyncGenerator[str, None]:
    """Past the comment that comes at once."""
    stream = listen(history, "me", last_event_id)
    assert await anext(stream) == COMMENT
    return stream


async def test_what_is_known_comes_first_and_what_happens_then_as_it_happens() -> None:
    history = History()
    happened(history, 2)
    async with trio.open_nursery() as nursery, aclosing(await begun(history)) as stream:
        assert await numbers(stream, 2) == [1, 2]
        nursery.start_soon(trio.to_thread.run_sync, lambda: trio.from_thread.run_sync(happened, history, 2))
        with trio.fail_after(10):
            assert await numbers(stream, 2) == [3, 4]
        assert len(history.listeners) == 1
    assert history.listeners == []


async def test_who_says_what_he_heard_last_hears_what_came_after_it() -> None:
    history = History()
    happened(history, 5)
    async with aclosing(await begun(history, "me-3")) as stream:
        assert await numbers(stream, 2) == [4, 5]


async def test_what_another_controller_counted_says_nothing() -> None:
    history = History()
    happened(history)
    for odd in ("you-1", "1", "me-", "me--1", "me-²", "me-" + "9" * 30, "me-2", "-"):
        async with aclosing(await begun(history, odd)) as stream:
            assert await numbers(stream, 1) == [1], odd


async def test_who_begins_late_hears_what_is_left() -> None:
    history = History()
    happened(history, EVENTS_MAX + 5)
    async with aclosing(await begun(history)) as stream:
        assert await numbers(stream, 2) == [6, 7]


async def test_who_falls_behind_is_ended_and_not_told_less() -> None:
    history = History()
    happened(history)
    async with aclosing(await begun(history)) as stream:
        assert await numbers(stream, 1) == [1]
        happened(history, EVENTS_MAX + 1)
        assert [text async for text in stream] == []


async def test_when_the_history_is_closed_what_is_there_is_told_and_no_more() -> None:
    history = History()
    happened(history)
    async with aclosing(await begun(history)) as stream:
        assert await numbers(stream, 1) == [1]
        happened(history)
        history.close()
        happened(history)
        with trio.fail_after(10):
            assert [number(text) async for text in stream] == [2, 3]
        async with aclosing(await begun(history, "me-3")) as late:
            with trio.fail_after(10):
                assert [text async for text in late] == []


async def test_who_waits_is_woken_when_the_history_is_closed() -> None:
    history = History()
    async with trio.open_nursery() as nursery, aclosing(await begun(history)) as stream:
        nursery.start_soon(trio.to_thread.run_sync, lambda: trio.from_thread.run_sync(history.close))
        with trio.fail_after(HEARTBEAT_S / 3):
            assert [text async for text in stream] == []


async def test_in_silence_comments_come(autojump_clock: MockClock) -> None:
    history = History()
    async with aclosing(await begun(history)) as stream:
        for n in (1, 2):
            assert await anext(stream) == COMMENT
            assert trio.current_time() == n * HEARTBEAT_S
        happened(history)
        assert await numbers(stream, 1) == [1]
