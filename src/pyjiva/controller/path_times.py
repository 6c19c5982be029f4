"""How long replicas take to answer, writes wait for all of them, and hosts wait for replicas.  Pure; hot.

What `data_path` adds up and `metrics` reads.  An answer arrives when the receive that brought it ends: one
look at the clock for all that came together.
"""

from collections.abc import Callable
from typing import Final

import attrs

from pyjiva.block import Times
from pyjiva.replication import FrameType

__all__ = ["TIMED", "PathTimes", "Stopwatch"]

TIMED: Final[dict[FrameType, str]] = {
    FrameType.READ: "read",
    FrameType.WRITE: "write",
    FrameType.UNMAP: "unmap",
    FrameType.WRITE_ZEROES: "write_zeroes",
    FrameType.FLUSH: "flush",
    FrameType.BLOCK_STATUS: "block_status",
}
"""What hosts ask for, by the names of `block.OPERATIONS`."""
_FOR_ALL: Final = (FrameType.WRITE, FrameType.UNMAP, FrameType.WRITE_ZEROES, FrameType.FLUSH)


@attrs.define(eq=False)
class Stopwatch:
    """For how long something has been so, in all."""

    clock_ns: Callable[[], int]
    _since_ns: int | None = attrs.field(default=None, init=False)
    _before_ns: int = attrs.field(default=0, init=False)

    def set(self, *, running: bool) -> None:
        """Whether it is so from now on."""
        if running and self._since_ns is None:
            self._since_ns = self.clock_ns()
        elif not running and self._since_ns is not None:
            self._before_ns += self.clock_ns() - self._since_ns
            self._since_ns = None

    @property
    def total_s(self) -> float:
        """Until now."""
        running_ns = 0 if self._since_ns is None else self.clock_ns() - self._since_ns
        return (self._before_ns + running_ns) / 1e9


def _times(types: tuple[FrameType, ...]) -> dict[FrameType, Times]:
    return {type_: Times() for type_ in types}


@attrs.define(eq=False)
class PathTimes:
    """Of one data path."""

    clock_ns: Callable[[], int]
    """Steady."""
    arrived_ns: int = attrs.field(default=0, init=False)
    """When what is being taken in arrived."""
    settled: dict[FrameType, Times] = attrs.field(factory=lambda: _times(_FOR_ALL), init=False)
    """From when it was sent until every replica that must have it has answered, or was given up."""
    answers: dict[int, dict[FrameType, Times]] = attrs.field(factory=dict, init=False)
    """By member; from when it was sent, to whomever, until this one's answer."""
    parked: Stopwatch = attrs.field(init=False)
    """A host's request waits until enough replicas can be reached."""

    def __attrs_post_init__(self) -> None:
        self.parked = Stopwatch(self.clock_ns)

    def arrived(self) -> None:
        """Something has come."""
        self.arrived_ns = self.clock_ns()

    def member(self, member_id: int) -> dict[FrameType, Times]:
        """Of one member, kept if it is known already."""
        return self.answers.setdefault(member_id, _times(tuple(TIMED)))
