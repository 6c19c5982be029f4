"""Kubernetes' API as Maya uses it: kinds of objects, the verbs, and caches, queues and leases upon them."""

from pyjiva.maya.kube.cluster import (
    AlreadyExists,
    Cluster,
    Conflict,
    Forbidden,
    Gone,
    KubeError,
    Listing,
    NotFound,
    Object,
    WatchEvent,
    WatchKind,
)
from pyjiva.maya.kube.resource import Resource

__all__ = [
    "AlreadyExists",
    "Cluster",
    "Conflict",
    "Forbidden",
    "Gone",
    "KubeError",
    "Listing",
    "NotFound",
    "Object",
    "Resource",
    "WatchEvent",
    "WatchKind",
]
