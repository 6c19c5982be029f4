"""Which blocks a command may read or change, told from its CDB alone.  Pure.

For commands that must have a range for themselves (`LogicalUnit.exclusively`): what is not in these tables
does not touch the blocks of the medium.
"""

from typing import Final

from pyjiva.scsi.cdb import block_range
from pyjiva.scsi.codes import OperationCode as Op

__all__ = ["overlaps"]

#: The usual layout: address and number of blocks.
_RANGE: Final = frozenset(
    {
        *(Op.READ_6, Op.READ_10, Op.READ_12, Op.READ_16, Op.WRITE_6, Op.WRITE_10, Op.WRITE_12, Op.WRITE_16),
        *(Op.WRITE_AND_VERIFY_10, Op.WRITE_AND_VERIFY_12, Op.WRITE_AND_VERIFY_16),
        *(Op.VERIFY_10, Op.VERIFY_12, Op.VERIFY_16, Op.ORWRITE_16),
    }
)
#: Several ranges, or one that another place than the CDB tells, or to the end of the medium.
_ANYWHERE: Final = frozenset(
    {
        *(Op.UNMAP, Op.WRITE_SAME_10, Op.WRITE_SAME_16, Op.SANITIZE, Op.FORMAT_UNIT, Op.EXTENDED_COPY),
        *(Op.COMPARE_AND_WRITE, Op.WRITE_ATOMIC_16),
    }
)


def overlaps(cdb: bytes, first: int, end: int) -> bool:
    """Whether the command may touch a block from `first` on, before `end`."""
    if cdb[0] in _ANYWHERE:
        return True
    if cdb[0] not in _RANGE:
        return False
    lba, count, _ = block_range(cdb)
    return lba < end and first < lba + count
