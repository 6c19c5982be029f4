"""`tests.kube.many_claims`: what it measures, with few claims."""

from pathlib import Path

import pytest

from tests.kube.cluster import open_cluster
from tests.kube.many_claims import measure
from tests.kube.programs import reason_not_to

pytestmark = [
    pytest.mark.real,
    # What a client leaves that is cancelled amid an answer.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REQUESTS_MAX = 120  # of a whole life: what was measured, 80, and half of it again


def test_a_few_claims_at_once_are_bound_and_leave_nothing(tmp_path: Path) -> None:
    """In a cluster of its own: its nodes say of themselves that they run pods."""
    if reason := reason_not_to():
        pytest.skip(reason)
    with open_cluster(tmp_path) as cluster:
        figures = measure(cluster, 5, within_s=240)
    assert len(figures.bound_s) == 5
    assert max(figures.bound_s) < 120
    assert sum(figures.provisioner.values()) + sum(figures.reconciler.values()) < 5 * REQUESTS_MAX
    assert "| 5 claims at once |" in figures.markdown()
