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

The waiting and calling is in `ready_sys`, which is compiled; here is what trio sees of it.

trio offers no such place to hook in: this puts itself before `runner.io_manager`, and looks at the tasks that
can run and at the next deadline (`_NEEDED`).  Where a trio has none of this (another system, another version)
there is no DirectCalls, and streams let their tasks wait as ever.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio
from trio._core._run import GLOBAL_RUN_CONTEXT

from pyjiva.transport.ready_sys import TRIOS, ReadyCalls

__all__ = ["DirectCalls", "direct_calls"]

#: What we ask of trio's runner, private as it is.
_NEEDED: Final = (
    "runq",
    "deadlines._heap",
    "io_manager._epoll.fileno",
    "io_manager.close",
    "io_manager.get_events",
    "io_manager.process_events",
)


@attrs.define(eq=False, slots=False)
class DirectCalls:  # hot
    """The I/O manager of one `trio.run`, from the first time that somebody asked for it."""

    _trios: Any
    """The I/O manager before: private, so without types."""
    _ready: ReadyCalls

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """See ReadyCalls."""
        self._ready.add(fd, call)

    def remove(self, fd: int) -> None:
        """See ReadyCalls."""
        self._ready.remove(fd)

    # --- what trio asks of an I/O manager

    @trio.lowlevel.enable_ki_protection  # a KeyboardInterrupt is for a task, not for whoever is called
    def get_events(self, timeout_s: float) -> object:
        """Wait, and call; false only if nothing came in time."""
        if not self._ready.wanted:
            return self._trios.get_events(timeout_s)
        return self._ready.wait(timeout_s)

    def process_events(self, events: object) -> None:
        """Wake the tasks for what `get_events` has found."""
        if events == TRIOS:
            self._trios.process_events(self._trios.get_events(0))
        elif not isinstance(events, int):  # who was called by us woke what there was to wake
            self._trios.process_events(events)

    def close(self) -> None:
        """The run has ended."""
        self._ready.close()
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
    runner.io_manager = DirectCalls(manager, ReadyCalls(runner, manager._epoll.fileno()))
    return direct_calls()
