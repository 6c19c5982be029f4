"""Names of objects as parts of a path (`apimachinery pkg/api/validation/path`).  Pure."""

import re
from typing import Final

from pyjiva.maya.kube.cluster import KubeError
from pyjiva.maya.kube.resource import Resource

__all__ = ["check_names"]

# What a real name may be is the server's to say; these lead to no other object than the one that is meant.
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]*", re.ASCII)


def check_names(resource: Resource, namespace: str, name: str, *, generated: bool = False) -> None:
    """Raises KubeError, as the server would: there is no name, or its path would be another object's.

    `generated`: the server makes the name.
    """
    assert bool(namespace) == resource.namespaced, f"{resource.kind} {name!r} in namespace {namespace!r}"
    parts = [namespace] if resource.namespaced else []
    parts += [] if generated else [name]
    for part in parts:
        if not _PART.fullmatch(part):
            message = f"{resource.kind} {namespace}/{name}: {part!r} cannot be a name"
            raise KubeError(message, status=422, reason="Invalid")
