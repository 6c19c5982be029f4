"""A socket that is ready calls its owner, in place of waking a task: trio's way to wait for sockets, with a
second way in it.

Theory.  When a socket that a task waits for has something, trio learns it from its epoll, disarms the socket,
wakes the task, and lets it run in the next round; the task reads, and asks for the socket again, which is
another system call.  For small requests that is a quarter of all that a replica does (decision 24).  Here a
socket is registered once, in an epoll of ours which has trio's own inside it.  Where trio would wait for its
epoll it waits for ours, and where it would wake tasks, the owners of ready sockets are called, and after them
trio is given what its own epoll has.

So a call runs where trio's round begins, between the steps of tasks, never inside one.  It must not wait and
must not raise, as nobody is there to wait or to catch.  What it wakes (events, cancelled scopes, new tasks)
runs in the same round, and timers are looked at in every round: neither side can starve the other.

trio offers no such place to hook in: this puts itself before `runner.io_manager`, with what trio has asked of
an I/O manager for years (`get_events`, `process_events`, and an epoll).  Where a trio has none of this
(another system, another version) there is no DirectCalls, and streams let their tasks wait as ever.
"""

import select
from collections.abc import Callable
from typing import Any, Final

import attrs
from trio._core._run import GLOBAL_RUN_CONTEXT

__all__ = ["DirectCalls", "direct_calls"]

_NEEDED: Final = ("_epoll", "close", "get_events", "process_events")


@attrs.define(eq=False, slots=False)
class DirectCalls:
    """The I/O manager of one `trio.run`, from the first time that somebody asked for it."""

    _trios: Any
    """Its own I/O manager: private, so without types."""
    _epoll: select.epoll = attrs.field(factory=select.epoll, init=False)
    _calls: dict[int, Callable[[], None]] = attrs.field(factory=dict, init=False)
    _trios_fd: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._trios_fd = self._trios._epoll.fileno()
        self._epoll.register(self._trios_fd, select.EPOLLIN)

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """Call `call` whenever `fd` has something to read, or has ended, until `remove`: also again and
        again for what it leaves unread.
        """
        assert fd not in self._calls
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """No calls for `fd` any more, which is still open."""
        del self._calls[fd]
        self._epoll.unregister(fd)

    # --- what trio asks of an I/O manager

    def get_events(self, timeout_s: float) -> object:
        """Wait; false only if nothing came in time."""
        if not self._calls:
            return self._trios.get_events(timeout_s)
        return _Ready(self._epoll.poll(timeout_s, len(self._calls) + 1))

    def process_events(self, events: object) -> None:
        """Do what `get_events` has found."""
        if not isinstance(events, _Ready):
            self._trios.process_events(events)
            return
        for fd, _ in events:
            if fd == self._trios_fd:
                self._trios.process_events(self._trios.get_events(0))
            elif (call := self._calls.get(fd)) is not None:  # else a call before has removed it
                call()

    def close(self) -> None:
        """The run has ended."""
        self._epoll.close()
        self._trios.close()

    def __getattr__(self, name: str) -> Any:
        """All else is as it was: waiting, statistics, being woken."""
        return getattr(self._trios, name)


class _Ready(list[tuple[int, int]]):
    """Descriptors and their flags from our epoll, not from trio's."""


def direct_calls() -> DirectCalls | None:
    """Those of this `trio.run`; None: this trio cannot have them."""
    runner = GLOBAL_RUN_CONTEXT.runner
    manager: Any = runner.io_manager
    if isinstance(manager, DirectCalls):
        return manager
    if not all(hasattr(manager, name) for name in _NEEDED):
        return None
    calls: Any = DirectCalls(manager)
    runner.io_manager = calls
    return direct_calls()
