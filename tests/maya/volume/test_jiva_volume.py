"""`maya.volume.jiva_volume`: the record and its JSON."""

from typing import Any

import attrs
import pytest

from pyjiva.errors import ConfigError
from pyjiva.maya.policy import LabelRequirement, Resources, Toleration, VolumePolicy
from pyjiva.maya.volume import (
    JivaVolume,
    JivaVolumeSpec,
    JivaVolumeStatus,
    Phase,
    ReplicaPlace,
    ReplicaState,
    VolumeSource,
)
from pyjiva.maya.volume.jiva_volume import Condition, IscsiAddress, policy_of, policy_to_json

SPEC = JivaVolumeSpec("pvc-1", capacity_bytes=10 << 30, volume_id="ab" * 16, desired_replication_factor=3)
POLICY = VolumePolicy(
    witness=True,
    target_tolerations=(Toleration("a", "Exists", effect="NoExecute", toleration_seconds=0),),
    node_affinity_required=(LabelRequirement("disk", "In", ("ssd", "nvme")),),
    aux_resources=Resources({"cpu": "10m"}, {"memory": "64Mi"}),
    replica_node_selector={"a.b/c": "d"},
    park_limit_s=2.5,
)
STATUS = JivaVolumeStatus(
    phase=Phase.READY,
    status="RW",
    born=True,
    capacity_bytes=10 << 30,
    replicas=(ReplicaPlace(1, ReplicaState.MEMBER, node="n1", address="10.96.0.7:9502", mode="in-sync"),),
    next_replica_id=2,
    iscsi=IscsiAddress("10.96.0.9:3260", "iqn.x:y"),
    conditions=(Condition("Ready", "True", "InSync"),),
)


def of(volume: JivaVolume) -> dict[str, Any]:
    return volume.to_object() | {"status": volume.status_object()}


@pytest.mark.parametrize("source", [None, VolumeSource("pvc-0", "nightly")])
def test_what_is_written_is_read_as_the_same(source: VolumeSource | None) -> None:
    spec = attrs.evolve(SPEC, policy=POLICY, source=source)
    volume = JivaVolume("openebs", "pvc-1", spec, STATUS, labels={"a": "b"}, finalizers=("f",))
    assert JivaVolume.of(of(volume)) == volume


def test_names_are_those_of_the_custom_resource() -> None:
    made = of(JivaVolume("openebs", "pvc-1", attrs.evolve(SPEC, policy=POLICY), STATUS))
    assert made["spec"]["capacity"] == "10Gi"
    assert made["spec"]["volumeID"] == "ab" * 16
    assert made["spec"]["desiredReplicationFactor"] == 3
    assert made["spec"]["policy"]["targetTolerations"] == [
        {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
    ]
    assert made["status"]["phase"] == "Ready"
    assert made["status"]["nextReplicaID"] == 2
    assert made["status"]["iscsi"] == {"targetPortal": "10.96.0.9:3260", "iqn": "iqn.x:y"}


def test_what_the_api_server_adds_is_read() -> None:
    made = of(JivaVolume("openebs", "pvc-1", SPEC))
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 2, "deletionTimestamp": "now"}
    read = JivaVolume.of(made)
    assert (read.uid, read.resource_version, read.generation, read.deleting) == ("u", "7", 2, True)


@pytest.mark.parametrize("spec", [{}, {"pv": "x"}, {"pv": "x", "capacity": "much"}])
def test_what_is_no_volume_is_refused_with_its_name(spec: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="openebs/pvc-1"):
        JivaVolume.of({"metadata": {"namespace": "openebs", "name": "pvc-1"}, "spec": spec})


def test_a_policy_says_only_what_is_not_the_default() -> None:
    assert policy_to_json(VolumePolicy()) == {}
    assert policy_of(policy_to_json(POLICY)) == POLICY
    with pytest.raises(ConfigError, match="replica_count"):
        policy_of({"replicaCount": "many"})
