"""Requests that wait for the limits of their volume (`block.limit`) go on in time.  The trio shell."""

import attrs
import trio

from pyjiva.block import Limiter, Limits
from pyjiva.transport import EndOfBatch

__all__ = ["HostLimits"]


@attrs.define(eq=False)
class HostLimits:
    """What hosts may ask of one volume; made inside a trio run."""

    limits: Limits
    """At first."""
    batch: EndOfBatch
    limiter: Limiter = attrs.field(init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.limiter = Limiter(self.limits, trio.current_time, self._wake)

    def _wake(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due_s = self.limiter.due_s()
            with trio.move_on_after(float("inf") if due_s is None else due_s):
                await self._changed.wait()
            self._changed = trio.Event()
            self.limiter.go_on()
            self.batch.end()
