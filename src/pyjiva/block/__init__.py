"""The verbs of a block device, and wrappers that offer the same verbs."""

from pyjiva.block.device import (
    ATOMIC_BYTES_MAX,
    BlockDevice,
    BlockStatus,
    Flush,
    Read,
    Request,
    Unmap,
    Write,
    WriteZeroes,
)
from pyjiva.block.interval_lock import IntervalLocks, Lock
from pyjiva.block.limit import Limiter, Limits
from pyjiva.block.limited_device import LimitedDevice
from pyjiva.block.memory import MemoryDevice
from pyjiva.block.meter import OPERATIONS, Meter, MeteredDevice, Meters, Times
from pyjiva.block.parameters import PARAMETERS_BYTES_MAX, MemoryParameters, ParameterStore
from pyjiva.block.space import Space, SpaceSource
from pyjiva.block.trace import Attribute, Sampler, Span, Step, TracedDevice
from pyjiva.block.yielding import FLOOR_BYTES_PER_S, Hosts, Yielding
from pyjiva.block.zero_detect import ZeroDetect
from pyjiva.buffers import Buffer

__all__ = [
    "ATOMIC_BYTES_MAX",
    "FLOOR_BYTES_PER_S",
    "OPERATIONS",
    "PARAMETERS_BYTES_MAX",
    "Attribute",
    "BlockDevice",
    "BlockStatus",
    "Buffer",
    "Flush",
    "Hosts",
    "IntervalLocks",
    "LimitedDevice",
    "Limiter",
    "Limits",
    "Lock",
    "MemoryDevice",
    "MemoryParameters",
    "Meter",
    "MeteredDevice",
    "Meters",
    "ParameterStore",
    "Read",
    "Request",
    "Sampler",
    "Space",
    "SpaceSource",
    "Span",
    "Step",
    "Times",
    "TracedDevice",
    "Unmap",
    "Write",
    "WriteZeroes",
    "Yielding",
    "ZeroDetect",
]
