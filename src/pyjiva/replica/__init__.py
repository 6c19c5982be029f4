"""The replica daemon: one copy of one volume."""

from pyjiva.replica.daemon_io import ReplicaDaemon, ReplicaStatistics
from pyjiva.replica.options import ReplicaOptions

__all__ = ["ReplicaDaemon", "ReplicaOptions", "ReplicaStatistics"]
