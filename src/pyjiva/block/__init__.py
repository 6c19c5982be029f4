"""The verbs of a block device, and wrappers that offer the same verbs."""

from pyjiva.block.device import (
    BlockDevice,
    BlockStatus,
    Buffer,
    Flush,
    Read,
    Request,
    Unmap,
    Write,
    WriteZeroes,
)
from pyjiva.block.interval_lock import IntervalLocks, Lock
from pyjiva.block.memory import MemoryDevice

__all__ = [
    "BlockDevice",
    "BlockStatus",
    "Buffer",
    "Flush",
    "IntervalLocks",
    "Lock",
    "MemoryDevice",
    "Read",
    "Request",
    "Unmap",
    "Write",
    "WriteZeroes",
]
