"""The table of all text keys and how each is negotiated (RFC 7143 §6.1-6.2, clause 13).  Pure.

`negotiate` answers one key that the initiator sent.  We are always the responder: we never propose a value
of our own, so what is not offered stays at the RFC's default.  The one thing that we declare unasked is our
MaxRecvDataSegmentLength.
"""

import enum
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from pyjiva.errors import RemoteProtocolError
from pyjiva.units import KIB, MIB

__all__ = ["KEYS", "Key", "Parameters", "Phase", "Rule", "in_order", "negotiate", "parse_number"]

DATA_SEGMENT_LENGTH_MAX: Final = 256 * KIB  # what we receive in one PDU: Linux and libiscsi offer the same
FIRST_BURST_LENGTH: Final = 256 * KIB
MAX_BURST_LENGTH: Final = 1 * MIB
OUTSTANDING_R2T_MAX: Final = 8
PROTOCOL_LEVEL: Final = 1  # RFC 7143
LENGTH_LIMIT: Final = (1 << 24) - 1
NUMBER_LIMIT: Final = 1 << 64  # RFC 7143 §6.1: numbers have at most 64 bits
NUMBER_CHARACTERS_MAX: Final = 255  # a text value: zeros in front of hexadecimal digits are allowed

NOT_UNDERSTOOD: Final = "NotUnderstood"
REJECT: Final = "Reject"
IRRELEVANT: Final = "Irrelevant"
NONE: Final = "None"


@attrs.define
class Parameters:
    """What holds for a connection; to begin with, the RFC's defaults."""

    header_digest: bool = False
    data_digest: bool = False
    initial_r2t: bool = True
    immediate_data: bool = True
    max_recv_data_segment_length: int = 8192
    """The initiator's: what we may send in one PDU."""
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    default_time2wait_s: int = 2
    default_time2retain_s: int = 20
    max_outstanding_r2t: int = 1
    max_connections: int = 1
    error_recovery_level: int = 0


class Rule(enum.Enum):
    """How the answer comes from the offer (RFC 7143 §6.2.1, §6.2.2)."""

    LIST = "the first in the offer that we support"
    MINIMUM = "the smaller number"
    MAXIMUM = "the larger number"
    OR = "Yes if either says Yes"
    AND = "Yes if both say Yes"
    DECLARED = "told by the initiator, not answered"
    TARGET_ONLY = "only a target may send it"
    OBSOLETE = "must be answered No or Reject"
    SECURITY = "handled by the authentication method"


class Phase(enum.Enum):
    """Where a key may be used (RFC 7143 clause 13, "Use")."""

    INITIAL = "in the first login request only"
    SECURITY = "in the security stage"
    OPERATIONAL = "in the operational stage"
    LOGIN = "in any login stage"
    ANY = "in login and full feature phase"
    FULL_FEATURE = "in full feature phase only"


@attrs.frozen
class Key:
    """One row."""

    name: str
    rule: Rule
    phase: Phase
    ours: tuple[str, ...] = ()
    """What we support, for a list."""
    number: int = 0
    """Our number, for a minimum or maximum."""
    least: int = 0
    most: int = 0
    field: str = ""
    """The field of Parameters that takes the result."""
    normal_only: bool = False
    """Irrelevant in a discovery session."""
    longest: int = 255
    bound: str = ""
    """The field of Parameters that the result must not exceed."""


