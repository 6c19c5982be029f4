"""Saves of a logical unit's parameters that wait for a membership record which carries them.  Pure.

The newest parameters are what the roster puts into its next record.  A record with the parameters of one save
answers, when it is committed, that save and all before it, which it replaces.  A save that waits too long is
answered with an error, and so are all after it, whose parameters may build upon it; the roster is then given
what was answered last, so that a record which gets through nevertheless is followed by one that takes it
back.

An older record with the same parameters answers only if none with others is on its way.
"""

import collections
from collections.abc import Callable

import attrs

from pyjiva.errors import StorageError, StorageFailure

__all__ = ["ParameterSaves"]

Done = Callable[[StorageError | None], None]


@attrs.frozen
class Save:
    """One that has not been answered."""

    parameters: bytes
    done: Done
    give_up_at_s: float


@attrs.define(eq=False)
class ParameterSaves:
    """Between the device server, the clock and the roster."""

    changed: Callable[[bytes], None]
    """Gives the roster new parameters."""
    settled: Callable[[bytes], bool]
    """Whether the roster has these, in its last record too, and none with others is on its way."""
    limit_s: float
    answered: bytes = b""
    """What was saved last, or restored."""
    _waiting: collections.deque[Save] = attrs.field(factory=collections.deque, init=False)

    def save(self, parameters: bytes, done: Done, now_s: float) -> None:
        """Begin one; `done` is called later, or at once when there is nothing to do."""
        self._waiting.append(Save(parameters, done, now_s + self.limit_s))
        self.changed(parameters)

    def committed(self, parameters: bytes) -> None:
        """A record with these was committed just now."""
        answered = []
        while any(save.parameters == parameters for save in self._waiting):
            answered.append(self._waiting.popleft())
        if answered:
            self.answered = parameters
        for save in answered:
            save.done(None)

    def review(self) -> None:
        """The roster has taken up what it was given: perhaps no new record is needed."""
        if self._waiting and self.settled(self._waiting[-1].parameters):
            self.committed(self._waiting[-1].parameters)

    @property
    def at_rest(self) -> bool:
        """Whether no save waits."""
        return not self._waiting

    def tick(self, now_s: float) -> None:
        """Time has passed."""
        if self._waiting and now_s >= self._waiting[0].give_up_at_s:
            given_up = list(self._waiting)
            self._waiting.clear()
            self.changed(self.answered)
            error = StorageError(StorageFailure.NOT_READY, "no majority of the replicas has stored it")
            for save in given_up:
                save.done(error)
