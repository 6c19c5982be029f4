"""LOG SENSE."""

import struct

import pytest

from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import SenseKey
from tests.scsi.conftest import Disk


def cdb(page: int, subpage: int, allocation: int = 255) -> bytes:
    return struct.pack(">BBBB3xHB", 0x4D, 0, page, subpage, allocation, 0)


@pytest.mark.parametrize("control", [0x00, 0x40, 0x80, 0xC0])
def test_log_pages_that_are_listed_are_the_ones_that_answer(disk: Disk, control: int) -> None:
    assert disk.data(cdb(control, 0)) == bytes([0, 0, 0, 1, 0])
    listed = disk.data(cdb(control, 0xFF))
    assert listed[:4] == bytes([0x40, 0xFF, 0, 4])
    pairs = {(listed[i], listed[i + 1]) for i in range(4, len(listed), 2)}
    for page in range(0x40):
        for subpage in (0x00, 0x01, 0xFF):
            if (page, subpage) in pairs:
                disk.data(cdb(page, subpage))
            else:
                assert disk.sense(cdb(page, subpage)) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


def test_log_page_is_cut_to_the_allocation_length(disk: Disk) -> None:
    assert disk.data(cdb(0, 0xFF, 5)) == bytes([0x40, 0xFF, 0, 4, 0])
