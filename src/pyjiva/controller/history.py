"""What happened to a volume, for people: the newest events, kept in memory.  Pure.

Most are read off two pictures of the volume (`status.VolumeStatus`): what changed between them happened.  So
nothing that the status shows can change without an event, whatever part of the controller changed it.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Final

import attrs

from pyjiva.controller.status import VolumeState, VolumeStatus

__all__ = ["EVENTS_MAX", "History", "HistoryEvent"]

EVENTS_MAX: Final = 1000
_NONE_YET: Final = "not heard of"


@attrs.frozen
class HistoryEvent:
    """One line of the history."""

    number: int
    """From 1 on; the numbers of events that were dropped are not used again."""
    at_s: float
    """Seconds since 1970 UTC, by the controller's clock."""
    kind: str
    """`volume`, `replica`, `rebuild`, `rot` or `scrub`."""
    replica: int | None
    """Which one; None: the volume."""
    text: str


@attrs.define(eq=False)
class History:
    """The newest events of one controller."""

    events: collections.deque[HistoryEvent] = attrs.field(
        factory=lambda: collections.deque(maxlen=EVENTS_MAX), init=False
    )
    listeners: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    """Called after each event, and when it is closed."""
    closed: bool = attrs.field(default=False, init=False)
    """Whether who listens need not wait for more."""
    _count: int = attrs.field(default=0, init=False)
    _last: VolumeStatus | None = attrs.field(default=None, init=False)

    def add(self, at_s: float, kind: str, replica: int | None, text: str) -> None:
        """Put down one event; of the oldest ones more than EVENTS_MAX are dropped."""
        self._count += 1
        self.events.append(HistoryEvent(self._count, at_s, kind, replica, text))
        self._wake()

    def close(self) -> None:
        """The controller ends: who listens is told what is there, and no more."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        for listener in self.listeners:
            listener()

    @property
    def newest(self) -> int:
        """The number of the newest event; 0: there was none yet."""
        return self._count

    def after(self, number: int) -> list[HistoryEvent]:
        """Those that came after the one of this number, as far as they are kept; the oldest first."""
        return [event for event in self.events if event.number > number]

    def look(self, at_s: float, now: VolumeStatus) -> None:
        """Put down what has changed since the last look."""
        last, self._last = self._last, now
        for kind, replica, text in _changes(last, now):
            self.add(at_s, kind, replica, text)


def _changes(last: VolumeStatus | None, now: VolumeStatus) -> Iterator[tuple[str, int | None, str]]:
    before = {r.id: r for r in last.replicas} if last is not None else {}
    for replica in now.replicas:
        old = before.pop(replica.id, None)
        if old is None or old.mode != replica.mode:
            old_mode = _NONE_YET if old is None else old.mode
            yield "replica", replica.id, _with(f"{old_mode} → {replica.mode}", replica.reason)
        elif old.reason != replica.reason:
            yield "replica", replica.id, _with(f"still {replica.mode}", replica.reason)
    for gone in before:
        yield "replica", gone, "no longer configured"
    if last is not None and last.epoch == now.epoch and last.state is now.state:
        return
    old_state = _NONE_YET if last is None else last.state.value
    reason = "" if now.state is VolumeState.HEALTHY else now.reason
    yield "volume", None, _with(f"{old_state} → {now.state.value}, epoch {now.epoch}", reason)


def _with(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text
