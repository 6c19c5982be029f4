"""The loads that every target gets, and how long.  Pure."""

from typing import Final

import attrs

from pyjiva.units import GIB, KIB, MIB

__all__ = ["REAL", "SMOKE", "WORKLOADS", "Parameters", "Workload"]


@attrs.frozen
class Workload:
    """One kind of load."""

    name: str
    title: str
    pattern: str
    """`random` or `sequential`."""
    verb: str
    """`read` or `write`."""
    block_bytes: int
    depth: int
    """Commands outstanding."""

    @property
    def in_bytes(self) -> bool:
        """Whether people judge it by MB/s rather than by commands per second."""
        return self.pattern == "sequential"


def _workloads() -> list[Workload]:
    random = [
        Workload(
            f"rand-{verb}-4k-qd{depth}", f"4 KiB random {verb}, QD {depth}", "random", verb, 4 * KIB, depth
        )
        for depth in (1, 32)
        for verb in ("read", "write")
    ]
    small = [
        Workload("seq-write-4k-qd32", "4 KiB sequential write, QD 32", "sequential", "write", 4 * KIB, 32)
    ]
    sequential = [
        Workload(f"seq-{verb}-{name}-qd8", f"{title} sequential {verb}, QD 8", "sequential", verb, size, 8)
        for name, title, size in (("128k", "128 KiB", 128 * KIB), ("1m", "1 MiB", MIB))
        for verb in ("read", "write")
    ]
    return random + small + sequential


WORKLOADS: Final[dict[str, Workload]] = {workload.name: workload for workload in _workloads()}


@attrs.frozen
class Parameters:
    """What a run of the bench depends on, beside the machine and the commit."""

    range_bytes: int
    """From the start of the LUN; filled once, it stays in the page cache."""
    seconds: float
    """Measured, for each target, workload and round."""
    warmup_s: float
    """Before that, not counted."""
    rounds: int
    seed: int
    settle: bool
    """Whether to have all dirty pages written before each run, so that no run pays for the one before."""


REAL: Final = Parameters(range_bytes=1 * GIB, seconds=3.0, warmup_s=0.5, rounds=5, seed=20160901, settle=True)
SMOKE: Final = Parameters(
    range_bytes=8 * MIB, seconds=0.05, warmup_s=0.01, rounds=2, seed=20160901, settle=False
)
