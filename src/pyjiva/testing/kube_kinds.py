"""What Kubernetes' API server knows about single kinds, for `testing.kube`: names, defaults, constants.

Only what Maya can notice.  Not done: schemas (any field is taken), quotas, admission plugins other than the
two finalizers that protect claims and volumes.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from pyjiva.maya.kube import KubeError, Object, Resource

__all__ = [
    "PROTECTION",
    "allocate_address",
    "check_metadata",
    "check_unchanging",
    "has_generation",
    "has_status",
    "is_builtin",
    "must_name_version",
    "set_defaults",
]

PROTECTION: Final[Mapping[str, str]] = {
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
    "PersistentVolume": "kubernetes.io/pv-protection",
}
"""Finalizers of the plugin StorageObjectInUseProtection."""

_WITHOUT_STATUS: Final = frozenset(
    {"ConfigMap", "Event", "Lease", "Role", "RoleBinding", "Secret", "ServiceAccount", "StorageClass"}
)
_GENERATIONS: Final = frozenset(
    {"DaemonSet", "Deployment", "Job", "Pod", "PodDisruptionBudget", "StatefulSet"}
)
_LABEL_NAMES: Final = frozenset({"Namespace", "Service"})
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUALIFIED: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_UNCHANGING: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Deployment": (("spec", "selector"),),
    "Job": (("spec", "selector"), ("spec", "template"), ("spec", "completions")),
    "PersistentVolume": (("spec", "csi"), ("spec", "iscsi"), ("spec", "volumeMode")),
    "PersistentVolumeClaim": (
        *(("spec", "accessModes"), ("spec", "storageClassName"), ("spec", "volumeMode")),
        *(("spec", "dataSource"), ("spec", "volumeName")),
    ),
    "Secret": (("type",),),
    "Service": (("spec", "clusterIP"),),
    "StorageClass": (*(("parameters",), ("provisioner",), ("reclaimPolicy",), ("volumeBindingMode",)),),
}
_MAY_BE_SET_ONCE: Final = frozenset({("spec", "volumeName"), ("spec", "storageClassName")})
_SERVICE_NETWORK: Final = ipaddress.IPv4Network("10.96.0.0/16")


def is_builtin(resource: Resource) -> bool:
    """Whether the kind is Kubernetes' own, not a custom resource."""
    return "." not in resource.group or resource.group.endswith(".k8s.io")


def has_status(resource: Resource) -> bool:
    """Whether `status` is a subresource."""
    return resource.kind not in _WITHOUT_STATUS


def has_generation(resource: Resource) -> bool:
    """Whether the server counts changes of what is wanted."""
    return not is_builtin(resource) or resource.kind in _GENERATIONS


def must_name_version(resource: Resource) -> bool:
    """Whether `update` without a resourceVersion is refused."""
    return not is_builtin(resource) or resource.kind in ("Lease", "PodDisruptionBudget")


def _invalid(resource: Resource, name: str, reason: str) -> KubeError:
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return KubeError(f'{kind} "{name}" is invalid: {reason}', status=422, reason="Invalid")


def check_metadata(resource: Resource, value: Object) -> None:
    """Raises KubeError: its name or a label is none that the API takes."""
    metadata = value["metadata"]
    name = metadata["name"]
    pattern = _LABEL if resource.kind in _LABEL_NAMES else _SUBDOMAIN
    if not pattern.fullmatch(name):
        what = "label" if pattern is _LABEL else "subdomain"
        raise _invalid(resource, name, f"metadata.name: Invalid value: {name!r}: a lowercase RFC 1123 {what}")
    for key, text in (metadata.get("labels") or {}).items():
        prefix, _, last = key.rpartition("/")
        if not _QUALIFIED.fullmatch(last) or (prefix and not _SUBDOMAIN.fullmatch(prefix)):
            raise _invalid(resource, name, f"metadata.labels: Invalid value: {key!r}")
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise _invalid(resource, name, f"metadata.labels: Invalid value: {text!r}")
    for key, text in (metadata.get("annotations") or {}).items():
        if not isinstance(text, str):
            raise _invalid(resource, name, f"metadata.annotations: {key} is no string")


def check_unchanging(resource: Resource, old: Object, new: Object) -> None:
    """Raises KubeError: a field differs that never does."""
    for path in _UNCHANGING.get(resource.kind, ()):
        before, after = _at(old, path), _at(new, path)
        if before != after and not (before is None and path in _MAY_BE_SET_ONCE):
            where = ".".join(path)
            raise _invalid(resource, new["metadata"]["name"], f"{where}: Invalid value: field is immutable")


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def set_defaults(resource: Resource, value: Object) -> None:
    """What the server fills in, for spec and status of a few kinds."""
    spec = value.get("spec") or {}
    match resource.kind:
        case "Service":
            spec.setdefault("type", "ClusterIP")
            for port in spec.get("ports", []):
                port.setdefault("protocol", "TCP")
                port.setdefault("targetPort", port.get("port"))
        case "Deployment":
            spec.setdefault("replicas", 1)
            _default_containers(spec.get("template", {}).get("spec", {}))
        case "Job":
            spec.setdefault("backoffLimit", 6)
            _default_containers(spec.get("template", {}).get("spec", {}))
        case "Pod":
            _default_containers(spec)
        case "PersistentVolume":
            spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
            spec.setdefault("volumeMode", "Filesystem")
        case "PersistentVolumeClaim":
            spec.setdefault("volumeMode", "Filesystem")
        case "Namespace":
            value.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        case "StorageClass":
            value.setdefault("reclaimPolicy", "Delete")
            value.setdefault("volumeBindingMode", "Immediate")
        case _:
            return


def _default_containers(pod: Object) -> None:
    for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
        for port in container.get("ports", []):
            port.setdefault("protocol", "TCP")


def allocate_address(resource: Resource, value: Object, taken: set[str]) -> None:
    """Give a Service its ClusterIP.  Raises KubeError: the one that it asks for is another's."""
    spec = value["spec"]
    if spec["type"] == "ExternalName":
        return
    wanted = spec.get("clusterIP")
    if not wanted:
        hosts = (str(host) for host in _SERVICE_NETWORK.hosts())
        next(hosts)  # the API server's own
        wanted = next(host for host in hosts if host not in taken)
    elif wanted in taken and wanted != "None":
        reason = f"spec.clusterIPs: Invalid value: [{wanted!r}]: provided IP is already allocated"
        raise _invalid(resource, value["metadata"]["name"], reason)
    spec["clusterIP"] = wanted
    spec["clusterIPs"] = [wanted]
