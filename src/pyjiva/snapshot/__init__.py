"""One replica's directory as a store of bytes and durable state, and as a block device."""

from pyjiva.snapshot.chain import Chain, Layer
from pyjiva.snapshot.device_io import ChainDevice, open_chain_device
from pyjiva.snapshot.layer_content_sys import LayerInfo, LayerParts
from pyjiva.snapshot.layered_store_sys import Store
from pyjiva.snapshot.merge_sys import Merge
from pyjiva.snapshot.merging_io import MergeProgress, Merger
from pyjiva.snapshot.metadata import DiskMeta, VolumeMeta
from pyjiva.snapshot.requests import Hash, Past, PastVerb, Spoil
from pyjiva.snapshot.state import ReplicaState
from pyjiva.snapshot.statistics import ChainStatistics
from pyjiva.snapshot.window import WindowName

__all__ = [
    "Chain",
    "ChainDevice",
    "ChainStatistics",
    "DiskMeta",
    "Hash",
    "Layer",
    "LayerInfo",
    "LayerParts",
    "Merge",
    "MergeProgress",
    "Merger",
    "Past",
    "PastVerb",
    "ReplicaState",
    "Spoil",
    "Store",
    "VolumeMeta",
    "WindowName",
    "open_chain_device",
]
