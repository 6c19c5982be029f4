"""What a logical unit keeps in its ParameterStore, as JSON: reservations and saved mode pages.  Pure.

    {"version": 1,
     "reservations": {"registrations": [["iqn...,i,0x...", "00000000000000ab"], ...],
                      "type": 5, "holder": "iqn...,i,0x..."} or null,
     "mode": {"descriptor_sense": false, "write_protected": false, "report_thresholds": true,
              "threshold_enabled": true, "threshold_count": null}}

The three about thresholds may be missing: they came later.

Reservations are kept only while APTPL is in force (SPC-4 §5.13.5); `type` and `holder` are null without a
reservation.  An empty string is a new volume.  Everything else is refused with a ConfigError: to go on
without reservations that somebody relies on would let two machines write.
"""

import json
import re
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.scsi.reservation import (
    ALL_REGISTRANTS,
    REGISTRATIONS_MAX,
    Reservation,
    Reservations,
    ReservationType,
)
from pyjiva.scsi.threshold import COUNT_MAX

__all__ = ["ModeParameters", "SanitizeJob", "Saved", "decode_saved", "encode_saved"]

VERSION: Final = 1
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_PATTERN: Final = re.compile(r"([0-9a-f]{2}){0,4096}")


_LATER_MODE: Final = {"report_thresholds": True, "threshold_enabled": True, "threshold_count": None}


@attrs.frozen
class ModeParameters:
    """The mode parameters that can be changed (control mode page, SPC-4 §7.5.8)."""

    descriptor_sense: bool = False
    """D_SENSE."""
    write_protected: bool = False
    """SWP."""
    report_thresholds: bool = True
    """LBPERE (read-write error recovery mode page, SBC-3)."""
    threshold_enabled: bool = True
    """ENABLED of the one threshold descriptor (logical block provisioning mode page, SBC-3)."""
    threshold_count: int | None = None
    """Its THRESHOLD COUNT, in threshold sets; None: a share of the unit's size."""


@attrs.frozen
class SanitizeJob:
    """A SANITIZE that has begun and is not over (`sanitize`)."""

    pattern: bytes
    """What is written to every block, from its start on; empty: blocks are unmapped."""
    passes: int
    invert: bool
    """Every other pass writes the complement."""
    may_exit: bool
    """AUSE: EXIT FAILURE MODE is allowed."""
    failed: bool = False


@attrs.frozen
class Saved:
    """Everything that a unit saves."""

    reservations: Reservations | None = None
    """None while a loss of power ends all of them."""
    mode: ModeParameters = ModeParameters()
    sanitize: SanitizeJob | None = None


def encode_saved(saved: Saved) -> bytes:
    """The bytes for the store."""
    reservations = None
    if saved.reservations is not None:
        reservation = saved.reservations.reservation
        reservations = {
            "registrations": [
                [port, f"{key:016x}"] for port, key in saved.reservations.registrations.items()
            ],
            "type": None if reservation is None else int(reservation.type),
            "holder": None if reservation is None else reservation.holder,
        }
    document: dict[str, Any] = {
        "version": VERSION,
        "reservations": reservations,
        "mode": attrs.asdict(saved.mode),
    }
    if saved.sanitize is not None:
        document["sanitize"] = attrs.asdict(saved.sanitize) | {"pattern": saved.sanitize.pattern.hex()}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def decode_saved(data: bytes) -> Saved:
    """What was saved.  Raises ConfigError: the bytes are not what `encode_saved` of this version writes."""
    if not data:
        return Saved()
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"not JSON ({error})") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise _damaged(f"not of version {VERSION}")
    sanitize = document.pop("sanitize", None)
    _need_keys("document", document, {"version", "reservations", "mode"})
    reservations = document["reservations"]
    return Saved(
        None if reservations is None else _reservations(reservations),
        _mode(document["mode"]),
        None if sanitize is None else _sanitize(sanitize),
    )


def _reservations(value: Any) -> Reservations:
    _need_keys("reservations", value, {"registrations", "type", "holder"})
    listed = value["registrations"]
    if not isinstance(listed, list) or len(listed) > REGISTRATIONS_MAX:
        raise _damaged("registrations: not a list, or too long")
    registrations: dict[str, int] = {}
    for entry in listed:
        match entry:
            case [str(port), str(key)] if _KEY.fullmatch(key) and int(key, 16) and port not in registrations:
                registrations[port] = int(key, 16)
            case _:
                raise _damaged(f"registrations: {entry!r:.80}")
    reservation = None
    match value["type"], value["holder"]:
        case None, None:
            pass
        case int(kind), str(holder) if kind in ReservationType.__members__.values():
            reservation = Reservation(ReservationType(kind), holder)
            held = not holder and registrations if kind in ALL_REGISTRANTS else holder in registrations
            if not held or isinstance(kind, bool):
                raise _damaged("the reservation has no holder")
        case kind, holder:
            raise _damaged(f"reservation: {kind!r:.20} held by {holder!r:.80}")
    return Reservations(registrations, reservation, persistent=True)


def _mode(value: Any) -> ModeParameters:
    if isinstance(value, dict):
        value = _LATER_MODE | value
    _need_keys("mode", value, {field.name for field in attrs.fields(ModeParameters)})
    count = value["threshold_count"]
    if count is not None and not (type(count) is int and 0 <= count <= COUNT_MAX):
        raise _damaged("mode: not a threshold")
    if not all(isinstance(flag, bool) for name, flag in value.items() if name != "threshold_count"):
        raise _damaged("mode: not true or false")
    return ModeParameters(**value)


def _sanitize(value: Any) -> SanitizeJob:
    _need_keys("sanitize", value, {field.name for field in attrs.fields(SanitizeJob)})
    match value:
        case {
            "pattern": str(pattern),
            "passes": int(passes),
            "invert": bool(invert),
            "may_exit": bool(may_exit),
            "failed": bool(failed),
        } if _PATTERN.fullmatch(pattern) and type(passes) is int and 0 < passes < 32:
            return SanitizeJob(bytes.fromhex(pattern), passes, invert, may_exit, failed)
    raise _damaged("sanitize: not what a SANITIZE may be")


def _need_keys(where: str, value: Any, names: set[str]) -> None:
    if not isinstance(value, dict) or set(value) != names:
        raise _damaged(f"{where}: needs exactly {', '.join(sorted(names))}")


def _damaged(why: str) -> ConfigError:
    return ConfigError(f"the saved parameters of the logical unit are damaged: {why}")
