"""WRITE ATOMIC(16): the device is asked for the whole or nothing, and what cannot be whole is refused."""

import struct

import pytest

from pyjiva.block import ATOMIC_BYTES_MAX, Write
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from tests.scsi.conftest import Disk

BLOCK = 512
BLOCKS_MAX = ATOMIC_BYTES_MAX // BLOCK
FUA = 0x08


def write_atomic(lba: int, count: int, flags: int = 0, boundary: int = 0) -> bytes:
    return struct.pack(">BBQHHBB", 0x9C, flags, lba, boundary, count, 0, 0)


def read(lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


@pytest.mark.parametrize("count", [1, 3, BLOCKS_MAX])
@pytest.mark.parametrize("flags", [0, FUA])
def test_it_is_one_atomic_request(disk: Disk, count: int, flags: int) -> None:
    data = bytes(n % 251 for n in range(count * BLOCK))
    disk.device.holding = True
    task = disk.start(write_atomic(5, count, flags), data)
    (request,) = disk.device.held
    assert isinstance(request, Write)
    assert (request.atomic, request.force_unit_access) == (True, bool(flags))
    assert (request.offset_bytes, request.length_bytes) == (5 * BLOCK, len(data))
    disk.device.holding = False
    disk.device.release()
    assert task.status == Status.GOOD
    assert disk.data(read(4, count + 2)) == bytes(BLOCK) + data + bytes(BLOCK)


def test_ordinary_writes_are_not_atomic(disk: Disk) -> None:
    disk.device.holding = True
    disk.start(struct.pack(">BBQIBB", 0x8A, 0, 5, 1, 0, 0), bytes(BLOCK))
    (request,) = disk.device.held
    assert isinstance(request, Write)
    assert not request.atomic
    disk.device.holding = False
    disk.device.release()


def test_no_blocks_is_no_error(disk: Disk) -> None:
    assert disk.run(write_atomic(5, 0)).status == Status.GOOD


@pytest.mark.parametrize(
    ("cdb", "data", "code"),
    [
        (write_atomic(8191, 2), b"x" * 1024, AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (write_atomic(8193, 0), b"", AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (write_atomic(0, BLOCKS_MAX + 1), b"", AdditionalSense.INVALID_FIELD_IN_CDB),
        (write_atomic(0, 2, boundary=2), b"x" * 1024, AdditionalSense.INVALID_FIELD_IN_CDB),
        (write_atomic(0, 2, 0x20), b"x" * 1024, AdditionalSense.INVALID_FIELD_IN_CDB),
        (write_atomic(0, 2), b"x" * 512, AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT),
    ],
)
def test_what_cannot_be_whole_is_refused(disk: Disk, cdb: bytes, data: bytes, code: int) -> None:
    assert disk.sense(cdb, data) == (SenseKey.ILLEGAL_REQUEST, code)
    assert disk.memory.content(0, 4096) == bytes(4096)


@pytest.mark.parametrize("size", [512, 4096])
def test_its_limits_are_in_the_block_limits_page(disk: Disk, disk_4k: Disk, size: int) -> None:
    page = (disk if size == 512 else disk_4k).data(bytes([0x12, 1, 0xB0, 0, 255, 0]))
    assert struct.unpack_from(">IIIII", page, 44) == (ATOMIC_BYTES_MAX // size, 0, 0, 0, 0)
