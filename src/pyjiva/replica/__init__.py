"""The replica daemon: one copy of one volume; and the witness daemon, which holds none."""

from pyjiva.replica.daemon_io import ReplicaDaemon, ReplicaStatistics
from pyjiva.replica.options import ReplicaOptions
from pyjiva.replica.witness_io import WitnessDaemon, WitnessIdentity

__all__ = ["ReplicaDaemon", "ReplicaOptions", "ReplicaStatistics", "WitnessDaemon", "WitnessIdentity"]
