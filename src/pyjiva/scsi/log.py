"""LOG SENSE (SPC-4 §6.8, §7.3): only the lists of pages.  Pure.

The pages with counters are left out.  A block device does not say how much room there is below it, so the
logical block provisioning page (0Ch) could only invent its figures; what is mapped, GET LBA STATUS says.
"""

import struct
from typing import Final

from pyjiva.scsi.sense import invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["log_sense"]

_SUPPORTED: Final = (0x00, 0x00)  # page, subpage: supported log pages
_SUPPORTED_SUBPAGES: Final = (0x00, 0xFF)
_SUBPAGE_FORMAT: Final = 0x40
_PAGES: Final = {
    _SUPPORTED: struct.pack(">BBHB", 0x00, 0x00, 1, 0x00),
    _SUPPORTED_SUBPAGES: struct.pack(">BBHBBBB", _SUBPAGE_FORMAT, 0xFF, 4, *_SUPPORTED, *_SUPPORTED_SUBPAGES),
}


def log_sense(_unit: LogicalUnit, task: Task) -> None:
    """LOG SENSE: cumulative values, threshold values and defaults of a list of pages are all the same."""
    page, subpage, allocation = struct.unpack_from(">BB3xH", task.cdb, 2)
    data = _PAGES.get((page & 0x3F, subpage))
    if data is None:
        task.fail(invalid_field_in_cdb(3 if page & 0x3F == 0 else 2))
        return
    task.give(data, allocation)
