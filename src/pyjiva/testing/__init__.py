"""What tests and bench need beside the product: disks with power cuts and faults, in memory."""

from pyjiva.testing.memory_file import (
    MemoryDirectory,
    MemoryDisk,
    MemoryFile,
    PowerCut,
    cut_power_at,
    fail_at,
    no_fault,
)

__all__ = [
    "MemoryDirectory",
    "MemoryDisk",
    "MemoryFile",
    "PowerCut",
    "cut_power_at",
    "fail_at",
    "no_fault",
]
