"""`maya.kube.queue_io`: workers handle what is added, one key once at a time, and outlive what fails."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from pyjiva.errors import ConfigError
from pyjiva.maya.kube import KubeError
from pyjiva.maya.kube.queue import Statistics, WorkQueue
from pyjiva.maya.kube.queue_io import Workers

Key = tuple[str, str]


@asynccontextmanager
async def working(
    handle: Callable[[Key], Awaitable[None]], workers: int = 2, retry_min_s: float = 1.0
) -> AsyncIterator[Workers[Key]]:
    queue: WorkQueue[Key] = WorkQueue(retry_min_s, 60.0)
    made = Workers("test", handle, workers, queue=queue)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def test_keys_are_handled_side_by_side_but_each_by_one(autojump_clock: MockClock) -> None:
    began: list[tuple[float, str]] = []
    inside: list[str] = []

    async def handle(key: Key) -> None:
        assert key[1] not in inside
        inside.append(key[1])
        began.append((trio.current_time(), key[1]))
        await trio.sleep(10)
        inside.remove(key[1])

    async with working(handle) as workers:
        for name in "abc":
            workers.add(("ns", name))
        await trio.sleep(5)
        for _ in range(3):
            workers.add(("ns", "a"))  # at work: once again, afterwards
        assert workers.statistics() == Statistics(ready=1, at_work=2, later=0, failing=0)
        await trio.sleep(100)
    assert began == [(0, "a"), (0, "b"), (10, "c"), (10, "a")]


async def test_what_is_added_for_later_comes_then(autojump_clock: MockClock) -> None:
    handled: list[tuple[float, str]] = []

    async def handle(key: Key) -> None:
        handled.append((trio.current_time(), key[1]))
        if key[1] == "long":
            await trio.sleep(50)

    async with working(handle) as workers:
        workers.add_after(("", "b"), 20)
        workers.add_after(("", "a"), 10)
        workers.add_after(("", "b"), 30)
        await trio.sleep(1)
        workers.add(("", "long"))
        await trio.sleep(5)
        workers.add_after(("", "c"), 1)
        await trio.sleep(100)
    assert handled == [(1, "long"), (7, "c"), (10, "a"), (20, "b")]


async def test_failures_are_logged_and_tried_again_less_and_less_often(autojump_clock: MockClock) -> None:
    at_s: list[float] = []

    async def handle(key: Key) -> None:
        at_s.append(trio.current_time())
        if len(at_s) == 1:
            raise KubeError("refused", status=500)
        if len(at_s) == 2:
            async with trio.open_nursery():
                raise ConfigError("impossible")
        if len(at_s) == 3:
            raise ZeroDivisionError
        if len(at_s) == 4:
            async with trio.open_nursery():
                raise ZeroDivisionError

    with capture_logs() as logs:
        async with working(handle) as workers:
            workers.add(("ns", "a"))
            await trio.sleep(100)
            assert workers.statistics().failing == 0
    assert at_s == [0, 1, 3, 7, 15]
    assert [(log["key"], log["failures"], log["again_s"]) for log in logs] == [
        ("ns/a", number, 2.0 ** (number - 1)) for number in (1, 2, 3, 4)
    ]
    assert [log.get("reason") for log in logs] == ["refused", "impossible", None, None]
    assert ["exc_info" in log for log in logs] == [False, False, True, True]


async def test_cancelling_ends_workers_wherever_they_are(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def handle(key: Key) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(key[1])

    async with working(handle) as workers:
        workers.add(("", "a"))
        await trio.sleep(1)
    assert ended == ["a"]
    assert workers.statistics() == Statistics(0, 0, 0, 0)
