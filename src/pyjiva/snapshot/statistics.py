"""What the device of a replica has done: a frozen picture for its metrics.  Pure."""

from typing import Any

import attrs

from pyjiva.block import OPERATIONS, Times

__all__ = ["ChainStatistics", "DiskTimes", "no_times"]

DiskTimes = dict[type[Any], Times]
"""By verb."""


def no_times() -> DiskTimes:
    """Nothing has been done yet."""
    return {verb: Times() for verb in OPERATIONS}


@attrs.frozen
class ChainStatistics:
    """What a device has done since it was opened."""

    reads: int
    read_bytes: int
    reads_missed: int
    """Reads that the page cache could not answer."""
    writes: int
    written_bytes: int
    zeroings: int
    zeroed_bytes: int
    flushes: int
    """fdatasync calls; one may have answered many Flush requests."""
    flush_s: float
    """Seconds spent in them."""
    waiting: int
    """Requests that are queued for a thread or in one."""
