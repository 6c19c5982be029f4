"""The usual layouts of command descriptor blocks (SPC-4 §4.2.2).  Pure."""  # hot

import struct
from typing import Final

__all__ = ["CDB_10", "CDB_12", "CDB_16", "block_range"]

# operation code, flags, logical block address, [group number,] number of blocks, ...
CDB_10: Final = struct.Struct(">BBIBHB")
CDB_12: Final = struct.Struct(">BBIIBB")
CDB_16: Final = struct.Struct(">BBQIBB")


def block_range(cdb: bytes) -> tuple[int, int, int]:
    """(logical block address, number of blocks, index of the byte where the number stands) of the commands
    that have the usual layout for their length (SPC-4 §4.2.2).
    """
    group = cdb[0] >> 5
    if group == 0:
        lba, count = struct.unpack_from(">HB", cdb, 2)
        return (cdb[1] & 0x1F) << 16 | lba, count or 256, 4
    if group in (1, 2):
        _, _, lba, _, count, _ = CDB_10.unpack_from(cdb)
        return lba, count, 7
    if group == 5:
        _, _, lba, count, _, _ = CDB_12.unpack_from(cdb)
        return lba, count, 6
    assert group == 4
    _, _, lba, count, _, _ = CDB_16.unpack_from(cdb)
    return lba, count, 10
