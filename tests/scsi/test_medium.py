"""PRE-FETCH, READ DEFECT DATA, WRITE AND VERIFY, and a unit that is read only."""

import struct

import pytest

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from pyjiva.scsi.command_table import COMMANDS
from tests.scsi.conftest import Disk, make_disk

BLOCK = 512
OUT_OF_RANGE = (SenseKey.ILLEGAL_REQUEST, AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
INVALID = (SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_CDB)


def cdb_10(code: int, flags: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", code, flags, lba, 0, count, 0)


def cdb_12(code: int, flags: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBIIBB", code, flags, lba, count, 0, 0)


def cdb_16(code: int, flags: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBQIBB", code, flags, lba, count, 0, 0)


PRE_FETCH = [(cdb_10, 0x34), (cdb_16, 0x90)]
WRITE_AND_VERIFY = [(cdb_10, 0x2E), (cdb_12, 0xAE), (cdb_16, 0x8E)]


@pytest.mark.parametrize(("make", "code"), PRE_FETCH)
def test_pre_fetch_is_good_within_the_medium(disk: Disk, make: object, code: int) -> None:
    assert callable(make)
    for flags, lba, count in ((0, 0, 1), (2, 8191, 1), (0, 8191, 0), (0, 0, 0)):
        assert disk.run(make(code, flags, lba, count)).status == Status.GOOD
    for lba, count in ((8192, 0), (8191, 2)):
        assert disk.sense(make(code, 0, lba, count)) == OUT_OF_RANGE


@pytest.mark.parametrize("flags", [0x00, 0x08, 0x10, 0x1D])
def test_there_are_no_defects(disk: Disk, flags: int) -> None:
    assert disk.data(struct.pack(">BBB4xHB", 0x37, 0, flags, 255, 0)) == bytes([0, flags, 0, 0])
    assert disk.data(struct.pack(">BBIIBB", 0xB7, flags, 0, 255, 0, 0)) == bytes([0, flags]) + bytes(6)


def test_formats_that_are_nobodys_and_descriptors_that_are_not_there_are_refused(disk: Disk) -> None:
    assert disk.sense(struct.pack(">BBB4xHB", 0x37, 0, 0x1E, 255, 0)) == INVALID
    assert disk.sense(struct.pack(">BBIIBB", 0xB7, 0x1F, 0, 255, 0, 0)) == INVALID
    assert disk.sense(struct.pack(">BBIIBB", 0xB7, 0x18, 1, 255, 0, 0)) == INVALID


@pytest.mark.parametrize(("make", "code"), WRITE_AND_VERIFY)
class TestWriteAndVerify:
    @pytest.mark.parametrize("check", [0x00, 0x02])
    def test_what_is_written_is_on_the_medium_and_read_back(
        self, disk: Disk, make: object, code: int, check: int
    ) -> None:
        assert callable(make)
        disk.data(make(code, check, 5, 3), b"v" * 3 * BLOCK)
        assert disk.memory.content(4 * BLOCK, 5 * BLOCK) == bytes(BLOCK) + b"v" * 3 * BLOCK + bytes(BLOCK)
        assert disk.memory.flush_count == 1

    def test_what_is_read_back_otherwise_is_told(self, disk: Disk, make: object, code: int) -> None:
        assert callable(make)
        disk.device.holding = True
        task = disk.start(make(code, 0x02, 5, 2), b"v" * 2 * BLOCK)
        disk.device.release()
        disk.memory._pages[0][5 * BLOCK + 700] = 0
        disk.device.release()
        assert disk.answered == [task]
        assert task.sense[2] == SenseKey.MISCOMPARE
        assert int.from_bytes(task.sense[3:7], "big") == 700

    def test_a_write_beside_it_waits(self, disk: Disk, make: object, code: int) -> None:
        assert callable(make)
        disk.device.holding = True
        first = disk.start(make(code, 0x02, 5, 2), b"v" * 2 * BLOCK)
        second = disk.start(cdb_10(0x2A, 0, 6, 1), b"w" * BLOCK)
        while disk.device.held:
            disk.device.release()
        assert disk.answered == [first, second]
        assert first.status == Status.GOOD

    def test_what_cannot_be_is_refused(self, disk: Disk, make: object, code: int) -> None:
        assert callable(make)
        assert disk.sense(make(code, 0x04, 0, 1), bytes(BLOCK)) == INVALID
        assert disk.sense(make(code, 0x06, 0, 1), bytes(BLOCK)) == INVALID
        assert disk.sense(make(code, 0x20, 0, 1), bytes(BLOCK)) == INVALID
        assert disk.sense(make(code, 0, 8191, 2), bytes(2 * BLOCK)) == OUT_OF_RANGE
        assert disk.sense(make(code, 0, 0, 8193), b"") in (INVALID, OUT_OF_RANGE)
        assert disk.run(make(code, 0, 0, 0)).status == Status.GOOD

    @pytest.mark.parametrize("step", [0, 1])
    def test_an_error_of_the_device_is_told(self, disk: Disk, make: object, code: int, step: int) -> None:
        assert callable(make)
        disk.device.holding = True
        task = disk.start(make(code, 0x02, 5, 1), b"v" * BLOCK)
        if step:
            disk.device.release()
        [request] = disk.device.held
        disk.device.held.clear()
        request.error = StorageError(StorageFailure.WRITE_ERROR, "broken")
        request.done(request)  # type: ignore[arg-type]  # each takes its own class
        assert disk.answered == [task]
        assert task.sense[2] == SenseKey.MEDIUM_ERROR


def test_a_unit_that_is_read_only_says_so_and_refuses_everything_that_writes() -> None:
    disk = make_disk(read_only=True)
    header = disk.data(bytes([0x1A, 0, 0x3F, 0, 255, 0]))
    assert header[2] & 0x80, "WP"
    assert disk.run(cdb_10(0x28, 0, 0, 1)).status == Status.GOOD
    refused = 0
    for command in COMMANDS:
        if not command.writes_medium:
            continue
        cdb = bytearray(command.usage[:1].ljust(len(command.usage), b"\0"))
        if command.service_action is not None:
            cdb[1] = command.service_action
        expected = (SenseKey.DATA_PROTECT, AdditionalSense.WRITE_PROTECTED)
        assert disk.sense(bytes(cdb), bytes(BLOCK)) == expected, command.name
        refused += 1
    assert refused >= 12
