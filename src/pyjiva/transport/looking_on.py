"""Whether to look again before sleeping: while that finds something, and nobody else needs the processor.
Pure.
"""

from typing import Final

import attrs

__all__ = ["CALM_S", "RESTS_MAX", "LookingOn"]

RESTS_MAX: Final = 64
CALM_S: Final = 1.0


@attrs.define
class LookingOn:  # hot
    """The past of one process, as far as it counts.

    What found nothing is not tried again for one wait, then two, four, up to RESTS_MAX: a slow peer costs one
    look in so many.  When another process kept the processor for longer than any of ours does, nobody looks
    on for CALM_S: with busy neighbours each look would cost one of their time slices.
    """

    _rests: int = 0
    """Waits that are still to be slept through."""
    _rests_after: int = 1
    """How many after the next look that finds nothing."""
    _calm_until_s: float = 0.0

    def wanted(self, now_s: float) -> bool:
        """Whether to look on before this wait."""
        if self._rests:
            self._rests -= 1
            return False
        return now_s >= self._calm_until_s

    def found(self) -> None:
        """It was worth it."""
        self._rests_after = 1

    def found_nothing(self) -> None:
        """It was not."""
        self._rests = self._rests_after
        self._rests_after = min(2 * self._rests_after, RESTS_MAX)

    def was_kept_waiting(self, now_s: float) -> None:
        """Others needed the processor."""
        self._calm_until_s = now_s + CALM_S
