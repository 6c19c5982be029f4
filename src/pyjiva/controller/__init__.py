"""One volume: membership, fan-out, reads, recovery and rebuild."""

from pyjiva.controller.clock_sys import boot_clock
from pyjiva.controller.limit_io import HostLimits
from pyjiva.controller.options import ControllerOptions, ReplicaAddress, Tuning
from pyjiva.controller.retention import Retention
from pyjiva.controller.snapshots_io import Snapshots
from pyjiva.controller.status import ReplicaStatus, VolumeState, VolumeStatus
from pyjiva.controller.volume_io import Volume, VolumeEnded, VolumeFenced, VolumeUnsure

__all__ = [
    "ControllerOptions",
    "HostLimits",
    "ReplicaAddress",
    "ReplicaStatus",
    "Retention",
    "Snapshots",
    "Tuning",
    "Volume",
    "VolumeEnded",
    "VolumeFenced",
    "VolumeState",
    "VolumeStatus",
    "VolumeUnsure",
    "boot_clock",
]
