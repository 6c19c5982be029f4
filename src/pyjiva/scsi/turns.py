"""Commands that must be carried out one after the other, in the order in which they came.  Pure."""

import collections
from collections.abc import Callable

import attrs

__all__ = ["Turns"]


@attrs.define(eq=False)
class Turns:
    """One `start` at a time: the next one is called when the one before it has called `leave`.

    A loop, not a recursion: any number may be waiting, and each may leave before its `start` returns.
    """

    _waiting: collections.deque[Callable[[], None]] = attrs.field(factory=collections.deque, init=False)
    _taken: bool = attrs.field(default=False, init=False)
    _going_on: bool = attrs.field(default=False, init=False)

    def take(self, start: Callable[[], None]) -> None:
        """Call `start` as soon as all earlier ones have left; perhaps now."""
        self._waiting.append(start)
        self._go_on()

    def leave(self) -> None:
        """The one whose turn it is has finished."""
        assert self._taken
        self._taken = False
        self._go_on()

    def _go_on(self) -> None:
        if self._going_on:
            return
        self._going_on = True
        while self._waiting and not self._taken:
            self._taken = True
            self._waiting.popleft()()
        self._going_on = False
