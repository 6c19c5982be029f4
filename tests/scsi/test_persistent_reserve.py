"""PERSISTENT RESERVE IN and OUT, RESERVE and RELEASE as an initiator sees them."""

import struct
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import Nexus, SenseKey, Status
from pyjiva.scsi.command_table import COMMANDS, Command, Conflict
from pyjiva.scsi.persistent_reserve import PARAMETER_LIST_BYTES_MAX, parse_event
from pyjiva.scsi.reservation import (
    Event,
    Register,
    RegisterAndMove,
    Reservation,
    ReservationType,
)
from pyjiva.scsi.sense import Sense
from pyjiva.scsi.transport_id import encode_transport_id
from tests.scsi.cluster import (
    BLOCK,
    CLEAR,
    EA,
    EA_AR,
    EA_RO,
    MOVE,
    PREEMPT,
    PREEMPT_AND_ABORT,
    READ,
    READ_FULL_STATUS,
    READ_KEYS,
    READ_RESERVATION,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RELEASE_6,
    RELEASE_10,
    REPORT_CAPABILITIES,
    RESERVE,
    RESERVE_6,
    RESERVE_10,
    TEST_UNIT_READY,
    WE,
    WE_AR,
    WE_RO,
    WRITE,
    A,
    B,
    C,
    Cluster,
    keys,
    make_cluster,
    out,
)

