"""`maya.apiserver.cas_volume` and its neighbours: JSON from and to records."""

import json
from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver import (
    CasPhase,
    CloneSource,
    NewVolume,
    PoolView,
    ReplicaView,
    SnapshotView,
    VolumeName,
    VolumeView,
)
from pyjiva.maya.apiserver.backend import difference
from pyjiva.maya.apiserver.body import BODY_BYTES_MAX, Fields, capacity, read_body
from pyjiva.maya.apiserver.cas_snapshot import (
    CAS_SNAPSHOT_LIST_SCHEMA,
    NEW_SNAPSHOT_SCHEMA,
    POOLS_SCHEMA,
    new_snapshot,
    pools_json,
    snapshot_list_json,
)
from pyjiva.maya.apiserver.cas_volume import (
    CAS_VOLUME_LIST_SCHEMA,
    NEW_VOLUME_SCHEMA,
    PREFIXES,
    deleted_json,
    list_json,
    new_volume,
    volume_json,
)
from pyjiva.maya.policy import VolumePolicy

REPLICAS = (
    ReplicaView(1, "10.96.0.7:9502", "n1", "in-sync"),
    ReplicaView(2, "[fd00::2]:9502", "n2", "out", "its node does not answer"),
    ReplicaView(3, "10.96.0.9:9502", "n3", "rebuilding"),
    ReplicaView(4, "10.96.0.5:9502", "n4", "witness", witness=True),
)
VIEW = VolumeView(
    name="pvc-1",
    namespace="shop",
    volume_id="ab" * 16,
    capacity_bytes=5 << 30,
    iqn="iqn.2016-09.com.openebs.jiva:pvc-1",
    policy=VolumePolicy(witness=True, fs_type="xfs"),
    portals=("10.96.0.1:3260", "[fd00::1]:3260"),
    storage_class="fast",
    claim="db-0",
    labels={"app": "db"},
    source=CloneSource("pvc-0", "nightly"),
    phase=CasPhase.AVAILABLE,
    reason="ReplicaOut",
    message="replica 2: its node does not answer",
    controller_runs=True,
    controller_node="n1",
    replicas=REPLICAS,
)
BODY: dict[str, Any] = {
    "kind": "CASVolume",
    "apiVersion": "v1alpha1",
    "metadata": {
        "name": "pvc-1",
        "creationTimestamp": None,
        "labels": {"openebs.io/storageclass": "fast", "openebs.io/persistentvolumeclaim": "db-0", "app": "x"},
    },
    "spec": {
        "capacity": "5G", "iqn": "", "targetPortal": "", "targetIP": "", "targetPort": "", "replicas": "",
        "casType": "jiva", "fsType": "", "lun": 0, "accessMode": "",
    },
    "cloneSpec": {"isClone": False, "sourceVolume": "", "sourceTargetIP": "", "snapshotName": ""},
    "status": {"Phase": "", "Message": "", "Reason": ""},
}  # fmt: skip


def changed(path: str, value: Any) -> dict[str, Any]:
    """BODY with one other value."""
    made = json.loads(json.dumps(BODY))
    *parents, last = path.split(".")
    inner = made
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return dict(made)


