"""COMPARE AND WRITE and ORWRITE: right, refused where they must be, and never with anybody in between."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense, SenseKey, Status, Task
from pyjiva.scsi.unit import COMPARE_AND_WRITE_BLOCKS_MAX
from tests.scsi.conftest import Disk, make_disk

BLOCK = 512
FUA = 0x08


def compare_and_write(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQ3xBBB", 0x89, flags, lba, count, 0, 0)


def orwrite(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", 0x8B, flags, lba, count, 0, 0)


def write(lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, count, 0)


def read(lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


def test_what_compares_is_written(disk: Disk) -> None:
    disk.run(write(7, 2), b"a" * 1024)
    disk.data(compare_and_write(7, 2), b"a" * 1024 + b"b" * 1024)
    assert disk.data(read(6, 4)) == bytes(BLOCK) + b"b" * 1024 + bytes(BLOCK)


def test_what_does_not_compare_is_left_alone_and_the_first_difference_is_told(disk: Disk) -> None:
    disk.run(write(7, 2), b"a" * 1024)
    task = disk.run(compare_and_write(7, 2), b"a" * 700 + b"x" * 324 + b"b" * 1024)
    assert task.status == Status.CHECK_CONDITION
    assert task.sense[0] == 0xF0, "the INFORMATION field is valid"
    assert task.sense[2] == SenseKey.MISCOMPARE
    assert int.from_bytes(task.sense[3:7], "big") == 700
    assert int.from_bytes(task.sense[12:14], "big") == AdditionalSense.MISCOMPARE_DURING_VERIFY
    assert disk.data(read(7, 2)) == b"a" * 1024


def test_orwrite_sets_bits(disk: Disk) -> None:
    disk.run(write(3, 1), bytes(range(256)) * 2)
    disk.data(orwrite(3, 1), b"\x81" * BLOCK)
    assert disk.data(read(3, 1)) == bytes(n | 0x81 for n in range(256)) * 2


@pytest.mark.parametrize("make", [compare_and_write, orwrite])
def test_nothing_asked_is_nothing_done(disk: Disk, make: Any) -> None:
    assert disk.run(make(3, 0)).status == Status.GOOD


@pytest.mark.parametrize("make", [compare_and_write, orwrite])
def test_force_unit_access_reaches_the_medium(disk: Disk, make: Any) -> None:
    disk.data(make(3, 1, FUA), bytes(2 * BLOCK))
    assert disk.memory.flush_count == 1


@pytest.mark.parametrize(
    ("cdb", "data", "expected"),
    [
        (compare_and_write(8191, 2), bytes(2048), AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (compare_and_write(2**63, 1), bytes(1024), AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (compare_and_write(8193, 0), b"", AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (compare_and_write(0, COMPARE_AND_WRITE_BLOCKS_MAX + 1), b"", AdditionalSense.INVALID_FIELD_IN_CDB),
        (compare_and_write(0, 1, 0x20), bytes(1024), AdditionalSense.INVALID_FIELD_IN_CDB),
        (compare_and_write(0, 2), bytes(2047), AdditionalSense.INVALID_FIELD_IN_CDB),
        (compare_and_write(0, 0), bytes(512 * 512), AdditionalSense.INVALID_FIELD_IN_CDB),
        (orwrite(8191, 2), bytes(1024), AdditionalSense.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        (orwrite(0, 8193), b"", AdditionalSense.INVALID_FIELD_IN_CDB),
        (orwrite(0, 2), bytes(1023), AdditionalSense.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT),
    ],
)
def test_what_is_wrong_is_refused(disk: Disk, cdb: bytes, data: bytes, expected: int) -> None:
    assert disk.sense(cdb, data) == (SenseKey.ILLEGAL_REQUEST, expected)
    assert disk.data(read(0, 2)) == bytes(1024)


@pytest.mark.parametrize("make", [compare_and_write, orwrite])
@pytest.mark.parametrize("step", [0, 1])
def test_an_error_of_the_device_at_either_step_is_told(disk: Disk, make: Any, step: int) -> None:
    disk.device.holding = True
    task = disk.start(make(5, 1), bytes(2 * BLOCK))
    for n in range(2):
        [request] = disk.device.held
        if n == step:
            disk.device.held.clear()
            request.error = StorageError(StorageFailure.WRITE_ERROR, "broken")
            request.done(request)  # type: ignore[arg-type]  # each takes its own class
            break
        disk.device.release()
    assert disk.answered == [task]
    assert task.sense[2] == SenseKey.MEDIUM_ERROR


@pytest.mark.parametrize("make", [compare_and_write, orwrite])
def test_an_aborted_one_writes_nothing(disk: Disk, make: Any) -> None:
    disk.run(write(5, 1), b"\x00" * BLOCK)
    disk.device.holding = True
    task = disk.start(make(5, 1), bytes(BLOCK) + b"b" * BLOCK)
    task.aborted = True
    disk.device.release()
    assert disk.answered[-1] is task
    assert not disk.device.held


class TestNobodyInBetween:
    def test_it_waits_for_a_running_write_of_its_blocks(self, disk: Disk) -> None:
        disk.device.holding = True
        first = disk.start(write(5, 1), b"a" * BLOCK)
        second = disk.start(compare_and_write(5, 1), b"a" * BLOCK + b"b" * BLOCK)
        other = disk.start(write(9, 1), b"o" * BLOCK)
        assert [type(r).__name__ for r in disk.device.held] == ["Write", "Write"]
        disk.device.holding = False
        disk.device.release()
        assert {id(t) for t in disk.answered} == {id(t) for t in (first, second, other)}
        assert second.status == Status.GOOD
        assert disk.data(read(5, 1)) == b"b" * BLOCK

    def test_an_aborted_one_that_waited_does_nothing(self, disk: Disk) -> None:
        disk.device.holding = True
        disk.start(write(5, 1), b"a" * BLOCK)
        second = disk.start(compare_and_write(5, 1), b"a" * BLOCK + b"b" * BLOCK)
        second.aborted = True
        disk.device.release()
        assert disk.answered[-1] is second
        assert disk.memory.content(5 * BLOCK, 1) == b"a"

    @pytest.mark.parametrize(
        "cdb",
        [write(5, 1), read(4, 2), compare_and_write(5, 1), orwrite(5, 1), bytes([0x42]).ljust(10, b"\0")],
    )
    def test_others_that_touch_its_blocks_wait_for_it(self, disk: Disk, cdb: bytes) -> None:
        disk.device.holding = True
        first = disk.start(orwrite(5, 1), b"a" * BLOCK)
        second = disk.start(cdb, bytes(2 * BLOCK))
        aside = disk.start(read(6, 1))
        assert len(disk.device.held) == 2, "the first one's read, and the read beside it"
        disk.device.release()
        assert disk.answered == [aside]
        assert len(disk.device.held) == 1, "the first one's write"
        disk.device.holding = False
        disk.device.release()
        assert disk.answered == [aside, first, second]
        assert not disk.unit.strict, "afterwards nothing costs anything"


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["swap", "or", "write"]), st.integers(0, 3), st.integers(1, 2)), max_size=12
)


@settings(max_examples=300, deadline=None)
@given(OPERATIONS, st.data())
def test_any_interleaving_is_some_order(operations: list[tuple[str, int, int]], data: st.DataObject) -> None:
    """Each COMPARE AND WRITE that succeeded found what the ones finished before it had left."""
    disk = make_disk(size_bytes=8 * 4096)
    disk.device.holding = True
    running: dict[int, tuple[Task, str, int, int, bytes, bytes]] = {}
    model = bytearray(8 * BLOCK)
    done = 0

    def settle() -> None:
        """Apply what was answered to the model, in the order of the answers."""
        nonlocal done
        for task in disk.answered[done:]:
            _, kind, lba, count, old, new = running.pop(id(task))
            where = slice(lba * BLOCK, (lba + count) * BLOCK)
            if kind == "swap":
                assert (task.status == Status.GOOD) == (bytes(model[where]) == old)
                if task.status == Status.GOOD:
                    model[where] = new
            elif kind == "or":
                model[where] = bytes(a | b for a, b in zip(model[where], new, strict=True))
            else:
                model[where] = new
        done = len(disk.answered)

    for number, (kind, lba, count) in enumerate(operations, 1):
        old = bytes(model[lba * BLOCK : (lba + count) * BLOCK])
        new = bytes([number]) * (count * BLOCK)
        overlapping_write = kind == "write" and any(
            k == "write" and a < lba + count and lba < a + c for _, k, a, c, _, _ in running.values()
        )
        if overlapping_write:  # their order is the device's, not the task set's
            continue
        cdb, sent = {
            "swap": (compare_and_write(lba, count), old + new),
            "or": (orwrite(lba, count), new),
            "write": (write(lba, count), new),
        }[kind]
        task = disk.start(cdb, sent)
        running[id(task)] = (task, kind, lba, count, old, new)
        for _ in range(data.draw(st.integers(0, 2))):
            disk.device.release()
            settle()
    while disk.device.held:
        disk.device.release()
        settle()
    assert not running
    disk.device.holding = False
    assert disk.memory.content(0, 8 * BLOCK) == bytes(model)
    assert not disk.unit.strict
