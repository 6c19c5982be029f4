"""Whether a pod may go to a node, for `testing.kube_controllers`.

Selectors, required affinity to nodes and to pods, taints.  Not done: preferences, spreading, resources,
affinity by `namespaceSelector`, Gt and Lt.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pyjiva.maya.kube import Object

__all__ = ["matches_selector", "toleration_of", "why_not"]

_EVERY_OPERATOR: Final = "Exists"


def why_not(pod: Object, node: Object, placed: Iterable[tuple[Object, Object]]) -> str:
    """Why `pod` may not go to `node`; "": it may.  `placed`: every pod that has a node, with its node."""
    spec, metadata = pod["spec"], node["metadata"]
    labels = metadata.get("labels") or {}
    if any(labels.get(key) != text for key, text in (spec.get("nodeSelector") or {}).items()):
        return "didn't match Pod's node affinity/selector"
    affinity = spec.get("affinity") or {}
    required = affinity.get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if required and not any(_term(term, labels, metadata["name"]) for term in required["nodeSelectorTerms"]):
        return "didn't match Pod's node affinity/selector"
    for taint in taints_of(node):
        if taint["effect"] != "PreferNoSchedule" and toleration_of(pod, taint) is None:
            return f"had untolerated taint {{{taint['key']}}}"
    placed = list(placed)
    apart, together = (
        (affinity.get(name) or {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
        for name in ("podAntiAffinity", "podAffinity")
    )
    if any(_has_near(term, pod, labels, placed) for term in apart):
        return "didn't match pod anti-affinity rules"
    if not all(_has_near(term, pod, labels, placed) for term in together):
        return "didn't match pod affinity rules"
    return ""


def taints_of(node: Object) -> list[Object]:
    """Its taints, with that of a node that is cordoned."""
    spec = node.get("spec") or {}
    cordoned = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    return [*spec.get("taints", []), *(cordoned if spec.get("unschedulable") else [])]


def toleration_of(pod: Object, taint: Mapping[str, Any]) -> Object | None:
    """The first toleration of this taint."""
    for toleration in pod["spec"].get("tolerations") or []:
        if toleration.get("effect") not in (None, "", taint["effect"]):
            continue
        exists = toleration.get("operator") == _EVERY_OPERATOR
        if exists and toleration.get("key") in (None, "", taint["key"]):
            return dict(toleration)
        if toleration.get("key") == taint["key"] and (
            exists or toleration.get("value", "") == taint.get("value", "")
        ):
            return dict(toleration)
    return None


def _term(term: Object, labels: Mapping[str, str], name: str) -> bool:
    fields = {"metadata.name": name}
    requirements = [(labels, one) for one in term.get("matchExpressions", [])]
    requirements += [(fields, one) for one in term.get("matchFields", [])]
    return bool(requirements) and all(_requirement(one, have) for have, one in requirements)


def _requirement(requirement: Object, have: Mapping[str, str]) -> bool:
    key, values = requirement["key"], requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return have.get(key) in values
        case "NotIn":
            return have.get(key) not in values
        case "Exists":
            return key in have
        case "DoesNotExist":
            return key not in have
        case other:
            raise NotImplementedError(f"operator {other}")


def matches_selector(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels; None selects nothing."""
    if selector is None:
        return False
    by_label = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == text for key, text in by_label) and all(
        _requirement(one, labels) for one in selector.get("matchExpressions") or []
    )


def _has_near(
    term: Object, pod: Object, labels: Mapping[str, str], placed: Iterable[tuple[Object, Object]]
) -> bool:
    """Whether a pod that the term selects is where this node is, by the term's topology."""
    topology = term["topologyKey"]
    namespaces = term.get("namespaces") or [pod["metadata"]["namespace"]]
    return topology in labels and any(
        other["metadata"]["namespace"] in namespaces
        and matches_selector(term.get("labelSelector"), other["metadata"].get("labels") or {})
        and (node["metadata"].get("labels") or {}).get(topology) == labels[topology]
        for other, node in placed
    )