ILLEGAL_PARAMETER = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
ILLEGAL_FIELD = (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)
TOO_SHORT = (SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


# What PERSISTENT RESERVE IN says


def test_keys_are_read_in_the_order_of_registration(cluster: Cluster) -> None:
    assert cluster.read(READ_KEYS) == bytes(8)
    cluster.do(B, REGISTER, 0, 0x1122334455667788)
    cluster.do(A, REGISTER, 0, 5)
    cluster.do(C, REGISTER_AND_IGNORE, 99, 5)
    expected = struct.pack(">IIQQQ", 3, 24, 0x1122334455667788, 5, 5)
    assert cluster.read(READ_KEYS) == expected
    assert cluster.read(READ_KEYS, 12) == expected[:12], "the length is of all"


@pytest.mark.parametrize("kind", ReservationType)
def test_reservation_is_read_with_its_type_and_key(cluster: Cluster, kind: ReservationType) -> None:
    cluster.do(A, REGISTER, 0, 0xAB)
    assert cluster.read(READ_RESERVATION) == struct.pack(">II", 1, 0)
    cluster.do(A, RESERVE, 0xAB, 0, kind)
    key = 0 if kind in (WE_AR, EA_AR) else 0xAB
    assert cluster.read(READ_RESERVATION, port=C) == struct.pack(">IIQ5xB2x", 1, 16, key, kind)


def test_capabilities_are_the_ones_that_there_are(cluster: Cluster) -> None:
    assert cluster.read(REPORT_CAPABILITIES) == bytes([0, 8, 0x1D, 0xC0, 0xEA, 0x01, 0, 0])
    cluster.do(A, REGISTER, 0, 1, flags=1)
    assert cluster.read(REPORT_CAPABILITIES)[3] == 0xC1, "persistence is in force"
    cluster.do(A, REGISTER, 1, 2)
    assert cluster.read(REPORT_CAPABILITIES)[3] == 0xC0


@pytest.mark.parametrize("kind", [WE_RO, EA_AR])
def test_full_status_names_every_port(cluster: Cluster, kind: ReservationType) -> None:
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(B, REGISTER, 0, 2)
    cluster.do(A, RESERVE, 1, 0, kind)
    data = cluster.read(READ_FULL_STATUS)
    expected = b""
    for port, key in ((A, 1), (B, 2)):
        holds = port == A or kind == EA_AR
        transport_id = encode_transport_id(port)
        expected += (
            struct.pack(">Q4xBB4xHI", key, holds, kind if holds else 0, 1, len(transport_id)) + transport_id
        )
    assert data == struct.pack(">II", 2, len(expected)) + expected


@pytest.mark.parametrize("code", [0x5E, 0x5F])
def test_service_actions_that_are_not_there_are_invalid_fields(cluster: Cluster, code: int) -> None:
    for action in range(4 if code == 0x5E else 8, 32):
        cdb = bytes([code, action]) + bytes(8)
        assert cluster.disk.sense(cdb) == ILLEGAL_FIELD


# Conflicts


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_what_a_reservation_does_to_each_command(command: Command) -> None:
    """The column `conflict` is what happens, whatever else is wrong with the CDB."""
    cdb = command.usage[:1] + bytes([command.service_action or 0]) + bytes(14)
    for kind in ReservationType:
        cluster = make_cluster()
        cluster.do(A, REGISTER, 0, 1)
        cluster.do(A, RESERVE, 1, 0, kind)
        status = cluster.status(C, cdb)
        conflict = command.conflict_of(cdb)
        forbidden = conflict is Conflict.WRITES or (conflict is Conflict.READS and kind in (EA, EA_RO, EA_AR))
        if command.operation_code in (0x16, 0x17, 0x56, 0x57):
            forbidden = True  # SPC-2: somebody is registered
        elif command.operation_code == 0x5F:
            assert status == Status.CHECK_CONDITION, "its parameter list is missing"
            continue
        assert (status == Status.RESERVATION_CONFLICT) == forbidden, kind
        assert cluster.status(A, cdb) != Status.RESERVATION_CONFLICT


#: Operation code, or that and the service action: the columns of SPC-4 table 65 and SBC-3 table 13, also of
#: commands that we do not have.
CONFLICTS: Final[dict[Conflict, set[int | tuple[int, int]]]] = {
    Conflict.NEVER: {
        0x03, 0x12, 0x25, 0x4D, *((0x84, action) for action in range(32)), 0xA0, (0x9E, 0x10),
        (0xA3, 0x05), (0xA3, 0x0A), (0xA3, 0x0F),
        0x16, 0x17, 0x56, 0x57,  # RESERVE and RELEASE: by their own rules
    },
    Conflict.RESERVED: {
        0x00, *((0x5E, action) for action in range(4)), *((0x5F, action) for action in range(9)),
    },
    Conflict.READS: {
        0x08, 0x28, 0xA8, 0x88, 0x2F, 0xAF, 0x8F, 0x34, 0x90, 0x37, 0xB7, 0x1A, 0x5A, 0x1C, 0x3C, 0xA2,
        (0x9E, 0x12), (0xA3, 0x0C), (0xA3, 0x0D),
    },
    Conflict.WRITES: {
        0x04, 0x07, 0x0A, 0x2A, 0xAA, 0x8A, 0x9C, 0x2E, 0xAE, 0x8E, 0x35, 0x91, 0x41, 0x93, 0x42, 0x89, 0x8B,
        0x15, 0x55, 0x1D, 0x3B, 0x4C, *((0x48, action) for action in range(32)), 0x83, (0x83, 0x00),
        (0xA4, 0x0A),
    },
    Conflict.STOPPING: {0x1B},
    Conflict.PREVENTING: {0x1E},
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_the_conflict_of_the_standards(command: Command) -> None:
    code, action = int(command.operation_code), command.service_action
    assert (code if action is None else (code, action)) in CONFLICTS[command.conflict]


@pytest.mark.parametrize(
    ("cdb", "passes"),
    [
        (bytes([0x1B, 0, 0, 0, 1, 0]), True),
        (bytes([0x1B, 0, 0, 0, 0, 0]), False),
        (bytes([0x1B, 0, 0, 0, 0x11, 0]), False),
        (bytes([0x1E, 0, 0, 0, 0, 0]), True),
        (bytes([0x1E, 0, 0, 0, 1, 0]), False),
    ],
)
def test_commands_whose_conflict_depends_on_a_bit(cluster: Cluster, cdb: bytes, passes: bool) -> None:
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(A, RESERVE, 1, 0, WE)
    assert (cluster.status(B, cdb) == Status.RESERVATION_CONFLICT) == (not passes)


def test_unit_without_a_reservation_is_not_restricted(cluster: Cluster) -> None:
    cluster.do(A, REGISTER, 0, 1)
    assert not cluster.disk.unit.restricted
    cluster.do(A, RESERVE, 1, 0, WE)
    assert cluster.disk.unit.restricted
    assert cluster.status(B, WRITE, BLOCK) == Status.RESERVATION_CONFLICT
    assert cluster.disk.memory.content(0, 1) == b"\0"
    cluster.do(A, RELEASE, 1, 0, WE)
    assert not cluster.disk.unit.restricted
    assert cluster.status(B, WRITE, BLOCK) == 0


def test_unit_attention_comes_before_the_conflict(cluster: Cluster) -> None:
    for port, key in ((A, 1), (B, 2)):
        cluster.do(port, REGISTER, 0, key)
    cluster.do(A, RESERVE, 1, 0, EA)
    cluster.do(A, PREEMPT, 1, 2)
    assert cluster.status(B, READ) == Status.CHECK_CONDITION
    assert cluster.status(B, READ) == Status.RESERVATION_CONFLICT


def test_unit_attentions_go_to_every_session_of_a_port(cluster: Cluster) -> None:
    for port, key in ((A, 1), (B, 2), (C, 3)):
        cluster.do(port, REGISTER, 0, key)
    cluster.do(A, CLEAR, 1)
    assert cluster.attention(A) is None
    assert cluster.attention(B) == cluster.attention(C) == Asc.RESERVATIONS_PREEMPTED
    assert cluster.attention(B) is None


def test_registration_and_reservation_survive_the_session(cluster: Cluster) -> None:
    disk = cluster.disk
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(A, RESERVE, 1, 0, EA)
    disk.server.detach(cluster.nexuses[A])
    assert cluster.status(B, READ) == Status.RESERVATION_CONFLICT
    disk.server.reset([disk.unit])
    disk.unit.attentions.clear()
    assert cluster.status(B, READ) == Status.RESERVATION_CONFLICT, "also a reset"
    back = Nexus(A)
    disk.server.attach(back)
    disk.unit.attentions.clear()
    assert disk.run(READ, nexus=back).status == 0
    other_session = Nexus(A[:-1] + "f")
    disk.server.attach(other_session)
    disk.unit.attentions.clear()
    assert disk.run(READ, nexus=other_session).status == Status.RESERVATION_CONFLICT, "another ISID"


# Parameter lists


def test_parameter_list_has_24_bytes(cluster: Cluster) -> None:
    disk = cluster.disk
    for length in (0, 8, 23, 25, 28, PARAMETER_LIST_BYTES_MAX + 1, 2**32 - 1):
        assert disk.sense(out(REGISTER, length=length), bytes(16) + keys(0, 1)) == TOO_SHORT, length
    assert disk.sense(out(REGISTER), keys(0, 1)[:20]) == TOO_SHORT, "less came than was announced"
    assert disk.run(out(REGISTER), keys(0, 1) + b"more").status == 0


def test_scope_must_be_the_unit_where_it_matters(cluster: Cluster) -> None:
    cluster.do(A, REGISTER, 0, 1)
    for action in (RESERVE, RELEASE, PREEMPT, PREEMPT_AND_ABORT):
        cdb = out(action, 0x10 | WE)
        assert cluster.disk.sense(cdb, keys(1, 1), nexus=cluster.nexuses[A]) == ILLEGAL_FIELD
    assert cluster.do(A, REGISTER, 1, 2, kind=0x2F) == 0


@pytest.mark.parametrize("action", [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE])
def test_initiator_ports_can_only_be_specified_with_register(cluster: Cluster, action: int) -> None:
    cluster.do(A, REGISTER, 0, 1)
    cdb, data = out(action, WE, 28), keys(1, 1, 8) + bytes(4)
    assert cluster.disk.sense(cdb, data, nexus=cluster.nexuses[A]) == ILLEGAL_PARAMETER


def with_ids(*transport_ids: bytes, flags: int = 8) -> bytes:
    ids = b"".join(transport_ids)
    return keys(0, 7, flags) + len(ids).to_bytes(4, "big") + ids


def device_id(name: str) -> bytes:
    return struct.pack(">BxH", 0x05, 24) + name.encode().ljust(24, b"\0")


def test_register_for_other_ports(cluster: Cluster) -> None:
    data = with_ids(encode_transport_id(B), encode_transport_id(A), device_id("iqn.2026-01.test:c"))
    task = cluster.disk.run(out(REGISTER, length=len(data)), data, nexus=cluster.nexuses[A])
    assert task.status == 0
    assert cluster.disk.unit.reservations.registrations == {A: 7, B: 7, C: 7}
    again = with_ids(encode_transport_id(B))
    assert (
        cluster.disk.run(out(REGISTER, length=len(again)), again, nexus=cluster.nexuses[A]).status
        == Status.RESERVATION_CONFLICT
    ), "registered ports need their key"


def test_register_for_other_ports_is_all_or_nothing(cluster: Cluster) -> None:
    cluster.do(B, REGISTER, 0, 1)
    for data in (
        with_ids(encode_transport_id(C), encode_transport_id(B)),
        with_ids(encode_transport_id(C), b"\x45\0\0\x10" + bytes(16)),
    ):
        cdb = out(REGISTER, length=len(data))
        assert cluster.disk.sense(cdb, data, nexus=cluster.nexuses[A]) == ILLEGAL_PARAMETER
    assert cluster.disk.unit.reservations.registrations == {B: 1}


def test_register_for_other_ports_with_a_list_that_is_cut_short(cluster: Cluster) -> None:
    data = with_ids(encode_transport_id(B))
    for length in (24, 27, len(data) - 1):
        cdb = out(REGISTER, length=length)
        assert cluster.disk.sense(cdb, data[:length], nexus=cluster.nexuses[A]) == TOO_SHORT


def move(key: int, new_key: int, flags: int, relative_port: int, transport_id: bytes) -> bytes:
    head = struct.pack(">QQxBHI", key, new_key, flags, relative_port, len(transport_id))
    return head + transport_id


def test_move_hands_the_reservation_to_another_port(cluster: Cluster) -> None:
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(A, RESERVE, 1, 0, EA)
    data = move(1, 9, 2, 1, encode_transport_id(C))
    assert cluster.disk.run(out(MOVE, 0, len(data)), data, nexus=cluster.nexuses[A]).status == 0
    assert cluster.disk.unit.reservations.registrations == {C: 9}
    assert cluster.status(A, READ) == Status.RESERVATION_CONFLICT
    assert cluster.status(C, READ) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (move(1, 9, 0, 2, encode_transport_id(C)), ILLEGAL_PARAMETER),
        (move(1, 9, 0, 1, device_id("iqn.2026-01.test:c")), ILLEGAL_PARAMETER),
        (move(1, 9, 0, 1, encode_transport_id(C) * 2), ILLEGAL_PARAMETER),
        (move(1, 9, 0, 1, b""), ILLEGAL_PARAMETER),
        (move(1, 9, 0, 1, encode_transport_id(C) + b"\0"), ILLEGAL_PARAMETER),
        (move(1, 9, 0, 1, encode_transport_id(C))[:-4], TOO_SHORT),
        (move(1, 9, 0, 1, encode_transport_id(C))[:23], TOO_SHORT),
        (move(1, 9, 0, 1, encode_transport_id(A)), ILLEGAL_PARAMETER),
        (move(1, 0, 0, 1, encode_transport_id(C)), ILLEGAL_PARAMETER),
    ],
)
def test_move_that_makes_no_sense_is_refused(
    cluster: Cluster, data: bytes, expected: tuple[SenseKey, Asc]
) -> None:
    cluster.do(A, REGISTER, 0, 1)
    cluster.do(A, RESERVE, 1, 0, EA)
    assert cluster.disk.sense(out(MOVE, 0, len(data)), data, nexus=cluster.nexuses[A]) == expected
    assert cluster.disk.unit.reservations.reservation == Reservation(EA, A)


