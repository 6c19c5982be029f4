"""Maya's API: volumes and snapshots over REST, made by Kubernetes or on one machine."""

from pyjiva.maya.apiserver.backend import (
    AlreadyExists,
    Backend,
    BackendError,
    CasPhase,
    CloneSource,
    NewVolume,
    NotFound,
    PoolView,
    Refused,
    ReplicaView,
    SnapshotView,
    Unavailable,
    VolumeName,
    VolumeView,
)
from pyjiva.maya.apiserver.cas_snapshot import new_snapshot, snapshot_json
from pyjiva.maya.apiserver.cas_volume import list_json, new_volume, volume_json
from pyjiva.maya.apiserver.routes_io import OPEN_PATHS, maya_application

__all__ = [
    "OPEN_PATHS",
    "AlreadyExists",
    "Backend",
    "BackendError",
    "CasPhase",
    "CloneSource",
    "NewVolume",
    "NotFound",
    "PoolView",
    "Refused",
    "ReplicaView",
    "SnapshotView",
    "Unavailable",
    "VolumeName",
    "VolumeView",
    "list_json",
    "maya_application",
    "new_snapshot",
    "new_volume",
    "snapshot_json",
    "volume_json",
]
