"""When the next step of background work may begin: `block.Yielding` for those who go in steps.  Pure.

A rebuild or a scrub asks before each step; asking for the next one ends the one before.

    READY ──the pace allows it──▶ WORKING ──asks for the next──▶ RESTING ──rested──▶ READY, and goes on
                                     └──────hosts are quiet──────▶ READY

What waits for an answer anyway, a fill or a read of a snapshot, asks how long to rest (`rest_s`).
"""

import enum
from collections.abc import Callable
from functools import partial
from typing import Protocol

import attrs

from pyjiva.block import Hosts, Yielding
from pyjiva.controller.pace import Pace

__all__ = ["Background", "Turn", "TurnState"]


class TurnState(enum.Enum):
    """Where somebody is between two steps."""

    READY = "it may begin a step"
    WORKING = "a step is under way"
    RESTING = "it leaves the volume to its hosts"


@attrs.define(eq=False)
class Turn:
    """Of one who works in the background."""

    state: TurnState = attrs.field(default=TurnState.READY, init=False)
    began_at_s: float = attrs.field(default=0.0, init=False)
    spent_bytes: int = attrs.field(default=0, init=False)
    """In this step."""
    quiet: bool = attrs.field(default=False, init=False)
    """Whether nothing spoke against a larger step when this one began: no rate, and no host that asks."""


class Worker(Protocol):
    """A rebuild or a scrub."""

    @property
    def turn(self) -> Turn:
        """Its own; nobody else changes it but `Background`."""

    def go_on(self) -> None:
        """Ask again; nothing happens if it is over."""


@attrs.define(eq=False)
class Background:
    """All of one volume."""

    yielding: Yielding
    clock: Callable[[], float]
    hosts: Callable[[], Hosts | None]
    """None: hosts cannot be served until the work is done."""
    call_later: Callable[[float, Callable[[], None]], None]
    """Call back in so many seconds."""

    def may_go_on(self, worker: Worker, pace: Pace, *, at_once: int) -> bool:
        """Whether `worker`'s next step begins now; if not, it is told to go on later."""
        turn, now_s = worker.turn, self.clock()
        if turn.state is TurnState.WORKING:
            rest_s = self.rest_s(now_s - turn.began_at_s, turn.spent_bytes, at_once=at_once)
            turn.state = TurnState.RESTING if rest_s else TurnState.READY
            if rest_s:
                self.call_later(rest_s, partial(self._rested, worker))
        if turn.state is TurnState.RESTING or not pace.may_go_on(worker.go_on):
            return False
        turn.state, turn.began_at_s, turn.spent_bytes = TurnState.WORKING, now_s, 0
        hosts = self.hosts()
        quiet = hosts is None or self.yielding.are_quiet(hosts, now_s=now_s)
        turn.quiet = quiet and pace.rate is None
        return True

    def _rested(self, worker: Worker) -> None:
        assert worker.turn.state is TurnState.RESTING
        worker.turn.state = TurnState.READY
        worker.go_on()

    def rest_s(self, took_s: float, length_bytes: int, *, at_once: int) -> float:
        """How long to rest after a step: see `Yielding`."""
        hosts = self.hosts()
        if hosts is None:
            return 0.0
        return self.yielding.rest_s(
            hosts, now_s=self.clock(), took_s=took_s, length_bytes=length_bytes, at_once=at_once
        )
