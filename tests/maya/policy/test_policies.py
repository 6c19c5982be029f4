"""`maya.policy`: what claims and StorageClasses say becomes a policy, or is refused by name, all of it."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.maya.policy import (
    LabelRequirement,
    Origin,
    PoliciesRefused,
    Resources,
    Toleration,
    VolumePolicy,
    defaults_of,
    read_policies,
)
from pyjiva.maya.policy.marks import CAS_TYPE, CONFIG, NOT_TAKEN, OLD_PARAMETERS
from pyjiva.maya.policy.table import NOT_TAKEN as NAMES_NOT_TAKEN
from pyjiva.maya.policy.table import POLICIES, Form
from tests.maya.policy.policies_page import made, written

POOLS = {"fast": "/mnt/fast"}

#: Policy → (the text, field of the record, what it becomes): every one that the table has.
HONOURED: dict[str, tuple[str, str, Any]] = {
    "ReplicaCount": ("5", "replica_count", 5),
    "Witness": ("true", "witness", True),
    "StoragePool": ("fast", "pool_path", "/mnt/fast"),
    "FSType": ("xfs", "fs_type", "xfs"),
    "BlockSize": ("4096", "block_size_bytes", 4096),
    "ParkLimit": ("90s", "park_limit_s", 90.0),
    "Chap": ("false", "chap", False),
    "RetainReplicaData": ("true", "retain_replica_data", True),
    "ReplaceAfter": ("2h", "replace_after_s", 7200.0),
    "DeployInOpenEBSNamespace": ("false", "deploy_in_openebs_namespace", False),
    "ControllerImage": ("a/b:1", "controller_image", "a/b:1"),
    "ReplicaImage": ("a/c:1", "replica_image", "a/c:1"),
    "VolumeMonitorImage": ("a/d:1", "monitor_image", "a/d:1"),
    "ScrubImage": ("a/e:1", "scrub_image", "a/e:1"),
    "VolumeMonitor": ("false", "volume_monitor", False),
    "ServiceAccountName": ("maya", "service_account", "maya"),
    "PriorityClassName": ("high", "priority_class", "high"),
    "TargetTolerations": ("t1: {key: a}", "target_tolerations", (Toleration("a"),)),
    "ReplicaTolerations": ("t1: {key: b}", "replica_tolerations", (Toleration("b"),)),
    "EvictionTolerations": ("t1: {key: c}", "eviction_tolerations", (Toleration("c"),)),
    "TargetResourceRequests": ("cpu: 1", "target_resources", Resources({"cpu": "1"})),
    "TargetResourceLimits": ("cpu: 1", "target_resources", Resources({}, {"cpu": "1"})),
    "ReplicaResourceRequests": ("cpu: 2", "replica_resources", Resources({"cpu": "2"})),
    "ReplicaResourceLimits": ("cpu: 2", "replica_resources", Resources({}, {"cpu": "2"})),
    "AuxResourceRequests": ("cpu: 3", "aux_resources", Resources({"cpu": "3"})),
    "AuxResourceLimits": ("cpu: 3", "aux_resources", Resources({}, {"cpu": "3"})),
    "ReplicaAntiAffinityTopoKey": ("a/zone", "anti_affinity_topology_key", "a/zone"),
    "TargetNodeSelector": ("a: b", "target_node_selector", {"a": "b"}),
    "ReplicaNodeSelector": ("a: c", "replica_node_selector", {"a": "c"}),
    "NodeAffinityRequiredSchedIgnoredExec": ("t1: {key: a, operator: Exists}", "node_affinity_required",
        (LabelRequirement("a", "Exists"),)),
    "NodeAffinityPreferredSchedIgnoredExec": ("t1: {key: b, operator: Exists}", "node_affinity_preferred",
        (LabelRequirement("b", "Exists"),)),
}  # fmt: skip
FORMS = {policy.name: policy.form.value for policy in POLICIES}


def config(*entries: dict[str, Any]) -> dict[str, str]:
    """As an annotation: JSON is YAML."""
    return {CONFIG: json.dumps(entries)}


def entry(name: str, text: str) -> dict[str, str]:
    return {"name": name, FORMS[name]: text}


def of_class(*entries: dict[str, Any], **more: Any) -> Origin:
    return Origin("StorageClass fast", "fast", config(*entries) if entries else {}, **more)


def of_claim(*entries: dict[str, Any], **more: Any) -> Origin:
    return Origin("PersistentVolumeClaim shop/db-0", "db-0", config(*entries) if entries else {}, **more)


def decided(
    claim: Origin | None, storage_class: Origin | None, defaults: VolumePolicy | None = None
) -> VolumePolicy:
    return read_policies(claim, storage_class, defaults=defaults or VolumePolicy(), pools=POOLS).policy


def refused(claim: Origin | None, storage_class: Origin | None = None) -> list[str]:
    """The lines, which are also the error's text."""
    with pytest.raises(PoliciesRefused) as info:
        decided(claim, storage_class)
    lines = [str(fault) for fault in info.value.faults]
    assert str(info.value) == "; ".join(lines)
    return lines


