"""Much at once, results in order, and one error instead of a group."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from pyjiva.errors import PyjivaError

__all__ = ["in_order", "ungrouped"]

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    items: Iterable[T],
    work: Callable[[T], Awaitable[R]],
    take: Callable[[R], None],
    *,
    at_once: int,
    between: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """`work` on `items`, up to `at_once` at a time; `take` gets the results in the order of the items.

    `between` is called before each item is begun.
    """
    results: dict[int, R] = {}
    taken = 0
    slots = trio.Semaphore(at_once)

    async def one(number: int, item: T) -> None:
        nonlocal taken
        results[number] = await work(item)
        while taken in results:
            take(results.pop(taken))
            taken += 1
            slots.release()

    with ungrouped():
        async with trio.open_nursery() as nursery:
            for number, item in enumerate(items):
                if between is not None:
                    await between()
                await slots.acquire()
                nursery.start_soon(one, number, item)


@contextmanager
def ungrouped() -> Iterator[None]:
    """Several workers mostly fail for one reason: the first of our own errors stands for a group of them."""
    try:
        yield
    except BaseExceptionGroup as group:
        rest = group.split(PyjivaError)[1]
        if rest is not None:
            raise
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
