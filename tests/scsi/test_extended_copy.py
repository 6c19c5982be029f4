"""EXTENDED COPY: blocks are copied as its segments say, and what is wrong with a list is told."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense, SenseKey, Status, Task
from pyjiva.scsi.extended_copy import PIECE_BYTES
from pyjiva.scsi.third_party_copy import CSCD_MAX, LIST_BYTES_MAX, RESULTS_MAX, SEGMENTS_MAX
from tests.scsi.conftest import Disk, make_disk

BLOCK = 512
ILLEGAL, ABORTED = SenseKey.ILLEGAL_REQUEST, SenseKey.COPY_ABORTED


def target(disk: Disk, **changes: Any) -> bytes:
    """A CSCD descriptor that names the unit."""
    name = disk.unit.identity.network_address_authority
    fields: dict[str, Any] = {
        "type": 0xE4,
        "device": 0,
        "code_set": 1,
        "kind": 3,
        "name": name,
        "block": BLOCK,
    } | changes
    head = struct.pack(
        ">BBHBBBB20s", fields["type"], fields["device"], 0, fields["code_set"], fields["kind"], 0,
        len(fields["name"]), fields["name"],
    )  # fmt: skip
    return head + struct.pack(">I", fields["block"])


def segment(source_lba: int, target_lba: int, blocks: int, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"type": 2, "length": 24, "source": 0, "target": 0} | changes
    return struct.pack(
        ">BBHHH2xHQQ", fields["type"], 0, fields["length"], fields["source"], fields["target"], blocks,
        source_lba, target_lba,
    )  # fmt: skip


def parameter_list(
    targets: bytes, segments: bytes, *, list_id: int = 1, flags: int = 0, inline: int = 0
) -> bytes:
    return struct.pack(">BBH4xII", list_id, flags, len(targets), len(segments), inline) + targets + segments


def cdb(length: int) -> bytes:
    return struct.pack(">BB8xIBB", 0x83, 0, length, 0, 0)


def copy(disk: Disk, data: bytes) -> Task:
    return disk.run(cdb(len(data)), data)


def copy_sense(disk: Disk, data: bytes) -> tuple[int, int]:
    return disk.sense(cdb(len(data)), data)


def results(action: int, list_id: int = 1, allocation: int = 1024) -> bytes:
    return struct.pack(">BBB7xIBB", 0x84, action, list_id, allocation, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(0, 10)), max_size=SEGMENTS_MAX),
    st.booleans(),
)
def test_segments_are_copied_one_after_the_other(segments: list[tuple[int, int, int]], held: bool) -> None:
    """Also when they overlap: each sees what the ones before it wrote."""
    disk = make_disk(size_bytes=100 * BLOCK)
    model = bytearray(b"".join(bytes([n]) * BLOCK for n in range(100)))
    disk.run(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 100, 0), bytes(model))
    for source, where, blocks in segments:
        model[where * BLOCK : (where + blocks) * BLOCK] = model[source * BLOCK : (source + blocks) * BLOCK]
    disk.device.holding = held
    data = parameter_list(target(disk), b"".join(segment(*each) for each in segments))
    task = disk.start(cdb(len(data)), data)
    while disk.device.held:
        disk.device.release()
    assert task.status == Status.GOOD
    assert disk.memory.content(0, 100 * BLOCK) == bytes(model)


def test_a_large_segment_goes_in_pieces(disk: Disk) -> None:
    blocks = 3 * PIECE_BYTES // 2 // BLOCK
    for n in range(3):
        count = blocks // 3
        disk.run(struct.pack(">BBIBHB", 0x2A, 0, n * count, 0, count, 0), bytes([n + 1]) * count * BLOCK)
    disk.device.holding = True
    data = parameter_list(target(disk), segment(0, 8192 - blocks, blocks))
    task = disk.start(cdb(len(data)), data)
    lengths = []
    while disk.device.held:
        lengths.append(disk.device.held[0].length_bytes)  # type: ignore[union-attr]  # never a Flush
        disk.device.release()
    assert task.status == Status.GOOD
    assert lengths == [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES // 2, PIECE_BYTES // 2]
    length = blocks * BLOCK
    assert disk.memory.content(8192 * BLOCK - length, length) == disk.memory.content(0, length)


def test_an_empty_list_is_no_error(disk: Disk) -> None:
    assert copy(disk, b"").status == Status.GOOD
    assert copy(disk, parameter_list(b"", b"")).status == Status.GOOD


def test_every_name_of_the_unit_is_known(disk: Disk) -> None:
    vendor = (disk.unit.identity.vendor.ljust(8) + "PYJIVA")[:20].encode()
    assert copy_sense(
        disk, parameter_list(target(disk, code_set=2, kind=1, name=vendor), segment(0, 5, 1))
    ) == (ABORTED, AdditionalSense.COPY_TARGET_DEVICE_NOT_REACHABLE), "a part of a name is another name"
    assert copy(disk, parameter_list(target(disk) * 2, segment(0, 5, 1, target=1))).status == Status.GOOD


@pytest.mark.parametrize(
    ("changes", "sense"),
    [
        ({"targets": {"type": 0xE5}}, (ILLEGAL, AdditionalSense.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE)),
        ({"targets": {"device": 1}}, (ABORTED, AdditionalSense.INCORRECT_COPY_TARGET_DEVICE_TYPE)),
        ({"targets": {"block": 4096}}, (ABORTED, AdditionalSense.INCORRECT_COPY_TARGET_DEVICE_TYPE)),
        ({"targets": {"name": bytes(8)}}, (ABORTED, AdditionalSense.COPY_TARGET_DEVICE_NOT_REACHABLE)),
        ({"segments": {"type": 3}}, (ILLEGAL, AdditionalSense.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE)),
        ({"segments": {"length": 25}}, (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_PARAMETER_LIST)),
        ({"segments": {"source": 1}}, (ABORTED, AdditionalSense.UNREACHABLE_COPY_TARGET)),
        ({"segments": {"target": 1}}, (ABORTED, AdditionalSense.UNREACHABLE_COPY_TARGET)),
        ({"range": (8192, 0, 1)}, (ABORTED, AdditionalSense.NO_ADDITIONAL_SENSE_INFORMATION)),
        ({"range": (0, 8191, 2)}, (ABORTED, AdditionalSense.NO_ADDITIONAL_SENSE_INFORMATION)),
        ({"header": {"flags": 0x08}}, (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_PARAMETER_LIST)),
        ({"header": {"flags": 0x18}}, (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_PARAMETER_LIST)),
        ({"header": {"inline": 1}}, (ILLEGAL, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR)),
        ({"header": {"inline": 1}, "tail": b"x"}, (ILLEGAL, AdditionalSense.INLINE_DATA_LENGTH_EXCEEDED)),
        ({"cut": 1}, (ILLEGAL, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR)),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_copied(
    disk: Disk, changes: dict[str, Any], sense: tuple[int, int]
) -> None:
    segments = segment(0, 5, 1) + segment(*changes.get("range", (0, 6, 1)), **changes.get("segments", {}))
    data = parameter_list(target(disk, **changes.get("targets", {})), segments, **changes.get("header", {}))
    data = data[: len(data) - changes.get("cut", 0)] + changes.get("tail", b"")
    disk.run(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0), b"x" * BLOCK)
    assert copy_sense(disk, data) == sense
    assert disk.memory.content(5 * BLOCK, 2 * BLOCK) == bytes(2 * BLOCK)


def test_limits_of_the_lists(disk: Disk) -> None:
    one, other = target(disk), segment(0, 5, 1)
    assert copy(disk, parameter_list(one * CSCD_MAX, other * SEGMENTS_MAX)).status == Status.GOOD
    too_many = parameter_list(one * (CSCD_MAX + 1), other)
    assert copy_sense(disk, too_many) == (ILLEGAL, AdditionalSense.TOO_MANY_TARGET_DESCRIPTORS)
    too_many = parameter_list(one, other * (SEGMENTS_MAX + 1))
    assert copy_sense(disk, too_many) == (ILLEGAL, AdditionalSense.TOO_MANY_SEGMENT_DESCRIPTORS)
    too_long = parameter_list(one * (CSCD_MAX + 1), other * (SEGMENTS_MAX + 1))
    assert copy_sense(disk, too_long) == (ILLEGAL, AdditionalSense.PARAMETER_LIST_LENGTH_ERROR)
    assert len(too_long) > LIST_BYTES_MAX


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_list_is_carried_out_or_refused(data: bytes) -> None:
    disk = make_disk()
    task = copy(disk, data)
    assert task.status in (Status.GOOD, Status.CHECK_CONDITION)


class TestResults:
    def test_of_a_copy_that_is_done_running_or_unknown(self, disk: Disk) -> None:
        assert disk.sense(results(0)) == (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_CDB)
        disk.device.holding = True
        data = parameter_list(target(disk), segment(0, 4096, 4096) + segment(0, 5, 1))
        disk.start(cdb(len(data)), data)
        assert struct.unpack(">IBHBI", disk.data(results(0))) == (8, 0, 0, 3, 0)
        disk.device.release()
        disk.device.release()
        assert struct.unpack(">IBHBI", disk.data(results(0))) == (8, 0, 0, 3, 1)
        disk.device.holding = False
        disk.device.release()
        assert struct.unpack(">IBHBI", disk.data(results(0))) == (8, 1, 2, 3, 2)
        assert disk.data(results(4)) == bytes(4)
        assert disk.sense(results(0, list_id=2)) == (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_CDB)

    @pytest.mark.parametrize("step", [0, 1])
    def test_of_a_copy_that_failed(self, disk: Disk, step: int) -> None:
        disk.device.holding = True
        data = parameter_list(target(disk), segment(0, 4096, 1))
        task = disk.start(cdb(len(data)), data)
        if step:
            disk.device.release()
        [request] = disk.device.held
        disk.device.held.clear()
        request.error = StorageError(StorageFailure.READ_ERROR, "broken")
        request.done(request)  # type: ignore[arg-type]  # each takes its own class
        assert task.sense[2] == ABORTED
        disk.device.holding = False
        assert disk.data(results(0))[4] == 2
        details = disk.data(results(4))
        assert int.from_bytes(details[:4], "big") == len(details) - 4
        assert details[56] == Status.CHECK_CONDITION
        assert details[60:] == task.sense

    def test_an_aborted_copy_stops(self, disk: Disk) -> None:
        disk.device.holding = True
        data = parameter_list(target(disk), segment(0, 4096, 1))
        task = disk.start(cdb(len(data)), data)
        task.aborted = True
        disk.device.holding = False
        disk.device.release()
        assert disk.answered == [task]
        assert disk.memory.content(4096 * BLOCK, BLOCK) == bytes(BLOCK)
        assert disk.data(results(0))[4] == 2

    def test_only_the_last_ones_are_kept_and_none_without_an_identifier(self, disk: Disk) -> None:
        for list_id in range(RESULTS_MAX + 1):
            copy(disk, parameter_list(target(disk), segment(0, 5, 1), list_id=list_id))
        assert disk.sense(results(0, list_id=0)) == (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_CDB)
        disk.data(results(0, list_id=1))
        other = make_disk()
        copy(other, parameter_list(target(other), segment(0, 5, 1), list_id=0, flags=0x18))
        assert other.sense(results(0, list_id=0)) == (ILLEGAL, AdditionalSense.INVALID_FIELD_IN_CDB)

    def test_the_limits_are_told(self, disk: Disk) -> None:
        data = disk.data(results(3))
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        assert struct.unpack_from(">HHI", data, 8) == (CSCD_MAX, SEGMENTS_MAX, LIST_BYTES_MAX)
        assert data[43] == 2
        assert data[44:] == b"\x02\xe4"


def test_the_page_of_third_party_copies_is_made_of_descriptors(disk: Disk) -> None:
    data = disk.data(struct.pack(">BBBHB", 0x12, 1, 0x8F, 512, 0))
    assert disk.data(bytes([0x12, 0, 0, 0, 96, 0]))[5] & 0x08, "3PC"
    found, at = {}, 4
    while at < len(data):
        kind, length = struct.unpack_from(">HH", data, at)
        assert length % 4 == 0
        found[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(data) == 4 + int.from_bytes(data[2:4], "big")
    assert list(found) == [0x0001, 0x0004, 0x0008, 0x000C, 0x8001]
    assert found[0x0001][: found[0x0001][0] + 1] == bytes([8, 0x83, 1, 0, 0x84, 3, 0, 3, 4])
    assert struct.unpack_from(">4xHHI", found[0x0004]) == (CSCD_MAX, SEGMENTS_MAX, LIST_BYTES_MAX)
    assert len(found[0x8001]) == 32