def test_every_policy_of_the_table_is_tried_here() -> None:
    assert {policy.name for policy in POLICIES} == {*HONOURED, "Lun"}
    fields = {policy.field.partition(".")[0] for policy in POLICIES} - {""}
    by_labels = {"replica_anti_affinity_group", "target_affinity"}
    assert fields | by_labels | {"witness_in_volume"} == set(attrs.fields_dict(VolumePolicy))


@pytest.mark.parametrize("name", HONOURED)
def test_each_policy_has_its_place_in_the_record(name: str) -> None:
    text, field, value = HONOURED[name]
    assert decided(None, of_class(entry(name, text))) == attrs.evolve(VolumePolicy(), **{field: value})


def test_all_policies_together() -> None:
    every = [entry(name, text) for name, (text, _, _) in HONOURED.items()]
    policy = decided(of_claim(*every), None)
    for name, (_, field, value) in HONOURED.items():
        if "Resource" not in name:
            assert getattr(policy, field) == value
    assert policy.target_resources == Resources({"cpu": "1"}, {"cpu": "1"})


def test_a_claim_goes_before_its_class_and_that_before_the_defaults() -> None:
    defaults = VolumePolicy(replica_count=1, fs_type="xfs", chap=False)
    storage_class = of_class(entry("ReplicaCount", "3"), entry("FSType", "btrfs"))
    policy = decided(of_claim(entry("FSType", "ext2")), storage_class, defaults)
    assert (policy.replica_count, policy.fs_type, policy.chap) == (3, "ext2", False)


def test_none_is_nothing_or_the_default() -> None:
    storage_class = of_class(
        entry("FSType", "xfs"),
        entry("TargetTolerations", "t1: {key: a}"),
        entry("TargetResourceLimits", "cpu: 1"),
    )
    nothing = [
        *(entry("FSType", "none"), entry("TargetTolerations", "none"), entry("TargetResourceLimits", "none")),
        *(entry("EvictionTolerations", "none"), entry("ControllerImage", "none")),
    ]
    policy = decided(of_claim(*nothing), storage_class, VolumePolicy(controller_image="a", fs_type="ext3"))
    expected = VolumePolicy(controller_image="a", fs_type="ext3", eviction_tolerations=())
    assert policy == expected


def test_the_default_pool_is_where_maya_keeps_data() -> None:
    policy = decided(None, of_class(entry("StoragePool", "default")), VolumePolicy(pool_path="/data"))
    assert policy.pool_path == "/data"


def test_everything_that_is_wrong_is_said_at_once_with_where_it_stands() -> None:
    claim = of_claim(
        entry("ReplicaCount", "9"),
        {"name": "VolumeMonitor", "value": "true"},
        {"name": "ReplicaCuont", "value": "3"},
        entry("BlockSize", "1024"),
        entry("ParkLimit", "2d"),
    )
    storage_class = of_class(entry("Lun", "1"), {"name": "StoragePoolClaim", "value": "sparse"})
    assert refused(claim, storage_class) == [
        "StorageClass fast: Lun: found '1', expected 0: a volume is LUN 0 of a target of its own",
        "StorageClass fast: StoragePoolClaim: is not taken: a policy of cStor; this is jiva: StoragePool",
        "PersistentVolumeClaim shop/db-0: ReplicaCount: found '9', expected a whole number from 1 to 6",
        "PersistentVolumeClaim shop/db-0: VolumeMonitor: found 'value:', expected `enabled:` and true, false",
        "PersistentVolumeClaim shop/db-0: ReplicaCuont: is no policy's name; did you mean ReplicaCount?",
        "PersistentVolumeClaim shop/db-0: BlockSize: found '1024', expected 512 or 4096",
        "PersistentVolumeClaim shop/db-0: ParkLimit: found '2d', expected at most 86400 seconds",
    ]


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ("ReplicaCount: 3", "expected a YAML list"),
        ("- ReplicaCount: 3", "entry 1 to have a `name:`"),
        ("- name: [", "not YAML"),
        ("- x", "entry 1 to have a `name:`"),
        ("- name: ReplicaCount", "found 'no value', expected `value:` and 1 to 6"),
        ("- {name: ReplicaCount, valeu: '3'}", "found 'valeu', expected `value:`; did you mean value?"),
        ("- {name: ReplicaCount, value: '3', enabled: 'true'}", "found 'value:, enabled:', expected `val"),
        ("- {name: Chap, enabled: maybe}", "found 'maybe', expected true or false"),
        ("- {name: Chap, enabled: none}", "found 'none', expected true or false"),
        ("- {name: TargetNodeSelector, value: {a: b}}", "found 'a mapping', expected a text: write"),
        ("- {name: TargetNodeSelector, list: [a]}", "found 'list:', expected `value:`"),
        ("- {name: FSType, value: ext4}\n- {name: FSType, value: xfs}", "FSType: stands in the list twice"),
        ("- {name: fstype, value: ext4}", "did you mean FSType?"),
        ('- {name: "\\e[31m\\n", value: x}', "'\\x1b[31m': is no policy's name"),
        ("a: &a [b]\nc: [*a, *a]", "anchors and aliases are not taken"),
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_explained(annotation: str, told: str) -> None:
    (line,) = refused(Origin("PersistentVolumeClaim shop/db", "db", {CONFIG: annotation}))
    assert told in line
    assert line.startswith("PersistentVolumeClaim shop/db: ")


