"""MODE SENSE and MODE SELECT: what is reported, what can be changed, what is saved, and what it does."""

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import MemoryParameters
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import Nexus, SenseKey
from pyjiva.scsi.mode import parse_mode_select
from pyjiva.scsi.saved import ModeParameters, decode_saved
from pyjiva.scsi.sense import Sense
from tests.scsi.conftest import Disk, HeldParameters, make_disk

ILLEGAL_FIELD = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
ILLEGAL_PARAMETER = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)
CHANGED = (SenseKey.UNIT_ATTENTION, Asc.MODE_PARAMETERS_CHANGED)
TEST_UNIT_READY = bytes(6)
PF, SP = 0x10, 0x01

RECOVERY = bytes([0x01, 10]) + bytes(10)
CACHING = bytes([0x08, 18, 0x04]) + bytes(17)
CONTROL = bytes([0x8A, 10, 0, 0x10]) + bytes(8)
INFORMATIONAL = bytes([0x1C, 10]) + bytes(10)


def control(*, d_sense: bool = False, swp: bool = False) -> bytes:
    """The control page, as MODE SELECT is given it."""
    return bytes([0x0A, 10, 4 * d_sense, 0x10, 8 * swp]) + bytes(7)


def select(disk: Disk, pages: bytes, flags: int = PF, **options: object) -> tuple[int, int] | None:
    """MODE SELECT(6): None, or the sense that it gave."""
    data = bytes(4) + pages
    task = disk.run(bytes([0x15, flags, 0, 0, len(data), 0]), data, **options)
    return None if not task.status else (task.sense[2], int.from_bytes(task.sense[12:14], "big"))


def sense_page(disk: Disk, page: int) -> bytes:
    """One page, or all, by MODE SENSE(6) without block descriptors."""
    return disk.data(bytes([0x1A, 8, page, 0, 255, 0]))[4:]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (0x01, RECOVERY),
        (0x08, CACHING),
        (0x0A, CONTROL),
        (0x1C, INFORMATIONAL),
        (0x3F, RECOVERY + CACHING + CONTROL + INFORMATIONAL),
        (0x48, bytes([0x08, 18]) + bytes(18)),
        (0x4A, bytes([0x8A, 10, 4, 0, 8]) + bytes(7)),
        (0x88, CACHING),
        (0x8A, CONTROL),
        (0xC8, CACHING),
        (0xCA, CONTROL),
    ],
)
@pytest.mark.parametrize("subpage", [0, 0xFF])
def test_mode_pages(disk: Disk, page: int, subpage: int, expected: bytes) -> None:
    descriptor = struct.pack(">II", 8192, 512)
    six = disk.data(bytes([0x1A, 0, page, subpage, 255, 0]))
    assert six == bytes([3 + 8 + len(expected), 0, 0x10, 8]) + descriptor + expected
    assert disk.data(bytes([0x1A, 8, page, subpage, 255, 0]))[4:] == expected
    ten = disk.data(struct.pack(">BBBB3xHB", 0x5A, 0, page, subpage, 512, 0))
    assert ten == struct.pack(">HBBBBH", 6 + 8 + len(expected), 0, 0x10, 0, 0, 8) + descriptor + expected
    long = disk.data(struct.pack(">BBBB3xHB", 0x5A, 0x10, page, subpage, 512, 0))
    assert long[4:8] == b"\1\0\0\x10"
    assert long[8:24] == struct.pack(">Q4xI", 8192, 512)


@pytest.mark.parametrize(("page", "subpage"), [(0x02, 0), (0x00, 0), (0x08, 1), (0x3F, 1), (0x0A, 1)])
def test_mode_pages_that_are_not_there(disk: Disk, page: int, subpage: int) -> None:
    assert disk.sense(bytes([0x1A, 0, page, subpage, 255, 0])) == ILLEGAL_FIELD


