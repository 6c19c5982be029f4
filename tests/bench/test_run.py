"""From what the driver says to a sample."""

from typing import Any

import pytest

from bench.errors import BenchError
from bench.run import sample_of

ANSWER: dict[str, Any] = {
    "ops": 1000,
    "seconds": 2.0,
    "iops": 500.0,
    "mb_s": 2.048,
    "latency_us": {"p50": 1.0},
    "driver": {"user_s": 0.1, "system_s": 0.4},
    "watched": {
        "10": {"user_s": 0.2, "system_s": 0.3, "rss_bytes": 100},
        "11": {"user_s": 0.1, "system_s": 0.0, "rss_bytes": 20},
        "12": {"user_s": 0.0, "system_s": 0.2, "rss_bytes": 30},
    },
}
ROLES = {10: "controller", 11: "replica", 12: "replica"}


def test_processor_time_and_memory_are_added_up_by_role() -> None:
    sample = sample_of(ANSWER, ROLES, "pyjiva-2", "rand-read-4k-qd1", 3, 0.01)
    assert sample.cpu_us_per_io == pytest.approx({"controller": 500.0, "replica": 300.0, "driver": 500.0})
    assert sample.rss_bytes == {"controller": 100, "replica": 50}
    assert sample.process_count == {"controller": 1, "replica": 2}
    assert sample.driver_cpu_share == pytest.approx(0.25)
    assert (sample.round, sample.idle_cpu_share) == (3, 0.01)


def test_a_run_without_answers_is_no_sample() -> None:
    with pytest.raises(BenchError, match="answered nothing"):
        sample_of({**ANSWER, "ops": 0}, ROLES, "pyjiva-2", "rand-read-4k-qd1", 0, 0.0)
