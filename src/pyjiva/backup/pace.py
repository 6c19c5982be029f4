"""How fast a backup or a restore may go, and how far it is.  Pure."""

from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["Pace", "Progress", "ReportProgress"]

BURST_S: Final = 0.5


@attrs.define(eq=False)
class Pace:
    """A limit on bytes per second that all workers of one run share."""

    rate: int | None
    """None: no limit."""
    _free_at_s: float = attrs.field(default=0.0, init=False)

    def wait_s(self, length_bytes: int, now_s: float) -> float:
        """How long to wait before `length_bytes` more; they count as spent."""
        if self.rate is None:
            return 0.0
        start_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = start_s + length_bytes / self.rate
        return max(0.0, start_s - now_s)


@attrs.frozen
class Progress:
    """How far it is."""

    done_bytes: int
    total_bytes: int
    stored_bytes: int = 0
    """What was put into the store, or written to the target."""


ReportProgress = Callable[[Progress], None]
