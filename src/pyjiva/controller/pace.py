"""How fast background work may go: a bucket of bytes that fills with time.  Pure."""

import collections
from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["UNBOUND", "Pace"]

BURST_S: Final = 0.5  # what may be spent at once after a pause: the volume's clock ticks every 0.25 s


@attrs.define(eq=False)
class Pace:
    """One limit, shared by all who ask."""

    rate: int | None
    """Bytes per second; None: no limit."""
    _tokens: float = attrs.field(default=0.0, init=False)
    _at_s: float | None = attrs.field(default=None, init=False)
    _waiting: collections.deque[Callable[[], None]] = attrs.field(factory=collections.deque, init=False)

    def may_go_on(self, go_on: Callable[[], None]) -> bool:
        """Whether something may be spent now; if not, `go_on` is called when it may."""
        if self.rate is None or self._tokens > 0:
            return True
        self._waiting.append(go_on)
        return False

    def spent(self, length_bytes: int) -> None:
        """So much was spent; more than there is delays the next one."""
        if self.rate is not None:
            self._tokens -= length_bytes

    def tick(self, now_s: float) -> None:
        """Take over the time, and let those go on who may."""
        if self.rate is None:
            return
        passed_s = 0.0 if self._at_s is None else now_s - self._at_s
        self._at_s = now_s
        self._tokens = min(self._tokens + passed_s * self.rate, BURST_S * self.rate)
        while self._waiting and self._tokens > 0:
            self._waiting.popleft()()


UNBOUND: Final = Pace(None)
"""For what nothing is to slow down."""
