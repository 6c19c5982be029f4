"""`maya.apiserver.kube_backend_io` with the apiserver's own account, against a real API server."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from pyjiva.maya.apiserver import AlreadyExists, CloneSource, NewVolume, NotFound, Refused, VolumeName
from pyjiva.maya.apiserver.kube_backend_io import KubeBackend
from pyjiva.maya.kube import load_access, open_cluster
from tests.deploy.chart import MANIFEST, documents
from tests.kube.cluster import Cluster

pytestmark = pytest.mark.real

GIB = 1 << 30
CONFIG = "cas.openebs.io/config"
ACCOUNT = ("openebs", "pyjiva-apiserver")


@pytest.fixture
def kubeconfig(cluster: Cluster, namespace: str) -> Path:
    """Of the apiserver's account, in a cluster that has everything of the manifest but what would run."""
    things = [each for each in documents(MANIFEST.read_text()) if each["kind"] != "Deployment"]
    cluster.apply(*(each for each in things if each["kind"] in ("Namespace", "CustomResourceDefinition")))
    for kind in ("jivavolumes", "jivasnapshots"):
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{kind}.openebs.io", "--timeout=30s")
    cluster.apply(*things)
    return cluster.kubeconfig_for(*ACCOUNT)


def put_class_and_claim(cluster: Cluster, namespace: str) -> None:
    entries = [
        {"name": "ReplicaCount", "value": "2"},
        {"name": "Witness", "enabled": "true"},
        {"name": "StoragePool", "value": "/mnt/fast"},
        {"name": "ReplaceAfter", "value": "1h"},
        {"name": "TargetTolerations", "value": "t1: {key: a, operator: Exists, effect: NoExecute}"},
        {"name": "EvictionTolerations", "value": "none"},
        {"name": "ReplicaResourceLimits", "value": "memory: 1Gi\ncpu: 500m"},
        {"name": "ReplicaNodeSelector", "value": "disk: ssd"},
        {"name": "NodeAffinityRequiredSchedIgnoredExec", "value": "t1: {key: a, operator: In, values: [b]}"},
    ]
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": namespace, "annotations": {CONFIG: yaml.safe_dump(entries)}},
        "provisioner": "openebs.io/provisioner-iscsi",
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "db-0",
            "namespace": namespace,
            "annotations": {CONFIG: json.dumps([{"name": "FSType", "value": "xfs"}])},
            "labels": {"openebs.io/replica-anti-affinity": "db", "openebs.io/sts-target-affinity": "db"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "nobody-s",
            "resources": {"requests": {"storage": "5Gi"}},
        },
    }
    cluster.apply(storage_class, claim)


def test_a_life_of_a_volume(cluster: Cluster, namespace: str, kubeconfig: Path) -> None:
    put_class_and_claim(cluster, namespace)
    name = f"pvc-{namespace}"
    volume, snapshot = VolumeName(name, namespace), f"{name}_s_1"
    wanted = NewVolume(name, namespace, 5 * GIB, namespace, "db-0", labels={"app": "db"})

    def say(kind: str, thing: str, status: dict[str, Any]) -> None:
        """As the reconciler does."""
        change = json.dumps({"status": status})
        scope = ("-n", "openebs", "patch", kind, thing)
        cluster.kubectl(*scope, "--subresource=status", "--type=merge", "-p", change)

    async def run() -> None:
        async with open_cluster(load_access(str(kubeconfig))) as kube:
            backend = KubeBackend(kube, "openebs")
            assert await backend.why_unhealthy() == ""
            made = await backend.create(wanted)
            assert await backend.create(wanted) == made
            assert (made.policy.replica_count, made.policy.fs_type) == (2, "xfs")
            assert made.policy.target_affinity == {"statefulset.kubernetes.io/pod-name": "db-0"}
            with pytest.raises(AlreadyExists):
                await backend.create(attrs.evolve(wanted, capacity_bytes=6 * GIB))
            assert [each.name for each in await backend.list(namespace)] == [name]
            assert (await backend.expand(volume, 8 * GIB)).name == name
            with pytest.raises(Refused):
                await backend.expand(volume, GIB)

            asked = await backend.create_snapshot(volume, snapshot)
            assert await backend.create_snapshot(volume, snapshot) == asked
            (stored,) = (await backend._snapshot_of(await backend._find(volume), snapshot),)
            status = {"phase": "Ready", "readyToUse": True, "restoreSize": "8Gi"}
            say("jivasnapshot", stored["metadata"]["name"], status)
            source = CloneSource(name, snapshot)
            clone = NewVolume(f"{name}-c", namespace, 8 * GIB, annotations={}, source=source)
            await backend.create(clone)
            with pytest.raises(Refused, match="is being filled from it"):
                await backend.delete(volume)
            say("jivavolume", clone.name, {"filled": True})
            await backend.delete_snapshot(volume, snapshot)
            for each in (clone.name, name):
                await backend.delete(VolumeName(each))
            with pytest.raises(NotFound):
                await backend.get(volume)
            assert await backend.list(namespace) == []

    try:
        cluster.in_namespace(run)
    finally:
        cluster.kubectl("delete", "storageclass", namespace)


def test_what_the_server_would_never_take_is_refused(
    cluster: Cluster, namespace: str, kubeconfig: Path
) -> None:
    async def run() -> None:
        async with open_cluster(load_access(str(kubeconfig))) as kube:
            backend = KubeBackend(kube, "openebs")
            with pytest.raises(Refused, match="a b"):
                await backend.create(NewVolume("v", namespace, GIB, labels={"a b": "c"}))
            with pytest.raises(Refused, match="there is no StorageClass none"):
                await backend.create(NewVolume("v", namespace, GIB, "none"))

    cluster.in_namespace(run)
