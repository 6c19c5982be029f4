"""The usual layouts of command descriptor blocks (SPC-4 §4.2.2).  Pure.

Operation code, flags, logical block address, [group number,] number of blocks, ...
"""  # hot

import struct

from pyjiva.buffers import word_at

__all__ = ["block_range", "fields_10", "fields_12", "fields_16"]


def fields_10(cdb: bytes) -> tuple[int, int, int]:
    """(flags, logical block address, number of blocks) of ten bytes."""
    return cdb[1], word_at(cdb, 2), cdb[7] << 8 | cdb[8]


def fields_12(cdb: bytes) -> tuple[int, int, int]:
    """The same of twelve bytes."""
    return cdb[1], word_at(cdb, 2), word_at(cdb, 6)


def fields_16(cdb: bytes) -> tuple[int, int, int]:
    """The same of sixteen bytes."""
    return cdb[1], word_at(cdb, 2) << 32 | word_at(cdb, 6), word_at(cdb, 10)


def block_range(cdb: bytes) -> tuple[int, int, int]:
    """(logical block address, number of blocks, index of the byte where the number stands) of the commands
    that have the usual layout for their length (SPC-4 §4.2.2).
    """
    group = cdb[0] >> 5
    if group == 0:
        lba, count = struct.unpack_from(">HB", cdb, 2)
        return (cdb[1] & 0x1F) << 16 | lba, count or 256, 4
    if group in (1, 2):
        _, lba, count = fields_10(cdb)
        return lba, count, 7
    if group == 5:
        _, lba, count = fields_12(cdb)
        return lba, count, 6
    assert group == 4
    _, lba, count = fields_16(cdb)
    return lba, count, 10
