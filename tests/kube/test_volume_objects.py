"""What a real API server says of the objects that make a volume run, and which level their pods need."""

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import yaml

from pyjiva.maya.volume.jiva_volume import JivaVolume, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.objects import VolumeObjects
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.witness_objects import rights
from tests.kube.cluster import Cluster
from tests.maya.manifest.test_crd import FULL

pytestmark = pytest.mark.real

PLACE = ReplicaPlace(1, ReplicaState.MEMBER, "node-1")


def objects_of(namespace: str) -> Iterator[dict[str, Any]]:
    """All of them."""
    volume: JivaVolume = attrs.evolve(FULL, namespace=namespace, uid="0" * 8, name="pvc-1")
    makes = VolumeObjects(volume, Settings(namespace=namespace, version="0.1.0"))
    yield makes.secrets(key="00" * 32, token="t" * 32, chap="user:pass", source_token="s" * 32)
    yield makes.chap_secret("user", "password-of-it")
    yield makes.controller_service()
    yield makes.configuration("10.0.0.1", "")
    yield makes.controller()
    beside = attrs.evolve(PLACE, id=3, node="", witness=True, in_volume=True)
    voting = attrs.evolve(volume, status=attrs.evolve(volume.status, replicas=(PLACE, beside)))
    controller = attrs.evolve(makes, volume=voting).controller()
    controller["metadata"]["name"] = "pvc-1-voting"
    yield controller
    yield from rights(voting, makes.settings)
    yield makes.replica_service(1)
    yield makes.replica(PLACE, "node-1", 2**30)
    yield makes.replica(attrs.evolve(PLACE, id=2, witness=True), "node-2", 2**30)
    yield makes.disruption_budget([PLACE, PLACE, PLACE])
    yield makes.scrub(PLACE, "node-1")


def pods_of(namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for thing in objects_of(namespace):
        if thing["kind"] in ("Deployment", "Job"):
            name = thing["metadata"]["name"]
            metadata = {"name": name, "namespace": namespace}
            spec = {"restartPolicy": "Never", **thing["spec"]["template"]["spec"]}
            spec.pop("priorityClassName", None)
            spec.pop("serviceAccountName", None)  # there is none yet
            yield name, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def dry_run(cluster: Cluster, *things: dict[str, Any]) -> str:
    """What kubectl said against it."""
    command = ["kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-"]
    done = cluster.run(command, input=yaml.safe_dump_all(json.loads(json.dumps(things))), check=False)
    return done.stderr


def test_every_object_is_taken_without_a_warning(cluster: Cluster, namespace: str) -> None:
    assert dry_run(cluster, *objects_of(namespace)) == ""


@pytest.mark.parametrize(
    ("level", "refused"),
    [
        ("restricted", {"pvc-1-rep-1", "pvc-1-rep-2", "sjr-pvc-1-1"}),
        ("baseline", {"pvc-1-rep-1", "pvc-1-rep-2", "sjr-pvc-1-1"}),
        ("privileged", set()),
    ],
)
def test_a_controller_is_as_restricted_asks_and_a_replica_needs_its_nodes_folder(
    cluster: Cluster, namespace: str, level: str, refused: set[str]
) -> None:
    """Why volumes' namespace has the level `privileged`: docs/reference/helm.md."""
    cluster.kubectl("label", "namespace", namespace, f"pod-security.kubernetes.io/enforce={level}")
    said = {name: dry_run(cluster, pod) for name, pod in pods_of(namespace)}
    assert {name for name, text in said.items() if text} == refused
    assert all("hostPath" in said[name] for name in refused)
