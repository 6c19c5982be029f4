"""A command takes as many instructions as it did when that was last recorded, to a tenth."""

import pytest

from tests.instructions.baseline import Baseline, complaint, find, load, nothing_recorded, other_versions
from tests.instructions.counting import Counts, count, environment, missing_packages, packages
from tests.instructions.workloads import PLANTED, WORKLOADS

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def counts() -> Counts:
    """Of the present sources."""
    if missing := missing_packages():
        pytest.skip(f"install the Debian package {' and '.join(missing)}")
    return count()


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    """Of this interpreter and machine."""
    if missing := missing_packages():
        pytest.skip(f"install the Debian package {' and '.join(missing)}")
    found = find(load(), environment())
    if found is None:
        pytest.skip(nothing_recorded(load(), environment()))
    return found


@pytest.mark.parametrize("name", [workload.name for workload in WORKLOADS])
def test_a_command_takes_no_more_than_was_recorded(name: str, baseline: Baseline, counts: Counts) -> None:
    if name in counts.unfit:
        pytest.skip(counts.unfit[name])
    others = other_versions(baseline, packages())
    if said := complaint(name, baseline.instructions.get(name), counts.instructions[name], others):
        pytest.fail(said, pytrace=False)


def test_a_needless_loop_is_found(counts: Counts) -> None:
    before, now = counts.instructions["frames-4k"], counts.instructions[PLANTED.name]
    assert "instructions for a command, +" in complaint("frames-4k", before, now)


def test_every_recorded_workload_is_still_there() -> None:
    names = {workload.name for workload in WORKLOADS}
    assert load()
    for baseline in load():
        assert baseline.instructions.keys() == names
