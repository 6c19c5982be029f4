"""Pieces of pod specifications: containers that may do nothing but their work.  Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from pyjiva.maya.policy.volume_policy import LabelRequirement, Resources, Toleration
from pyjiva.maya.volume.settings import Settings

__all__ = ["container", "http_probe", "node_affinity", "pod_spec", "secret_volume", "tolerations"]


def container(
    name: str,
    image: str,
    command: Sequence[str],
    settings: Settings,
    *,
    resources: Resources,
    mounts: Mapping[str, str],
    ports: Mapping[str, int],
    **more: Any,
) -> dict[str, Any]:
    """One that runs as nobody in particular, can gain no privilege, and writes where it is told alone.

    `mounts`: path by volume; one that ends in `:ro` cannot be written.  `ports`: by name.
    """
    made: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(command),
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "volumeMounts": [_mount(volume, path) for volume, path in mounts.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "env": [{"name": "PYJIVA_LOG", "value": "json"}],
        **more,
    }
    made = {key: value for key, value in made.items() if value}  # the API server drops what is empty too
    if resources.requests or resources.limits:
        made["resources"] = {
            key: dict(value)
            for key, value in (("requests", resources.requests), ("limits", resources.limits))
            if value
        }
    return made


def _mount(volume: str, path: str) -> dict[str, Any]:
    read_only = path.endswith(":ro")
    return {
        "name": volume,
        "mountPath": path.removesuffix(":ro"),
        **({"readOnly": True} if read_only else {}),
    }


def pod_spec(
    containers: Sequence[dict[str, Any]],
    volumes: Sequence[dict[str, Any]],
    settings: Settings,
    **more: Any,
) -> dict[str, Any]:
    """With a user of its own and no account at the API server; what is empty is left out."""
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsUser": settings.user_id,
            "runAsGroup": settings.user_id,
            "runAsNonRoot": True,
            "fsGroup": settings.user_id,  # else the daemons could not read their secrets
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "containers": list(containers),
        "volumes": list(volumes),
        **more,
    }
    return {key: value for key, value in spec.items() if value or value is False}


def secret_volume(name: str, secret: str, keys: Sequence[str]) -> dict[str, Any]:
    """Some keys of a Secret, for our group's eyes only."""
    items = [{"key": key, "path": key} for key in keys]
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}


def http_probe(path: str, port: int, *, period_s: int, failures: int) -> dict[str, Any]:
    """A probe by HTTP."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def tolerations(wanted: Sequence[Toleration]) -> list[dict[str, Any]]:
    """As a pod's spec has them."""
    names = {"toleration_seconds": "tolerationSeconds"}
    return [
        {
            names.get(field, field): value
            for field, value in attrs.asdict(each).items()
            if value not in ("", None)
        }
        for each in wanted
    ]


def node_affinity(
    required: Sequence[LabelRequirement], preferred: Sequence[LabelRequirement]
) -> dict[str, Any] | None:
    """As a pod's affinity has it; None: neither."""
    made: dict[str, Any] = {}
    if required:
        made["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": [_expression(each) for each in required]}]
        }
    if preferred:
        made["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 50, "preference": {"matchExpressions": [_expression(each)]}} for each in preferred
        ]
    return made or None


def _expression(requirement: LabelRequirement) -> dict[str, Any]:
    made: dict[str, Any] = {"key": requirement.key, "operator": requirement.operator}
    return made | ({"values": list(requirement.values)} if requirement.values else {})