PIECES: Final = [encode_transport_id(B), device_id("iqn.2026-01.test:c"), b"\x45\0\0\x14", b"\0"]


@given(
    action=st.integers(0, 7),
    kind=st.integers(0, 255),
    data=st.one_of(
        st.binary(max_size=120),
        st.lists(st.sampled_from(PIECES), max_size=4).map(lambda pieces: with_ids(*pieces)),
        st.binary(max_size=4).map(lambda rest: move(1, 2, 3, 1, encode_transport_id(B)) + rest),
    ),
    length=st.none() | st.integers(0, 130),
)
def test_any_parameter_list_gives_an_event_or_sense(
    action: int, kind: int, data: bytes, length: int | None
) -> None:
    event = parse_event(out(action, kind, len(data) if length is None else length), data, A, [A, B, C])
    assert isinstance(event, Event | Sense)
    if isinstance(event, Register) and event.others is not None:
        assert len(set(event.others)) == len(event.others)
    if isinstance(event, RegisterAndMove):
        assert (event.port, action) == (A, MOVE)


# RESERVE and RELEASE


@pytest.mark.parametrize(("reserve", "release"), [(RESERVE_6, RELEASE_6), (RESERVE_10, RELEASE_10)])
def test_reserve_keeps_others_out_until_release(cluster: Cluster, reserve: bytes, release: bytes) -> None:
    assert cluster.status(A, reserve) == 0
    assert cluster.status(A, reserve) == 0, "again"
    for cdb in (reserve, READ, TEST_UNIT_READY, b"\x1a\0\x3f\0\xff\0", b"\x5e" + bytes(9), out(REGISTER)):
        assert cluster.status(B, cdb) == Status.RESERVATION_CONFLICT
    assert cluster.status(B, WRITE, BLOCK) == Status.RESERVATION_CONFLICT
    for cdb in (
        b"\x12\0\0\0\xff\0",
        b"\x03\0\0\0\xff\0",
        b"\xa0" + bytes(8) + b"\xff\0\0",
        b"\x25" + bytes(9),
    ):
        assert cluster.status(B, cdb) == 0
    assert cluster.status(B, release) == 0, "does nothing"
    assert cluster.status(B, READ) == Status.RESERVATION_CONFLICT
    assert cluster.status(A, READ) == 0
    assert cluster.status(A, release) == 0
    assert cluster.status(B, WRITE, BLOCK) == 0
    assert not cluster.disk.unit.restricted


