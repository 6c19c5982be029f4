"""A life of the chart's release: installed, upgraded, uninstalled; the definitions outlive it."""

from typing import Any

import pytest

from tests.deploy.chart import CHART, helm
from tests.kube.cluster import Cluster

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(helm() is None, reason="Helm is missing: scripts/kube-assets builds it"),
]

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def run_helm(cluster: Cluster, *arguments: str) -> str:
    """In Maya's namespace."""
    return cluster.run([str(helm()), *arguments, "--namespace", "openebs"], timeout_s=120).stdout


def annotations(cluster: Cluster, name: str) -> dict[str, Any]:
    found = cluster.get("storageclass", name)
    assert found is not None
    annotations: dict[str, Any] = found["metadata"]["annotations"]
    return annotations


def test_it_is_installed_upgraded_and_uninstalled(cluster: Cluster) -> None:
    # Another test of this cluster may have applied the plain manifest.
    run_helm(cluster, "install", "pyjiva", str(CHART), "--create-namespace", "--take-ownership")
    for name in ("maya-apiserver", "maya-provisioner"):
        assert cluster.get("deployment", name, "openebs") is not None
    assert DEFAULT_CLASS not in annotations(cluster, "openebs-jiva-single")
    said = run_helm(
        cluster, "upgrade", "pyjiva", str(CHART), "--set", "storageClasses.default=openebs-jiva-single"
    )
    assert "uninstall-kubernetes.md" in said
    assert annotations(cluster, "openebs-jiva-single")[DEFAULT_CLASS] == "true"
    run_helm(cluster, "uninstall", "pyjiva", "--wait")
    assert cluster.get("deployment", "maya-apiserver", "openebs") is None
    assert cluster.get("clusterrole", "pyjiva-apiserver") is None
    for kind in ("jivavolumes", "jivasnapshots"):
        assert cluster.get("crd", f"{kind}.openebs.io") is not None, "all volumes would have gone"


def test_a_value_that_makes_no_sense_installs_nothing(cluster: Cluster) -> None:
    command = [str(helm()), "install", "wrong", str(CHART), "--namespace", "openebs", "--create-namespace"]
    done = cluster.run([*command, "--set", "volumes.replicaCount=9"], check=False)
    assert done.returncode != 0
    assert "replicaCount" in done.stderr
    assert (
        cluster.run([str(helm()), "status", "wrong", "--namespace", "openebs"], check=False).returncode != 0
    )
