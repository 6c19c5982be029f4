"""What a real API server makes of the CustomResourceDefinitions, their rules in CEL above all."""

import json
from typing import Any

import pytest

from pyjiva.maya.manifest.crd import custom_resource_definitions
from tests.kube.cluster import Cluster
from tests.maya.manifest.test_crd import FULL

pytestmark = pytest.mark.real


@pytest.fixture
def defined(cluster: Cluster, namespace: str) -> str:
    """A namespace in a cluster that knows the definitions."""
    cluster.apply(*custom_resource_definitions())
    for definition in custom_resource_definitions():
        name = definition["metadata"]["name"]
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=30s")
    return namespace


def volume(namespace: str, **spec: Any) -> dict[str, Any]:
    made = FULL.to_object()
    made["metadata"] = {"name": "one", "namespace": namespace}
    made["spec"] |= spec
    return made


def try_apply(cluster: Cluster, thing: dict[str, Any]) -> str:
    """What kubectl said that it does not like; "": it has applied it."""
    done = cluster.run(["kubectl", "apply", "-f", "-"], input=json.dumps(thing), check=False)
    return "" if done.returncode == 0 else done.stderr


def test_they_are_structural_and_name_their_kinds(cluster: Cluster, defined: str) -> None:
    for definition in custom_resource_definitions():
        found = cluster.get("crd", definition["metadata"]["name"])
        assert found is not None
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert conditions["NamesAccepted"] == conditions["Established"] == "True"
        assert "NonStructuralSchema" not in conditions
    assert "No resources found" in cluster.run(["kubectl", "-n", defined, "get", "jv,jivasnap"]).stderr


def test_a_volume_with_everything_comes_back_as_it_was(cluster: Cluster, defined: str) -> None:
    sent = volume(defined)
    assert try_apply(cluster, sent) == ""
    found = cluster.get("jv", "one", defined)
    assert found is not None
    assert found["spec"] == sent["spec"]
    change = json.dumps({"status": FULL.status_object()})
    cluster.kubectl("-n", defined, "patch", "jv", "one", "--subresource=status", "--type=merge", "-p", change)
    found = cluster.get("jv", "one", defined)
    assert found is not None
    assert found["status"] == FULL.status_object()
    shown = cluster.kubectl("-n", defined, "get", "jv").split()
    assert shown[:6] == ["NAME", "REPLICACOUNT", "PHASE", "STATUS", "CAPACITY", "AGE"]
    assert shown[6:11] == ["one", "2", "Ready", "RW", "10Gi"]


def test_what_is_left_out_gets_its_value(cluster: Cluster, defined: str) -> None:
    least = volume(defined)
    for key in ("policy", "accessType", "source"):
        del least["spec"][key]
    assert try_apply(cluster, least) == ""
    found = cluster.get("jv", "one", defined)
    assert found is not None
    assert (found["spec"]["accessType"], found["spec"]["policy"]) == ("mount", {"blockSizeBytes": 512})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"volumeID": "1" * 32}, "cannot be changed"),
        ({"source": {"volume": "b", "snapshot": "s"}}, "cannot be changed"),
        ({"source": None}, "source cannot be added or removed"),
        ({"accessType": "mount"}, "cannot be changed"),
        ({"policy": {"blockSizeBytes": 512}}, "cannot be changed"),
        ({"policy": None}, "cannot be changed"),
        ({"capacity": "9Gi"}, "a volume cannot shrink"),
        ({"capacity": "10239Mi"}, "a volume cannot shrink"),
        ({"capacity": "10G"}, "a volume cannot shrink"),
        ({"capacity": "ten"}, "spec.capacity"),
        ({"desiredReplicationFactor": 7}, "less than or equal to 6"),
    ],
)
def test_a_volume_stays_what_it_is(cluster: Cluster, defined: str, change: dict[str, Any], said: str) -> None:
    assert try_apply(cluster, volume(defined)) == ""
    # A merge: what is null goes.
    command = [
        "kubectl",
        "-n",
        defined,
        "patch",
        "jv",
        "one",
        "--type=merge",
        "-p",
        json.dumps({"spec": change}),
    ]
    done = cluster.run(command, check=False)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize(
    "change",
    [{"capacity": "10Gi"}, {"capacity": "10240Mi"}, {"capacity": "11G"}, {"desiredReplicationFactor": 3}],
)
def test_it_grows_and_gets_more_copies(cluster: Cluster, defined: str, change: dict[str, Any]) -> None:
    assert try_apply(cluster, volume(defined)) == ""
    assert try_apply(cluster, volume(defined, **change)) == ""


@pytest.mark.parametrize("name", ["a" * 55, "1a", "a.b"])
def test_a_name_that_no_service_can_have_is_refused(cluster: Cluster, defined: str, name: str) -> None:
    thing = volume(defined)
    thing["metadata"]["name"] = name
    assert "a volume's name" in try_apply(cluster, thing)


def test_a_volume_of_no_size_is_refused(cluster: Cluster, defined: str) -> None:
    assert "a volume has a size" in try_apply(cluster, volume(defined, capacity="0"))


def test_a_snapshot_is_of_one_volume(cluster: Cluster, defined: str) -> None:
    snapshot = {
        "apiVersion": "openebs.io/v1",
        "kind": "JivaSnapshot",
        "metadata": {"name": "monday", "namespace": defined},
        "spec": {"volumeName": "one", "snapshotName": "monday"},
    }
    assert try_apply(cluster, snapshot) == ""
    snapshot["spec"] = {"volumeName": "two", "snapshotName": "monday"}
    assert "cannot be changed" in try_apply(cluster, snapshot)
    assert cluster.kubectl("-n", defined, "get", "jivasnap").split()[:2] == ["NAME", "VOLUME"]
