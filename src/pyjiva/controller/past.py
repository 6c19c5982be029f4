"""A volume's past: which snapshots it has, and bringing replicas up that lack some.  Pure.

While the volume settles, members that are one change behind are brought up first (`level`).  While it is
served, a replica that is to be rebuilt is brought up before its live content is copied (`bring_up`).  When
the snapshots change meanwhile, the copy begins again with that (`changed`): the map of what it still lacks
is kept, so what was copied stays copied.
"""

from collections.abc import Callable, Sequence, Set
from typing import Final, Protocol

import attrs

from pyjiva.block import Buffer, Lock
from pyjiva.controller.catch_up import CatchUp
from pyjiva.controller.dirty_map import FixedWork
from pyjiva.controller.range_copy import RangeCopy
from pyjiva.controller.resync import Resync
from pyjiva.errors import RemoteProtocolError
from pyjiva.extent import Extent
from pyjiva.lineage import Change, Lineage
from pyjiva.replication import Frame, FrameType, LineageAnswer, LineageMark, Status, decode_message

__all__ = ["NOWHERE", "Past", "PastPort"]

#: What a copy of a snapshot asks for instead of what a copy of the live content would.
_OF_THE_PAST: Final[dict[FrameType, FrameType]] = {
    FrameType.READ: FrameType.PAST_READ,
    FrameType.WRITE: FrameType.PAST_WRITE,
    FrameType.UNMAP: FrameType.PAST_UNMAP,
    FrameType.BLOCK_STATUS: FrameType.PAST_BLOCK_STATUS,
    FrameType.HASH: FrameType.PAST_HASH,
    FrameType.SPOIL: FrameType.PAST_SPOIL,
}
NOWHERE: Final = Extent(0, 0)
"""Of frames that are about no range."""
_NO_LOCK: Final = Lock(0, 0, exclusive=False, owner=None)  # nobody writes to a snapshot


