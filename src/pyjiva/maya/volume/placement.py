"""Which node is to have a replica.  Pure.

Maya chooses the node itself and the replica's pod names it (`nodeSelector`), since the data stays on that
node for as long as the replica lives; the scheduler then says whether the pod fits there.  Were the choice
the scheduler's, the pod would have to be pinned afterwards, and that starts it again.

A node is out of the question while it is away, cordoned, or has a taint that the replica does not tolerate,
or does not match the policy's selectors, or is in a place (the topology key's value) where the volume has a
member already.  Of the others, in this order: the node where the claim's pod will run, what is preferred, the
one with the fewest replicas of any volume; equal ones by a hash of both names, so that volumes spread and
every run chooses alike.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.maya.policy.volume_policy import HOSTNAME, LabelRequirement, Toleration, VolumePolicy

__all__ = ["Node", "Taint", "choose_node", "matches", "node_of"]

#: Taints that the node controller sets by itself: they say that a node is sick, for a while perhaps.
_SICK: Final = "node.kubernetes.io/"


@attrs.frozen
class Taint:
    """Keeps pods away that do not tolerate it."""

    key: str
    value: str
    effect: str


@attrs.frozen
class Node:
    """What of a Node matters here."""

    name: str
    labels: Mapping[str, str] = attrs.field(factory=dict)
    ready: bool = True
    cordoned: bool = False
    taints: tuple[Taint, ...] = ()

    @property
    def hostname(self) -> str:
        """What a pod's nodeSelector has for it."""
        return self.labels.get(HOSTNAME, self.name)

    def place(self, topology_key: str) -> str | None:
        """Where it is; None: nobody says."""
        return self.hostname if topology_key == HOSTNAME else self.labels.get(topology_key)


def node_of(value: Mapping[str, Any]) -> Node:
    """From the object."""
    spec, status = value.get("spec") or {}, value.get("status") or {}
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    return Node(
        name=value["metadata"]["name"],
        labels=dict(value["metadata"].get("labels") or {}),
        ready=conditions.get("Ready") == "True" and "deletionTimestamp" not in value["metadata"],
        cordoned=bool(spec.get("unschedulable")),
        taints=tuple(
            Taint(each["key"], each.get("value", ""), each["effect"]) for each in spec.get("taints") or ()
        ),
    )


def choose_node(
    volume: str,
    policy: VolumePolicy,
    nodes: Sequence[Node],
    *,
    taken: Collection[str],
    load: Mapping[str, int],
    preferred: str = "",
    refused: Collection[str] = (),
) -> Node | str:
    """A node for one more member of `volume`, or why there is none, for people.

    `taken`: nodes with members of it, or of volumes that it is to be apart from.  `load`: how many replicas
    of all volumes each node has.  `refused`: where it cannot be, as was tried.
    """
    key = policy.anti_affinity_topology_key
    occupied = {node.place(key) for node in nodes if node.name in taken} | (
        set(taken) if key == HOSTNAME else set()
    )
    fitting, reasons = [], []
    for node in nodes:
        reason = _why_not(node, policy)
        if not reason and node.name in refused:
            reason = "its pod did not fit there"
        if not reason and node.name in taken:
            reason = "has a member of the volume, or of its group"
        elif not reason and node.place(key) is None:
            reason = f"has no label {key}"
        elif not reason and node.place(key) in occupied:
            reason = f"a member is in its {key.rpartition('/')[2]} already"
        if reason:
            reasons.append(f"{node.name} {reason}")
        else:
            fitting.append(node)
    if not fitting:
        return f"no node fits: {', '.join(reasons) or 'there is none'}"
    return min(
        fitting,
        key=lambda node: (
            node.name != preferred,
            -sum(matches(each, node.labels) for each in policy.node_affinity_preferred),
            load.get(node.name, 0),
            hashlib.sha256(f"{volume}/{node.name}".encode()).digest(),
        ),
    )


def _why_not(node: Node, policy: VolumePolicy) -> str:
    if not node.ready:
        return "is not ready"
    if node.cordoned:
        return "is cordoned"
    for taint in node.taints:
        if taint.effect == "PreferNoSchedule":
            continue
        # A replica that is there stays on a sick node; a new one does not go to it.
        if taint.key.startswith(_SICK) or not _tolerated(taint, policy.replica_tolerations):
            return f"has the taint {taint.key}"
    for key, value in policy.replica_node_selector.items():
        if node.labels.get(key) != value:
            return f"has not the label {key}={value}"
    for requirement in policy.node_affinity_required:
        if not matches(requirement, node.labels):
            return f"does not match {requirement.key} {requirement.operator}".rstrip()
    return ""


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return any(
        (not each.effect or each.effect == taint.effect)
        and (
            (each.operator == "Exists" and each.key in ("", taint.key))
            or (each.operator in ("", "Equal") and (each.key, each.value) == (taint.key, taint.value))
        )
        for each in tolerations
    )


def matches(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    """As a node selector term is read (`component-helpers scheduling/corev1/nodeaffinity`)."""
    has = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return has in requirement.values
        case "NotIn":
            return has not in requirement.values
        case "Exists":
            return has is not None
        case "DoesNotExist":
            return has is None
        case "Gt" | "Lt":
            try:
                left, right = int(has or ""), int(requirement.values[0])
            except (ValueError, IndexError):
                return False
            return left > right if requirement.operator == "Gt" else left < right
        case _:
            return False