def test_what_a_go_client_sends_is_understood() -> None:
    """All of its fields are there, empty where it says nothing."""
    assert new_volume(Fields(BODY), "shop") == NewVolume(
        name="pvc-1",
        namespace="shop",
        capacity_bytes=-(-5 * 10**9 // 4096) * 4096,
        storage_class="fast",
        claim="db-0",
        labels={"app": "x"},
    )


def test_a_clone_names_its_source() -> None:
    clone = {"isClone": True, "sourceVolume": "pvc-0", "sourceTargetIP": "10.0.0.1", "snapshotName": "a_b"}
    body = changed("cloneSpec", clone)
    assert new_volume(Fields(body), "").source == CloneSource("pvc-0", "a_b")


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("kind", "Pod", "kind 'Pod': expected CASVolume"),
        ("apiVersion", "v2", "apiVersion 'v2': expected v1alpha1"),
        ("metadata.name", "", "metadata.name ''"),
        ("metadata.name", "Big", "metadata.name 'Big'"),
        ("metadata.name", "a" * 64, "metadata.name"),
        ("metadata.name", 5, "metadata.name: a text is expected"),
        ("metadata.namespace", "other", "the request names several, other and shop"),
        ("metadata.labels", {"openebs.io/namespace": "c"}, "the request names several, c and shop"),
        ("metadata.labels", {"a": 1}, "metadata.labels.a: a text"),
        ("metadata.labels", [], "metadata.labels: an object"),
        ("metadata.lables", {}, "metadata.lables: not known; did you mean labels?"),
        ("spec.capacity", "", "spec.capacity: quantity ''"),
        ("spec.capacity", "0", "spec.capacity: '0': more than 0"),
        ("spec.capacity", "-1", "spec.capacity"),
        ("spec.capacity", 5, "spec.capacity: a text is expected"),
        ("spec.capacity", "5GB", "spec.capacity"),
        ("spec.capacity", "9999999E", "spec.capacity"),
        ("spec.casType", "cstor", "spec.casType 'cstor': expected jiva"),
        ("spec.accessMode", "ReadWriteMany", "spec.accessMode 'ReadWriteMany': expected ReadWriteOnce"),
        ("spec.iqn", "iqn.x:y", "spec.iqn: Maya decides it"),
        ("spec.lun", 1, "spec.lun: Maya decides it"),
        ("spec.replicas", "3", "spec.replicas: Maya decides it"),
        ("spec.size", "3", "spec.size: not known"),
        ("spec", [], "spec: an object is expected"),
        ("cloneSpec.sourceVolume", "pvc-0", "cloneSpec.isClone: true is expected"),
        ("cloneSpec.isClone", True, "a clone needs sourceVolume and snapshotName"),
        ("cloneSpec.isClone", "yes", "cloneSpec.isClone: true or false"),
        ("status", {"Phase": "Available"}, "status: Maya decides it"),
        ("more", 1, "more: not known"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(path: str, value: Any, why: str) -> None:
    with pytest.raises(ConfigError) as info:
        new_volume(Fields(changed(path, value)), "shop")
    assert why in str(info.value)


def test_a_volume_has_every_key_that_clients_know() -> None:
    made = volume_json(VIEW)
    jsonschema.validate(list_json([VIEW]), CAS_VOLUME_LIST_SCHEMA, jsonschema.Draft202012Validator)
    assert made["spec"] == {
        "capacity": "5Gi",
        "iqn": "iqn.2016-09.com.openebs.jiva:pvc-1",
        "targetPortal": "10.96.0.1:3260",
        "targetIP": "10.96.0.1",
        "targetPort": "3260",
        "replicas": "3",
        "casType": "jiva",
        "fsType": "xfs",
        "lun": 0,
        "accessMode": "ReadWriteOnce",
    }
    assert made["metadata"]["labels"] == {
        "app": "db",
        "openebs.io/storageclass": "fast",
        "openebs.io/persistentvolumeclaim": "db-0",
        "openebs.io/namespace": "shop",
    }
    expected = {
        "controller-ips": "10.96.0.1",
        "cluster-ips": "10.96.0.1",
        "controller-node-name": "n1",
        "iqn": "iqn.2016-09.com.openebs.jiva:pvc-1",
        "replica-count": "3",
        "volume-size": "5Gi",
        "replica-ips": "10.96.0.7,fd00::2,10.96.0.9",
        "replica-status": "running,notready,running",
        "controller-status": "running",
        "targetportals": "10.96.0.1:3260,[fd00::1]:3260",
    }
    assert made["metadata"]["annotations"] == {
        prefix + key: text for key, text in expected.items() for prefix in PREFIXES
    }
    assert made["cloneSpec"]["isClone"]
    assert made["status"]["Phase"] == "Available"
    assert made["status"]["replicas"][1] == {
        "id": 2,
        "address": "[fd00::2]:9502",
        "node": "n2",
        "mode": "out",
        "reason": "its node does not answer",
        "witness": False,
    }


def test_strings_keep_their_places_while_a_replica_is_away() -> None:
    """A client that counts columns shows the right one."""
    view = attrs.evolve(VIEW, replicas=(ReplicaView(1), *REPLICAS[1:]))
    found = volume_json(view)["metadata"]["annotations"]
    assert found["openebs.io/replica-ips"] == ",fd00::2,10.96.0.9"
    assert found["openebs.io/replica-status"] == "notready,notready,running"


def test_a_volume_that_has_nothing_yet_has_every_key_too() -> None:
    view = VolumeView("a", "", "", 4096, "iqn", VolumePolicy())
    made = volume_json(view)
    jsonschema.validate(list_json([view]), CAS_VOLUME_LIST_SCHEMA, jsonschema.Draft202012Validator)
    assert (made["spec"]["targetIP"], made["status"]["Phase"]) == ("", "Pending")
    assert made["metadata"]["annotations"]["openebs.io/controller-status"] == "notready"
    assert deleted_json(VolumeName("a"))["metadata"] == {"name": "a"}


def test_differences_are_named() -> None:
    wanted = NewVolume("pvc-1", "shop", 5 << 30, "fast", "db-0", source=CloneSource("pvc-0", "nightly"))
    assert difference(VIEW, wanted, VIEW.policy) == ""
    other = attrs.evolve(wanted, capacity_bytes=6 << 30, namespace="x")
    found = difference(VIEW, other, attrs.evolve(VIEW.policy, replica_count=5))
    assert "capacity: it has 5Gi, asked for was 6Gi" in found
    assert "namespace: it has shop, asked for was x" in found
    assert "policy replica_count: it has 3, asked for was 5" in found


def test_snapshots_and_pools_have_every_key() -> None:
    views = [
        SnapshotView("s", "pvc-1", "shop"),
        SnapshotView("t", "pvc-1", "", "2026-01-01T00:00:00Z", 4096, True),
    ]
    made = snapshot_list_json(views)
    jsonschema.validate(made, CAS_SNAPSHOT_LIST_SCHEMA, jsonschema.Draft202012Validator)
    assert made["items"][1]["status"] == {"readyToUse": True, "restoreSize": "4Ki", "message": ""}
    assert made["items"][0]["metadata"]["creationTimestamp"] is None
    pools = pools_json([PoolView("default", "/var/openebs"), PoolView("b", "/b", "n", 10, 5)])
    jsonschema.validate(pools, POOLS_SCHEMA, jsonschema.Draft202012Validator)


def test_a_snapshot_is_asked_for_by_name_and_volume() -> None:
    body = {"metadata": {"name": "pvc_1"}, "spec": {"casType": "jiva", "volumeName": "pvc-1"}}
    assert new_snapshot(Fields(body), "shop") == (VolumeName("pvc-1", "shop"), "pvc_1")
    for path, value, why in (
        ("metadata", {"name": "-a"}, "snapshot '-a'"),
        ("metadata", {"name": "a", "namespace": "x"}, "names several"),
        ("spec", {"casType": "cstor", "volumeName": "a"}, "spec.casType"),
        ("spec", {"volumeName": "A"}, "spec.volumeName 'A'"),
        ("spec", {"volumeName": "a", "x": 1}, "spec.x: not known"),
    ):
        with pytest.raises(ConfigError, match=why):
            new_snapshot(Fields(body | {path: value}), "shop")


def test_bodies_are_json_or_yaml() -> None:
    assert read_body(b'{"a": "b"}', "application/json").text("a") == "b"
    assert read_body(b"a: b\nc: true\n", "application/x-yaml").flag("c")
    for data, kind, why in (
        (b"[]", "", "not an object"),
        (b"", "", "not JSON"),
        (b"", "yaml", "not an object"),
        (b'{"a": NaN}', "", "NaN is no number"),
        (b'{"a": 1, "a": 2}', "", "twice"),
        (b"[" * 50000, "", "not JSON"),
        (b"a: *b", "text/yaml", "aliases"),
        (b"\xff", "", "not UTF-8"),
        (b" " * (BODY_BYTES_MAX + 1), "", "at most"),
    ):
        with pytest.raises(ConfigError, match=why):
            read_body(data, kind)
    with pytest.raises(ConfigError, match="a text is expected"):
        read_body(b'{"a": "\\ud800"}', "").text("a")


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("1", 4096), ("5Gi", 5 << 30), ("1Ei", 1 << 60)])
def test_capacities_are_whole_blocks(text: str, size: int) -> None:
    assert capacity(text, "x") == size


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["5Gi", "jiva", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "cloneSpec", "name", "labels", "capacity", "isClone", "volumeName"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["metadata", "spec", "cloneSpec", "kind"]) | st.text(max_size=4), VALUES)
)
def test_any_object_is_understood_or_refused(value: dict[str, Any]) -> None:
    """And what is understood is what the schema lets through."""
    for read, schema in ((new_volume, NEW_VOLUME_SCHEMA), (new_snapshot, NEW_SNAPSHOT_SCHEMA)):
        try:
            read(Fields(value), "")
        except ConfigError:
            continue
        assert not {"metadata", "spec"} - set(value), schema
