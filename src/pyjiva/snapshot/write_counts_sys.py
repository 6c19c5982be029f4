"""How many writes to a store have begun, and how many have ended: whether all is stable hangs on it.
Hot; no calls of the system but for a lock.

Whoever says that all is stable asks whether the writes that had ended when the last flush began are all that
have begun by now.  A write counts as begun before it looks whether its region is marked as written, so that
one of the two sees the other.

Threads count under a lock.  The one thread that writes in place does not need it: nobody else changes its two
numbers, and who reads them sees them as they were or as they are.  That saves a fifteenth of the instructions
of a small write.
"""

import threading

import attrs

__all__ = ["WriteCounts"]


@attrs.define(eq=False)
class WriteCounts:  # hot
    """Writes and zeroings; what earlier processes did not flush counts as one, which has ended."""

    _begun: int = 0
    """By threads."""
    _ended: int = 0
    _begun_in_place: int = attrs.field(default=0, init=False)
    _ended_in_place: int = attrs.field(default=0, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @classmethod
    def after(cls, unflushed: int) -> "WriteCounts":
        """Of a store to which earlier processes have made `unflushed` writes, and have not flushed them."""
        return cls(unflushed, unflushed)

    def begin(self, *, in_place: bool = False) -> None:
        """One begins; `in_place`: in the one thread that writes so."""
        if in_place:
            self._begun_in_place += 1
            return
        with self._lock:
            self._begun += 1

    def end(self, *, in_place: bool = False) -> None:
        """It has ended."""
        if in_place:
            self._ended_in_place += 1
            return
        with self._lock:
            self._ended += 1

    def begun(self) -> int:
        """How many have begun."""
        with self._lock:
            return self._begun + self._begun_in_place

    def ended(self) -> int:
        """How many have ended."""
        with self._lock:
            return self._ended + self._ended_in_place

    def under_way(self) -> bool:
        """Whether any has begun and not ended."""
        with self._lock:
            ended = self._ended + self._ended_in_place  # first: it can only become more
            return self._begun + self._begun_in_place != ended