def test_software_write_protection_refuses_what_writes_and_nothing_else(disk: Disk) -> None:
    block = b"x" * 512
    write, read = struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0), struct.pack(">BBIBHB", 0x28, 0, 0, 0, 1, 0)
    same, unmap = struct.pack(">BBIBHB", 0x41, 0, 0, 0, 1, 0), struct.pack(">BBIBHB", 0x42, 0, 0, 0, 24, 0)
    verify = struct.pack(">BBIBHB", 0x2F, 2, 0, 0, 1, 0)
    assert select(disk, control(swp=True)) is None
    protected = (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert disk.sense(write, block) == protected
    assert disk.sense(same, block) == protected
    assert disk.sense(unmap, struct.pack(">HH4xQI4x", 22, 16, 0, 1)) == protected
    assert disk.memory.content(0, 512) == bytes(512)
    assert disk.data(read) == bytes(512)
    assert disk.run(verify, bytes(512)).status == 0
    assert disk.run(b"\x35" + bytes(9)).status == 0
    assert disk.data(b"\x1a\x08\x0a\0\xff\0")[2] == 0x90, "WP and DPOFUA"
    assert disk.data(b"\x5a\x08\x0a" + bytes(4) + b"\0\xff\0")[3] == 0x90
    assert select(disk, control()) is None, "it can be taken back"
    assert disk.run(write, block).status == 0
    assert not disk.unit.restricted


def test_d_sense_chooses_the_format_of_sense_data(disk: Disk) -> None:
    bad_field = b"\x12\0\x80\0\xff\0"
    assert disk.run(bad_field).sense[0] == 0x70
    assert select(disk, control(d_sense=True)) is None
    sense = disk.run(bad_field).sense
    assert sense == bytes([0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xC0, 0, 2, 0])
    assert disk.data(b"\x03\0\0\0\xff\0")[0] == 0x70, "REQUEST SENSE has a bit of its own"
    assert disk.data(b"\x03\1\0\0\xff\0") == bytes([0x72, 0, 0, 0, 0, 0, 0, 0])


def test_descriptor_sense_has_the_information_field_in_full() -> None:
    sense = Sense(SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY, information=0x1_2345_6789)
    expected = struct.pack(">BBHxxxB BBBxQ", 0x72, 0x0E, 0x1D00, 12, 0, 10, 0x80, 0x1_2345_6789)
    assert sense.encode(descriptors=True) == expected


def test_other_initiators_are_told_of_a_change_once(disk: Disk) -> None:
    other = Nexus("other")
    disk.server.attach(other)
    disk.unit.attentions.clear()
    assert select(disk, CONTROL) is None, "as it is: PS is ignored, nothing changes"
    assert disk.run(TEST_UNIT_READY, nexus=other).status == 0
    assert select(disk, control(swp=True)) is None
    assert disk.run(TEST_UNIT_READY).status == 0
    assert disk.sense(TEST_UNIT_READY, nexus=other) == CHANGED
    assert disk.run(TEST_UNIT_READY, nexus=other).status == 0


@pytest.mark.parametrize(
    "pages",
    [
        CACHING[:2] + bytes(18),  # WCE cleared
        bytes([0x0A, 10, 2, 0x10]) + bytes(8),  # GLTSD
        bytes([0x0A, 10, 0, 0x00]) + bytes(8),  # restricted reordering
        bytes([0x0A, 10, 0, 0x10, 0, 0x40]) + bytes(6),  # TAS
        bytes([0x0A, 9, 0, 0x10]) + bytes(7),
        bytes([0x02, 14]) + bytes(14),
        bytes([0x4A, 1, 0, 10]) + bytes(10),
        control(swp=True) + bytes([0x3F, 0]),
        control(swp=True) + INFORMATIONAL[:2] + b"\x08" + INFORMATIONAL[3:],
    ],
)
def test_what_cannot_be_changed_is_refused_and_nothing_changes(disk: Disk, pages: bytes) -> None:
    assert select(disk, pages) == ILLEGAL_PARAMETER
    assert disk.unit.mode == ModeParameters()


@pytest.mark.parametrize("pages", [CONTROL[:11], CONTROL[:1], control(swp=True) + b"\x08"])
def test_parameter_list_that_is_cut_short_is_refused(disk: Disk, pages: bytes) -> None:
    assert select(disk, pages) == TOO_SHORT
    assert disk.sense(bytes([0x15, PF, 0, 0, 30, 0]), bytes(4) + CONTROL) == TOO_SHORT
    assert disk.sense(bytes([0x15, PF, 0, 0, 3, 0]), bytes(3)) == TOO_SHORT
    assert disk.unit.mode == ModeParameters()


def test_pages_without_page_format_are_refused_and_none_at_all_is_fine(disk: Disk) -> None:
    assert select(disk, CONTROL, flags=0) == ILLEGAL_FIELD
    assert disk.run(bytes([0x15, 0, 0, 0, 0, 0])).status == 0
    assert disk.run(bytes([0x15, PF | SP, 0, 0, 0, 0])).status == 0
    assert select(disk, b"") is None


@pytest.mark.parametrize(
    ("blocks", "size", "fits"),
    [(8192, 512, True), (0, 512, True), (0xFFFFFFFF, 512, True), (8191, 512, False), (0, 4096, False)],
)
def test_block_descriptor_must_say_what_is(disk: Disk, blocks: int, size: int, fits: bool) -> None:
    short = struct.pack(">xBxBII", 0, 8, blocks, size) + control(swp=True)
    assert (disk.run(bytes([0x15, PF, 0, 0, len(short), 0]), short).status == 0) == fits
    assert disk.unit.mode.write_protected == fits
    long = struct.pack(">2xBxBxHQ4xI", 0, 1, 16, blocks, size) + control(d_sense=True)
    assert (disk.run(struct.pack(">BB5xHB", 0x55, PF, len(long), 0), long).status == 0) == fits
    assert disk.unit.mode.descriptor_sense == fits


@pytest.mark.parametrize("header", [b"\0\1\0\0", b"\0\0\0\1", b"\0\0\0\x10"])
def test_header_that_makes_no_sense_is_refused(disk: Disk, header: bytes) -> None:
    data = header + bytes(16)
    assert disk.sense(bytes([0x15, PF, 0, 0, len(data), 0]), data) == ILLEGAL_PARAMETER


def test_saved_pages_survive_and_current_ones_end_with_a_reset() -> None:
    store = MemoryParameters()
    disk = make_disk(store=store)
    assert select(disk, control(d_sense=True), flags=PF | SP) is None
    assert select(disk, control(swp=True)) is None
    assert sense_page(disk, 0x0A)[2:5] == b"\0\x10\x08", "current"
    assert sense_page(disk, 0x8A)[2:5] == b"\0\x10\0", "default"
    assert sense_page(disk, 0xCA)[2:5] == b"\4\x10\0", "saved"
    disk.server.reset([disk.unit])
    assert disk.unit.mode == ModeParameters(descriptor_sense=True)
    assert not disk.unit.restricted
    assert make_disk(store=store).unit.mode == ModeParameters(descriptor_sense=True)


def test_write_protection_that_was_saved_is_in_force_after_a_restart() -> None:
    store = MemoryParameters()
    assert select(make_disk(store=store), control(swp=True), flags=PF | SP) is None
    disk = make_disk(store=store)
    assert disk.sense(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0), b"x" * 512)[0] == SenseKey.DATA_PROTECT


