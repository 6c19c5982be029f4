"""The thin provisioning threshold: when initiators are told, and what they can change about it."""

import struct

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import MemoryParameters, Space
from pyjiva.scsi import AdditionalSense as Asc
from pyjiva.scsi import Nexus, SenseKey
from pyjiva.scsi.mode import parse_mode_select
from pyjiva.scsi.saved import ModeParameters
from pyjiva.scsi.sense import Sense
from pyjiva.scsi.threshold import set_exponent, sets_of
from pyjiva.units import GIB, MIB, TIB
from tests.scsi.conftest import Disk, KnownSpace, make_disk
from tests.scsi.test_mode import ILLEGAL_FIELD, ILLEGAL_PARAMETER, PF, SP, TOO_SHORT, select

SIZE = 160 * MIB  # the threshold is at 10 sets of 1 MiB: its range goes from 9.5 to 10.5 MiB
TEST_UNIT_READY = bytes(6)
REACHED = (SenseKey.UNIT_ATTENTION, Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)


def provisioning(*, enabled: bool = True, count: int = 10) -> bytes:
    """The logical block provisioning mode page."""
    return struct.pack(">BBH12xBB2xI", 0x5C, 0x02, 20, 0x80 * enabled, 1, count)


def recovery(*, lbpere: bool = True) -> bytes:
    """The read-write error recovery mode page."""
    return bytes([0x01, 10, 0, 0, 0, 0, 0, 0x80 * lbpere]) + bytes(4)


@attrs.define
class Room:
    """A disk, and how much is left below it."""

    disk: Disk
    source: KnownSpace

    def left(self, available_bytes: int) -> None:
        """So much is left now, and the unit looks."""
        self.source.space = Space(0, available_bytes)
        self.disk.unit.review_space()

    @property
    def told(self) -> bool:
        """Whether the next command is answered with the notification; it is gone afterwards."""
        task = self.disk.run(TEST_UNIT_READY)
        assert task.status == 0 or (task.sense[2], int.from_bytes(task.sense[12:14], "big")) == REACHED
        return task.status != 0


@pytest.fixture
def room() -> Room:
    source = KnownSpace(Space(0, GIB))
    return Room(make_disk(size_bytes=SIZE, space=source), source)


