"""Which child process is to run, and when a dead one is started again.  Pure: no process, no clock.

    WAITING ──its time has come──▶ RUNNING ──exits──▶ WAITING (with back-off)
                                      │ stop
                                      ▼
                                   STOPPING ──exits──▶ ENDED

A child that exits with EXIT_CONFIG says that its configuration cannot work: trying again would not help, so
everything stops, with that code.  Stopping goes by rank: the controller first, since it flushes and commits
a clean record to the replicas, then the replicas.
"""

import enum
from collections.abc import Sequence
from typing import Final, assert_never

import attrs

from pyjiva.errors import LocalProtocolError

__all__ = [
    "EXIT_CONFIG",
    "ChildExited",
    "ChildState",
    "Effect",
    "Event",
    "Finished",
    "Kill",
    "Start",
    "StopRequested",
    "Supervisor",
    "Terminate",
    "Tick",
]

EXIT_CONFIG: Final = 2
BACK_OFF_S_MIN: Final = 0.2
BACK_OFF_S_MAX: Final = 10.0
HEALTHY_S: Final = 60.0  # a child that ran so long starts with the shortest back-off again
STOP_S: Final = (
    20.0  # a child that takes longer to stop is killed; a controller waits for initiators and flushes
)


class ChildState(enum.Enum):
    """Of one child."""

    WAITING = "waiting"  # to be started when its time has come
    RUNNING = "running"
    STOPPING = "stopping"  # was told to end
    ENDED = "ended"


@attrs.frozen
class ChildExited:
    """A child process has ended."""

    name: str
    code: int
    at_s: float


@attrs.frozen
class StopRequested:
    """The operator wants everything to end."""

    at_s: float


@attrs.frozen
class Tick:
    """Time has passed."""

    at_s: float


Event = ChildExited | StopRequested | Tick


@attrs.frozen
class Start:
    """Start the child `name`."""

    name: str


@attrs.frozen
class Terminate:
    """Ask the child `name` to end."""

    name: str


@attrs.frozen
class Kill:
    """End the child `name` at once: it did not when it was asked."""

    name: str


@attrs.frozen
class Finished:
    """Nothing runs any more: exit with `code`."""

    code: int


Effect = Start | Terminate | Kill | Finished


@attrs.define
class Child:
    """What is known of one child."""

    name: str
    rank: int
    """Stops after all children of lower rank have ended."""
    state: ChildState = ChildState.WAITING
    since_s: float = 0.0
    start_at_s: float = 0.0
    back_off_s: float = BACK_OFF_S_MIN


@attrs.define
class Supervisor:
    """The decider: `apply(event)` answers what the shell must do."""

    ranks: Sequence[tuple[str, int]]
    stop_s: float = STOP_S
    children: dict[str, Child] = attrs.field(init=False)
    stopping: bool = attrs.field(default=False, init=False)
    code: int = attrs.field(default=0, init=False)
    _finished: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.children = {name: Child(name, rank) for name, rank in self.ranks}

    def apply(self, event: Event) -> list[Effect]:
        """What to do now.  Raises LocalProtocolError: a child ended that did not run."""
        match event:
            case ChildExited():
                self._exited(event)
            case StopRequested():
                self.stopping = True
            case Tick():
                pass
            case _:
                assert_never(event)
        return self._stop(event.at_s) if self.stopping else self._start_due(event.at_s)

    def _exited(self, event: ChildExited) -> None:
        child = self.children[event.name]
        if child.state not in (ChildState.RUNNING, ChildState.STOPPING):
            raise LocalProtocolError(f"{child.name} exited while {child.state.value}")
        if event.code == EXIT_CONFIG and not self.stopping:
            self.stopping, self.code = True, EXIT_CONFIG
        if self.stopping:
            child.state = ChildState.ENDED
            return
        if event.at_s - child.since_s >= HEALTHY_S:
            child.back_off_s = BACK_OFF_S_MIN
        child.state = ChildState.WAITING
        child.start_at_s = event.at_s + child.back_off_s
        child.back_off_s = min(2 * child.back_off_s, BACK_OFF_S_MAX)

    def _start_due(self, at_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for child in self.children.values():
            if child.state is ChildState.WAITING and at_s >= child.start_at_s:
                child.state, child.since_s = ChildState.RUNNING, at_s
                effects.append(Start(child.name))
        return effects

    def _stop(self, at_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for child in self.children.values():
            if child.state is ChildState.WAITING:
                child.state = ChildState.ENDED
        alive = [c for c in self.children.values() if c.state is not ChildState.ENDED]
        if not alive:
            if not self._finished:
                self._finished = True
                effects.append(Finished(self.code))
            return effects
        rank = min(child.rank for child in alive)
        for child in alive:
            if child.rank != rank:
                continue
            if child.state is ChildState.RUNNING:
                child.state, child.since_s = ChildState.STOPPING, at_s
                effects.append(Terminate(child.name))
            elif at_s - child.since_s >= self.stop_s:
                child.since_s = at_s
                effects.append(Kill(child.name))
        return effects