def test_mode_select_is_answered_when_it_is_saved_and_fails_with_the_store() -> None:
    store = HeldParameters()
    disk = make_disk(store=store)
    data = bytes(4) + control(swp=True)
    cdb = bytes([0x15, PF | SP, 0, 0, len(data), 0])
    task = disk.start(cdb, data)
    assert disk.answered == []
    assert not disk.unit.write_protected
    store.release(StorageError(StorageFailure.WRITE_ERROR, "full"))
    assert task.status == 2
    assert task.sense[2] == SenseKey.MEDIUM_ERROR
    assert disk.unit.mode == ModeParameters() == disk.unit.saved.mode
    again = disk.start(cdb, data)
    store.release()
    assert again.status == 0
    assert disk.unit.write_protected
    assert decode_saved(store.parameters).mode == ModeParameters(write_protected=True)


def test_aborted_mode_select_that_waits_for_its_turn_changes_nothing() -> None:
    store = HeldParameters()
    disk = make_disk(store=store)
    data = bytes(4) + control(swp=True)
    disk.start(bytes([0x15, PF | SP, 0, 0, len(data), 0]), data)
    second = bytes(4) + control(d_sense=True)
    task = disk.start(bytes([0x15, PF, 0, 0, len(second), 0]), second)
    task.abort(None)
    store.release()
    assert len(disk.answered) == 2
    assert disk.unit.mode == ModeParameters(write_protected=True)


@given(
    data=st.one_of(
        st.binary(max_size=64),
        st.lists(st.sampled_from([RECOVERY, CACHING, CONTROL, INFORMATIONAL, control(swp=True), b"\x0a"]))
        .map(b"".join)
        .map(lambda pages: bytes(4) + pages),
    ),
    long_header=st.booleans(),
)
def test_any_parameter_list_gives_parameters_or_sense(data: bytes, long_header: bool) -> None:
    disk = make_disk()
    parsed = parse_mode_select(disk.unit, data, long_header=long_header)
    assert isinstance(parsed, ModeParameters | Sense)
    if isinstance(parsed, Sense):
        assert parsed.key is SenseKey.ILLEGAL_REQUEST
    assert disk.unit.mode == ModeParameters()


@given(mode=st.builds(ModeParameters, st.booleans(), st.booleans()))
def test_what_mode_sense_reports_can_be_selected_again(mode: ModeParameters) -> None:
    disk = make_disk()
    disk.unit.set_mode(mode)
    everything = disk.data(bytes([0x1A, 0, 0x3F, 0, 255, 0]))
    disk.unit.set_mode(ModeParameters())
    assert disk.run(bytes([0x15, PF, 0, 0, len(everything), 0]), everything).status == 0
    assert attrs.asdict(disk.unit.mode) == attrs.asdict(mode)