def test_initiators_are_told_once_when_room_runs_out_and_again_after_it_was_there(room: Room) -> None:
    other = Nexus("other")
    room.disk.server.attach(other)
    room.disk.unit.attentions.clear()
    room.left(21 * MIB // 2)
    assert not room.told
    room.left(21 * MIB // 2 - 1)
    task = room.disk.run(TEST_UNIT_READY)
    assert task.sense[:8] == bytes([0xF0, 0, 6]) + (16).to_bytes(4, "big") + b"\x0a", "which descriptor"
    assert room.disk.sense(TEST_UNIT_READY, nexus=other) == REACHED
    room.left(5 * MIB)
    room.left(0)
    assert not room.told
    room.left(21 * MIB // 2)
    room.left(0)
    assert room.told


def test_nobody_is_told_while_it_is_switched_off(room: Room) -> None:
    for off, on in (
        (recovery(lbpere=False), recovery()),
        (provisioning(enabled=False), provisioning()),
        (provisioning(count=2), provisioning(count=10)),
    ):
        assert select(room.disk, off) is None
        room.left(3 * MIB)
        assert not room.told
        assert select(room.disk, on) is None
        room.left(3 * MIB)
        assert room.told, "what is switched on looks at once"


def test_nobody_is_told_what_is_not_known(room: Room) -> None:
    room.source.space = None
    room.disk.unit.review_space()
    disk = make_disk()
    disk.unit.review_space()
    assert not room.told
    assert disk.run(TEST_UNIT_READY).status == 0


def test_who_logs_in_first_is_told_what_nobody_was_there_to_hear(room: Room) -> None:
    room.disk.server.detach(room.disk.nexus)
    room.left(0)
    room.disk.server.attach(room.disk.nexus)
    room.disk.unit.attentions.clear()
    room.left(0)
    assert room.told


def test_a_reset_lets_initiators_be_told_again(room: Room) -> None:
    room.left(0)
    assert room.told
    room.disk.server.reset([room.disk.unit])
    room.disk.unit.attentions.clear()
    room.left(0)
    assert room.told


def test_mode_pages_of_a_unit_whose_room_is_known(room: Room) -> None:
    def pages(page: int, subpage: int) -> bytes:
        return room.disk.data(bytes([0x1A, 8, page, subpage, 255, 0]))[4:]

    saved = bytes([0x81]) + recovery()[1:], bytes([0xDC]) + provisioning()[1:]
    assert pages(0x01, 0) == saved[0]
    assert pages(0x1C, 2) == pages(0x9C, 2) == pages(0xDC, 2) == saved[1]
    assert pages(0x1C, 0xFF) == bytes([0x1C, 10]) + bytes(10) + saved[1]
    assert pages(0x1C, 0) == bytes([0x1C, 10]) + bytes(10)
    assert pages(0x5C, 2) == struct.pack(">BBH12xBB2xI", 0xDC, 2, 20, 0x80, 0, 0xFFFF_FFFF)
    assert pages(0x41, 0) == bytes([0x81, 10, 0, 0, 0, 0, 0, 0x80]) + bytes(4)
    assert pages(0x3F, 0xFF).startswith(pages(0x01, 0))
    assert pages(0x3F, 0xFF) == pages(0x3F, 0) + saved[1]
    assert room.disk.sense(bytes([0x1A, 8, 0x1C, 1, 255, 0])) == ILLEGAL_FIELD
    assert make_disk().sense(bytes([0x1A, 8, 0x1C, 2, 255, 0])) == ILLEGAL_FIELD


def test_a_threshold_that_was_saved_comes_back() -> None:
    store, source = MemoryParameters(), KnownSpace(None)
    disk = make_disk(store=store, space=source)
    assert select(disk, recovery(lbpere=False) + provisioning(enabled=False, count=7), PF | SP) is None
    expected = ModeParameters(report_thresholds=False, threshold_enabled=False, threshold_count=7)
    assert make_disk(store=store, space=source).unit.mode == expected


def test_what_is_selected_as_it_is_stays_a_default(room: Room) -> None:
    assert select(room.disk, recovery() + provisioning()) is None
    assert room.disk.unit.mode == ModeParameters()


@pytest.mark.parametrize(
    "page",
    [
        provisioning()[:4] + b"\1" + provisioning()[5:],  # SITUA
        provisioning()[:16] + b"\x88" + provisioning()[17:],  # a percentage
        provisioning()[:16] + b"\x81" + provisioning()[17:],  # increasing
        provisioning()[:17] + b"\2" + provisioning()[18:],  # what is used
        provisioning()[:3] + b"\x1c" + provisioning()[4:] + bytes(8),  # two descriptors
        bytes([0x5C, 3]) + provisioning()[2:],
        bytes([0x5C, 0, 0, 10]) + bytes(10),
        recovery()[:2] + b"\x80" + recovery()[3:],  # AWRE
    ],
)
def test_everything_else_about_it_is_refused(room: Room, page: bytes) -> None:
    assert select(room.disk, page) == ILLEGAL_PARAMETER
    assert room.disk.unit.mode == ModeParameters()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 23])
def test_a_page_that_is_cut_short_is_refused(room: Room, length: int) -> None:
    assert select(room.disk, provisioning()[:length]) == TOO_SHORT


def test_a_unit_without_figures_has_no_threshold_to_change() -> None:
    disk = make_disk()
    assert select(disk, provisioning()) == ILLEGAL_PARAMETER
    assert select(disk, recovery()) == ILLEGAL_PARAMETER


@given(data=st.binary(max_size=40) | st.binary(max_size=8).map(lambda rest: bytes(4) + provisioning() + rest))
def test_any_parameter_list_gives_parameters_or_sense(data: bytes) -> None:
    disk = make_disk(space=KnownSpace(None))
    assert isinstance(parse_mode_select(disk.unit, data, long_header=False), ModeParameters | Sense)


@given(
    mode=st.builds(
        ModeParameters, *(st.booleans(),) * 4, threshold_count=st.none() | st.integers(0, 2**32 - 1)
    )
)
def test_what_mode_sense_reports_can_be_selected_again(mode: ModeParameters) -> None:
    disk = make_disk(space=KnownSpace(None))
    disk.unit.set_mode(mode)
    everything = disk.data(bytes([0x1A, 0, 0x3F, 0xFF, 255, 0]))
    disk.unit.set_mode(ModeParameters())
    assert disk.run(bytes([0x15, PF, 0, 0, len(everything), 0]), everything).status == 0
    assert disk.data(bytes([0x1A, 0, 0x3F, 0xFF, 255, 0])) == everything


@given(blocks=st.integers(1, 1 << 60), shift=st.sampled_from([9, 12]))
def test_counts_have_room_for_every_size(blocks: int, shift: int) -> None:
    """SBC-3 §6.6: capacity / 2^exponent < 2^32, and the exponent is not zero."""
    exponent = set_exponent(blocks, shift)
    assert 0 < exponent < 256
    assert blocks < 2 ** (32 + exponent)


def test_a_count_that_is_too_large_says_as_much_as_it_can() -> None:
    assert sets_of(10 * MIB - 1, MIB) == 9
    assert sets_of(8 << 50, MIB) == 0xFFFF_FFFF
    assert sets_of(TIB, MIB) == 1 << 20
