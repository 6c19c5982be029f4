"""LOG SENSE."""

import struct

import pytest

from pyjiva.block import Space
from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import SenseKey
from pyjiva.units import GIB, MIB
from tests.scsi.conftest import Disk, KnownSpace, make_disk

INVALID_FIELD = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


def cdb(page: int, subpage: int, allocation: int = 255, pointer: int = 0) -> bytes:
    return struct.pack(">BBBBxHHB", 0x4D, 0, page, subpage, pointer, allocation, 0)


@pytest.mark.parametrize("control", [0x00, 0x40, 0x80, 0xC0])
@pytest.mark.parametrize("space", [None, KnownSpace(None)])
def test_log_pages_that_are_listed_are_the_ones_that_answer(control: int, space: KnownSpace | None) -> None:
    disk = make_disk(space=space)
    pages = b"" if space is None else b"\x0c"
    assert disk.data(cdb(control, 0)) == bytes([0, 0, 0, 1 + len(pages), 0]) + pages
    listed = disk.data(cdb(control, 0xFF))
    assert listed[:4] == bytes([0x40, 0xFF, 0, 4 + 2 * len(pages)])
    pairs = {(listed[i], listed[i + 1]) for i in range(4, len(listed), 2)}
    for page in range(0x40):
        for subpage in (0x00, 0x01, 0xFF):
            if (page, subpage) in pairs:
                disk.data(cdb(page, subpage))
            else:
                assert disk.sense(cdb(page, subpage)) == INVALID_FIELD


@pytest.mark.parametrize("block_size", [512, 4096])
def test_room_is_told_in_threshold_sets(block_size: int) -> None:
    disk = make_disk(block_size, space=KnownSpace(Space(7 * MIB + 1, 3 * GIB - 1)))
    available = struct.pack(">HBBIB3x", 1, 0x23, 8, 3071, 2)
    used = struct.pack(">HBBIB3x", 2, 0x23, 8, 7, 1)
    assert disk.data(cdb(0x4C, 0)) == bytes([0x8C, 0, 0, 24]) + available + used
    assert disk.data(cdb(0x4C, 0, pointer=1)) == bytes([0x8C, 0, 0, 24]) + available + used
    assert disk.data(cdb(0x4C, 0, pointer=2)) == bytes([0x8C, 0, 0, 12]) + used
    assert disk.data(cdb(0x4C, 0, 8)) == bytes([0x8C, 0, 0, 24]) + available[:4]
    assert disk.sense(cdb(0x4C, 0, pointer=3)) == INVALID_FIELD
    assert disk.sense(cdb(0, 0, pointer=1)) == INVALID_FIELD


def test_room_that_is_not_known_is_not_told() -> None:
    assert make_disk(space=KnownSpace(None)).data(cdb(0x0C, 0)) == bytes([0x8C, 0, 0, 0])


def test_log_page_is_cut_to_the_allocation_length(disk: Disk) -> None:
    assert disk.data(cdb(0, 0xFF, 5)) == bytes([0x40, 0xFF, 0, 4, 0])
