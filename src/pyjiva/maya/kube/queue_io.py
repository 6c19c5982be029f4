"""Workers on a queue of keys."""

import math
from collections.abc import Awaitable, Callable, Hashable, Iterator
from random import Random
from typing import Final, Generic, TypeVar

import attrs
import structlog
import trio

from pyjiva.errors import PyjivaError
from pyjiva.maya.kube.queue import Statistics, WorkQueue

__all__ = ["Workers"]

K = TypeVar("K", bound=Hashable)

WORKERS: Final = 4  # a volume's reconciler waits most of its time, for the API and for the volume

_log = structlog.get_logger(__name__)


@attrs.define(eq=False)
class Workers(Generic[K]):
    """Calls `handle` for every key that was added, a few at a time, and again where it failed.

    `add` fits as a subscriber of an Informer: `informer.subscribe(lambda *key: workers.add(key))`.
    """

    name: str
    """Of what is done, for logs."""
    handle: Callable[[K], Awaitable[None]]
    workers: int = WORKERS
    queue: WorkQueue[K] = attrs.field(factory=WorkQueue, kw_only=True)
    random: Random | None = attrs.field(default=None, kw_only=True)
    """Of delays after failures; None: they are not scattered."""
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def add(self, key: K) -> None:
        """Look at it as soon as a worker is free."""
        self.queue.add(key)
        self._changed.unpark()

    def add_after(self, key: K, seconds: float) -> None:
        """Look at it then, or earlier if something else asks for it."""
        self.queue.add_at(key, trio.current_time() + seconds)
        # Whoever has waited longest waits for this time from now on, and is behind all others who wait: so
        # while a worker is free there is one that waits for the earliest time.
        self._changed.unpark()

    def statistics(self) -> Statistics:
        """As it is now."""
        return self.queue.statistics()

    async def run(self) -> None:
        """Work until cancelled; what is being done then is given up."""
        async with trio.open_nursery() as nursery:
            for _ in range(self.workers):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            key = self.queue.take(trio.current_time())
            if key is None:
                next_s = self.queue.next_s()
                with trio.move_on_at(math.inf if next_s is None else next_s):
                    await self._changed.park()
                continue
            try:
                await self._handle(key)
            finally:
                self.queue.done(key)
            await trio.lowlevel.checkpoint()

    async def _handle(self, key: K) -> None:
        """Handle it; a failure of whatever kind costs this key a delay, and the others nothing."""
        try:
            await self.handle(key)
        except Exception as error:  # noqa: BLE001  # a bug that one object sets off must not stop all others
            chance = self.random.random() if self.random else 1.0
            again_s = round(self.queue.fail(key, trio.current_time(), chance=chance), 3)
            known = all(isinstance(leaf, PyjivaError) for leaf in _leaves(error))
            facts = {"work": self.name, "key": _spelt(key), "failures": self.queue.failures(key)}
            if known:
                reason = "; ".join(str(leaf) for leaf in _leaves(error))
                _log.warning("failed, and is tried again", **facts, again_s=again_s, reason=reason)
            else:
                _log.error("failed, and is tried again", **facts, again_s=again_s, exc_info=error)
        else:
            self.queue.forget(key)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """What nurseries have put into groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _spelt(key: object) -> str:
    """A key as people write it."""
    return "/".join(part for part in key if part) if isinstance(key, tuple) else str(key)
