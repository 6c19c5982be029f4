"""Work that is done once, after all events of one receive have been applied: what makes batching possible.
Pure.

A process has one `EndOfBatch`.  A shell that has taken in a batch of events (a receive from an initiator,
answers of a replica, results of a disk thread, a timer) applies all of them and then calls `end()`.
Whatever collected work in between (streams with something to send, devices with reads for a thread) has
registered itself by `at_end` or `at_very_end` and now acts once: one sendmsg per peer, one thread hop per
disk.  Nothing is lost if `end` is late, only delayed; so every shell loop ends its batch before it waits.

Who sends does so at the very end: others may have something for it when the batch ends, and it is to leave
with the rest.
"""

from collections.abc import Callable

import attrs

__all__ = ["EndOfBatch"]


@attrs.define
class EndOfBatch:  # hot
    """Actions to run at the end of the present batch, in the order of their registration."""

    _actions: list[Callable[[], None]] = attrs.field(factory=list, init=False)
    _last: list[Callable[[], None]] = attrs.field(factory=list, init=False)

    def at_end(self, action: Callable[[], None]) -> None:
        """Run `action` at the next `end()`.  The caller sees to it that it registers once a batch."""
        self._actions.append(action)

    def at_very_end(self, action: Callable[[], None]) -> None:
        """Run `action` when nothing is left of what `at_end` was given."""
        self._last.append(action)

    def end(self) -> None:
        """Run what was registered, also what the actions themselves register, until nothing is left."""
        while self._actions or self._last:
            if self._actions:
                actions, self._actions = self._actions, []
            else:
                actions, self._last = self._last, []
            for action in actions:
                action()
