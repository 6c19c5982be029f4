"""The clock that leases are measured with."""

import time

__all__ = ["boot_clock"]


def boot_clock() -> float:
    """Seconds since the machine started, those in which it was suspended too (clock_gettime(2),
    CLOCK_BOOTTIME).

    CLOCK_MONOTONIC, trio's own, stands still in a suspended machine: a controller that wakes up would take a
    lease for good that has long been waited out.  Neither one follows steps of the time of day.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
