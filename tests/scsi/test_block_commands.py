"""The commands that move, zero, unmap, verify: named as libiscsi's tests where it has one."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import SenseKey
from tests.scsi.conftest import Disk, make_disk

BLOCKS = 8192
OUT_OF_RANGE = (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)
ILLEGAL_FIELD = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
BAD_LIST = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
BAD_LENGTH = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def cdb_6(code: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBHBB", code, lba >> 16, lba & 0xFFFF, count, 0)


def cdb_10(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", code, flags, lba, 0, count, 0)


def cdb_12(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIIBB", code, flags, lba, count, 0, 0)


def cdb_16(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", code, flags, lba, count, 0, 0)


Make = Callable[..., bytes]
READS: list[tuple[Make, int]] = [(cdb_6, 0x08), (cdb_10, 0x28), (cdb_12, 0xA8), (cdb_16, 0x88)]
WRITES: list[tuple[Make, int]] = [(cdb_6, 0x0A), (cdb_10, 0x2A), (cdb_12, 0xAA), (cdb_16, 0x8A)]
VERIFIES: list[tuple[Make, int]] = [(cdb_10, 0x2F), (cdb_12, 0xAF), (cdb_16, 0x8F)]
WRITE_SAMES: list[tuple[Make, int]] = [(cdb_10, 0x41), (cdb_16, 0x93)]
SIZES = ["6", "10", "12", "16"]


@pytest.mark.parametrize(("make", "code"), READS, ids=SIZES)
def test_read_simple(disk: Disk, make: Make, code: int) -> None:
    disk.memory._write(5 * 512, b"abcd" * 256)
    assert disk.data(make(code, 5, 2)) == b"abcd" * 256


@pytest.mark.parametrize(("make", "code"), READS + WRITES + VERIFIES)
@pytest.mark.parametrize(("lba", "count"), [(BLOCKS - 1, 2), (BLOCKS, 1), (0x1FFFFF, 1), (BLOCKS - 100, 200)])
def test_beyond_eol(disk: Disk, make: Make, code: int, lba: int, count: int) -> None:
    assert disk.sense(make(code, lba, count), bytes(200 * 512)) == OUT_OF_RANGE


@pytest.mark.parametrize(("make", "code"), READS[1:] + WRITES[1:] + VERIFIES)
def test_zero_blocks(disk: Disk, make: Make, code: int) -> None:
    for lba in (0, BLOCKS):
        assert disk.data(make(code, lba, 0)) == b""
    assert disk.sense(make(code, BLOCKS + 1, 0)) == OUT_OF_RANGE


def test_zero_blocks_mean_256_in_six_bytes(disk: Disk) -> None:
    assert disk.run(cdb_6(0x0A, 0, 0), b"w" * 256 * 512).status == 0
    assert disk.data(cdb_6(0x08, 0, 0)) == b"w" * 256 * 512


@pytest.mark.parametrize(("make", "code"), WRITES, ids=SIZES)
def test_write_simple(disk: Disk, make: Make, code: int) -> None:
    assert disk.run(make(code, 5, 2), b"wxyz" * 256).status == 0
    assert disk.memory.content(4 * 512, 2048) == bytes(512) + b"wxyz" * 256 + bytes(512)


@pytest.mark.parametrize(("make", "code"), READS[1:] + WRITES[1:])
def test_more_than_the_maximum_transfer_length(make: Make, code: int) -> None:
    disk = make_disk(size_bytes=16 << 20)
    assert disk.sense(make(code, 0, 8193)) == ILLEGAL_FIELD
    disk.run(make(code, 0, 8192), bytes(4 << 20))
    assert disk.answered[-1].status == 0


@pytest.mark.parametrize("flags", [0x00, 0x08, 0x10, 0x18])
def test_dpo_and_fua(disk: Disk, flags: int) -> None:
    assert disk.run(cdb_10(0x2A, 0, 1, flags), b"f" * 512).status == 0
    assert disk.memory.flush_count == bool(flags & 8)
    assert disk.data(cdb_10(0x28, 0, 1, flags)) == b"f" * 512
    assert disk.memory.flush_count == 2 * bool(flags & 8)


@pytest.mark.parametrize("protect", [0x20, 0x40, 0x60, 0x80, 0xE0])
def test_protection_information_is_refused(disk: Disk, protect: int) -> None:
    for code in (0x28, 0x2A, 0x2F, 0x41):
        assert disk.sense(cdb_10(code, 0, 1, protect), bytes(512)) == ILLEGAL_FIELD


@pytest.mark.parametrize(("make", "code"), [(cdb_10, 0x35), (cdb_16, 0x91)])
def test_synchronize_cache(disk: Disk, make: Make, code: int) -> None:
    disk.run(make(code, 0, 0))
    disk.run(make(code, 5, 8, 0x02))
    assert disk.memory.flush_count == 2
    assert disk.sense(make(code, BLOCKS, 1)) == OUT_OF_RANGE


# UNMAP


def unmap_list(*descriptors: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(">QI4x", lba, count) for lba, count in descriptors)
    return struct.pack(">HH4x", 6 + len(body), len(body)) + body


def unmap(length: int) -> bytes:
    return cdb_10(0x42, 0, length)


def test_unmap_simple(disk: Disk) -> None:
    disk.memory._write(0, b"u" * 64 * 512)
    data = unmap_list((0, 8), (16, 1), (20, 0), (17, 3))
    assert disk.run(unmap(len(data)), data).status == 0
    expected = bytearray(b"u" * 64 * 512)
    expected[0 : 8 * 512] = bytes(8 * 512)
    expected[16 * 512 : 20 * 512] = bytes(4 * 512)
    assert disk.memory.content(0, 64 * 512) == expected


def test_unmap_zero_blocks(disk: Disk) -> None:
    assert disk.run(unmap(0)).status == 0
    assert disk.run(unmap(8), unmap_list()).status == 0
    assert disk.run(unmap(24), unmap_list((BLOCKS, 0))).status == 0


def test_unmap_list_is_checked_before_anything_is_unmapped(disk: Disk) -> None:
    disk.memory._write(0, b"u" * 4096)
    data = unmap_list((0, 8), (BLOCKS - 1, 2))
    assert disk.sense(unmap(len(data)), data) == OUT_OF_RANGE
    many = unmap_list(*[(number, 1) for number in range(257)])
    assert disk.sense(unmap(len(many)), many) == BAD_LIST
    assert disk.sense(unmap(7), bytes(7)) == BAD_LENGTH
    assert disk.sense(unmap(24), unmap_list((0, 1))[:20]) == BAD_LENGTH
    assert disk.sense(cdb_10(0x42, 0, 24, 1), unmap_list((0, 1))) == ILLEGAL_FIELD, "ANCHOR"
    assert disk.memory.content(0, 4096) == b"u" * 4096


def test_unmap_of_more_than_the_limit_is_refused() -> None:
    disk = make_disk(size_bytes=2 << 30)
    data = unmap_list((0, 1 << 20), (1 << 20, 1))
    assert disk.sense(unmap(len(data)), data) == BAD_LIST
    data = unmap_list((0, 1 << 20))
    assert disk.run(unmap(len(data)), data).status == 0


def test_descriptor_that_is_cut_off_is_ignored(disk: Disk) -> None:
    disk.memory._write(0, b"u" * 1024)
    data = unmap_list((0, 1), (1, 1))[:-4]
    assert disk.run(unmap(len(data)), data).status == 0
    assert disk.memory.content(0, 1024) == bytes(512) + b"u" * 512


@given(data=st.binary(max_size=120))
def test_any_unmap_list_is_carried_out_or_refused(data: bytes) -> None:
    disk = make_disk()
    task = disk.run(unmap(len(data)), data)
    assert task.status in (0, 2)


# WRITE SAME


@pytest.mark.parametrize(("make", "code"), WRITE_SAMES, ids=["10", "16"])
@pytest.mark.parametrize("flags", [0x00, 0x08])
@pytest.mark.parametrize("block", [bytes(512), b"s" * 512], ids=["zeros", "pattern"])
@pytest.mark.parametrize("count", [1, 7, 3000])
def test_writesame(disk: Disk, make: Make, code: int, flags: int, block: bytes, count: int) -> None:
    """Whatever the device server does with UNMAP, the blocks read as what was sent (SBC-3 §5.43)."""
    disk.memory._write(0, b"o" * 4000 * 512)
    assert disk.run(make(code, 10, count, flags), block).status == 0
    content = disk.memory.content(0, 4000 * 512)
    assert content == b"o" * 5120 + block * count + b"o" * (3990 - count) * 512


@pytest.mark.parametrize(("make", "code"), WRITE_SAMES, ids=["10", "16"])
def test_writesame_until_the_end(disk: Disk, make: Make, code: int) -> None:
    assert disk.run(make(code, BLOCKS - 3, 0), b"e" * 512).status == 0
    assert disk.memory.content((BLOCKS - 4) * 512, 2048) == bytes(512) + b"e" * 1536
    assert disk.sense(make(code, BLOCKS, 0), b"e" * 512) == OUT_OF_RANGE


@pytest.mark.parametrize(("make", "code"), WRITE_SAMES, ids=["10", "16"])
@pytest.mark.parametrize("length", [0, 256, 1024])
def test_writesame_invalid_dataout_size(disk: Disk, make: Make, code: int, length: int) -> None:
    expected = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT)
    assert disk.sense(make(code, 0, 1), b"x" * length) == expected
    assert disk.memory.content(0, 512) == bytes(512)


def test_writesame16_without_data(disk: Disk) -> None:
    disk.memory._write(0, b"o" * 4096)
    assert disk.run(cdb_16(0x93, 1, 2, 0x01)).status == 0
    assert disk.run(cdb_16(0x93, 4, 1, 0x09)).status == 0
    assert disk.memory.content(0, 4096) == b"o" * 512 + bytes(1024) + b"o" * 512 + bytes(512) + b"o" * 1536


def test_writesame_anchor_is_refused(disk: Disk) -> None:
    for flags in (0x10, 0x18):
        assert disk.sense(cdb_16(0x93, 0, 1, flags), bytes(512)) == ILLEGAL_FIELD


def test_writesame_longer_than_the_limit() -> None:
    disk = make_disk(size_bytes=64 << 20)
    assert disk.sense(cdb_16(0x93, 0, 32769), bytes(512)) == ILLEGAL_FIELD
    assert disk.sense(cdb_16(0x93, 0, 0), bytes(512)) == ILLEGAL_FIELD
    assert disk.run(cdb_16(0x93, 0, 32768), bytes(512)).status == 0


# VERIFY


@pytest.mark.parametrize(("make", "code"), VERIFIES, ids=SIZES[1:])
def test_verify(disk: Disk, make: Make, code: int) -> None:
    disk.memory._write(0, b"v" * 4096)
    for cdb, data in [
        (make(code, 0, 8), b""),
        (make(code, 0, 8, 0x10), b""),
        (make(code, 0, 8, 0x02), b"v" * 4096),
        (make(code, 0, 8, 0x06), b"v" * 512),
        (make(code, 0, 0, 0x02), b""),
    ]:
        assert disk.run(cdb, data).status == 0
    assert disk.sense(make(code, 0, 8, 0x04), b"") == ILLEGAL_FIELD


@pytest.mark.parametrize("flags", [0x02, 0x06])
def test_verify_mismatch(flags: int) -> None:
    disk = make_disk()
    disk.memory._write(0, b"v" * 4096 * 512)
    disk.memory._write(3000 * 512 + 17, b"X")
    data = b"v" * (512 if flags == 0x06 else 4000 * 512)
    task = disk.run(cdb_10(0x2F, 0, 4000, flags), data)
    assert (task.sense[2], task.sense[12]) == (SenseKey.MISCOMPARE, 0x1D)
    assert task.sense[0] == 0xF0
    assert int.from_bytes(task.sense[3:7], "big") == 3000 * 512 + 17


# GET LBA STATUS


def lba_status(disk: Disk, lba: int, length: int = 4096) -> list[tuple[int, int, int]]:
    data = disk.data(struct.pack(">BBQIBB", 0x9E, 0x12, lba, length, 0, 0))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return [struct.unpack_from(">QIB", data, start) for start in range(8, len(data), 16)]


def test_get_lba_status(disk: Disk) -> None:
    assert lba_status(disk, 0) == [(0, BLOCKS, 1)]
    disk.memory._write(8 * 512, b"g")
    disk.memory._write(64 * 512, b"g")
    assert lba_status(disk, 0) == [(0, 8, 1), (8, 8, 0), (16, 48, 1), (64, 8, 0), (72, BLOCKS - 72, 1)]
    assert lba_status(disk, 10) == [(10, 6, 0), (16, 48, 1), (64, 8, 0), (72, BLOCKS - 72, 1)]
    assert disk.sense(struct.pack(">BBQIBB", 0x9E, 0x12, BLOCKS, 64, 0, 0)) == OUT_OF_RANGE
    whole = disk.data(struct.pack(">BBQIBB", 0x9E, 0x12, 0, 24, 0, 0))
    assert len(whole) == 24


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, BLOCKS - 64), st.integers(1, 64), st.binary(min_size=1, max_size=1)
        ),
        max_size=12,
    )
)
def test_random_commands_match_a_plain_copy(steps: list[tuple[bool, int, int, bytes]]) -> None:
    disk, model = make_disk(), bytearray(4 << 20)
    for is_write, lba, count, byte in steps:
        if is_write:
            disk.run(cdb_10(0x2A, lba, count), byte * count * 512)
            model[lba * 512 : (lba + count) * 512] = byte * count * 512
        else:
            data = unmap_list((lba, count))
            disk.run(unmap(len(data)), data)
            model[lba * 512 : (lba + count) * 512] = bytes(count * 512)
        assert disk.data(cdb_10(0x28, lba, count)) == model[lba * 512 : (lba + count) * 512]
    assert disk.memory.content(0, len(model)) == model
