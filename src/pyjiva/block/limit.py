"""How much a host may ask of a volume in a second: who has asked for too much waits.  Pure.

Two buckets, of commands and of bytes, fill with time up to what `burst_s` seconds bring.  A request goes on
as long as neither owes anything, and takes what it is from both, also more than there is: so a request may be
larger than a bucket, and what it took too much delays the next one.  Those who wait go on in their order.

A flush takes nothing and waits for nothing: no request that was answered is left in a queue.  Commands are
reads, writes, unmaps and what else has a range; bytes are those that are read or written.
"""

import collections
import math
from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.block.device import Flush, Read, Request, Write
from pyjiva.errors import ConfigError

__all__ = ["Limiter", "Limits"]

_SMALL: Final = 1e-6  # of a command or a byte: sums of floating-point numbers are no sharper


@attrs.frozen
class Limits:
    """Of one volume.  Raises ConfigError: a value makes no sense."""

    iops: float | None = None
    """Commands per second; None: no limit."""
    bytes_per_s: float | None = None
    """Bytes read and written per second; None: no limit."""
    burst_s: float = 1.0
    """After rest, so many seconds' worth of each may come at once."""

    def __attrs_post_init__(self) -> None:
        for name, value in (("commands", self.iops), ("bytes", self.bytes_per_s)):
            if value is not None and not 1 <= value < math.inf:
                raise ConfigError(f"limit of {value:g} {name} per second: at least 1")
        if not 0 < self.burst_s < math.inf:
            raise ConfigError(f"burst of {self.burst_s:g} s: a number of seconds above 0")


@attrs.define(eq=False)
class _Bucket:
    rate: float | None
    burst_s: float
    tokens: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = self._most

    @property
    def _most(self) -> float:
        return math.inf if self.rate is None else max(1.0, self.rate * self.burst_s)

    def fill(self, passed_s: float) -> None:
        if self.rate is not None:
            self.tokens = min(self._most, self.tokens + passed_s * self.rate)

    def wait_s(self) -> float:
        """Until nothing is owed any more."""
        return 0.0 if self.rate is None or self.tokens > -_SMALL else -self.tokens / self.rate

    def change(self, rate: float | None, burst_s: float) -> None:
        """What was taken too much stays taken, in seconds."""
        owed_s = self.wait_s()
        self.rate, self.burst_s = rate, burst_s
        if rate is None:
            self.tokens = self._most
        else:
            self.tokens = -owed_s * rate if owed_s else min(self.tokens, self._most)


@attrs.define(eq=False)
class Limiter:
    """The buckets of one volume, and who waits for them."""

    limits: Limits
    clock: Callable[[], float]
    """In seconds, steady."""
    on_waiting: Callable[[], None] = lambda: None
    """Called when the first request begins to wait, or may wait less long than `due_s` said."""
    delayed: int = attrs.field(default=0, init=False)
    """Requests that have had to wait, so far."""
    limited: bool = attrs.field(init=False)
    _buckets: tuple[_Bucket, _Bucket] = attrs.field(init=False)
    _at_s: float = attrs.field(init=False)
    _waiting: collections.deque[tuple[Request, Callable[[Request], None]]] = attrs.field(
        factory=collections.deque, init=False
    )

    def __attrs_post_init__(self) -> None:
        burst_s = self.limits.burst_s
        self._buckets = _Bucket(self.limits.iops, burst_s), _Bucket(self.limits.bytes_per_s, burst_s)
        self._at_s = self.clock()
        self._look()

    def _look(self) -> None:
        self.limited = bool(self._waiting) or self.limits != Limits(burst_s=self.limits.burst_s)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def change(self, limits: Limits) -> None:
        """From now on other limits; who waits goes on by them."""
        self._fill()
        self.limits = limits
        for bucket, rate in zip(self._buckets, (limits.iops, limits.bytes_per_s), strict=True):
            bucket.change(rate, limits.burst_s)
        self._look()
        if self._waiting:
            self.on_waiting()

    def submit(self, request: Request, go_on: Callable[[Request], None]) -> None:
        """Call `go_on` now, or when the limits let the request go on."""
        if type(request) is Flush:
            go_on(request)
            return
        if not self._waiting:
            self._fill()
            if not self._wait_s():
                self._take(request)
                go_on(request)
                return
        self.delayed += 1
        self._waiting.append((request, go_on))
        if len(self._waiting) == 1:
            self.on_waiting()

    def due_s(self) -> float | None:
        """In how many seconds the next one may go on; None: nobody waits."""
        self._fill()
        return self._wait_s() if self._waiting else None

    def go_on(self) -> None:
        """Let those go on who may."""
        self._fill()
        while self._waiting and not self._wait_s():
            request, go_on = self._waiting.popleft()
            self._take(request)
            go_on(request)
        self._look()

    def _fill(self) -> None:
        now_s = self.clock()
        for bucket in self._buckets:
            bucket.fill(now_s - self._at_s)
        self._at_s = now_s

    def _wait_s(self) -> float:
        commands, length = self._buckets
        return max(commands.wait_s(), length.wait_s())

    def _take(self, request: Request) -> None:
        commands, length = self._buckets
        commands.tokens -= 1
        if type(request) is Read or type(request) is Write:
            length.tokens -= request.length_bytes
