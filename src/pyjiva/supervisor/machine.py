"""Which child process is to run, and when a dead one is started again.  Pure: no process, no clock.

    WAITING ──its time has come──▶ RUNNING ──exits──▶ WAITING (with back-off)
       │ stop                         │ stop
       ▼                              ▼
     ENDED  ◀────────exits──────── STOPPING

A child that exits with EXIT_CONFIG soon after its first start says that its configuration cannot work: trying
again would not help, so everything stops, with that code.  Once a child has lived, the same code means that
the world has changed under a configuration that did work (its port was taken while it was away, its disk
failed): a death like any other, or one broken replica would take the whole volume down.

Stopping goes by rank: the controller first, since it flushes and commits a clean record to the replicas, then
the replicas.
"""

import enum
import math
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
BACK_OFF_S_MIN: Final = 0.2  # a replica is back before its controller asks a second time
BACK_OFF_S_MAX: Final = 10.0  # a child that always fails costs little, and is seen to fail
HEALTHY_S: Final = 60.0  # a child that ran so long starts with the shortest back-off again
STOP_S: Final = 10.0  # a child that takes longer to stop is killed


class ChildState(enum.Enum):
    """Of one child."""

    WAITING = "waiting"  # to be started when its time has come
    RUNNING = "running"
    STOPPING = "stopping"  # was told to end
    ENDED = "ended"  # and will not be started again


class Step(enum.Enum):
    """What can happen to one child."""

    START = "start"  # its time has come
    EXIT = "exit"  # its process has ended
    STOP = "stop"  # everything stops, and it is its turn


NEXT_STATE: Final[dict[tuple[ChildState, Step], ChildState]] = {
    (ChildState.WAITING, Step.START): ChildState.RUNNING,
    (ChildState.WAITING, Step.STOP): ChildState.ENDED,
    (ChildState.RUNNING, Step.EXIT): ChildState.WAITING,
    (ChildState.RUNNING, Step.STOP): ChildState.STOPPING,
    (ChildState.STOPPING, Step.EXIT): ChildState.ENDED,
}  # a pair that is absent is a bug of ours


@attrs.frozen
class ChildExited:
    """A child process has ended, or could not be started."""

    name: str
    code: int
    at_s: float


@attrs.frozen
class StopRequested:
    """Everything is to end; `code` is what to exit with then."""

    at_s: float
    code: int = 0


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
    """When it was started, told to stop, or last killed."""
    start_at_s: float = 0.0
    """While WAITING: not before."""
    back_off_s: float = BACK_OFF_S_MIN
    starts: int = 0

    def step(self, step: Step) -> None:
        """Change the state.  Raises LocalProtocolError: it cannot happen in this one."""
        after = NEXT_STATE.get((self.state, step))
        if after is None:
            raise LocalProtocolError(f"{self.name}: {step.value} while {self.state.value}")
        self.state = after


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

    @property
    def next_tick_s(self) -> float:
        """When a Tick will have something to do; infinite: not before another event."""
        times = [math.inf]
        for child in self.children.values():
            if child.state is ChildState.WAITING:
                times.append(child.start_at_s)
            elif child.state is ChildState.STOPPING:
                times.append(child.since_s + self.stop_s)
        return min(times)

    def apply(self, event: Event) -> list[Effect]:
        """What to do now.  Raises LocalProtocolError: a child ended that did not run."""
        match event:
            case ChildExited():
                self._exited(event)
            case StopRequested():
                self._begin_to_stop(event.code)
            case Tick():
                pass
            case _:
                assert_never(event)
        return self._stop(event.at_s) if self.stopping else self._start_due(event.at_s)

    def _begin_to_stop(self, code: int) -> None:
        if not self.stopping:  # the first reason counts
            self.stopping, self.code = True, code

    def _exited(self, event: ChildExited) -> None:
        child = self.children[event.name]
        lived_s = event.at_s - child.since_s
        child.step(Step.EXIT)
        if event.code == EXIT_CONFIG and child.starts <= 1 and lived_s < HEALTHY_S:
            self._begin_to_stop(EXIT_CONFIG)
        if lived_s >= HEALTHY_S:
            child.back_off_s = BACK_OFF_S_MIN
        child.start_at_s = event.at_s + child.back_off_s
        child.back_off_s = min(2 * child.back_off_s, BACK_OFF_S_MAX)

    def _start_due(self, at_s: float) -> list[Effect]:
        effects: list[Effect] = []
        for child in self.children.values():
            if child.state is ChildState.WAITING and at_s >= child.start_at_s:
                child.step(Step.START)
                child.since_s, child.starts = at_s, child.starts + 1
                effects.append(Start(child.name))
        return effects

    def _stop(self, at_s: float) -> list[Effect]:
        for child in self.children.values():
            if child.state is ChildState.WAITING:  # no process to wait for, so no turn to wait for either
                child.step(Step.STOP)
        alive = [child for child in self.children.values() if child.state is not ChildState.ENDED]
        if not alive:
            return self._finish()
        rank = min(child.rank for child in alive)
        effects: list[Effect] = []
        for child in alive:
            if child.rank != rank:
                continue
            if child.state is ChildState.RUNNING:
                child.step(Step.STOP)
                child.since_s = at_s
                effects.append(Terminate(child.name))
            elif at_s - child.since_s >= self.stop_s:
                child.since_s = at_s
                effects.append(Kill(child.name))
        return effects

    def _finish(self) -> list[Effect]:
        if self._finished:
            return []
        self._finished = True
        return [Finished(self.code)]