class PastPort(Protocol):
    """What the past needs of the volume."""

    def call(
        self,
        member: int,
        type_: FrameType,
        on_answer: Callable[[Frame | None], None],
        *,
        extent: Extent = NOWHERE,
        payload: Sequence[Buffer] = (),
        code: int = 0,
        number: int | None = None,
    ) -> None:
        """Send a frame; `on_answer` gets the answer (None: the member is lost)."""

    def acquire_shared(self, extent: Extent, owner: RangeCopy) -> None:
        """See ResyncPort."""

    def release(self, lock: Lock) -> None:
        """See ResyncPort."""

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        """See ResyncPort."""

    def may_go_on(self, resync: Resync) -> bool:
        """See ResyncPort."""

    def spent(self, resync: Resync, length_bytes: int) -> None:
        """See ResyncPort."""

    def copy_begins(self, resync: Resync) -> None:
        """A copy of a snapshot begins."""

    def copy_ended(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        """It is over: well (None), or because of `failed_member`."""

    def compare_all(self, target: int) -> None:
        """All of the target's live content is to be compared."""

    def copy_live(self, target: int) -> None:
        """The target has the volume's snapshots: copy the live content."""

    def levelled(self) -> None:
        """All members that take part in the activation have the same snapshots."""

    def lose_member(self, member: int, reason: str) -> None:
        """The member must be lost."""

    def past_is_bad(self, member: int, number: int, extent: Extent) -> None:
        """`member` has a block of a snapshot that is not what was written."""


@attrs.define(eq=False)
class Past:
    """Of one volume."""

    lineage: Lineage
    port: PastPort
    _catch_ups: dict[int, CatchUp] = attrs.field(factory=dict, init=False)
    """By target."""
    _levelling: bool = attrs.field(default=False, init=False)
    _source: int | None = attrs.field(default=None, init=False)
    """While members are levelled: whom the others become equal to."""

    @property
    def mark(self) -> LineageMark:
        """What a replica that has all snapshots says."""
        return LineageMark.of(self.lineage)

    # --- while the volume settles

    def level(self, source: int, members: Sequence[int]) -> None:
        """Take over what `source` has, and let the others have the same; see PastPort.levelled."""
        self._levelling, self._source = True, source

        def listed(frame: Frame | None) -> None:
            if not self._levelling or frame is None:
                return
            if frame.code != Status.OK:
                self.port.lose_member(source, f"could not say which snapshots it has (status {frame.code})")
                return
            self.lineage = decode_message(frame.payload, LineageAnswer).lineage
            if any(not snapshot.whole and not snapshot.filling for snapshot in self.lineage.snapshots):
                raise RemoteProtocolError("is in sync and has a snapshot that was never compared")
            for member in members:
                if member != source:
                    self._catch_ups[member] = CatchUp(member, self.lineage, self, compares=False)
            for catch_up in list(self._catch_ups.values()):
                catch_up.start()
            self._level_if_done()

        self.port.call(source, FrameType.LINEAGE, listed)

    def _level_if_done(self) -> None:
        if self._levelling and not self._catch_ups:
            self._levelling, self._source = False, None
            self.port.levelled()

    def cancel(self) -> None:
        """Forget what is under way."""
        self._levelling, self._source = False, None
        for target in list(self._catch_ups):
            self.lost(target)

    # --- while it is served

    @property
    def targets(self) -> list[int]:
        """Who is being given what it lacks."""
        return list(self._catch_ups)

    def bring_up(self, target: int, mark: LineageMark | None) -> bool:
        """Begin to give `target`, which said `mark` (None: it is to be asked), what it lacks; False: it has
        all.

        See PastPort.copy_live.
        """
        if mark == self.mark and self.lineage.filling is None:
            return False
        self.lost(target)
        catch_up = self._catch_ups[target] = CatchUp(target, self.lineage, self)
        catch_up.start()
        return True

    def changed(self, change: Change) -> None:
        """The volume's snapshots are others now."""
        self.lineage = self.lineage.apply(change)

    def lost(self, target: int) -> None:
        """Whatever was under way to `target` is over."""
        if (catch_up := self._catch_ups.pop(target, None)) is not None:
            catch_up.cancel()

    def takes_fills(self, target: int) -> bool:
        """Whether a replica that is being rebuilt has the snapshot that is being filled."""
        catch_up = self._catch_ups.get(target)
        return catch_up is None or catch_up.takes_fills  # None: it is past that

    # --- see CatchUpPort

    def ask_about_past(
        self, member: int, type_: FrameType, payload: bytes, on_answer: Callable[[Frame | None], None]
    ) -> None:
        """Part of CatchUpPort."""
        self.port.call(member, type_, on_answer, payload=(payload,) if payload else ())

    def compare_snapshot(self, catch_up: CatchUp, number: int) -> None:
        """Part of CatchUpPort."""
        filling = self.lineage.filling is not None and self.lineage.filling.number == number
        copy = _SnapshotCopy(self.port, catch_up, number, self._source, changes=filling)
        everything = FixedWork([Extent(0, self.lineage.size_bytes)])
        resync = Resync(catch_up.target, catch_up.target, everything, copy)
        source = copy.choose_source(resync, set())
        if source is None:
            self.could_not_catch_up(catch_up, "no other replica is in sync")
            return
        resync.source = source
        self.port.copy_begins(resync)
        resync.start()

    def live_content_changes(self, catch_up: CatchUp) -> None:
        """Part of CatchUpPort."""
        self.port.compare_all(catch_up.target)

    def caught_up(self, catch_up: CatchUp) -> None:
        """Part of CatchUpPort."""
        if self._catch_ups.get(catch_up.target) is catch_up:
            del self._catch_ups[catch_up.target]
        if catch_up.compares:
            self.port.copy_live(catch_up.target)
        else:
            self._level_if_done()

    def could_not_catch_up(self, catch_up: CatchUp, reason: str) -> None:
        """Part of CatchUpPort."""
        self.lost(catch_up.target)
        self.port.lose_member(catch_up.target, f"could not be given the volume's snapshots: {reason}")


@attrs.define(eq=False)
class _SnapshotCopy:
    """The ResyncPort of a copy of one snapshot."""

    port: PastPort
    catch_up: CatchUp
    number: int
    source: int | None
    """The only one that may be the source; None: any."""
    changes: bool
    """Whether the snapshot is being filled meanwhile."""

    def acquire_shared(self, extent: Extent, owner: RangeCopy) -> None:
        """Part of ResyncPort."""
        if self.changes:
            self.port.acquire_shared(extent, owner)
        else:
            owner.lock_held(_NO_LOCK)

    def release(self, lock: Lock) -> None:
        """Part of ResyncPort."""
        if lock is not _NO_LOCK:
            self.port.release(lock)

    def ask(
        self,
        member: int,
        type_: FrameType,
        extent: Extent,
        payload: Sequence[Buffer],
        on_answer: Callable[[Frame | None], None],
        code: int = 0,
    ) -> None:
        """Part of ResyncPort."""
        type_, number = _OF_THE_PAST[type_], self.number
        self.port.call(member, type_, on_answer, extent=extent, payload=payload, code=code, number=number)

    def choose_source(self, resync: Resync, without: Set[int]) -> int | None:
        """Part of ResyncPort."""
        if self.source is not None:
            return self.source if self.source not in without else None
        return self.port.choose_source(resync, without)

    def found_bad(self, finder: Resync, member: int, extent: Extent) -> None:
        """Part of ResyncPort."""
        self.port.past_is_bad(member, self.number, extent)

    def may_go_on(self, resync: Resync) -> bool:
        """Part of ResyncPort."""
        return self.port.may_go_on(resync)

    def spent(self, resync: Resync, length_bytes: int) -> None:
        """Part of ResyncPort."""
        self.port.spent(resync, length_bytes)

    def advanced(self, resync: Resync) -> None:
        """Part of ResyncPort: no write goes to a snapshot."""

    def finished(self, resync: Resync, failed_member: int | None, reason: str) -> None:
        """Part of ResyncPort."""
        self.port.copy_ended(resync, failed_member, reason)
        if failed_member is None:
            self.catch_up.compared(self.number)
