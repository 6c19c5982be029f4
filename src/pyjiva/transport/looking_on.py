"""Whether to look again before sleeping: while that finds something, and nobody else needs the processor.
Pure.
"""

from typing import Final

import attrs

__all__ = ["CALM_S_MAX", "CALM_S_MIN", "LOOKS_TO_FORGET", "RESTS_MAX", "LookingOn"]

RESTS_MAX: Final = 64
CALM_S_MIN: Final = 0.01
CALM_S_MAX: Final = 1.0
#: A look saves some 50 µs, and one that is kept waiting costs 3 ms: worth it if fewer than one in 60 are.
LOOKS_TO_FORGET: Final = 128


@attrs.define
class LookingOn:  # hot
    """The past of one process, as far as it counts.

    What found nothing is not tried again for one wait, then two, four, up to RESTS_MAX: a slow peer costs one
    look in so many.

    When another process kept the processor for longer than any of ours does, nobody looks on for a while,
    CALM_S_MIN at first and each time twice as long, up to CALM_S_MAX: with busy neighbours each look would
    cost one of their time slices.  It is half as long again for each LOOKS_TO_FORGET that were not kept
    waiting: a virtual machine whose host took the processor for a moment cannot be told from one with a
    neighbour, and that is no reason to rest for long.
    """

    _rests: int = 0
    """Waits that are still to be slept through."""
    _rests_after: int = 1
    """How many after the next look that finds nothing."""
    _calm_until_s: float = 0.0
    _calm_s: float = CALM_S_MIN
    """How long it will be calm when it is kept waiting next."""
    _undisturbed: int = 0
    """Looks since it was, or since that was last made shorter."""

    def wanted(self, now_s: float) -> bool:
        """Whether to look on before this wait."""
        if self._rests:
            self._rests -= 1
            return False
        return now_s >= self._calm_until_s

    def found(self) -> None:
        """It was worth it."""
        self._rests_after = 1
        self._looked_undisturbed()

    def found_nothing(self) -> None:
        """It was not."""
        self._rests = self._rests_after
        self._rests_after = min(2 * self._rests_after, RESTS_MAX)
        self._looked_undisturbed()

    def was_kept_waiting(self, now_s: float) -> None:
        """Others needed the processor: that look says nothing else."""
        self._calm_until_s = now_s + self._calm_s
        self._calm_s = min(2 * self._calm_s, CALM_S_MAX)
        self._undisturbed = 0

    def _looked_undisturbed(self) -> None:
        self._undisturbed += 1
        if self._undisturbed == LOOKS_TO_FORGET:
            self._undisturbed = 0
            self._calm_s = max(self._calm_s / 2, CALM_S_MIN)
