"""One volume's processes on one machine: started, started again, stopped in order."""

from pyjiva.supervisor.machine import ChildState, Supervisor
from pyjiva.supervisor.volume_dir_sys import VolumeDescription, VolumeDirectory

__all__ = ["ChildState", "Supervisor", "VolumeDescription", "VolumeDirectory"]
