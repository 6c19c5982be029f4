"""PRE-FETCH and READ DEFECT DATA: of a cache that is not here, and of defects that the medium does not show
(SBC-3 §5.10-5.11, §5.17-5.18).  Pure.

The device server keeps no cache of blocks.  So a PRE-FETCH is GOOD, which says that not all blocks fit into
the cache, and never CONDITION MET, which would say that they are in it.  A file has no list of defects,
neither primary nor grown: both are empty, whatever format is asked for.
"""

import struct
from typing import Final

from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.read_write import OUT_OF_RANGE
from pyjiva.scsi.sense import invalid_field_in_cdb
from pyjiva.scsi.task import Task
from pyjiva.scsi.unit import LogicalUnit

__all__ = ["pre_fetch", "read_defect_data_10", "read_defect_data_12"]

_FORMAT: Final = 0x07
_VENDOR_SPECIFIC_FORMAT: Final = 0x06
_LISTS_AND_FORMAT: Final = 0x1F  # REQ_PLIST, REQ_GLIST, DEFECT LIST FORMAT, as they come back


def pre_fetch(unit: LogicalUnit, task: Task) -> None:
    """PRE-FETCH(10) and (16); 0 blocks means "to the end"."""
    lba, count, _ = block_range(task.cdb)
    if lba + count > unit.blocks or (not count and lba >= unit.blocks):
        task.fail(OUT_OF_RANGE)
    else:
        task.finish()


def read_defect_data_10(_unit: LogicalUnit, task: Task) -> None:
    """READ DEFECT DATA(10) (SBC-3 table 75)."""
    flags, allocation = task.cdb[2], int.from_bytes(task.cdb[7:9], "big")
    if flags & _FORMAT >= _VENDOR_SPECIFIC_FORMAT:
        task.fail(invalid_field_in_cdb(2, bit=2))
    else:
        task.give(struct.pack(">BBH", 0, flags & _LISTS_AND_FORMAT, 0), allocation)


def read_defect_data_12(_unit: LogicalUnit, task: Task) -> None:
    """READ DEFECT DATA(12) (SBC-3 table 79): the generation never changes, for nothing is ever added."""
    flags, index, allocation = struct.unpack_from(">BII", task.cdb, 1)
    if flags & _FORMAT >= _VENDOR_SPECIFIC_FORMAT:
        task.fail(invalid_field_in_cdb(1, bit=2))
    elif index:  # of the first address descriptor wanted: there is none
        task.fail(invalid_field_in_cdb(2))
    else:
        task.give(struct.pack(">BBHI", 0, flags & _LISTS_AND_FORMAT, 0, 0), allocation)
