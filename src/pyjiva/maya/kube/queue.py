"""A queue of keys that want to be looked at, with client-go's rules (`client-go util/workqueue`).  Pure.

A key is in the hands of one worker at a time; what is added meanwhile is handed out again after that, once,
however often it was added.  A key that failed comes back after a delay of its own that doubles; `forget`
ends that.  An addition from elsewhere does not wait for the delay.

Times are seconds of one steady clock.
"""

import heapq
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import attrs

from pyjiva.errors import LocalProtocolError

__all__ = ["RETRY_MAX_S", "RETRY_MIN_S", "Statistics", "WorkQueue"]

K = TypeVar("K", bound=Hashable)

RETRY_MIN_S: Final = 0.005  # client-go's
RETRY_MAX_S: Final = 300.0
_DOUBLINGS_MAX: Final = 64  # beyond any maximum, and below what a float can hold


@attrs.frozen
class Statistics:
    """How many keys are where."""

    ready: int
    """Wait for a worker."""
    at_work: int
    later: int
    """Wait for their time."""
    failing: int
    """Have failed since they were last well."""


@attrs.define(eq=False)
class WorkQueue(Generic[K]):
    """Which key is next."""

    retry_min_s: float = RETRY_MIN_S
    retry_max_s: float = RETRY_MAX_S
    _ready: dict[K, None] = attrs.field(factory=dict, init=False)
    """In order of their coming."""
    _at_work: set[K] = attrs.field(factory=set, init=False)
    _again: dict[K, None] = attrs.field(factory=dict, init=False)
    """Added while they were at work."""
    _later: dict[K, float] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, int, K]] = attrs.field(factory=list, init=False)
    """Of `_later`; entries that are not in it any more are passed over."""
    _heap_count: int = attrs.field(default=0, init=False)
    _failures: dict[K, int] = attrs.field(factory=dict, init=False)

    def add(self, key: K) -> None:
        """It wants to be looked at."""
        if key in self._at_work:
            self._again[key] = None
        else:
            self._ready[key] = None

    def add_at(self, key: K, at_s: float) -> None:
        """It wants to be looked at then; the earliest of several times counts."""
        if at_s < self._later.get(key, float("inf")):
            self._later[key] = at_s
            self._heap_count += 1
            heapq.heappush(self._heap, (at_s, self._heap_count, key))

    def take(self, now_s: float) -> K | None:
        """The next key, which is at work until `done`; None: there is none now."""
        while (due_s := self.next_s()) is not None and due_s <= now_s:
            _, _, key = heapq.heappop(self._heap)
            del self._later[key]
            self.add(key)
        if not self._ready:
            return None
        key = next(iter(self._ready))
        del self._ready[key]
        self._at_work.add(key)
        return key

    def next_s(self) -> float | None:
        """When the first of those that wait for their time is due; None: none waits."""
        while self._heap and self._later.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def done(self, key: K) -> None:
        """Its worker has finished.  Raises LocalProtocolError: it is not at work."""
        if key not in self._at_work:
            raise LocalProtocolError(f"{key!r} is not at work")
        self._at_work.discard(key)
        if key in self._again:
            del self._again[key]
            self._ready[key] = None

    def fail(self, key: K, now_s: float, *, chance: float = 1.0) -> float:
        """It has to be looked at again, after a delay; which is given.

        `chance`: from 0 to 1: that part of the second half of the delay.
        """
        doublings = min(self._failures.get(key, 0), _DOUBLINGS_MAX)
        self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = min(self.retry_max_s, self.retry_min_s * 2.0**doublings) * (1 + chance) / 2
        self.add_at(key, now_s + delay_s)
        return delay_s

    def failures(self, key: K) -> int:
        """How often it has failed since it was last well."""
        return self._failures.get(key, 0)

    def forget(self, key: K) -> None:
        """It is well: the next failure is its first."""
        self._failures.pop(key, None)

    def statistics(self) -> Statistics:
        """As it is now."""
        return Statistics(len(self._ready), len(self._at_work), len(self._later), len(self._failures))

    def self_check(self) -> None:
        """Nothing is in two hands, nothing is lost."""
        assert not self._ready.keys() & self._at_work
        assert self._again.keys() <= self._at_work
        waiting = {(key, at_s) for at_s, _, key in self._heap}
        assert self._later.items() <= waiting