def test_persistent_reservations_and_reserve_do_not_mix(cluster: Cluster) -> None:
    cluster.status(A, RESERVE_6)
    for port in (A, B):
        assert cluster.do(port, REGISTER, 0, 1) == Status.RESERVATION_CONFLICT
        assert cluster.status(port, b"\x5e" + bytes(9)) == Status.RESERVATION_CONFLICT
    cluster.status(A, RELEASE_6)
    cluster.do(A, REGISTER, 0, 1)
    for port in (A, B):
        for cdb in (RESERVE_6, RELEASE_6, RESERVE_10, RELEASE_10):
            assert cluster.status(port, cdb) == Status.RESERVATION_CONFLICT


@pytest.mark.parametrize("kind", ReservationType)
def test_reserve_of_one_who_shares_the_persistent_reservation_is_good(
    cluster: Cluster, kind: ReservationType
) -> None:
    for port, key in ((A, 1), (B, 2)):
        cluster.do(port, REGISTER, 0, key)
    cluster.do(A, RESERVE, 1, 0, kind)
    before = cluster.disk.unit.reservations
    shares = {A: True, B: kind not in (WE, EA), C: False}
    for port, good in shares.items():
        for cdb in (RESERVE_6, RELEASE_6, RESERVE_10, RELEASE_10):
            assert cluster.status(port, cdb) == (0 if good else Status.RESERVATION_CONFLICT)
    assert cluster.disk.unit.reservations is before
    assert cluster.disk.unit.reserved_by is None


def test_reserve_ends_with_the_session_and_with_a_reset(cluster: Cluster) -> None:
    disk = cluster.disk
    cluster.status(A, RESERVE_6)
    disk.server.detach(cluster.nexuses[B])
    assert cluster.status(C, READ) == Status.RESERVATION_CONFLICT
    disk.server.detach(cluster.nexuses[A])
    assert cluster.status(C, READ) == 0
    cluster.status(C, RESERVE_6)
    disk.server.reset([disk.unit])
    assert not disk.unit.restricted