def test_what_is_found_is_shown_in_part() -> None:
    (line,) = refused(of_claim(entry("FSType", "x\n" * 5000)))
    assert len(line) < 250
    assert "\n" not in line


@pytest.mark.parametrize("name", NAMES_NOT_TAKEN)
def test_policies_of_other_engines_are_refused_by_name(name: str) -> None:
    (line,) = refused(None, of_class({"name": name, "value": "x"}))
    assert line.startswith(f"StorageClass fast: {name}: is not taken: ")


@pytest.mark.parametrize("kind", ["cstor", "local", "Jiva", ""])
def test_other_engines_are_refused(kind: str) -> None:
    (line,) = refused(None, Origin("StorageClass c", "c", {CAS_TYPE: kind}))
    assert line.startswith("StorageClass c: openebs.io/cas-type: ")
    assert "this Maya makes no volumes of another kind" in line


@pytest.mark.parametrize("key", OLD_PARAMETERS)
def test_parameters_of_the_old_days_are_refused_with_what_to_write(key: str) -> None:
    (line,) = refused(None, Origin("StorageClass c", "c", parameters={key: "2"}))
    assert f"{key}: found '2', expected no such parameter" in line
    assert OLD_PARAMETERS[key] in line


def test_any_other_parameter_is_refused() -> None:
    (line,) = refused(None, Origin("StorageClass c", "c", parameters={"replicas": "2"}))
    assert "write a policy in the annotation cas.openebs.io/config" in line


@pytest.mark.parametrize("key", NOT_TAKEN)
def test_annotations_and_labels_without_an_effect_are_refused(key: str) -> None:
    (line,) = refused(Origin("PersistentVolumeClaim a/b", "b", {key: "x"}))
    assert f"{key}: to be left out" in line
    (line,) = refused(Origin("PersistentVolumeClaim a/b", "b", labels={key: "x"}))
    assert f"{key}: to be left out" in line


def test_an_annotation_that_is_mistyped_is_found() -> None:
    (line,) = refused(Origin("PersistentVolumeClaim a/b", "b", {"cas.openebs.io/confg": "x"}))
    assert line.endswith("did you mean cas.openebs.io/config?")


def test_other_programs_annotations_and_labels_are_theirs() -> None:
    marks = {"volume.kubernetes.io/selected-node": "n1", "app": "x", "openebs.io/storageclass": "y"}
    assert decided(Origin("PersistentVolumeClaim a/b", "b", marks, marks), None) == VolumePolicy()


def test_labels_say_what_to_be_near_to_and_what_to_be_far_from() -> None:
    claim = of_claim(labels={"openebs.io/replica-anti-affinity": "db", "openebs.io/target-affinity": "shop"})
    policy = decided(claim, None)
    assert policy.replica_anti_affinity_group == "db"
    assert policy.target_affinity == {"openebs.io/target-affinity": "shop"}
    storage_class = of_class(labels={"openebs.io/sts-target-affinity": "mysql"})
    policy = decided(of_claim(), storage_class)
    assert policy.target_affinity == {"statefulset.kubernetes.io/pod-name": "mysql-0"}


def test_labels_that_cannot_be_are_refused() -> None:
    both = {"openebs.io/sts-target-affinity": "a", "openebs.io/target-affinity": "b"}
    assert "only one of it" in refused(of_claim(labels=both))[0]
    claim = Origin("PersistentVolumeClaim a/data", "data", labels={"openebs.io/sts-target-affinity": "a"})
    assert "ends with its number" in refused(claim)[0]
    assert "a label's value" in refused(of_claim(labels={"openebs.io/target-affinity": "a b"}))[0]


