"""Give a replica that is to be rebuilt the snapshots of the volume.  Pure.

    ask what it has ──▶ change by change (`Lineage.steps_to`) ──▶ compare snapshot by snapshot ──▶ LEVEL
                                                                   (`Resync`, the oldest first; then WHOLE)

A snapshot that the replica lacks is made there of what it holds itself, which for the most part is right, and
then made equal to the others' by its hashes: so what it had before it left is not sent again, whatever
happened since.  Its live content comes after that, by the map of what it missed.

Any interruption begins all this anew: what is whole by then is not compared again.  A change of the volume's
snapshots meanwhile is such an interruption.

While a volume settles, the same machine brings the members that are one change behind up to the others
(`compares` is false: they hold the same bytes, so what they make of them is whole).  A snapshot that is being
filled from elsewhere is compared always: fills may have been on their way.
"""

import collections
import enum
from collections.abc import Callable
from typing import Protocol

import attrs

from pyjiva.errors import ConfigError, RemoteProtocolError
from pyjiva.lineage import Change, ChangeKind, Lineage, Snapshot
from pyjiva.replication import Frame, FrameType, LineageAnswer, Status, decode_message, encode_message

__all__ = ["CatchUp", "CatchUpPort", "CatchUpStep"]


class CatchUpPort(Protocol):
    """What the machine needs of the volume."""

    def ask_about_past(
        self, member: int, type_: FrameType, payload: bytes, on_answer: Callable[[Frame | None], None]
    ) -> None:
        """Send a frame; `on_answer` gets the answer (None: the member is lost)."""

    def compare_snapshot(self, catch_up: "CatchUp", number: int) -> None:
        """Make the snapshot of the target equal to that of the others; then call `compared`."""

    def live_content_changes(self, catch_up: "CatchUp") -> None:
        """The target's live content will be another: all of it is to be compared."""

    def caught_up(self, catch_up: "CatchUp") -> None:
        """The target has the snapshots of the goal."""

    def could_not_catch_up(self, catch_up: "CatchUp", reason: str) -> None:
        """The target refused."""


class CatchUpStep(enum.Enum):
    """What the machine waits for."""

    LISTING = "its list of snapshots"
    CHANGING = "a change of its snapshots"
    COMPARING = "a snapshot to be compared"
    OVER = "nothing"


@attrs.define(eq=False)
class CatchUp:
    """Bring `target` to `goal`."""

    target: int
    goal: Lineage
    port: CatchUpPort
    compares: bool = True
    step: CatchUpStep = attrs.field(default=CatchUpStep.LISTING, init=False)
    here: Lineage | None = attrs.field(default=None, init=False)
    """What the target has, as far as is known."""
    _compared: set[int] = attrs.field(factory=set, init=False)
    _changes: collections.deque[Change] = attrs.field(factory=collections.deque, init=False)

    def start(self) -> None:
        """Begin."""
        self.port.ask_about_past(self.target, FrameType.LINEAGE, b"", self._listed)

    def cancel(self) -> None:
        """Stop; nothing of the port is called any more."""
        self.step = CatchUpStep.OVER

    def compared(self, number: int) -> None:
        """The snapshot is equal to that of the others, but perhaps not on stable storage yet."""
        if self.step is not CatchUpStep.COMPARING:
            return
        assert self.here is not None
        self._compared.add(number)
        before = self.here.generation
        filled = self.here.numbered(number).filling and not self.goal.numbered(number).filling
        kind = ChangeKind.FILLED if filled else ChangeKind.WHOLE
        self._change(Change(kind=kind, before=before, after=before, number=number))

    def _listed(self, frame: Frame | None) -> None:
        if self.step is CatchUpStep.OVER or not self._is_ok(frame, "its list of snapshots"):
            return
        assert frame is not None
        try:
            self.here = decode_message(frame.payload, LineageAnswer).lineage
            steps = list(self.here.steps_to(self.goal))
        except ConfigError as error:
            raise RemoteProtocolError(f"its snapshots cannot be brought up: {error}") from error
        if not self.compares:
            if any(step.kind is ChangeKind.SHRINK for step in steps):
                raise RemoteProtocolError("is in sync and larger than the others")
            steps = [attrs.evolve(step, whole=True) for step in steps]
        if any(step.kind is ChangeKind.REVERT for step in steps) or self._lacks_fills(self.here):
            self.port.live_content_changes(self)
        self._changes.extend(steps)
        self._next()

    def _lacks_fills(self, here: Lineage) -> bool:
        """Whether what it was to be filled with has sunk into the volume meanwhile: no map names that."""
        numbers = {snapshot.number for snapshot in self.goal.snapshots}
        return here.filling is not None and here.filling.number not in numbers

    def _next(self) -> None:
        assert self.here is not None
        if self._changes:
            self._change(self._changes.popleft())
            return
        unequal = next((snapshot for snapshot in self.here.snapshots if self._is_unequal(snapshot)), None)
        if unequal is not None:
            self.step = CatchUpStep.COMPARING
            self.port.compare_snapshot(self, unequal.number)
        elif (self.here.generation, self.here.last_revert) != (self.goal.generation, self.goal.last_revert):
            self._change(self.here.level_with(self.goal))
        else:
            self.step = CatchUpStep.OVER
            self.port.caught_up(self)

    def _is_unequal(self, snapshot: Snapshot) -> bool:
        """What is being filled may lack on one member what another one was just given."""
        if snapshot.filling:
            return snapshot.number not in self._compared
        return self.compares and not snapshot.whole

    @property
    def takes_fills(self) -> bool:
        """Whether the target has the snapshot that is being filled: what is not compared yet will be."""
        return self.here is not None and self.here.filling is not None

    def _change(self, change: Change) -> None:
        self.step = CatchUpStep.CHANGING

        def answered(frame: Frame | None) -> None:
            if self.step is CatchUpStep.OVER or not self._is_ok(frame, change.kind.value):
                return
            assert self.here is not None
            self.here = self.here.apply(change)
            self._next()

        self.port.ask_about_past(self.target, FrameType.CHANGE, encode_message(change), answered)

    def _is_ok(self, frame: Frame | None, what: str) -> bool:
        if frame is None:
            self.step = CatchUpStep.OVER  # it is lost: whoever has it as a target knows
            return False
        if frame.code != Status.OK:
            self.step = CatchUpStep.OVER
            self.port.could_not_catch_up(self, f"{what}: status {frame.code}")
            return False
        return True
