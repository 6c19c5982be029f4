"""One volume's processes on one machine: started, started again, stopped in order."""

from pyjiva.supervisor.children_io import Children
from pyjiva.supervisor.description import VolumeDescription, VolumeRequest
from pyjiva.supervisor.machine import Supervisor
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.supervisor.volume_dir_sys import VolumeDirectory

__all__ = ["Children", "HeldPorts", "Supervisor", "VolumeDescription", "VolumeDirectory", "VolumeRequest"]
