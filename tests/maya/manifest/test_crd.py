"""The CustomResourceDefinitions: what records give goes through, and nothing else does.

What the API server makes of them, its rules in CEL above all, is in tests/kube/test_crds.py.
"""

import re
from collections.abc import Iterator
from typing import Any

import attrs
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import parse_quantity
from pyjiva.maya.manifest.crd import _EXTRA, custom_resource_definitions
from pyjiva.maya.policy.volume_policy import LabelRequirement, Resources, Toleration, VolumePolicy
from pyjiva.maya.volume.jiva_volume import (
    Condition,
    IscsiAddress,
    JivaVolume,
    JivaVolumeSpec,
    JivaVolumeStatus,
    Phase,
    ReplicaPlace,
    ReplicaState,
    VolumeSource,
    policy_to_json,
)

VOLUME, SNAPSHOT = custom_resource_definitions()
FULL_POLICY = VolumePolicy(
    replica_count=2,
    witness=True,
    deploy_in_openebs_namespace=False,
    volume_monitor=False,
    target_tolerations=(Toleration("a", "Exists", "", "NoExecute", 30),),
    eviction_tolerations=(Toleration(operator="Exists"),),
    target_resources=Resources({"cpu": "500m"}, {"memory": "1Gi"}),
    node_affinity_required=(LabelRequirement("disk", "In", ("ssd", "nvme")),),
    block_size_bytes=4096,
    pool_path="/srv",
    fs_type="xfs",
    park_limit_s=1.5,
    replace_after_s=0.0,
)
FULL = JivaVolume(
    "openebs",
    "pvc-1",
    JivaVolumeSpec("pvc-1", 10 * 2**30, "0" * 32, 2, "block", FULL_POLICY, VolumeSource("a", "s")),
    JivaVolumeStatus(
        phase=Phase.READY,
        status="RW",
        observed_generation=2,
        born=True,
        capacity_bytes=10 * 2**30,
        replica_count=2,
        iscsi=IscsiAddress("10.0.0.1:3260", "iqn.2016-09.com.openebs.jiva:pvc-1", 1),
        replicas=(
            ReplicaPlace(
                1, ReplicaState.MEMBER, "node-1", True, "a:9502", "in-sync", "why", "2026-01-01T00:00:00Z"
            ),
        ),
        next_replica_id=3,
        filled=True,
        conditions=(Condition("Ready", "True", "AllIn", "text", "2026-01-01T00:00:00Z"),),
    ),
)


