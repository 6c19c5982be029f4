"""One replica's directory as a store of bytes and durable state, and as a block device."""

from pyjiva.snapshot.device_io import ChainDevice, ChainStatistics, Hash, Spoil, open_chain_device
from pyjiva.snapshot.metadata import DiskMeta, VolumeMeta
from pyjiva.snapshot.state import ReplicaState
from pyjiva.snapshot.store_sys import Store

__all__ = [
    "ChainDevice",
    "ChainStatistics",
    "DiskMeta",
    "Hash",
    "ReplicaState",
    "Spoil",
    "Store",
    "VolumeMeta",
    "open_chain_device",
]
