"""Fields of CDBs against the layouts of SPC-4 §4.2.2."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.scsi.cdb import block_range, fields_10, fields_12, fields_16

CDBS = st.binary(min_size=16, max_size=16)


@given(CDBS)
def test_fields_stand_where_the_layouts_have_them(cdb: bytes) -> None:
    _, flags, lba, _, count = struct.unpack_from(">BBIBH", cdb)
    assert fields_10(cdb) == (flags, lba, count)
    assert fields_12(cdb) == struct.unpack_from(">xBII", cdb)
    assert fields_16(cdb) == struct.unpack_from(">xBQI", cdb)


@given(CDBS, st.sampled_from([0, 1, 2, 4, 5]))
def test_the_range_is_taken_from_the_layout_of_the_group(cdb: bytes, group: int) -> None:
    cdb = bytes([group << 5 | cdb[0] & 0x1F]) + cdb[1:]
    if group == 0:
        assert block_range(cdb) == (int.from_bytes(cdb[1:4], "big") & 0x1F_FFFF, cdb[4] or 256, 4)
        return
    fields, at = {1: (fields_10, 7), 2: (fields_10, 7), 4: (fields_16, 10), 5: (fields_12, 6)}[group]
    _, lba, count = fields(cdb)
    assert block_range(cdb) == (lba, count, at)
