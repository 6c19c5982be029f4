"""Sockets that call their owners when they are ready, by an epoll that has trio's own inside it: the waiting
of `direct_io`, where the theory stands.  Hot.
"""

import collections
from collections.abc import Callable
from os import sched_yield
from select import EPOLLIN, epoll
from time import monotonic
from typing import Any, Final

import attrs

from pyjiva.transport.looking_on import LookingOn

__all__ = ["CALLED", "KEPT_WAITING_S", "LOOK_ON_S", "NOTHING", "TRIOS", "ReadyCalls"]

LOOK_ON_S: Final = 200e-6
KEPT_WAITING_S: Final = 1e-3  # ours are done within some 100 µs; the slice of a busy process is 3 ms or more
#: What a wait ended with; true if not only its time is up, as trio wants it.
NOTHING: Final = 0
"""Its time is up."""
CALLED: Final = 1
"""Owners were called."""
TRIOS: Final = 2
"""trio's own epoll has something; owners may have been called too."""


@attrs.define(eq=False)
class ReadyCalls:  # hot
    """The sockets of one `trio.run`, and trio's epoll."""

    _runner: Any
    """trio's: its tasks that can run, and its deadlines, are looked at."""
    _trios_fd: int
    _epoll: epoll = attrs.field(factory=lambda: epoll(), init=False)  # replaced by tests
    _calls: dict[int, Callable[[], None]] = attrs.field(factory=dict, init=False)
    _looking_on: LookingOn = attrs.field(factory=LookingOn, init=False)

    def __attrs_post_init__(self) -> None:
        self._epoll.register(self._trios_fd, EPOLLIN)

    @property
    def wanted(self) -> bool:
        """Whether anybody is to be called."""
        return bool(self._calls)

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call `call` whenever `fd` has something to read, or has ended, until `remove`: also again and
        again for what it leaves unread.
        """
        assert fd not in self._calls
        self._epoll.register(fd, EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """No calls for `fd` any more, which is still open."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    def close(self) -> None:
        """No waits any more."""
        self._epoll.close()

    def wait(self, timeout_s: float) -> int:
        """Wait for `timeout_s` at most, and call, until trio has something to do: NOTHING, CALLED, TRIOS."""
        runner = self._runner
        runnable: collections.deque[object] = runner.runq
        deadlines: list[object] = runner.deadlines._heap  # its own method is interpreted
        nearest = deadlines[0] if deadlines else None
        until_s = monotonic() + timeout_s
        ended = NOTHING
        found = self._poll(timeout_s)
        while found:
            while found:
                if self._call(found):
                    return TRIOS
                ended = CALLED
                now_s = monotonic()
                if now_s >= until_s or runnable or (deadlines and deadlines[0] is not nearest):
                    return ended
                found = self._look_on(now_s) if self._looking_on.wanted(now_s) else []
            found = self._poll(until_s - monotonic())
        return ended

    def _poll(self, timeout_s: float) -> list[tuple[int, int]]:
        """What is ready within `timeout_s`: descriptors, and why."""
        return self._epoll.poll(timeout_s if timeout_s > 0 else 0, len(self._calls) + 1)

    def _look_on(self, now_s: float) -> list[tuple[int, int]]:
        """Look again and again for LOOK_ON_S; what was found."""
        until_s = now_s + LOOK_ON_S
        while now_s < until_s:
            if found := self._poll(0):
                self._looking_on.found()
                return found
            sched_yield()
            before_s, now_s = now_s, monotonic()
            if now_s - before_s > KEPT_WAITING_S:
                self._looking_on.was_kept_waiting(now_s)
                return []
        self._looking_on.found_nothing()
        return []

    def _call(self, found: list[tuple[int, int]]) -> bool:
        """Call the owners of what was found; whether trio's own epoll was among it."""
        has_trios = False
        for fd, _ in found:
            if fd == self._trios_fd:
                has_trios = True
            elif (call := self._calls.get(fd)) is not None:  # else a call before has removed it
                call()
        return has_trios
