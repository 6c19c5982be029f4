"""Give back the space of deleted snapshots, in the background.  The trio shell of `merge_sys`.

A step holds back only the requests that overlap it (`ChainDevice.alone`), the last one all of them.  Where it
would make stable what hosts have written and not flushed, or cannot move it, that is flushed before, while
nobody waits (`Merge.wants_flush`).  Between steps it rests for as long as both took, so that it takes half of
the disk's time at most; longer while hosts, or a rebuild, read and write (`block.Yielding`), and longer if
there is a rate.

Where a change of the chain is about to come, hosts wait for it, or soon will: no step begins then, and no
flush for one, as the change would have to wait for its end.
"""

import math
from functools import partial
from typing import Final

import attrs
import structlog
import trio

from pyjiva.block import Hosts, Yielding
from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot.device_io import ChainDevice
from pyjiva.snapshot.merge_sys import Merge
from pyjiva.units import GIB

__all__ = ["MergeProgress", "Merger"]

CHANGE_S: Final = 10.0  # as long as a controller waits for all to be prepared; it may be gone by then
SPACE_BYTES: Final = 1 * GIB  # and what hosts may write meanwhile
AGAIN_S: Final = 10.0  # after a step that failed: a full disk may have room by then

_log = structlog.get_logger(__name__)


@attrs.frozen
class MergeProgress:
    """How far the space of deleted snapshots is given back."""

    done_bytes: int
    """Copied since there was last nothing to do."""
    left_bytes: int
    """To be copied, at most: of layers whose turn has not come, what they take."""


@attrs.define(eq=False)
class Merger:
    """All merges of one replica, one after the other."""

    device: ChainDevice
    rate: int | None = None
    """Bytes per second that may be copied; None: no limit but that of the rests."""
    yielding: Yielding = attrs.field(factory=Yielding)
    copied_bytes: int = attrs.field(default=0, init=False)
    merge: Merge | None = attrs.field(default=None, init=False)
    """The one under way."""
    _idle: trio.Event | None = attrs.field(default=None, init=False)
    """The change that is waited for, as there is nothing to do."""
    _change_over: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the change that was announced last is here."""
    _change_by_s: float = attrs.field(default=-math.inf, init=False)
    """Until then it is waited for."""
    _done_bytes: int = attrs.field(default=0, init=False)
    _left_bytes: int = attrs.field(default=0, init=False)
    """Of the merge under way."""
    _later_bytes: int = attrs.field(default=0, init=False)
    """Of those after it."""

    @property
    def progress(self) -> MergeProgress | None:
        """None: there is nothing to do, and no change that was not looked at yet."""
        if self._idle is self.device.chain_changed:
            return None
        return MergeProgress(self._done_bytes, self._left_bytes + self._later_bytes)

    def change_comes(self) -> None:
        """A change of the chain is announced: let it find nothing to wait for."""
        self._change_over, self._change_by_s = trio.Event(), trio.current_time() + CHANGE_S

    def change_is_here(self) -> None:
        """It is next in line."""
        self._change_over.set()

    def _space_is_short(self, merge_bytes: int) -> bool:
        """Whether a merge of so many bytes may not keep them twice until its end."""
        space = self.device.space
        return space is None or space.available_bytes < 2 * merge_bytes + SPACE_BYTES

    async def _give_way(self) -> None:
        with trio.move_on_at(self._change_by_s):
            await self._change_over.wait()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            changed = self.device.chain_changed
            try:
                merged = await self._merge_next()
            except StorageError as error:
                _log.warning("a deleted snapshot's space is not given back yet", reason=str(error))
                await trio.sleep(AGAIN_S)
                continue
            finally:
                self.merge = None
            if not merged:
                self._done_bytes = self._left_bytes = self._later_bytes = 0
                self._idle = changed
                await changed.wait()

    async def _merge_next(self) -> bool:
        """Do one merge whole; False: there is none to do."""
        await self._give_way()
        await self.device.aside(self._begin)
        if self.merge is None:
            return False
        everything = Extent(0, self.device.size_bytes)
        while True:
            if self.merge.turns_up:
                await self.device.aside(self.merge.turn_up)
            extent = self.merge.extent
            if extent is None:
                return True
            await self._give_way()
            began_at = trio.current_time()
            copied = [0]
            alone = None if extent == everything else extent
            if self.merge.wants_flush:
                await self.device.aside(self.device.store.flush)
                await self._give_way()
            self.merge.frees_early = self._space_is_short(self.merge.total_bytes)
            was_reopened = self.merge.is_reopened
            await self.device.alone(alone, partial(self._step, self.merge, copied))
            if self.merge.is_reopened and not was_reopened:
                _log.info("a deleted snapshot takes writes until it is merged", snapshot=self.merge.name)
            self.copied_bytes += copied[0]
            self._done_bytes += copied[0]
            self._left_bytes = self.merge.left_bytes
            now = trio.current_time()
            took_s = now - began_at
            hosts = Hosts(self.device.requests, waiting=False)
            rest_s = self.yielding.rest_s(hosts, now_s=now, took_s=took_s, length_bytes=copied[0])
            await trio.sleep(max(took_s, rest_s, copied[0] / self.rate if self.rate else 0.0))

    def _begin(self) -> None:
        """In a thread."""
        self.device.store.tidy()
        self.merge = merge = self.device.store.next_merge()
        if merge is not None:
            self._left_bytes = merge.left_bytes
            others = (each for each in self.device.store.layers() if each.name != merge.name)
            self._later_bytes = sum(
                o.allocated_bytes for o in others if o.layer is not None and o.layer.removed
            )

    @staticmethod
    def _step(merge: Merge, copied: list[int]) -> None:
        """In a thread."""
        copied[0] = merge.step()
