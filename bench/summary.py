"""What several rounds say together: medians, spreads, ratios.  Pure.

A ratio is made inside a round, from two runs minutes or seconds apart, and the median is taken of the ratios:
what slows the whole machine for a while slows both sides of a ratio.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

__all__ = ["Cell", "Sample", "Spread", "ratios", "spread", "summarize"]


@attrs.frozen
class Sample:
    """One target under one workload in one round."""

    target: str
    workload: str
    round: int
    ops: int
    seconds: float
    iops: float
    mb_s: float
    """Millions of bytes a second."""
    latency_us: Mapping[str, float]
    """By name of the percentile: p50, p90, p99, p99.9, max."""
    cpu_us_per_io: Mapping[str, float]
    """Processor time by role, user and system, all processes of the role together; `driver` is ours."""
    rss_bytes: Mapping[str, int]
    """Resident memory at the end of the run by role, all processes of the role together."""
    process_count: Mapping[str, int]
    """Processes by role."""
    driver_cpu_share: float
    """Of one core: near 1, the driver is what is measured."""
    idle_cpu_share: float
    """Of one core: what the targets took that had nothing to do."""
    stolen_share: float
    """Of the time of all processors: what the machine's own host gave to others meanwhile."""


@attrs.frozen
class Spread:
    """A median and how far the rounds lie apart."""

    median: float
    least: float
    most: float


@attrs.frozen
class Cell:
    """One target under one workload, over all rounds."""

    target: str
    workload: str
    rounds: int
    iops: Spread
    mb_s: Spread
    ratio: Spread | None
    """Of IOPS to the baseline's in the same round; None: the baseline was not measured."""
    shares: Mapping[str, Spread]
    """The same, to each limit's that was measured, by its name."""
    latency_us: Mapping[str, Spread]
    cpu_us_per_io: Mapping[str, Spread]
    rss_bytes: Mapping[str, Spread]
    process_count: Mapping[str, int]
    driver_cpu_share: Spread
    idle_cpu_share: Spread
    stolen_share: Spread


def spread(values: Iterable[float]) -> Spread:
    """Raises ValueError: there are no values."""
    known = list(values)
    if not known:
        raise ValueError("no values to summarize")
    return Spread(statistics.median(known), min(known), max(known))


def ratios(samples: Sequence[Sample], *, target: str, baseline: str, workload: str) -> list[float]:
    """IOPS of `target` to those of `baseline`, for each round that has both."""
    by_round = {s.round: s.iops for s in samples if s.workload == workload and s.target == baseline}
    return [
        s.iops / by_round[s.round]
        for s in samples
        if s.workload == workload and s.target == target and by_round.get(s.round)
    ]


def summarize(samples: Sequence[Sample], baseline: str, limits: Sequence[str]) -> list[Cell]:
    """A cell for each pair of target and workload, in the order of their first samples.

    `baseline` and `limits` are the targets to which the others are compared.
    """
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.workload, sample.target), []).append(sample)
    cells = []
    for (workload, target), group in groups.items():
        cells.append(
            Cell(
                target=target,
                workload=workload,
                rounds=len(group),
                iops=spread(s.iops for s in group),
                mb_s=spread(s.mb_s for s in group),
                ratio=_ratio(samples, target, baseline, workload),
                shares={
                    limit: share
                    for limit in limits
                    if (share := _ratio(samples, target, limit, workload)) is not None
                },
                latency_us=_by_key(group, lambda s: s.latency_us),
                cpu_us_per_io=_by_key(group, lambda s: s.cpu_us_per_io),
                rss_bytes=_by_key(group, lambda s: s.rss_bytes),
                process_count=group[-1].process_count,
                driver_cpu_share=spread(s.driver_cpu_share for s in group),
                idle_cpu_share=spread(s.idle_cpu_share for s in group),
                stolen_share=spread(s.stolen_share for s in group),
            )
        )
    return cells


def _ratio(samples: Sequence[Sample], target: str, baseline: str, workload: str) -> Spread | None:
    found = ratios(samples, target=target, baseline=baseline, workload=workload)
    return spread(found) if found else None


def _by_key(group: Sequence[Sample], values: Callable[[Sample], Mapping[str, float]]) -> dict[str, Spread]:
    keys = {key: None for sample in group for key in values(sample)}
    return {key: spread(values(s)[key] for s in group if key in values(s)) for key in keys}
