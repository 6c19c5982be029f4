"""JivaVolume: the record of a volume in Kubernetes, the objects that make it run, and keeping them so."""

from pyjiva.maya.volume.jiva_volume import (
    JivaVolume,
    JivaVolumeSpec,
    JivaVolumeStatus,
    Phase,
    ReplicaPlace,
    ReplicaState,
    VolumeSource,
)

__all__ = [
    "JivaVolume",
    "JivaVolumeSpec",
    "JivaVolumeStatus",
    "Phase",
    "ReplicaPlace",
    "ReplicaState",
    "VolumeSource",
]
