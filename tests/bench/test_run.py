"""From what the driver says to a sample."""

from typing import Any

import pytest

from bench.errors import BenchError
from bench.machine_sys import Processors
from bench.run import RUNS_MAX, STOLEN_SHARE_MAX, quietest, sample_of

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
    sample = sample_of(ANSWER, ROLES, "pyjiva-2", "rand-read-4k-qd1", 3, 0.01, 0.02)
    assert sample.cpu_us_per_io == pytest.approx({"controller": 500.0, "replica": 300.0, "driver": 500.0})
    assert sample.rss_bytes == {"controller": 100, "replica": 50}
    assert sample.process_count == {"controller": 1, "replica": 2}
    assert sample.driver_cpu_share == pytest.approx(0.25)
    assert (sample.round, sample.idle_cpu_share, sample.stolen_share) == (3, 0.01, 0.02)


def test_a_run_without_answers_is_no_sample() -> None:
    with pytest.raises(BenchError, match="answered nothing"):
        sample_of({**ANSWER, "ops": 0}, ROLES, "pyjiva-2", "rand-read-4k-qd1", 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("stolen", "kept", "runs"),
    [
        ([STOLEN_SHARE_MAX, 0.0], STOLEN_SHARE_MAX, 1),
        ([0.9, 0.06, 0.01, 0.0], 0.01, 3),
        ([0.9, 0.3, 0.4, 0.5, 0.0], 0.3, RUNS_MAX),
    ],
)
def test_a_run_that_the_host_took_time_from_is_done_again(
    stolen: list[float], kept: float, runs: int
) -> None:
    left = list(stolen)
    sample = quietest(lambda: sample_of(ANSWER, ROLES, "tgtd", "rand-read-4k-qd1", 0, 0.0, left.pop(0)))
    assert (sample.stolen_share, len(stolen) - len(left)) == (kept, runs)


def test_what_the_host_took_is_a_share_of_all_processors() -> None:
    before = Processors.read("cpu  100 0 50 200 5 3 2 40 7 0\ncpu0 1 2 3\n")
    after = Processors.read("cpu  150 0 70 220 5 3 2 50 9 0\ncpu0 1 2 3\n")
    assert (before.all_ticks, before.stolen_ticks) == (400, 40)
    assert after.stolen_share(before) == pytest.approx(0.1)
    assert before.stolen_share(before) == 0
    with pytest.raises(ValueError, match="first line"):
        Processors.read("intr 1 2 3")


def test_this_machine_says_it() -> None:
    assert Processors.now().stolen_share(Processors(0, 0)) < 1
