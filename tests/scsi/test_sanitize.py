"""SANITIZE: everything is erased, nobody comes in between, and nothing but its end ends it."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import MemoryParameters
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from pyjiva.scsi.saved import SanitizeJob, Saved, decode_saved, encode_saved
from pyjiva.units import MIB
from tests.scsi.conftest import Disk, make_disk

BLOCK = 512
IN_PROGRESS = (SenseKey.NOT_READY, AdditionalSense.SANITIZE_IN_PROGRESS)
FAILED = (SenseKey.MEDIUM_ERROR, AdditionalSense.SANITIZE_COMMAND_FAILED)
INVALID_CDB = (SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_CDB)
INVALID_LIST = (SenseKey.ILLEGAL_REQUEST, AdditionalSense.INVALID_FIELD_IN_PARAMETER_LIST)
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR)
IMMEDIATE, MAY_EXIT = 0x80, 0x20
TEST_UNIT_READY, REQUEST_SENSE = bytes(6), bytes([0x03, 0, 0, 0, 18, 0])


def sanitize(action: int, flags: int = 0, length: int = 0) -> bytes:
    return struct.pack(">BB5xHB", 0x48, flags | action, length, 0)


def overwrite(pattern: bytes, *, count: int = 1, flags: int = 0, cdb_flags: int = 0) -> tuple[bytes, bytes]:
    data = struct.pack(">BxH", flags | count, len(pattern)) + pattern
    return sanitize(1, cdb_flags, len(data)), data


def write(lba: int, data: bytes) -> tuple[bytes, bytes]:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, len(data) // BLOCK, 0), data


def content(disk: Disk) -> bytes:
    return bytes(disk.memory.content(0, disk.memory.size_bytes))


def fail_device(disk: Disk) -> None:
    [request] = disk.device.held
    disk.device.held.clear()
    request.error = StorageError(StorageFailure.WRITE_ERROR, "broken")
    request.done(request)  # type: ignore[arg-type]  # each takes its own class


@pytest.mark.parametrize("flags", [0, IMMEDIATE])
def test_block_erase_unmaps_everything_and_flushes(disk: Disk, flags: int) -> None:
    disk.run(*write(0, b"x" * BLOCK))
    disk.run(*write(8191, b"y" * BLOCK))
    assert disk.run(sanitize(2, flags)).status == Status.GOOD
    assert content(disk) == bytes(4 * MIB)
    assert not disk.memory._pages
    assert disk.memory.flush_count == 1
    assert disk.run(TEST_UNIT_READY).status == Status.GOOD
    assert not disk.unit.restricted


@pytest.mark.parametrize(
    ("pattern", "count", "flags", "first"),
    [
        (b"\xa5", 1, 0, b"\xa5" * BLOCK),
        (b"abc", 2, 0, (b"abc" * BLOCK)[:BLOCK]),
        (b"\x0f", 2, 0x80, b"\xf0" * BLOCK),
        (b"\x0f", 3, 0x80, b"\x0f" * BLOCK),
        (bytes(range(256)) * 2, 1, 0, bytes(range(256)) * 2),
    ],
)
def test_overwrite_writes_the_pattern_into_every_block(
    disk: Disk, pattern: bytes, count: int, flags: int, first: bytes
) -> None:
    task = disk.run(*overwrite(pattern, count=count, flags=flags))
    assert task.status == Status.GOOD
    assert content(disk) == first * 8192
    assert disk.memory.flush_count == 1


def test_while_it_runs_others_are_told_the_progress(disk: Disk) -> None:
    disk.device.holding = True
    assert disk.run(sanitize(1, IMMEDIATE, 5), b"\x01\0\0\x01\xff").status == Status.GOOD
    disk.device.release()
    for cdb in (
        TEST_UNIT_READY,
        write(0, bytes(BLOCK))[0],
        sanitize(2),
        bytes([0x5A, 0, 8, 0, 0, 0, 0, 0, 99, 0]),
    ):
        assert disk.sense(cdb, bytes(BLOCK)) == IN_PROGRESS
    task = disk.run(TEST_UNIT_READY)
    assert task.sense[15:18] == bytes([0x80, 0x40, 0]), "one MiB of four"
    sense = disk.data(REQUEST_SENSE)
    assert (sense[2], int.from_bytes(sense[12:14], "big")) == IN_PROGRESS
    disk.data(bytes([0x12, 0, 0, 0, 96, 0]))
    disk.data(bytes([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]))
    while disk.device.held:
        disk.device.release()
    assert disk.run(TEST_UNIT_READY).status == Status.GOOD
    assert disk.data(REQUEST_SENSE)[2] == SenseKey.NO_SENSE
    disk.device.holding = False
    assert content(disk) == b"\xff" * (4 * MIB)


def test_it_waits_for_what_was_started_before_and_comes_before_what_follows(disk: Disk) -> None:
    disk.device.holding = True
    first = disk.start(*write(5, b"x" * BLOCK))
    erase = disk.start(sanitize(2))
    later = disk.start(*write(6, b"y" * BLOCK))
    assert len(disk.device.held) == 1
    while disk.device.held:
        disk.device.release()
    assert disk.answered[0] is first
    assert {erase, later} == set(disk.answered[1:])
    assert content(disk)[5 * BLOCK : 6 * BLOCK] == bytes(BLOCK)
    assert (later.sense[2], int.from_bytes(later.sense[12:14], "big")) == IN_PROGRESS


def test_an_abort_ends_the_command_and_not_what_it_began(disk: Disk) -> None:
    disk.run(*write(8191, b"x" * BLOCK))
    disk.device.holding = True
    task = disk.start(*overwrite(b"\x00", count=2))
    disk.device.release()
    task.aborted = True
    disk.device.release()
    assert disk.answered[-1] is task
    assert disk.sense(TEST_UNIT_READY) == IN_PROGRESS
    while disk.device.held:
        disk.device.release()
    assert disk.run(TEST_UNIT_READY).status == Status.GOOD
    assert content(disk) == bytes(4 * MIB)


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_after_a_failure_only_what_was_allowed_helps(steps: int) -> None:
    for flags in (0, MAY_EXIT):
        disk = make_disk()
        disk.device.holding = True
        task = disk.start(*overwrite(b"\xff", cdb_flags=flags))
        for _ in range(steps):
            disk.device.release()
        fail_device(disk)
        assert disk.answered == [task]
        assert (task.sense[2], int.from_bytes(task.sense[12:14], "big")) == FAILED
        disk.device.holding = False
        assert disk.sense(TEST_UNIT_READY) == FAILED
        if flags:
            assert disk.run(sanitize(0x1F)).status == Status.GOOD
        else:
            assert disk.sense(sanitize(0x1F)) == FAILED
            assert disk.run(sanitize(2)).status == Status.GOOD
        assert disk.run(TEST_UNIT_READY).status == Status.GOOD


def test_exit_without_a_failure_is_nothing(disk: Disk) -> None:
    assert disk.run(sanitize(0x1F)).status == Status.GOOD


class TestRestart:
    def test_a_new_process_goes_on_from_the_start(self) -> None:
        store = MemoryParameters()
        disk = make_disk(store=store)
        disk.device.holding = True
        disk.run(*overwrite(b"\x55", cdb_flags=IMMEDIATE))
        disk.device.release()
        again = make_disk(store=store)
        assert content(again) == b"\x55" * (4 * MIB)
        assert again.run(TEST_UNIT_READY).status == Status.GOOD
        assert decode_saved(store.parameters) == Saved()

    def test_a_failure_is_not_forgotten(self) -> None:
        store = MemoryParameters()
        disk = make_disk(store=store)
        disk.device.holding = True
        disk.start(sanitize(2))
        fail_device(disk)
        again = make_disk(store=store)
        again.run(*write(0, b"x" * BLOCK))
        assert again.sense(TEST_UNIT_READY) == FAILED
        assert not again.memory._pages

    @pytest.mark.parametrize("good", [0, 1])
    def test_when_the_store_fails_nothing_is_written_that_would_be_erased(self, good: int) -> None:
        class Store(MemoryParameters):
            saves = 0

            def save_parameters(self, parameters: bytes, done: Any) -> None:
                self.saves += 1
                if self.saves > good:
                    done(StorageError(StorageFailure.NOT_READY, "no majority"))
                else:
                    super().save_parameters(parameters, done)

        disk = make_disk(store=Store())
        disk.run(*write(0, b"x" * BLOCK))
        assert disk.run(sanitize(2)).status == Status.CHECK_CONDITION
        if good:
            assert disk.sense(TEST_UNIT_READY) == FAILED
        else:
            assert disk.run(TEST_UNIT_READY).status == Status.GOOD
            assert content(disk)[:BLOCK] == b"x" * BLOCK


@pytest.mark.parametrize(
    ("cdb", "data", "expected"),
    [
        (sanitize(3), b"", INVALID_CDB),  # cryptographic erase
        (sanitize(0), b"", INVALID_CDB),
        (sanitize(2, 0x40), b"", INVALID_CDB),  # ZNR
        (sanitize(2, 0, 1), b"", INVALID_CDB),
        (sanitize(0x1F, 0, 1), b"", INVALID_CDB),
        (sanitize(1, 0, 4), bytes(4), INVALID_CDB),
        (sanitize(1, 0, 517), bytes(517), INVALID_CDB),
        (
            sanitize(1, 0, 5),
            b"\x01\0\0\x01",
            (SenseKey.ILLEGAL_REQUEST, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR),
        ),
        (sanitize(1, 0, 5), b"\x00\0\0\x01x", INVALID_LIST),
        (sanitize(1, 0, 5), b"\x41\0\0\x01x", INVALID_LIST),
        (sanitize(1, 0, 5), b"\x01\0\0\x00x", INVALID_LIST),
        (sanitize(1, 0, 5), b"\x01\0\0\x02x", INVALID_LIST),
    ],
)
def test_what_is_wrong_is_refused(disk: Disk, cdb: bytes, data: bytes, expected: tuple[int, int]) -> None:
    disk.run(*write(0, b"x" * BLOCK))
    assert disk.sense(cdb, data) == expected
    assert content(disk)[:BLOCK] == b"x" * BLOCK


@given(st.binary(max_size=4096), st.integers(1, 31), st.booleans(), st.booleans(), st.booleans())
def test_what_is_saved_is_read_again(pattern: bytes, passes: int, a: bool, b: bool, c: bool) -> None:
    saved = Saved(sanitize=SanitizeJob(pattern, passes, a, b, c))
    assert decode_saved(encode_saved(saved)) == saved


@pytest.mark.parametrize(
    "change", [{"passes": 0}, {"passes": 32}, {"passes": True}, {"pattern": "0"}, {"failed": 1}, {"more": 1}]
)
def test_damage_is_told(change: dict[str, Any]) -> None:
    document = json.loads(encode_saved(Saved(sanitize=SanitizeJob(b"x", 1, False, False))))
    document["sanitize"] |= change
    with pytest.raises(ConfigError, match="sanitize"):
        decode_saved(json.dumps(document).encode())
