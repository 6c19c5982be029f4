"""Order of the checks, unit attentions, task order, what is not supported."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import BlockStatus, Flush, Read, Request, Unmap, Write, WriteZeroes
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import DeviceServer, LogicalUnit, Nexus, SenseKey, TaskAttribute, UnitIdentity
from pyjiva.scsi.command_table import COMMANDS, Command, Direction
from pyjiva.scsi.sense import SENSE_OF_FAILURE
from tests.scsi.conftest import VOLUME_ID, Disk, make_disk

TEST_UNIT_READY = bytes(6)
INQUIRY = b"\x12\0\0\0\xff\0"
REQUEST_SENSE = b"\x03\0\0\0\xff\0"
REPORT_LUNS = b"\xa0\0\0\0\0\0\0\0\1\0\0\0"


def write_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, blocks, 0)


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def test_new_session_is_told_once_that_the_unit_was_powered_on(disk: Disk) -> None:
    nexus = Nexus("other")
    disk.server.attach(nexus)
    assert len(disk.data(INQUIRY, nexus=nexus)) == 96, "INQUIRY does not care"
    assert disk.data(REPORT_LUNS, nexus=nexus)
    assert disk.sense(TEST_UNIT_READY, nexus=nexus) == (SenseKey.UNIT_ATTENTION, Asc.POWER_ON_OR_RESET)
    assert disk.run(TEST_UNIT_READY, nexus=nexus).status == 0
    assert disk.run(TEST_UNIT_READY).status == 0


def test_request_sense_reports_and_clears_a_unit_attention(disk: Disk) -> None:
    nexus = Nexus("other")
    disk.server.attach(nexus)
    sense = disk.data(REQUEST_SENSE, nexus=nexus)
    assert (sense[0], sense[2], sense[12]) == (0x70, SenseKey.UNIT_ATTENTION, 0x29)
    assert disk.data(REQUEST_SENSE, nexus=nexus)[2] == SenseKey.NO_SENSE


def test_growth_of_the_volume_is_told_to_everybody(disk: Disk) -> None:
    other = Nexus("other")
    disk.server.attach(other)
    disk.unit.attentions.clear()
    disk.memory.size_bytes *= 2
    disk.unit.capacity_changed()
    for nexus in (disk.nexus, other):
        changed = disk.sense(TEST_UNIT_READY, nexus=nexus)
        assert changed == (SenseKey.UNIT_ATTENTION, Asc.CAPACITY_DATA_HAS_CHANGED)
    capacity = disk.data(b"\x25" + bytes(9))
    assert int.from_bytes(capacity[:4], "big") == 8 * 2048 - 1


@pytest.mark.parametrize("cdb", [TEST_UNIT_READY, read_10(0, 1), write_10(0, 1), b"\xff" * 16])
def test_lun_that_is_not_there_is_not_supported(disk: Disk, cdb: bytes) -> None:
    assert disk.sense(cdb, lun=1) == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


def test_lun_that_is_not_there_answers_three_commands(disk: Disk) -> None:
    assert disk.data(INQUIRY, lun=1)[0] == 0x7F
    assert disk.data(REPORT_LUNS, lun=1) == disk.data(REPORT_LUNS)
    sense = disk.data(REQUEST_SENSE, lun=1)
    assert (sense[2], sense[12]) == (SenseKey.ILLEGAL_REQUEST, 0x25)
    assert disk.sense(b"\x12\1\0\0\xff\0", lun=1) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("code", sorted(set(range(256)) - {int(c.operation_code) for c in COMMANDS}))
def test_every_other_operation_code_is_refused(disk: Disk, code: int) -> None:
    cdb = bytes([code]) + bytes(15)
    assert disk.sense(cdb) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_bit_outside_the_usage_map_is_refused_with_a_pointer(disk: Disk, command: Command) -> None:
    usage = command.usage
    action = command.service_action
    for byte in range(1, len(usage)):
        for bit in range(8):
            if usage[byte] >> bit & 1 or (byte == 1 and bit < 5 and action is not None):
                continue
            cdb = bytearray(len(usage))
            cdb[0], cdb[1] = usage[0], action or 0
            cdb[byte] |= 1 << bit
            task = disk.run(bytes(cdb))
            assert task.status == 2
            assert int.from_bytes(task.sense[12:14], "big") == Asc.INVALID_FIELD_IN_CDB
            assert task.sense[15] == 0xC8 | bit
            assert int.from_bytes(task.sense[16:18], "big") == byte


@given(cdb=st.binary(min_size=16, max_size=40), data=st.one_of(st.binary(max_size=64), st.just(bytes(512))))
def test_any_command_gets_exactly_one_answer(cdb: bytes, data: bytes) -> None:
    disk = make_disk()
    task = disk.run(cdb, data)
    assert task.status in ((0, 2, 0x18) if cdb[0] == 0x5F else (0, 2)), "nobody is registered"
    assert bool(task.sense) == (task.status == 2)
    assert not disk.unit.tasks


@given(
    command=st.sampled_from(COMMANDS),
    fields=st.binary(min_size=16, max_size=16),
    data=st.one_of(st.binary(max_size=64), st.just(bytes(512)), st.just(b"x" * 1024)),
)
def test_any_fields_of_a_known_command_get_exactly_one_answer(
    command: Command, fields: bytes, data: bytes
) -> None:
    disk = make_disk()
    usage = command.usage
    # Small numbers, so that many commands get past the check of their range
    cdb = bytes(
        a & b & (0xFF if index > len(usage) - 4 else 0x0F)
        for index, (a, b) in enumerate(zip(usage, fields, strict=False))
    )
    cdb = usage[:1] + bytes([cdb[1] | (command.service_action or 0)]) + cdb[2:]
    task = disk.run(cdb, data)
    assert task.status in ((0, 2, 0x18) if cdb[0] == 0x5F else (0, 2)), "nobody is registered"
    assert task.data_in_bytes == sum(len(part) for part in task.data_in)
    assert not disk.unit.tasks


class FailingDevice:
    """Fails every request in the same way."""

    size_bytes = 1 << 20

    def __init__(self, failure: StorageFailure) -> None:
        self.failure = failure

    def submit(self, request: Request) -> None:
        request.error = StorageError(self.failure, "as told")
        request.done(request)  # type: ignore[arg-type]


@pytest.mark.parametrize("failure", StorageFailure)
@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        (read_10(0, 1), b""),
        (struct.pack(">BBIBHB", 0x28, 8, 0, 0, 1, 0), b""),
        (write_10(0, 1), bytes(512)),
        (struct.pack(">BBIBHB", 0x35, 0, 0, 0, 0, 0), b""),
        (struct.pack(">BBIBHB", 0x2F, 0, 0, 0, 1, 0), b""),
        (struct.pack(">BBIBHB", 0x41, 0, 0, 0, 1, 0), b"x" * 512),
        (struct.pack(">BBIBHB", 0x41, 0, 0, 0, 1, 0), bytes(512)),
        (struct.pack(">BBIBHB", 0x42, 0, 0, 0, 24, 0), struct.pack(">HH4xQI4x", 22, 16, 0, 1)),
        (struct.pack(">BBQIBB", 0x9E, 0x12, 0, 64, 0, 0), b""),
    ],
    ids=["read", "read-fua", "write", "flush", "verify", "write-same", "write-zeroes", "unmap", "lba-status"],
)
def test_storage_error_becomes_its_sense(failure: StorageFailure, cdb: bytes, data: bytes) -> None:
    disk = make_disk()
    disk.device.device = FailingDevice(failure)
    expected = SENSE_OF_FAILURE[failure]
    assert disk.sense(cdb, data) == (expected.key, expected.additional)


def test_every_storage_failure_has_its_sense() -> None:
    assert set(SENSE_OF_FAILURE) == set(StorageFailure)


@pytest.mark.parametrize(
    ("cdb", "data", "kinds"),
    [
        (struct.pack(">BBIBHB", 0x28, 8, 0, 0, 1, 0), b"", [Flush, Read]),
        (struct.pack(">BBIBHB", 0x2F, 0, 0, 0, 8192, 0), b"", [Read] * 4),
        (struct.pack(">BBIBHB", 0x41, 0, 0, 0, 6144, 0), b"x" * 512, [Write] * 3),
        (struct.pack(">BBIBHB", 0x41, 0, 0, 0, 6144, 0), bytes(512), [WriteZeroes]),
        (struct.pack(">BBIBHB", 0x41, 8, 0, 0, 6144, 0), bytes(512), [Unmap]),
        (struct.pack(">BBQIBB", 0x9E, 0x12, 0, 64, 0, 0), b"", [BlockStatus]),
    ],
)
def test_steps_of_a_command_wait_for_a_late_device(
    disk: Disk, cdb: bytes, data: bytes, kinds: list[type[Request]]
) -> None:
    disk.device.holding = True
    task = disk.start(cdb, data)
    seen = []
    while disk.device.held:
        assert not disk.answered
        [request] = disk.device.held
        seen.append(type(request))
        disk.device.release(1)
    assert seen == kinds
    assert disk.answered == [task]
    assert task.status == 0


@pytest.mark.parametrize(
    ("cdb", "data"),
    [
        (struct.pack(">BBIBHB", 0x28, 8, 0, 0, 1, 0), b""),
        (struct.pack(">BBIBHB", 0x2F, 0, 0, 0, 8192, 0), b""),
        (struct.pack(">BBIBHB", 0x41, 0, 0, 0, 6144, 0), b"x" * 512),
    ],
)
def test_aborted_command_starts_no_further_step(disk: Disk, cdb: bytes, data: bytes) -> None:
    disk.device.holding = True
    task = disk.start(cdb, data)
    task.aborted = True
    disk.device.release(1)
    assert disk.device.held == []
    assert disk.answered == [task]


def test_ordered_task_keeps_its_place(disk: Disk) -> None:
    disk.device.holding = True
    first = disk.start(write_10(0, 1), b"1" * 512)
    ordered = disk.start(write_10(0, 1), b"2" * 512, attribute=TaskAttribute.ORDERED)
    younger = disk.start(write_10(0, 1), b"3" * 512)
    head = disk.start(write_10(9, 1), b"h" * 512, attribute=TaskAttribute.HEAD_OF_QUEUE)
    assert len(disk.device.held) == 2, "the first, and the one for the head of the queue"
    disk.device.release()
    assert disk.answered == [first, head]
    disk.device.release()
    disk.device.release()
    assert disk.answered == [first, head, ordered, younger]
    assert disk.memory.content(0, 1) == b"3"
    assert not disk.unit.strict


def test_many_held_tasks_start_without_deep_recursion(disk: Disk) -> None:
    disk.device.holding = True
    disk.start(write_10(0, 1), b"1" * 512, attribute=TaskAttribute.ORDERED)
    for number in range(2000):
        attribute = TaskAttribute.ORDERED if number % 500 == 0 else TaskAttribute.SIMPLE
        disk.start(TEST_UNIT_READY, attribute=attribute)
    disk.device.holding = False
    disk.device.release()
    assert len(disk.answered) == 2001


def test_commands_wait_for_what_a_lost_session_of_the_same_initiator_left(disk: Disk) -> None:
    disk.device.holding = True
    lost = disk.start(write_10(0, 1), b"o" * 512)
    disk.server.detach(disk.nexus)
    back, other = Nexus(disk.nexus.initiator_port), Nexus("other")
    for nexus in (back, other):
        disk.server.attach(nexus)
    disk.unit.attentions.clear()
    disk.device.holding = False
    repeated = disk.start(write_10(0, 1), b"n" * 512, nexus=back)
    assert disk.answered == []
    disk.run(TEST_UNIT_READY, nexus=other)
    disk.device.release()
    assert disk.answered[1:] == [lost, repeated]
    assert disk.memory.content(0, 1) == b"n"


def test_directions_and_usage_maps_are_consistent() -> None:
    for command in COMMANDS:
        assert command.usage[0] == command.operation_code
        assert (command.direction is Direction.OUT) == (command.data_out_bytes is not None)
    assert len({(c.operation_code, c.service_action) for c in COMMANDS}) == len(COMMANDS)


@pytest.mark.parametrize("size", [0, 100, 1024, 8192])
def test_block_size_is_512_or_4096(disk: Disk, size: int) -> None:
    with pytest.raises(ConfigError):
        LogicalUnit(disk.memory, UnitIdentity(VOLUME_ID), size)


def test_lun_must_fit(disk: Disk) -> None:
    with pytest.raises(ConfigError):
        DeviceServer({256: disk.unit})