_K = Key
KEYS: Final[dict[str, Key]] = {
    key.name: key
    for key in (
        _K("AuthMethod", Rule.SECURITY, Phase.SECURITY),
        _K("CHAP_A", Rule.SECURITY, Phase.SECURITY),
        _K("CHAP_I", Rule.SECURITY, Phase.SECURITY),
        _K("CHAP_C", Rule.SECURITY, Phase.SECURITY),
        _K("CHAP_N", Rule.SECURITY, Phase.SECURITY),
        _K("CHAP_R", Rule.SECURITY, Phase.SECURITY),
        _K("HeaderDigest", Rule.LIST, Phase.OPERATIONAL, ours=("None", "CRC32C"), field="header_digest"),
        _K("DataDigest", Rule.LIST, Phase.OPERATIONAL, ours=("None", "CRC32C"), field="data_digest"),
        _K("MaxConnections", Rule.MINIMUM, Phase.OPERATIONAL, number=1, least=1, most=65535,
           field="max_connections", normal_only=True),
        _K("SendTargets", Rule.DECLARED, Phase.FULL_FEATURE),
        _K("TargetName", Rule.DECLARED, Phase.INITIAL),
        _K("InitiatorName", Rule.DECLARED, Phase.INITIAL),
        _K("TargetAlias", Rule.TARGET_ONLY, Phase.ANY),
        _K("InitiatorAlias", Rule.DECLARED, Phase.ANY),
        _K("TargetAddress", Rule.TARGET_ONLY, Phase.ANY),
        _K("TargetPortalGroupTag", Rule.TARGET_ONLY, Phase.INITIAL),
        _K("InitialR2T", Rule.OR, Phase.OPERATIONAL, number=0, field="initial_r2t", normal_only=True),
        _K("ImmediateData", Rule.AND, Phase.OPERATIONAL, number=1, field="immediate_data", normal_only=True),
        _K("MaxRecvDataSegmentLength", Rule.DECLARED, Phase.ANY, least=512, most=LENGTH_LIMIT,
           field="max_recv_data_segment_length"),
        _K("MaxBurstLength", Rule.MINIMUM, Phase.OPERATIONAL, number=MAX_BURST_LENGTH, least=512,
           most=LENGTH_LIMIT, field="max_burst_length", normal_only=True),
        _K("FirstBurstLength", Rule.MINIMUM, Phase.OPERATIONAL, number=FIRST_BURST_LENGTH, least=512,
           most=LENGTH_LIMIT, field="first_burst_length", normal_only=True, bound="max_burst_length"),
        _K("DefaultTime2Wait", Rule.MAXIMUM, Phase.OPERATIONAL, number=0, most=3600,
           field="default_time2wait_s"),
        _K("DefaultTime2Retain", Rule.MINIMUM, Phase.OPERATIONAL, number=0, most=3600,
           field="default_time2retain_s"),
        _K("MaxOutstandingR2T", Rule.MINIMUM, Phase.OPERATIONAL, number=OUTSTANDING_R2T_MAX, least=1,
           most=65535, field="max_outstanding_r2t", normal_only=True),
        _K("DataPDUInOrder", Rule.OR, Phase.OPERATIONAL, number=1, normal_only=True),
        _K("DataSequenceInOrder", Rule.OR, Phase.OPERATIONAL, number=1, normal_only=True),
        _K("ErrorRecoveryLevel", Rule.MINIMUM, Phase.OPERATIONAL, number=0, most=2,
           field="error_recovery_level"),
        _K("SessionType", Rule.DECLARED, Phase.INITIAL),
        _K("TaskReporting", Rule.LIST, Phase.OPERATIONAL, ours=("RFC3720",), normal_only=True),
        _K("iSCSIProtocolLevel", Rule.MINIMUM, Phase.OPERATIONAL, number=PROTOCOL_LEVEL, most=31,
           normal_only=True),
        _K("IFMarker", Rule.OBSOLETE, Phase.OPERATIONAL),
        _K("OFMarker", Rule.OBSOLETE, Phase.OPERATIONAL),
        _K("IFMarkInt", Rule.OBSOLETE, Phase.OPERATIONAL),
        _K("OFMarkInt", Rule.OBSOLETE, Phase.OPERATIONAL),
    )
}  # fmt: skip


