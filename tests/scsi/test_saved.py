"""What a logical unit saves: it comes back as it went, and anything else is refused."""

import contextlib
import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import PARAMETERS_BYTES_MAX, MemoryDevice, MemoryParameters
from pyjiva.errors import ConfigError
from pyjiva.scsi import LogicalUnit, UnitIdentity
from pyjiva.scsi.reservation import (
    ALL_REGISTRANTS,
    REGISTRATIONS_MAX,
    Reservation,
    Reservations,
    ReservationType,
)
from pyjiva.scsi.saved import ModeParameters, Saved, decode_saved, encode_saved
from pyjiva.units import MIB


@st.composite
def reservations(draw: st.DrawFn) -> Reservations:
    registrations = draw(st.dictionaries(st.text(max_size=20), st.integers(1, 2**64 - 1), max_size=5))
    reservation, reserved = None, draw(st.booleans())
    if registrations and reserved:
        kind = draw(st.sampled_from(ReservationType))
        holder = "" if kind in ALL_REGISTRANTS else draw(st.sampled_from(sorted(registrations)))
        reservation = Reservation(kind, holder)
    return Reservations(registrations, reservation, persistent=True)


MODES = st.builds(
    ModeParameters,
    *(st.booleans(),) * 4,
    threshold_count=st.none() | st.integers(0, 2**32 - 1),
)
SAVED = st.builds(Saved, st.none() | reservations(), MODES)


@given(saved=SAVED)
def test_what_was_saved_comes_back(saved: Saved) -> None:
    decoded = decode_saved(encode_saved(saved))
    assert decoded == saved
    if saved.reservations is not None and decoded.reservations is not None:
        assert list(decoded.reservations.registrations) == list(saved.reservations.registrations)


def test_new_volume_has_nothing() -> None:
    assert decode_saved(b"") == Saved()


def test_every_registration_with_the_longest_name_fits() -> None:
    names = [f"{number:223},i,0x{number:012x}" for number in range(REGISTRATIONS_MAX)]
    full = Reservations(dict.fromkeys(names, 2**64 - 1), Reservation(ReservationType(5), names[0]), True)
    assert len(encode_saved(Saved(full))) <= PARAMETERS_BYTES_MAX


PORT = "iqn.2026-01.test:a,i,0x000000000001"
GOOD = {
    "version": 1,
    "reservations": {"registrations": [[PORT, "00000000000000ab"]], "type": 5, "holder": PORT},
    "mode": {
        "descriptor_sense": False,
        "write_protected": False,
        "report_thresholds": True,
        "threshold_enabled": True,
        "threshold_count": None,
    },
}


def test_format_is_as_documented() -> None:
    state = Reservations({PORT: 0xAB}, Reservation(ReservationType(5), PORT), persistent=True)
    assert decode_saved(json.dumps(GOOD).encode()) == Saved(state)
    assert json.loads(encode_saved(Saved(state))) == GOOD


def test_what_was_saved_before_there_were_thresholds_is_read() -> None:
    old = changed("mode", {"descriptor_sense": True, "write_protected": False})
    assert decode_saved(old).mode == ModeParameters(descriptor_sense=True)


def changed(path: str, value: object) -> bytes:
    """GOOD with one field changed (or added)."""
    document = json.loads(json.dumps(GOOD))
    where = document
    *parents, last = path.split(".")
    for name in parents:
        where = where[name]
    where[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff",
        b"[]",
        b"[" * 5000,
        b'{"version":1}',
        changed("version", 2),
        changed("version", None),
        changed("more", 1),
        changed("mode", None),
        changed("mode.descriptor_sense", 1),
        changed("mode.more", True),
        changed("mode", {"descriptor_sense": True}),
        changed("mode.threshold_enabled", None),
        changed("mode.report_thresholds", 1),
        changed("mode.threshold_count", True),
        changed("mode.threshold_count", -1),
        changed("mode.threshold_count", 2**32),
        changed("reservations", []),
        changed("reservations.more", 1),
        changed("reservations.registrations", {}),
        changed("reservations.registrations", [[PORT]]),
        changed("reservations.registrations", [[PORT, 1]]),
        changed("reservations.registrations", [[PORT, "ab"]]),
        changed("reservations.registrations", [[PORT, "0" * 16]]),
        changed("reservations.registrations", [[PORT, "0" * 15 + "1"]] * 2),
        changed(
            "reservations.registrations", [[f"{n}", "0" * 15 + "1"] for n in range(REGISTRATIONS_MAX + 1)]
        ),
        changed("reservations.registrations", []),
        changed("reservations.type", 2),
        changed("reservations.type", True),
        changed("reservations.type", None),
        changed("reservations.type", 7),
        changed("reservations.holder", "nobody"),
        changed("reservations.holder", None),
    ],
)
def test_damaged_parameters_are_refused_with_a_reason(data: bytes) -> None:
    with pytest.raises(ConfigError, match="saved parameters of the logical unit are damaged"):
        decode_saved(data)
    with pytest.raises(ConfigError, match="damaged"):
        LogicalUnit(MemoryDevice(MIB), UnitIdentity("id"), 512, MemoryParameters(data))


@given(data=st.binary(max_size=60))
def test_any_bytes_give_parameters_or_a_config_error(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        decode_saved(data)


@given(saved=SAVED, cut=st.integers(1, 40))
def test_parameters_that_are_cut_short_are_refused(saved: Saved, cut: int) -> None:
    data = encode_saved(attrs.evolve(saved))
    with pytest.raises(ConfigError):
        decode_saved(data[: max(1, len(data) - cut)])
