"""What is said of a count beside the recorded one, and that several environments are kept apart."""

from pathlib import Path

import pytest

from tests.instructions.baseline import (
    RECORD,
    Baseline,
    complaint,
    find,
    load,
    nothing_recorded,
    other_versions,
    save,
)

HERE = {"python": "CPython 3.11.7", "valgrind": "3.19.0"}
THERE = {"python": "CPython 3.13.0", "valgrind": "3.19.0"}


@pytest.mark.parametrize("now", [900, 999, 1000, 1100])
def test_up_to_a_tenth_nothing_is_said(now: int) -> None:
    assert complaint("reads", 1000, now) == ""


@pytest.mark.parametrize(
    ("now", "percent", "why"),
    [(1101, "+10.1%", "with the reason"), (2000, "+100.0%", "with the reason"), (899, "-10.1%", "cheaper")],
)
def test_beyond_it_the_change_and_the_command_that_records_are_named(
    now: int, percent: str, why: str
) -> None:
    said = complaint("reads", 1000, now)
    assert said.startswith(f"reads: 1000 → {now} instructions")
    assert percent in said
    assert why in said
    assert said.endswith(RECORD)


def test_a_workload_without_a_count_is_to_be_recorded() -> None:
    assert complaint("reads", None, 7) == (
        f"reads: 7 instructions for a command, and none are recorded: {RECORD}"
    )


def test_the_command_that_records_may_be_another_one() -> None:
    assert complaint("reads", 1000, 2000, record="do it").endswith("do it")


def test_where_nothing_is_recorded_the_nearest_is_named() -> None:
    baselines = [Baseline(THERE, {}, {}), Baseline({**HERE, "hot modules": "compiled"}, {}, {})]
    said = nothing_recorded(baselines, HERE)
    assert said == (f"nothing is recorded for this machine (nearest: hot modules compiled, here -): {RECORD}")
    assert "(nearest: python CPython 3.13.0, here CPython 3.11.7): do" in nothing_recorded(
        baselines[:1], HERE, "do it"
    )


def test_other_versions_are_named_with_a_change() -> None:
    recorded = Baseline(HERE, {"attrs": "1", "xxhash": "4"}, {})
    assert other_versions(recorded, {"attrs": "2", "xxhash": "4"}) == ["attrs 1 → 2"]
    assert "(another version: attrs 1 → 2)" in complaint("reads", 1000, 2000, ["attrs 1 → 2"])
    assert complaint("reads", 1000, 1000, ["attrs 1 → 2"]) == ""


def test_each_environment_has_its_own_and_a_new_one_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    first, other = Baseline(HERE, {}, {"a": 1, "b": 2}), Baseline(THERE, {}, {"a": 3})
    save([], first, path)
    save(load(path), other, path)
    save(load(path), Baseline(HERE, {"attrs": "1"}, {"a": 9}), path)
    assert find(load(path), HERE) == Baseline(HERE, {"attrs": "1"}, {"a": 9, "b": 2})
    assert find(load(path), THERE) == other
    assert find(load(path), {**HERE, "valgrind": "3.20.0"}) is None
    assert len(load(path)) == 2