def parse_number(text: str) -> int | None:
    """A decimal or hexadecimal constant (RFC 7143 §6.1); None if it is none."""
    if text[:2] in ("0x", "0X"):
        digits, base = text[2:], 16
        allowed = "0123456789abcdefABCDEF"
    else:
        digits, base, allowed = text, 10, "0123456789"
        if digits != "0" and digits.startswith("0"):
            return None
    if not digits or len(digits) > NUMBER_CHARACTERS_MAX or digits.strip(allowed):
        return None
    number = int(digits, base)
    return number if number < NUMBER_LIMIT else None


def in_order(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of one request, those whose result depends on another's after it."""
    return sorted(pairs, key=lambda pair: pair[0] in KEYS and KEYS[pair[0]].bound != "")


def negotiate(
    parameters: Parameters, key: str, value: str, *, phase: Phase, discovery: bool, initial: bool = True
) -> str | None:
    """Apply one pair to `parameters`; returns the value to answer with, None for no answer.

    `initial`: it stands in the first request of a login.  Raises RemoteProtocolError: a declaration that
    cannot be (the login must fail).
    """
    if value in (NOT_UNDERSTOOD, REJECT, IRRELEVANT):
        # We propose nothing, so this answers nothing; it is certainly no value (§6.2).
        raise RemoteProtocolError(f"{key}={value} answers nothing")
    row = KEYS.get(key)
    if row is None:
        return NOT_UNDERSTOOD
    if len(value) > row.longest or not _is_allowed(row, phase):
        return REJECT
    if row.phase is Phase.INITIAL and not initial:
        return REJECT
    if row.normal_only and discovery:
        return IRRELEVANT
    return _RULES[row.rule](parameters, row, value)


def _is_allowed(row: Key, phase: Phase) -> bool:
    if phase is Phase.FULL_FEATURE:
        return row.phase in (Phase.ANY, Phase.FULL_FEATURE)
    return row.phase in (Phase.ANY, Phase.LOGIN, Phase.INITIAL, phase)


def _list(parameters: Parameters, row: Key, value: str) -> str:
    for offered in value.split(","):
        if offered in row.ours:
            if row.field:
                setattr(parameters, row.field, offered != NONE)
            return offered
    return REJECT


def _number(parameters: Parameters, row: Key, value: str, choose: Callable[[int, int], int]) -> str:
    offered = parse_number(value)
    if offered is None or not row.least <= offered <= row.most:
        return REJECT
    chosen = choose(offered, row.number)
    if row.bound:
        chosen = min(chosen, getattr(parameters, row.bound))
    if row.field:
        setattr(parameters, row.field, chosen)
    return str(chosen)


def _boolean(parameters: Parameters, row: Key, value: str, choose: Callable[[bool, bool], bool]) -> str:
    if value not in ("Yes", "No"):
        return REJECT
    chosen = choose(value == "Yes", bool(row.number))
    if row.field:
        setattr(parameters, row.field, chosen)
    return "Yes" if chosen else "No"


def _declared(parameters: Parameters, row: Key, value: str) -> None:
    if not row.field:
        return
    number = parse_number(value)
    if number is None or not row.least <= number <= row.most:
        raise RemoteProtocolError(f"{row.name}={value}: a number from {row.least} to {row.most}")
    setattr(parameters, row.field, number)


_RULES: Final[dict[Rule, Callable[[Parameters, Key, str], str | None]]] = {
    Rule.LIST: _list,
    Rule.MINIMUM: lambda p, row, value: _number(p, row, value, min),
    Rule.MAXIMUM: lambda p, row, value: _number(p, row, value, max),
    Rule.OR: lambda p, row, value: _boolean(p, row, value, lambda a, b: a or b),
    Rule.AND: lambda p, row, value: _boolean(p, row, value, lambda a, b: a and b),
    Rule.DECLARED: _declared,
    Rule.TARGET_ONLY: lambda _p, _row, _value: REJECT,
    Rule.OBSOLETE: lambda _p, row, _value: "No" if row.name.endswith("Marker") else REJECT,
    Rule.SECURITY: lambda _p, _row, _value: REJECT,
}
