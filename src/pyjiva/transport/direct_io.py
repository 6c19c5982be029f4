"""A socket that is ready calls its owner, in place of waking a task: trio's way to wait for sockets, with a
second way in it.

Theory.  When a socket that a task waits for has something, trio learns it from its epoll, disarms the socket,
wakes the task, and lets it run in the next round; the task reads, and asks for the socket again, which is
another system call.  For small requests that is a quarter of all that a replica does (decision 24).  Here a
socket is registered once, in an epoll of ours which has trio's own inside it.  Where trio would wait for its
epoll it waits for ours, and where it would wake tasks, the owners of ready sockets are called, and after them
trio is given what its own epoll has.

So a call runs between the steps of tasks, never inside one.  It must not wait and must not raise, as nobody
is there to wait or to catch.  As long as calls wake nobody, trio does not go round: that would cost as much
again.  It does as soon as a call has made a task runnable or brought a deadline nearer, when trio's own epoll
has something, and when the time is up that trio would have waited; so neither side can starve the other.

*Looking on.*  To sleep and be woken costs more than most answers take to come.  So who has just been called
looks again for up to LOOK_ON_S, and lets other processes go first between two looks, before it sleeps.
`LookingOn` says when that is worth it.

trio offers no such place to hook in: this puts itself before `runner.io_manager`, and looks at the tasks that
can run and at the next deadline (`_NEEDED`).  Where a trio has none of this (another system, another version)
there is no DirectCalls, and streams let their tasks wait as ever.
"""

import operator
from collections.abc import Callable
from os import sched_yield
from select import EPOLLIN, epoll
from time import monotonic
from typing import Any, Final

import attrs
import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from pyjiva.transport.looking_on import LookingOn

__all__ = ["DirectCalls", "direct_calls"]

LOOK_ON_S: Final = 200e-6
KEPT_WAITING_S: Final = 1e-3  # ours are done within some 100 µs; the slice of a busy process is 3 ms or more
#: What we ask of trio's runner, private as it is.
_NEEDED: Final = (
    "runq",
    "deadlines.next_deadline",
    "io_manager._epoll.fileno",
    "io_manager.close",
    "io_manager.get_events",
    "io_manager.process_events",
)
#: What a wait ended with, if not with its time: both are true, as trio wants it.
_TRIOS: Final = "trio's own epoll has something"
_CALLED: Final = "owners were called"


@attrs.define(eq=False, slots=False)
class DirectCalls:
    """The I/O manager of one `trio.run`, from the first time that somebody asked for it."""

    _runner: Any
    """trio's: private, so without types; its I/O manager was `_trios`."""
    _trios: Any
    _epoll: epoll = attrs.field(factory=lambda: epoll(), init=False)  # replaced by tests
    _calls: dict[int, Callable[[], None]] = attrs.field(factory=dict, init=False)
    _looking_on: LookingOn = attrs.field(factory=LookingOn, init=False)
    _trios_fd: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._trios_fd = self._trios._epoll.fileno()
        self._epoll.register(self._trios_fd, EPOLLIN)

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

    # --- what trio asks of an I/O manager

    def get_events(self, timeout_s: float) -> object:
        """Wait, and call; false only if nothing came in time."""
        if not self._calls:
            return self._trios.get_events(timeout_s)
        runner, poll = self._runner, self._epoll.poll
        next_deadline = runner.deadlines.next_deadline()
        until_s = monotonic() + timeout_s
        called = None
        while found := poll(max(0, until_s - monotonic()), len(self._calls) + 1):
            while found:
                if self._call(found):
                    return _TRIOS
                called = _CALLED
                now_s = monotonic()
                if now_s >= until_s or runner.runq or runner.deadlines.next_deadline() < next_deadline:
                    return called
                found = self._look_on(now_s) if self._looking_on.wanted(now_s) else []
        return called

    def _look_on(self, now_s: float) -> list[tuple[int, int]]:
        """Look again and again for LOOK_ON_S; what was found."""
        until_s = now_s + LOOK_ON_S
        while now_s < until_s:
            if found := self._epoll.poll(0, len(self._calls) + 1):
                self._looking_on.found()
                return found
            sched_yield()
            before_s, now_s = now_s, monotonic()
            if now_s - before_s > KEPT_WAITING_S:
                self._looking_on.was_kept_waiting(now_s)
        self._looking_on.found_nothing()
        return []

    @trio.lowlevel.enable_ki_protection  # a KeyboardInterrupt is for a task, not for whoever is called
    def _call(self, found: list[tuple[int, int]]) -> bool:
        """Call the owners of what was found; whether trio's own epoll was among it."""
        has_trios = False
        for fd, _ in found:
            if fd == self._trios_fd:
                has_trios = True
            elif (call := self._calls.get(fd)) is not None:  # else a call before has removed it
                call()
        return has_trios

    def process_events(self, events: object) -> None:
        """Wake the tasks for what `get_events` has found."""
        if events is _TRIOS:
            self._trios.process_events(self._trios.get_events(0))
        elif events and events is not _CALLED:
            self._trios.process_events(events)

    def close(self) -> None:
        """The run has ended."""
        self._epoll.close()
        self._trios.close()

    def __getattr__(self, name: str) -> Any:
        """All else is as it was: waiting, statistics, being woken."""
        return getattr(self._trios, name)


def direct_calls() -> DirectCalls | None:
    """Those of this `trio.run`; None: this trio cannot have them."""
    runner: Any = GLOBAL_RUN_CONTEXT.runner
    manager = runner.io_manager
    if isinstance(manager, DirectCalls):
        return manager
    try:
        operator.attrgetter(*_NEEDED)(runner)
    except AttributeError:
        return None
    if runner.is_guest:  # another loop waits, in a thread
        return None
    runner.io_manager = DirectCalls(runner, manager)
    return direct_calls()
