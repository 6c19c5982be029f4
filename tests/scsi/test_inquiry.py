"""INQUIRY, VPD pages, capacity: what initiators decide by."""

import struct

import pytest

from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import SenseKey, UnitIdentity
from pyjiva.scsi.command_table import COMMANDS, Command
from tests.scsi.conftest import VOLUME_ID, Disk, KnownSpace, make_disk

ILLEGAL_FIELD = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


def vpd(disk: Disk, page: int) -> bytes:
    data = disk.data(struct.pack(">BBBHB", 0x12, 1, page, 512, 0))
    assert data[:2] == bytes([0, page])
    assert int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[4:]


def test_standard_inquiry(disk: Disk) -> None:
    data = disk.data(b"\x12\0\0\0\xff\0")
    assert len(data) == 96 == data[4] + 5
    assert data[0] == 0
    assert data[2] == 6
    assert data[8:36] == b"OPENEBS PYJIVA          0001"


@pytest.mark.parametrize("length", [0, 5, 36, 96, 255])
def test_inquiry_is_cut_to_the_allocation_length(disk: Disk, length: int) -> None:
    assert len(disk.data(struct.pack(">BBBHB", 0x12, 0, 0, length, 0))) == min(length, 96)


def test_supported_pages_are_the_ones_that_answer(disk: Disk) -> None:
    supported = vpd(disk, 0)
    assert list(supported) == [0x00, 0x80, 0x83, 0x86, 0x87, 0x88, 0x8F, 0xB0, 0xB1, 0xB2]
    for page in range(256):
        if page in supported:
            vpd(disk, page)
        else:
            assert disk.sense(struct.pack(">BBBHB", 0x12, 1, page, 512, 0)) == ILLEGAL_FIELD


def test_page_code_without_evpd_is_refused(disk: Disk) -> None:
    assert disk.sense(b"\x12\0\x80\0\xff\0") == ILLEGAL_FIELD


