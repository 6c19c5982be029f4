"""`tests.kube.many_claims`: what it measures, with few claims."""

from pathlib import Path

import pytest

from tests.kube.cluster import cluster_or_skip
from tests.kube.many_claims import measure

pytestmark = pytest.mark.real

REQUESTS_MAX = 120  # of a whole life: what was measured, 80, and half of it again


def test_a_few_claims_at_once_are_bound_and_leave_nothing(tmp_path: Path) -> None:
    """In a cluster of its own: its nodes say of themselves that they run pods."""
    with cluster_or_skip(tmp_path) as cluster:
        figures = measure(cluster, 5, within_s=240)
    assert len(figures.bound_s) == 5
    assert max(figures.bound_s) < 120
    assert sum(figures.provisioner.values()) + sum(figures.reconciler.values()) < 5 * REQUESTS_MAX
    assert "| 5 claims at once |" in figures.markdown()
