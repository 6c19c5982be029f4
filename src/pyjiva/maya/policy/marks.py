"""Annotations, labels and parameters of claims and StorageClasses, besides the list of policies.  Pure.

What OpenEBS read is honoured, or refused with what to write instead; all other keys are other programs'
business.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import attrs

from pyjiva.maya.policy.fault import suggestion
from pyjiva.maya.policy.readers import label_value

__all__ = ["CAS_TYPE", "CONFIG", "Origin", "check_marks", "target_affinity"]

CAS_TYPE: Final = "openebs.io/cas-type"
CONFIG: Final = "cas.openebs.io/config"
TARGET_AFFINITY: Final = "openebs.io/target-affinity"
STATEFUL_SET_AFFINITY: Final = "openebs.io/sts-target-affinity"
POD_NAME: Final = "statefulset.kubernetes.io/pod-name"

Fault = Callable[[str, str, str], None]


@attrs.frozen
class Origin:
    """An object that says how a volume is to be."""

    title: str
    """As messages name it."""
    name: str = ""
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    parameters: Mapping[str, str] = attrs.field(factory=dict)
    """Of a StorageClass."""

    @classmethod
    def of_class(cls, value: Mapping[str, Any]) -> "Origin":
        """From a StorageClass."""
        metadata = value.get("metadata", {})
        return cls(
            title=f"StorageClass {metadata.get('name', '')}",
            name=metadata.get("name", ""),
            annotations=metadata.get("annotations") or {},
            labels=metadata.get("labels") or {},
            parameters=value.get("parameters") or {},
        )

    @classmethod
    def of_claim(cls, value: Mapping[str, Any]) -> "Origin":
        """From a PersistentVolumeClaim."""
        metadata = value.get("metadata", {})
        name = metadata.get("name", "")
        return cls(
            title=f"PersistentVolumeClaim {metadata.get('namespace', '')}/{name}",
            name=name,
            annotations=metadata.get("annotations") or {},
            labels=metadata.get("labels") or {},
        )


#: Parameters of OpenEBS 0.5 → the policy that says the same.
OLD_PARAMETERS: Final[dict[str, str]] = {
    "openebs.io/storage-pool": "policy StoragePool",
    "openebs.io/jiva-replica-count": "policy ReplicaCount",
    "openebs.io/volume-monitor": "policy VolumeMonitor",
    "openebs.io/capacity": "the claim's spec.resources.requests.storage",
    "openebs.io/jiva-replica-image": "policy ReplicaImage",
    "openebs.io/jiva-controller-image": "policy ControllerImage",
    "openebs.io/volume-type": f"annotation {CAS_TYPE}",
}
_TEMPLATES: Final = tuple(
    f"cas.openebs.io/{verb}-{what}-template"
    for what in ("volume", "snapshot", "pool")
    for verb in ("create", "read", "delete", "list")
)
#: Annotations and labels that are not taken → why, and what to write instead.
NOT_TAKEN: Final[dict[str, str]] = {
    **dict.fromkeys(
        _TEMPLATES, f"left out: there are no CASTemplates; what they changed is said by policies in {CONFIG}"
    ),
    "openebs.io/created-through": (
        "left out: a claim is not filled from a backup by itself; `pyjiva backup restore` makes such a volume"
    ),
    "openebs.io/preferred-replica-anti-affinity": (
        "left out: it was cStor's; openebs.io/replica-anti-affinity keeps replicas of several volumes apart"
    ),
}
_HONOURED: Final = (CONFIG, CAS_TYPE)


def check_marks(origin: Origin, fault: Fault) -> None:
    """Tell of what is refused; values of labels are Kubernetes' to check, and are checked here too."""
    for key in origin.annotations:
        if key in NOT_TAKEN:
            fault(key, "", f"to be {NOT_TAKEN[key]}")
        elif key.startswith("cas.openebs.io/") and key not in _HONOURED:
            fault(key, "", f"an annotation that is known{suggestion(key, _HONOURED)}")
    for key, value in origin.labels.items():
        if key in NOT_TAKEN:
            fault(key, "", f"to be {NOT_TAKEN[key]}")
        elif key in (TARGET_AFFINITY, STATEFUL_SET_AFFINITY, "openebs.io/replica-anti-affinity"):
            label_value(value, partial(fault, key))
    for key, value in origin.parameters.items():
        instead = OLD_PARAMETERS.get(key, f"a policy in the annotation {CONFIG}")
        known = "of OpenEBS 0.5, is" if key in OLD_PARAMETERS else "is"
        fault(key, str(value), f"no such parameter: it {known} not read; write {instead}")


def target_affinity(origin: Origin, claim: Origin | None, fault: Fault) -> dict[str, Any]:
    """The change that labels make for the controller's place: near an application's pod.

    With a StatefulSet's label the pod is that of the same number as the claim (`VOLUME-SET-3`: `SET-3`).
    """
    plain, of_set = origin.labels.get(TARGET_AFFINITY), origin.labels.get(STATEFUL_SET_AFFINITY)
    if plain is not None and of_set is not None:
        fault(STATEFUL_SET_AFFINITY, of_set, f"only one of it and {TARGET_AFFINITY}")
    if of_set is not None:
        number = claim.name.rpartition("-")[2] if claim is not None else ""
        if not (number.isascii() and number.isdigit()):
            shown = claim.name if claim is not None else ""
            fault(STATEFUL_SET_AFFINITY, shown, "a claim whose name ends with its number in a StatefulSet")
        return {"target_affinity": {POD_NAME: f"{of_set}-{number}"}}
    return {} if plain is None else {"target_affinity": {TARGET_AFFINITY: plain}}