def schema(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def closed(part: Any) -> Any:
    """The schema as the API server has it: what it does not know it would drop."""
    if isinstance(part, list):
        return [closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: closed(value) for key, value in part.items()}
    if made.get("properties"):
        made["additionalProperties"] = False
    return made


def check(value: Any, definition: dict[str, Any] = VOLUME) -> None:
    jsonschema.validate(value, closed(schema(definition)))


def test_all_that_records_have_goes_through_and_nothing_is_dropped() -> None:
    check(FULL.to_object() | {"status": FULL.status_object()})


def test_the_least_goes_through() -> None:
    volume = JivaVolume("openebs", "pvc-1", JivaVolumeSpec("pvc-1", 4096, "0" * 32, 3))
    check(volume.to_object() | {"status": volume.status_object()})


def test_every_field_of_a_policy_has_its_place() -> None:
    """Also those that a test does not set: by another value than its default, of its type."""
    of_policy = schema(VOLUME)["properties"]["spec"]["properties"]["policy"]["properties"]
    for field in attrs.fields(VolumePolicy):
        value: Any = {bool: not field.default, str: "x", int: 7, float: 7.5}.get(field.type or str)
        if value is not None:
            (key,) = policy_to_json(attrs.evolve(VolumePolicy(), **{field.name: value}))
            assert key in of_policy


WRONG: list[tuple[tuple[str, ...], object]] = [
    (("capacity",), "10 Gi"),
    (("capacity",), "100m"),
    (("capacity",), "10K"),
    (("capacity",), 10),
    (("volumeID",), "0" * 31),
    (("volumeID",), "G" * 32),
    (("desiredReplicationFactor",), 0),
    (("desiredReplicationFactor",), 7),
    (("accessType",), "file"),
    (("policy", "blockSizeBytes"), 1024),
    (("policy", "fsType"), "ntfs"),
    (("policy", "poolPath"), "srv"),
    (("policy", "replaceAfterS"), -1),
    (("policy", "targetTolerations"), [{"effect": "Never"}]),
    (("policy", "nodeAffinityRequired"), [{"key": "a", "operator": "Is"}]),
    (("policy", "witnesses"), 1),
    (("pv",), ""),
    (("source",), {"volume": "a"}),
]


@pytest.mark.parametrize(("path", "value"), WRONG)
def test_what_makes_no_sense_is_refused(path: tuple[str, ...], value: object) -> None:
    thing = FULL.to_object()
    check(thing)
    inside = thing["spec"]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check(thing)


@pytest.mark.parametrize("name", ["pv", "capacity", "volumeID", "desiredReplicationFactor"])
def test_what_has_to_be_there_has_to_be_there(name: str) -> None:
    thing = FULL.to_object()
    del thing["spec"][name]
    with pytest.raises(jsonschema.ValidationError, match=name):
        check(thing)


@given(
    st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?([kMGTPEKmi]{0,2}|[eE][0-9]{1,3})", fullmatch=True)
    | st.text(max_size=8)
)
def test_a_size_is_one_for_the_schema_if_it_is_one_for_us(text: str) -> None:
    pattern = schema(VOLUME)["properties"]["spec"]["properties"]["capacity"]["pattern"]
    try:
        parse_quantity(text)
        ours = True
    except ConfigError:
        ours = False
    assert ours == bool(re.fullmatch(pattern.strip("^$"), text, re.ASCII))


def walk(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)


@pytest.mark.parametrize("definition", [VOLUME, SNAPSHOT], ids=["JivaVolume", "JivaSnapshot"])
def test_no_part_of_a_schema_is_without_a_type(definition: dict[str, Any]) -> None:
    """Structural schemas have one everywhere, and text to read at every field of a spec."""
    for part in walk(schema(definition)):
        for each in (
            (part.get("properties") or {}).values() if isinstance(part.get("properties"), dict) else ()
        ):
            assert "type" in each or each.get("x-kubernetes-int-or-string")


def test_nothing_is_said_of_a_field_that_is_not_there() -> None:
    """A field that was renamed would lose what holds for it."""
    records = {
        record.__name__: {field.name for field in attrs.fields(record)}
        for record in (
            *(JivaVolumeSpec, JivaVolumeStatus, VolumePolicy, VolumeSource, Toleration, LabelRequirement),
            *(Resources, Condition, ReplicaPlace),
        )
    }
    for key in _EXTRA:
        record, _, field = key.partition(".")
        if not record.startswith("_"):
            assert not field or field in records[record], key


def test_columns_show_what_is_there() -> None:
    for definition in (VOLUME, SNAPSHOT):
        properties = schema(definition)["properties"]
        for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]:
            part: Any = {"properties": properties}
            for key in column["jsonPath"].strip(".").split("."):
                if key == "creationTimestamp":
                    break
                part = part["properties"].get(key, {"properties": {"creationTimestamp": {}}})
            assert part.get("type") in (column["type"], "object", None), column


def test_kubectl_shows_the_columns_that_jivas_users_know() -> None:
    columns = [
        c["name"] for c in VOLUME["spec"]["versions"][0]["additionalPrinterColumns"] if "priority" not in c
    ]
    assert columns == ["ReplicaCount", "Phase", "Status", "Capacity", "Age"]
    assert VOLUME["spec"]["names"]["shortNames"] == ["jv"]