def test_nothing_is_promised_that_may_not_be_taken() -> None:
    claim = of_claim(
        entry("ReplicaResourceRequests", "memory: 2Gi"), entry("ReplicaResourceLimits", "memory: 1G")
    )
    (line,) = refused(claim)
    assert "ReplicaResourceRequests: found 'memory: 2Gi'" in line
    assert "at most the memory of ReplicaResourceLimits, 1G" in line


@pytest.mark.parametrize(
    ("replicas", "witness", "note"),
    [
        *((1, False, "there is no other copy"), (1, True, "there is no other copy")),
        *((2, False, "while at most 0 are away; with Witness, at most 1"), (2, True, "")),
        *((3, False, ""), (3, True, "4 members bear no more losses than 3 do")),
        *((4, False, "while at most 1 are away; with Witness, at most 2"), (6, True, "")),
    ],
)
def test_counts_that_are_seldom_meant_get_a_note(replicas: int, witness: bool, note: str) -> None:
    defaults = VolumePolicy(replica_count=replicas, witness=witness)
    notes = read_policies(None, None, defaults=defaults).notes
    assert (note in notes[0]) if note else notes == ()


@pytest.mark.parametrize(
    ("text", "witness", "in_volume"),
    [("false", False, False), ("true", True, False), ("volume", True, True), ("Volume", True, True)],
)
def test_a_witness_is_a_pod_or_a_vote_in_the_volume(text: str, witness: bool, in_volume: bool) -> None:
    policy = decided(of_claim(entry("Witness", text)), of_class(entry("Witness", "volume")))
    assert (policy.witness, policy.witness_in_volume) == (witness, in_volume)


def test_a_witness_is_nothing_else() -> None:
    (line,) = refused(of_claim(entry("Witness", "node")))
    assert "Witness: found 'node', expected true, false or volume" in line


def test_maya_has_its_defaults_from_the_environment() -> None:
    environment = {
        "OPENEBS_IO_JIVA_REPLICA_COUNT": "2",
        "OPENEBS_IO_JIVA_CONTROLLER_IMAGE": "a/b:1",
        "OPENEBS_IO_JIVA_POOL_DIR": "/data",
        "OPENEBS_SERVICE_ACCOUNT": "",
        "HOME": "/root",
    }
    assert defaults_of(environment) == VolumePolicy(
        replica_count=2, controller_image="a/b:1", pool_path="/data"
    )
    with pytest.raises(PoliciesRefused) as info:
        defaults_of({"OPENEBS_IO_JIVA_REPLICA_COUNT": "many", "OPENEBS_IO_JIVA_POOL_DIR": "data"})
    assert len(info.value.faults) == 2
    assert "the environment: OPENEBS_IO_JIVA_REPLICA_COUNT: found 'many'" in str(info.value)


def test_objects_of_kubernetes_are_read() -> None:
    value = {
        "metadata": {"name": "c", "annotations": config(entry("FSType", "xfs")), "labels": None},
        "parameters": None,
    }
    assert Origin.of_class(value).title == "StorageClass c"
    assert decided(None, Origin.of_class(value)).fs_type == "xfs"
    claim = {"metadata": {"name": "d", "namespace": "n", "annotations": config(entry("FSType", "ext2"))}}
    assert Origin.of_claim(claim).title == "PersistentVolumeClaim n/d"
    assert decided(Origin.of_claim(claim), Origin.of_class(value)).fs_type == "ext2"


NAMES = [*FORMS, *NAMES_NOT_TAKEN, "replicacount", ""]
VALUES = st.text(max_size=30) | st.sampled_from(
    ["none", "3", "true", "t1: {key: a}", "t1:\n  key: a\n  operator: Exists\n", "cpu: 1", "/a"]
)
ENTRIES = st.dictionaries(
    st.sampled_from([*(form.value for form in Form), "name", "data", "list", "x"]),
    VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
    max_size=3,
).flatmap(lambda made: st.sampled_from(NAMES).map(lambda name: {"name": name, **made}))


PIECES = st.sampled_from(
    ["- ", "name: ", "value: ", "|-\n", "  ", "\n", "ReplicaCount", "&a", "*a", "[", "x"]
)


@given(annotation=st.text() | st.lists(ENTRIES, max_size=4).map(json.dumps) | st.lists(PIECES).map("".join))
def test_any_text_gives_policies_or_reasons(annotation: str) -> None:
    try:
        policy = decided(Origin("PersistentVolumeClaim a/b", "b", {CONFIG: annotation}), None)
    except PoliciesRefused as refusal:
        faults = refusal.faults
    else:
        assert 1 <= policy.replica_count <= 6
        assert policy.block_size_bytes in (512, 4096)
        return
    assert faults
    assert all(fault.expected and "\n" not in str(fault) for fault in faults)


def test_the_page_is_up_to_date() -> None:
    """`python -m tests.maya.policy.policies_page` writes it."""
    assert written()[1] == made()
