"""What all rebuilds of a replica did together, for metrics: counters that never fall.  Pure.

The status shows the rebuild that is under way, and nothing of it once it has ended; a program that looks
every fifteen seconds sees all of it here.
"""

import attrs

from pyjiva.controller.resync import Resync

__all__ = ["RebuildBook", "RebuildTotals"]


@attrs.frozen
class RebuildTotals:
    """Of one replica since the controller started; the rebuild under way is counted as far as it is."""

    begun: int = 0
    completed: int = 0
    """Copies that came to their end; the others broke off, or are under way."""
    copied_bytes: int = 0
    """Data copied to it: holes and what was found equal are not in it."""
    sent_bytes: int = 0
    """What these were on the wire, squeezed where that helped."""
    compared_bytes: int = 0
    """Found equal by their hashes."""
    seconds: float = 0.0
    """That a copy was under way."""


@attrs.define(eq=False)
class RebuildBook:
    """Remembers the rebuilds that have ended, and when those under way began."""

    _ended: dict[int, RebuildTotals] = attrs.field(factory=dict, init=False)
    _under_way: dict[int, tuple[Resync, float]] = attrs.field(factory=dict, init=False)

    def begin(self, rebuild: Resync, now_s: float) -> None:
        """A copy to `rebuild.target` begins; one that was under way has ended."""
        self.end(rebuild.target, now_s)
        self._under_way[rebuild.target] = (rebuild, now_s)

    def end(self, target: int, now_s: float, *, complete: bool = False) -> None:
        """The copy to `target` is over, if there was one."""
        totals = self.totals(target, now_s)
        if self._under_way.pop(target, None) is not None:
            self._ended[target] = attrs.evolve(totals, completed=totals.completed + complete)

    def elapsed_s(self, target: int, now_s: float) -> float:
        """For how long the copy to `target` is under way; 0: there is none."""
        under_way = self._under_way.get(target)
        return now_s - under_way[1] if under_way is not None else 0.0

    def totals(self, target: int, now_s: float) -> RebuildTotals:
        """What was done until now."""
        totals = self._ended.get(target, RebuildTotals())
        if (under_way := self._under_way.get(target)) is not None:
            rebuild, began_at_s = under_way
            totals = RebuildTotals(
                begun=totals.begun + 1,
                completed=totals.completed,
                copied_bytes=totals.copied_bytes + rebuild.copied_bytes,
                sent_bytes=totals.sent_bytes + rebuild.sent_bytes,
                compared_bytes=totals.compared_bytes + rebuild.compared_bytes,
                seconds=totals.seconds + now_s - began_at_s,
            )
        return totals
