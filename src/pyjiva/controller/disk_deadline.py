"""When a member is given up because its disk does not come back, however alive its network is.  Pure.

Each answer to a ping tells the age of the oldest operation that the member's disk has under way.  Slow is not
dead, so the limit comes from what was seen (DESIGN §5):

- An operation is *overdue* when it is older than FACTOR times the longest one that this disk has completed
  lately, but never before `floor_s` and always after `ceiling_s`.  An operation that was seen at an age and
  is not there any more was completed; what was seen counts half as much after HALF_LIFE_S.
- A member with an overdue operation is given up only if another one is much better off: where all disks are
  slow at once (they are one disk, or all flush the same), nothing would be won.  After `ceiling_s` it is
  given up all the same.

A member that was given up for a pause of some seconds has the data, and is sent what it missed.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

__all__ = ["FACTOR", "HALF_LIFE_S", "DiskDeadline", "overdue"]

FACTOR: Final = 4.0
HALF_LIFE_S: Final = 600.0
BETTER_OFF: Final = 2.0  # so many times younger is the oldest operation of another one


@attrs.define(eq=False)
class DiskDeadline:
    """One member's disk."""

    floor_s: float
    ceiling_s: float
    age_s: float = attrs.field(default=0.0, init=False)
    """Of the oldest operation, as it was told last."""
    _slowest_s: float = attrs.field(default=0.0, init=False)
    _slowest_at_s: float = attrs.field(default=0.0, init=False)

    def seen(self, age_s: float, at_s: float) -> None:
        """The member told at `at_s` that its oldest operation is `age_s` old."""
        if age_s < self.age_s and self.age_s > self._slowest_lately_s(at_s):
            self._slowest_s, self._slowest_at_s = self.age_s, at_s
        self.age_s = age_s

    def lost(self) -> None:
        """The connection is gone: what was under way is not known to have been completed."""
        self.age_s = 0.0

    def limit_s(self, at_s: float) -> float:
        """How old an operation may become."""
        return min(max(self.floor_s, FACTOR * self._slowest_lately_s(at_s)), self.ceiling_s)

    def _slowest_lately_s(self, at_s: float) -> float:
        half_lives = max(0.0, at_s - self._slowest_at_s) / HALF_LIFE_S
        return float(self._slowest_s * 0.5**half_lives)


def overdue(disks: Mapping[int, DiskDeadline], comparable: Iterable[int], at_s: float) -> list[int]:
    """Members of `disks` to be given up; `comparable`: those in sync, who do the same work."""
    others = {member: disks[member].age_s for member in comparable if member in disks}
    found = []
    for member, disk in disks.items():
        best_s = min((age for other, age in others.items() if other != member), default=disk.age_s)
        much_worse = best_s * BETTER_OFF <= disk.age_s
        if disk.age_s > disk.ceiling_s or (disk.age_s > disk.limit_s(at_s) and much_worse and others):
            found.append(member)
    return found