def designators(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while data:
        length = data[3]
        found.append((data[0], data[1], data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def test_identifiers_come_from_the_volume_id_alone(disk: Disk, disk_4k: Disk) -> None:
    assert vpd(disk, 0x80) == VOLUME_ID.encode()
    assert vpd(disk, 0x83) == vpd(disk_4k, 0x83)
    naa, vendor, port, group = designators(vpd(disk, 0x83))
    assert (naa[:2], len(naa[2]), naa[2][0] >> 4) == ((0x01, 0x03), 8, 3)
    assert vendor == (0x02, 0x01, b"OPENEBS PYJIVA " + VOLUME_ID.encode())
    assert port == (0x51, 0x94, b"\0\0\0\1")
    assert group == (0x51, 0x95, b"\0\0\0\1")


def test_the_port_has_its_iscsi_name(disk: Disk) -> None:
    disk.unit.target_port_name = "iqn.2026-01.test:volume,t,0x0001"
    name = (0x53, 0x98, b"iqn.2026-01.test:volume,t,0x0001\0\0\0\0")
    assert designators(vpd(disk, 0x83))[-1] == name
    ports = vpd(disk, 0x88)
    assert struct.unpack_from(">2xH2xH2xH", ports) == (1, 0, len(ports) - 12)
    assert designators(ports[12:]) == [name]


def test_what_the_unit_says_of_its_ways(disk: Disk) -> None:
    assert disk.data(bytes([0x12, 0, 0, 0, 96, 0]))[5] >> 4 & 3 == 1, "TPGS: implicit"
    assert vpd(disk, 0x86) == bytes([0, 7, 1, 1]) + bytes(56)
    assert vpd(disk, 0x87) == bytes([0x3F, 0xFF, 0, 0])
    groups = bytes([0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1])
    assert disk.data(struct.pack(">BBIIBB", 0xA3, 0x0A, 0, 99, 0, 0)) == bytes([0, 0, 0, 12]) + groups
    extended = disk.data(struct.pack(">BBIIBB", 0xA3, 0x2A, 0, 99, 0, 0))
    assert extended == bytes([0, 0, 0, 16, 0x10, 0, 0, 0]) + groups
    assert disk.sense(struct.pack(">BBIIBB", 0xA3, 0x4A, 0, 99, 0, 0)) == ILLEGAL_FIELD
    assert disk.run(bytes([0x1D, 4, 0, 0, 0, 0])).status == 0
    assert disk.sense(bytes([0x1D, 0x14, 0, 0, 0, 0])) == ILLEGAL_FIELD


def test_identifiers_of_two_volumes_differ() -> None:
    names = {UnitIdentity(f"volume-{number}").network_address_authority for number in range(1000)}
    assert len(names) == 1000


@pytest.mark.parametrize(("size", "per_physical", "exponent"), [(512, 8, 3), (4096, 1, 0)])
def test_limits_and_capacity(disk: Disk, disk_4k: Disk, size: int, per_physical: int, exponent: int) -> None:
    chosen = disk if size == 512 else disk_4k
    limits = vpd(chosen, 0xB0)
    assert len(limits) == 60
    (_, caw, granularity, maximum, optimal, _, unmap, descriptors, unmap_granularity, alignment, same) = (
        struct.unpack_from(">BBHIIIIIIIQ", limits)
    )
    assert (caw, granularity, unmap_granularity, alignment) == (128, per_physical, per_physical, 1 << 31)
    assert (maximum * size, optimal * size) == (4 << 20, 1 << 20)
    assert (unmap * size, descriptors, same * size) == (512 << 20, 256, 16 << 20)
    capacity = chosen.data(struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0))
    assert struct.unpack_from(">QIBBB", capacity) == ((4 << 20) // size - 1, size, 0, exponent, 0xC0)
    assert len(capacity) == 32
    assert chosen.data(b"\x25" + bytes(9)) == struct.pack(">II", (4 << 20) // size - 1, size)


def test_unit_is_thin_does_not_rotate_and_reads_zeros(disk: Disk) -> None:
    assert vpd(disk, 0xB1)[:4] == b"\0\1\0\x40"
    assert vpd(disk, 0xB2) == bytes([0, 0xE4, 2, 0])


@pytest.mark.parametrize(("block_size", "exponent"), [(512, 11), (4096, 8)])
def test_a_unit_whose_room_is_known_has_threshold_sets_of_a_mebibyte(block_size: int, exponent: int) -> None:
    assert vpd(make_disk(block_size, space=KnownSpace(None)), 0xB2) == bytes([exponent, 0xE4, 2, 0])


def test_capacity_of_a_large_unit_does_not_fit_into_ten_bytes(disk: Disk) -> None:
    disk.memory.size_bytes = 3 << 40
    disk.unit.capacity_changed()
    disk.unit.attentions.clear()
    assert disk.data(b"\x25" + bytes(9))[:4] == b"\xff\xff\xff\xff"
    assert disk.sense(b"\x25\0\0\0\0\1\0\0\0\0") == ILLEGAL_FIELD


def report(disk: Disk, options: int, code: int = 0, action: int = 0, length: int = 4096) -> bytes:
    return disk.data(struct.pack(">BBBBHIBB", 0xA3, 0x0C, options, code, action, length, 0, 0))


@pytest.mark.parametrize("timeouts", [0, 0x80])
def test_all_commands_are_reported(disk: Disk, timeouts: int) -> None:
    data = report(disk, timeouts)
    size = 20 if timeouts else 8
    assert int.from_bytes(data[:4], "big") == len(data) - 4 == size * len(COMMANDS)
    reported = set()
    for start in range(4, len(data), size):
        code, action, flags, length = struct.unpack_from(">BxHxBH", data, start)
        assert bool(flags & 2) == bool(timeouts)
        reported.add((code, action if flags & 1 else None, length))
    assert reported == {(c.operation_code, c.service_action, len(c.usage)) for c in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_one_command_is_reported_with_its_usage(disk: Disk, command: Command) -> None:
    code, action, usage = command.operation_code, command.service_action, command.usage
    for options in (3, 1 if action is None else 2):
        data = report(disk, options, code, action or 0)
        assert data == struct.pack(">BBH", 0, 3, len(usage)) + usage
    wrong = 2 if action is None else 1
    cdb = struct.pack(">BBBBHIBB", 0xA3, 0x0C, wrong, code, action or 0, 4096, 0, 0)
    assert disk.sense(cdb) == ILLEGAL_FIELD


@pytest.mark.parametrize(
    ("options", "code", "action"),
    [(1, 0x3C, 0), (2, 0x5E, 4), (3, 0xA3, 0x0B), (2, 0x9E, 0x11), (3, 0x28, 1)],
)
def test_command_that_is_not_there_is_reported_as_such(
    disk: Disk, options: int, code: int, action: int
) -> None:
    assert report(disk, options, code, action) == struct.pack(">BBH", 0, 1, 0)


def test_report_luns(disk: Disk) -> None:
    assert disk.data(b"\xa0\0\0\0\0\0\0\0\1\0\0\0") == struct.pack(">I4x", 8) + bytes(8)
    assert disk.data(b"\xa0\0\1\0\0\0\0\0\1\0\0\0") == bytes(8)
    assert disk.sense(b"\xa0\0\0\0\0\0\0\0\0\x0f\0\0") == ILLEGAL_FIELD
    assert disk.sense(b"\xa0\0\x09\0\0\0\0\0\1\0\0\0") == ILLEGAL_FIELD


@pytest.mark.parametrize(
    ("action", "works"), [(0x01, True), (0x00, False), (0x02, False), (0x03, False), (0x11, False)]
)
def test_start_stop_unit(disk: Disk, action: int, works: bool) -> None:
    cdb = bytes([0x1B, 0, 0, 0, action, 0])
    assert disk.run(cdb).status == (0 if works else 2)
