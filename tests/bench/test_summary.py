"""Medians, spreads and ratios of rounds."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary import Sample, Spread, ratios, spread, summarize


def sample(target: str, round_number: int, iops: float, **changes: Any) -> Sample:
    """A sample in which nothing is zero."""
    made = Sample(
        target=target,
        workload="rand-read-4k-qd1",
        round=round_number,
        ops=1000,
        seconds=1.0,
        iops=iops,
        mb_s=iops * 4096 / 1e6,
        latency_us={"p50": 100.0, "p99": 200.0},
        cpu_us_per_io={"target": 30.0, "driver": 10.0},
        rss_bytes={"target": 1 << 20},
        process_count={"target": 1},
        driver_cpu_share=0.2,
        idle_cpu_share=0.01,
        stolen_share=0.02,
    )
    return attrs.evolve(made, **changes)


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0)
    assert spread([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_no_values_have_no_spread() -> None:
    with pytest.raises(ValueError, match="no values"):
        spread([])


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_half_of_the_values_lie_on_each_side_of_a_median(values: list[float]) -> None:
    found = spread(values)
    assert found.least <= found.median <= found.most
    assert 2 * sum(value <= found.median for value in values) >= len(values)
    assert 2 * sum(value >= found.median for value in values) >= len(values)


def test_a_ratio_is_made_inside_its_round() -> None:
    """The whole machine was slow in round 1: the ratios do not show it, ratios of medians would."""
    samples = [
        sample("tgtd", 0, 100.0), sample("local", 0, 50.0),
        sample("local", 1, 5.0), sample("tgtd", 1, 10.0),
        sample("tgtd", 2, 100.0), sample("local", 2, 200.0),
    ]  # fmt: skip
    assert ratios(samples, target="local", baseline="tgtd", workload="rand-read-4k-qd1") == [0.5, 0.5, 2.0]
    (cell,) = [cell for cell in summarize(samples, "tgtd", ["limit"]) if cell.target == "local"]
    assert cell.ratio == Spread(0.5, 0.5, 2.0)


def test_a_share_of_the_limit_is_made_inside_its_round_too() -> None:
    samples = [sample("limit", 0, 100.0), sample("local", 0, 50.0), sample("local", 1, 80.0)]
    samples.append(sample("limit", 1, 100.0))
    cells = {cell.target: cell for cell in summarize(samples, "tgtd", ["limit"])}
    assert cells["local"].shares["limit"] == Spread(0.65, 0.5, 0.8)
    assert (cells["local"].ratio, cells["limit"].shares["limit"]) == (None, Spread(1.0, 1.0, 1.0))


def test_a_round_without_its_baseline_has_no_ratio() -> None:
    samples = [sample("local", 0, 50.0), sample("tgtd", 1, 10.0)]
    assert ratios(samples, target="local", baseline="tgtd", workload="rand-read-4k-qd1") == []
    assert all(cell.ratio is None for cell in summarize(samples, "tgtd", ["limit"]) if cell.target == "local")


def test_loads_are_not_mixed() -> None:
    samples = [
        sample("tgtd", 0, 100.0),
        sample("local", 0, 70.0),
        sample("tgtd", 0, 10.0, workload="rand-read-4k-qd32"),
        sample("local", 0, 40.0, workload="rand-read-4k-qd32"),
    ]
    found = {(cell.workload, cell.target): cell for cell in summarize(samples, "tgtd", ["limit"])}
    assert len(found) == 4
    assert found["rand-read-4k-qd1", "local"].ratio == Spread(0.7, 0.7, 0.7)
    assert found["rand-read-4k-qd32", "local"].ratio == Spread(4.0, 4.0, 4.0)


def test_a_role_that_was_there_in_some_rounds_is_summarized_over_those() -> None:
    samples = [
        sample("local", 0, 1.0, cpu_us_per_io={"target": 10.0}),
        sample("local", 1, 1.0, cpu_us_per_io={"target": 30.0, "driver": 5.0}),
    ]
    (cell,) = summarize(samples, "tgtd", ["limit"])
    assert cell.rounds == 2
    assert cell.cpu_us_per_io == {"target": Spread(20.0, 10.0, 30.0), "driver": Spread(5.0, 5.0, 5.0)}
