"""MODE SENSE 6 and 10 (SPC-4 §6.13, §7.5; SBC-3 §6.4).  Pure.

Nothing can be changed: the "changeable values" are all zeros, and MODE SELECT is not supported.
"""

import struct
from typing import Final

from pyjiva.scsi.codes import AdditionalSense, SenseKey
from pyjiva.scsi.sense import Sense, invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["mode_sense_6", "mode_sense_10"]

_DISABLE_BLOCK_DESCRIPTORS: Final = 0x08
_LONG_LBA_ACCEPTED: Final = 0x10
_DPO_AND_FUA_SUPPORTED: Final = 0x10  # device-specific parameter (SBC-3 table 171)
_CHANGEABLE_VALUES: Final = 1
_SAVED_VALUES: Final = 3
_ALL_PAGES: Final = 0x3F
_ALL_SUBPAGES: Final = 0xFF
_SAVING_NOT_SUPPORTED: Final = Sense(
    SenseKey.ILLEGAL_REQUEST, AdditionalSense.SAVING_PARAMETERS_NOT_SUPPORTED
)

_WRITE_CACHE_ENABLED: Final = 0x04
_UNRESTRICTED_REORDERING: Final = 0x10

# Page code: the page after its two bytes of header
_PAGES: Final[dict[int, bytes]] = {
    0x08: bytes([_WRITE_CACHE_ENABLED]) + bytes(17),  # caching, SBC-3 table 175
    0x0A: bytes([0, _UNRESTRICTED_REORDERING])
    + bytes(8),  # control, SPC-4 table 394: TST 0, TAS 0, D_SENSE 0
    0x1C: bytes(10),  # informational exceptions control, SPC-4 table 405: no reporting
}


def mode_sense_6(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(6): four bytes of header."""
    flags, page, subpage, allocation = struct.unpack_from(">BBBB", task.cdb, 1)
    pages = _pages(task, page, subpage)
    if pages is None:
        return
    descriptor = b"" if flags & _DISABLE_BLOCK_DESCRIPTORS else _short_descriptor(unit)
    length = 3 + len(descriptor) + len(pages)
    header = struct.pack(">BBBB", length, 0, _DPO_AND_FUA_SUPPORTED, len(descriptor))
    task.give(header + descriptor + pages, allocation)


def mode_sense_10(unit: LogicalUnit, task: Task) -> None:
    """MODE SENSE(10): eight bytes of header, block descriptor with long addresses if LLBAA."""
    flags, page, subpage, allocation = struct.unpack_from(">BBB3xH", task.cdb, 1)
    pages = _pages(task, page, subpage)
    if pages is None:
        return
    long_lba = 0
    if flags & _DISABLE_BLOCK_DESCRIPTORS:
        descriptor = b""
    elif flags & _LONG_LBA_ACCEPTED:
        long_lba = 1
        descriptor = struct.pack(">Q4xI", unit.blocks, unit.block_size_bytes)
    else:
        descriptor = _short_descriptor(unit)
    length = 6 + len(descriptor) + len(pages)
    header = struct.pack(">HBBBBH", length, 0, _DPO_AND_FUA_SUPPORTED, long_lba, 0, len(descriptor))
    task.give(header + descriptor + pages, allocation)


def _short_descriptor(unit: LogicalUnit) -> bytes:
    return struct.pack(">II", min(unit.blocks, 0xFFFF_FFFF), unit.block_size_bytes)


def _pages(task: Task, page: int, subpage: int) -> bytes | None:
    """The pages asked for; None when the task was failed."""
    control, code = page >> 6, page & 0x3F
    if control == _SAVED_VALUES:
        task.fail(_SAVING_NOT_SUPPORTED)
        return None
    if subpage not in (0, _ALL_SUBPAGES):  # no page of ours has subpages
        task.fail(invalid_field_in_cdb(3))
        return None
    if code != _ALL_PAGES and code not in _PAGES:
        task.fail(invalid_field_in_cdb(2, bit=5))
        return None
    chosen = sorted(_PAGES) if code == _ALL_PAGES else [code]
    return b"".join(
        struct.pack(">BB", number, len(_PAGES[number]))
        + (bytes(len(_PAGES[number])) if control == _CHANGEABLE_VALUES else _PAGES[number])
        for number in chosen
    )
