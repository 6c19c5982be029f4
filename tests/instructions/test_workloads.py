"""The workloads do what they say, also where nothing can be counted."""

from pathlib import Path

import pytest

from tests.instructions.workloads import PLANTED, WORKLOADS, UnfitError, Workload


@pytest.mark.parametrize("workload", [*WORKLOADS, PLANTED], ids=lambda workload: workload.name)
def test_a_round_comes_to_the_same_again_and_again(tmp_path: Path, workload: Workload) -> None:
    try:
        with workload.prepare(tmp_path) as play:
            play()
            play()
    except UnfitError as reason:
        pytest.skip(str(reason))


def test_names_are_unique() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
