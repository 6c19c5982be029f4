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
from pyjiva.maya.kube.cluster_io import open_cluster
from pyjiva.maya.kube.credentials import Access
from pyjiva.maya.kube.credentials_sys import load_access
from pyjiva.maya.kube.events_io import Recorder
from pyjiva.maya.kube.informer_io import Informer
from pyjiva.maya.kube.lease import LeaseSettings
from pyjiva.maya.kube.lease_io import LeaseLostError, run_elected
from pyjiva.maya.kube.queue_io import Workers
from pyjiva.maya.kube.resource import Resource

__all__ = [
    "Access",
    "AlreadyExists",
    "Cluster",
    "Conflict",
    "Forbidden",
    "Gone",
    "Informer",
    "KubeError",
    "LeaseLostError",
    "LeaseSettings",
    "Listing",
    "NotFound",
    "Object",
    "Recorder",
    "Resource",
    "WatchEvent",
    "WatchKind",
    "Workers",
    "load_access",
    "open_cluster",
    "run_elected",
]
