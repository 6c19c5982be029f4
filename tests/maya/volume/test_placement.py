"""`maya.volume.placement`: where replicas go, and why not elsewhere."""

from typing import Any

import attrs
import pytest

from pyjiva.maya.policy import LabelRequirement, Toleration, VolumePolicy
from pyjiva.maya.volume.placement import Node, Taint, choose_node, matches, node_of

ZONE = "topology.kubernetes.io/zone"
NODES = [Node(f"n{number}", {"kubernetes.io/hostname": f"h{number}"}) for number in range(1, 5)]
DISK = LabelRequirement("disk", "In", ("ssd",))


def chosen(policy: VolumePolicy = VolumePolicy(), nodes: list[Node] = NODES, **more: Any) -> str:  # noqa: B008
    found = choose_node("v", policy, nodes, **({"taken": (), "load": {}} | more))
    return found.name if isinstance(found, Node) else found


def test_the_one_with_the_fewest_replicas_is_taken() -> None:
    assert chosen(load={"n1": 2, "n2": 2, "n3": 1, "n4": 2}) == "n3"


def test_the_pods_own_node_counts_more_and_what_is_preferred_next() -> None:
    assert chosen(load={"n1": 9}, preferred="n1") == "n1"
    nodes = [
        attrs.evolve(node, labels={**node.labels, "disk": "ssd"}) if node.name == "n2" else node
        for node in NODES
    ]
    assert chosen(VolumePolicy(node_affinity_preferred=(DISK,)), nodes, load={"n2": 9}) == "n2"


def test_volumes_spread_over_equal_nodes_and_every_run_chooses_alike() -> None:
    names = [choose_node(f"v{number}", VolumePolicy(), NODES, taken=(), load={}) for number in range(40)]
    assert {node.name for node in names if isinstance(node, Node)} == {"n1", "n2", "n3", "n4"}
    assert names == [choose_node(f"v{n}", VolumePolicy(), NODES, taken=(), load={}) for n in range(40)]


@pytest.mark.parametrize(
    ("node", "policy", "why"),
    [
        (Node("n", ready=False), VolumePolicy(), "n is not ready"),
        (Node("n", cordoned=True), VolumePolicy(), "n is cordoned"),
        (Node("n", taints=(Taint("gpu", "", "NoSchedule"),)), VolumePolicy(), "n has the taint gpu"),
        (
            Node("n", taints=(Taint("node.kubernetes.io/disk-pressure", "", "NoSchedule"),)),
            VolumePolicy(replica_tolerations=(Toleration(operator="Exists"),)),
            "n has the taint node.kubernetes.io/disk-pressure",
        ),
        (Node("n"), VolumePolicy(replica_node_selector={"a": "b"}), "n has not the label a=b"),
        (Node("n"), VolumePolicy(node_affinity_required=(DISK,)), "n does not match disk In"),
        (Node("n"), VolumePolicy(anti_affinity_topology_key=ZONE), f"n has no label {ZONE}"),
    ],
)
def test_what_is_out_of_the_question(node: Node, policy: VolumePolicy, why: str) -> None:
    assert chosen(policy, [node]) == f"no node fits: {why}"


@pytest.mark.parametrize(
    ("toleration", "goes"),
    [
        (Toleration("gpu", "Exists"), True),
        (Toleration("gpu", "", "big"), True),
        (Toleration("gpu", "Equal", "big", "NoSchedule"), True),
        (Toleration(operator="Exists"), True),
        (Toleration("gpu", "Equal", "small"), False),
        (Toleration("cpu", "Exists"), False),
        (Toleration("gpu", "Exists", effect="NoExecute"), False),
    ],
)
def test_tolerations(toleration: Toleration, goes: bool) -> None:
    node = Node("n", taints=(Taint("gpu", "big", "NoSchedule"),))
    assert (chosen(VolumePolicy(replica_tolerations=(toleration,)), [node]) == "n") is goes


def test_a_taint_that_only_asks_is_no_obstacle() -> None:
    assert chosen(nodes=[Node("n", taints=(Taint("a", "", "PreferNoSchedule"),))]) == "n"


def test_members_are_apart_in_hosts_or_zones() -> None:
    assert chosen(taken=("n1", "n2", "n3")) == "n4"
    zones = [Node(f"n{number}", {ZONE: f"z{number // 2}"}) for number in range(4)]
    policy = VolumePolicy(anti_affinity_topology_key=ZONE)
    assert chosen(policy, zones, taken=("n0",)) in ("n2", "n3")
    assert chosen(policy, zones, taken=("n0", "n2")) == (
        "no node fits: n0 has a member of the volume, or of its group, n1 a member is in its zone already, "
        "n2 has a member of the volume, or of its group, n3 a member is in its zone already"
    )


def test_where_its_pod_did_not_fit_it_does_not_go_again() -> None:
    assert chosen(refused=("n1", "n2", "n3")) == "n4"
    assert "its pod did not fit there" in chosen(refused=("n1", "n2", "n3", "n4"))


@pytest.mark.parametrize(
    ("operator", "values", "has", "is_so"),
    [
        ("In", ("a", "b"), "a", True),
        ("In", ("a",), None, False),
        ("NotIn", ("a",), None, True),
        ("NotIn", ("a",), "a", False),
        ("Exists", (), "x", True),
        ("Exists", (), None, False),
        ("DoesNotExist", (), None, True),
        ("Gt", ("3",), "4", True),
        ("Gt", ("3",), "3", False),
        ("Lt", ("3",), "2", True),
        ("Gt", ("x",), "4", False),
        ("Gt", (), "4", False),
        ("Lt", ("3",), None, False),
        ("Like", ("a",), "a", False),
    ],
)
def test_requirements_are_read_as_kubernetes_does(
    operator: str, values: tuple[str, ...], has: str | None, is_so: bool
) -> None:
    labels = {} if has is None else {"key": has}
    assert matches(LabelRequirement("key", operator, values), labels) is is_so


def test_a_node_is_read_from_its_object() -> None:
    value = {
        "metadata": {"name": "n", "labels": {"a": "b", "kubernetes.io/hostname": "h"}},
        "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoExecute"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    node = node_of(value)
    assert node == Node(
        "n", {"a": "b", "kubernetes.io/hostname": "h"}, True, True, (Taint("k", "", "NoExecute"),)
    )
    assert node.hostname == "h"
    assert node_of({"metadata": {"name": "n"}}).ready is False
