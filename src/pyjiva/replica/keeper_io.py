"""What must be durable before it is answered: one piece of work at a time, in order, while data flows on."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from pyjiva.replica.session import Session, refuse
from pyjiva.replication import Frame, Status
from pyjiva.transport import EndOfBatch

__all__ = ["Keeper"]

KEEPER_QUEUE_MAX: Final = 64  # a controller waits for its promise before it goes on; more is a broken one


class Keeper:
    """The queue, and the task that works it off."""

    def __init__(self, batch: EndOfBatch) -> None:
        self._batch = batch
        self._soon: trio.MemorySendChannel[Callable[[], Awaitable[None]]]
        self._soon, self._works = trio.open_memory_channel(KEEPER_QUEUE_MAX)

    def soon(self, session: Session, frame: Frame, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work`, which answers `frame`, after all that came before it."""
        try:
            self._soon.send_nowait(work)
        except trio.WouldBlock:
            refuse(session.peer, frame, Status.NOT_READY, "too many membership changes at once")

    async def run(self) -> None:
        """Until cancelled."""
        async for work in self._works:
            await work()
            self._batch.end()
