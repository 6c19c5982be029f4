"""The cluster that several files of tests use."""

import uuid
from collections.abc import Iterator

import pytest

from tests.kube.cluster import Cluster, cluster_or_skip


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane without nodes; skips where there can be none."""
    with cluster_or_skip(tmp_path_factory.mktemp("kube")) as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of Kubernetes for one test; its end is begun but not waited for."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = ("serviceaccount", "default", name)
    cluster.wait_for(*account, lambda found: found, "the controllers have made the service account")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
