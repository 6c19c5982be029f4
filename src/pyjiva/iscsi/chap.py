"""CHAP, one way and mutual (RFC 1994, RFC 7143 §9.2.1 and §12.1.3).  Pure: chance comes in as `draw`.

    initiator                                target
    AuthMethod=CHAP,...              ->      AuthMethod=CHAP
    CHAP_A=7,5                       ->      CHAP_A=7 CHAP_I=93 CHAP_C=0x...
    CHAP_N CHAP_R [CHAP_I CHAP_C]    ->      [CHAP_N CHAP_R]

Keys and values that are not those of the step are an "initiator error" or a "missing parameter", whoever the
user is; a wrong secret and an unknown user are the same "authentication failure", after the same work.  We
prove ourselves only to an initiator that has proved itself, with a secret that no initiator has, and never
answer a challenge that is our own.
"""

import base64
import binascii
import enum
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.iscsi.authentication import AuthenticationStep, Verdict
from pyjiva.iscsi.parameters import parse_number

__all__ = [
    "ALGORITHMS",
    "BINARY_BYTES_MAX",
    "CHAP_TRANSITIONS",
    "Chap",
    "ChapSecrets",
    "ChapStage",
    "OwnSecret",
    "check_separate",
    "format_binary",
    "parse_binary",
    "parse_secrets",
    "response",
]

ALGORITHMS: Final[Mapping[int, str]] = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3_256"}  # IANA, PPP CHAP
BINARY_BYTES_MAX: Final = 1024  # RFC 7143 §12.1.3, of CHAP_C and CHAP_R
ALGORITHMS_OFFERED_MAX: Final = 32
SECRET_BYTES_MIN: Final = 12  # 96 bits: RFC 7143 §9.2.1 forbids less on a wire that is not encrypted
SECRET_BYTES_MAX: Final = 255
NAME_CHARACTERS_MAX: Final = 255  # a text value, RFC 7143 §6.1
_DECOY_BYTES: Final = 16

_HEX: Final = frozenset("0123456789abcdefABCDEF")


@attrs.frozen
class OwnSecret:
    """The name and the secret that the target proves itself with."""

    name: str
    secret: bytes = attrs.field(repr=False)


@attrs.frozen
class ChapSecrets:
    """What initiators must know for one type of session, and what we know."""

    incoming: Mapping[str, bytes] = attrs.field(repr=False)
    """Secret of each name."""
    own: OwnSecret | None = None
    """None: no mutual CHAP."""


def parse_secrets(text: str, source: str) -> dict[str, bytes]:
    """Names and secrets: one pair a line, the name up to the first white space, then the secret.

    Lines that are empty or begin with `#` are passed over.  Raises ConfigError, which never says a secret.
    """
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), 1):
        name, *rest = line.strip().split(None, 1)[:2] or [""]
        if not name or name.startswith("#"):
            continue
        secret = rest[0].encode() if rest else b""
        problem = _problem(name, secret, found)
        if problem:
            raise ConfigError(f"{source}, line {number}: {problem}")
        found[name] = secret
    if not found:
        raise ConfigError(f"{source}: no line with a name and a secret")
    return found


def _problem(name: str, secret: bytes, found: Mapping[str, bytes]) -> str:
    if not secret:
        return "write a name, a space and a secret"
    if len(name) > NAME_CHARACTERS_MAX:
        return f"the name is longer than {NAME_CHARACTERS_MAX} characters"
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        return f"the secret must have {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes (RFC 7143 §9.2.1)"
    if name in found:
        return "the name stands here twice"
    return ""


def check_separate(all_secrets: Iterable[ChapSecrets]) -> None:
    """Raises ConfigError: a secret of ours is also one of an initiator (RFC 7143 §9.2.1 forbids it).

    With such a secret an initiator could have us answer the challenge that we gave it.
    """
    every = list(all_secrets)
    incoming = {secret for secrets in every for secret in secrets.incoming.values()}
    if any(secrets.own is not None and secrets.own.secret in incoming for secrets in every):
        raise ConfigError("CHAP: the target's own secret must differ from every initiator's")


# Values


def format_binary(data: bytes) -> str:
    """A binary value in hexadecimal."""
    return "0x" + data.hex()


def parse_binary(text: str) -> bytes | None:
    """A binary value in hexadecimal or Base64 (RFC 7143 §6.1); None if it is none, empty or too long."""
    prefix, digits = text[:2].lower(), text[2:]
    if not digits or len(digits) > 2 * BINARY_BYTES_MAX:
        return None
    if prefix == "0x":
        return bytes.fromhex(digits) if len(digits) % 2 == 0 and _HEX.issuperset(digits) else None
    if prefix != "0b" or not digits.isascii():
        return None
    try:
        data = base64.b64decode(digits, validate=True)
    except (binascii.Error, ValueError):
        return None
    canonical = base64.b64encode(data).decode() == digits  # no stray bits, all of the padding
    return data if canonical and 0 < len(data) <= BINARY_BYTES_MAX else None


def response(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """The proof of `secret` (RFC 1994 §4.1)."""
    return hashlib.new(ALGORITHMS[algorithm], bytes([identifier]) + secret + challenge).digest()


# The machine


class ChapStage(enum.Enum):
    """How far one login has come."""

    START = "no method yet"
    AGREED = "CHAP, no algorithm yet"
    CHALLENGED = "our challenge is out"
    PASSED = "the initiator has proved itself"
    OVER = "refused"


CHAP_TRANSITIONS: Final[frozenset[tuple[ChapStage, ChapStage]]] = frozenset(
    {
        (ChapStage.START, ChapStage.AGREED),
        (ChapStage.AGREED, ChapStage.CHALLENGED),
        (ChapStage.CHALLENGED, ChapStage.PASSED),
        (ChapStage.START, ChapStage.OVER),
        (ChapStage.AGREED, ChapStage.OVER),
        (ChapStage.CHALLENGED, ChapStage.OVER),
        (ChapStage.PASSED, ChapStage.OVER),
    }
)


class _Refused(Exception):
    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.step = AuthenticationStep(verdict, reason=reason)


@attrs.define(eq=False)
class Chap:
    """The proof of one login: an Authentication."""

    secrets: ChapSecrets
    draw: Callable[[int], bytes]
    """So many bytes that nobody can guess."""
    stage: ChapStage = attrs.field(default=ChapStage.START, init=False)
    _algorithm: int = attrs.field(default=0, init=False)
    _identifier: int = attrs.field(default=0, init=False)
    _challenge: bytes = attrs.field(default=b"", init=False, repr=False)

    @property
    def required(self) -> bool:
        """Nobody passes without."""
        return True

    def receive(self, keys: Mapping[str, str]) -> AuthenticationStep:
        """The security keys of one complete login request."""
        try:
            following, answer = _STEPS[self.stage](self, keys)
        except _Refused as refused:
            self.stage = ChapStage.OVER
            return refused.step
        self.stage = following
        passed = following is ChapStage.PASSED
        return AuthenticationStep(Verdict.PASSED if passed else Verdict.PENDING, answer)

    def _agree(self, keys: Mapping[str, str]) -> tuple[ChapStage, dict[str, str]]:
        if not keys:
            raise _Refused(Verdict.FAILED, "no AuthMethod, CHAP is required")
        _take(keys, "AuthMethod")
        if "CHAP" not in keys["AuthMethod"].split(","):
            raise _Refused(Verdict.FAILED, "CHAP is required and not offered")
        return ChapStage.AGREED, {"AuthMethod": "CHAP"}

    def _challenge_it(self, keys: Mapping[str, str]) -> tuple[ChapStage, dict[str, str]]:
        _take(keys, "CHAP_A")
        items = keys["CHAP_A"].split(",")
        offered = [parse_number(item) for item in items]
        if None in offered or len(offered) > ALGORITHMS_OFFERED_MAX:
            raise _Refused(Verdict.MALFORMED, "CHAP_A is not a list of numbers")
        chosen = next((number for number in offered if number in ALGORITHMS), None)
        if chosen is None:
            raise _Refused(Verdict.FAILED, "no CHAP algorithm that we have")
        self._algorithm = chosen
        self._identifier = self.draw(1)[0]
        # As long as the hash, 16 bytes or more: nobody can have answers to so many prepared.
        self._challenge = self.draw(hashlib.new(ALGORITHMS[chosen]).digest_size)
        return ChapStage.CHALLENGED, {
            "CHAP_A": str(chosen),
            "CHAP_I": str(self._identifier),
            "CHAP_C": format_binary(self._challenge),
        }

    def _verify(self, keys: Mapping[str, str]) -> tuple[ChapStage, dict[str, str]]:
        mutual = "CHAP_I" in keys or "CHAP_C" in keys
        _take(keys, "CHAP_N", "CHAP_R", *(("CHAP_I", "CHAP_C") if mutual else ()))
        name, proof = keys["CHAP_N"], parse_binary(keys["CHAP_R"])
        identifier = parse_number(keys["CHAP_I"]) if mutual else 0
        challenge = parse_binary(keys["CHAP_C"]) if mutual else b""
        if proof is None or identifier is None or identifier > 255 or challenge is None:
            raise _Refused(Verdict.MALFORMED, "a CHAP value is malformed")
        known = self.secrets.incoming.get(name)
        secret = known if known is not None else self.draw(_DECOY_BYTES)
        expected = response(self._algorithm, self._identifier, secret, self._challenge)
        if not hmac.compare_digest(expected, proof) or known is None:
            raise _Refused(Verdict.FAILED, "wrong CHAP name or secret")
        if not mutual:
            return ChapStage.PASSED, {}
        if hmac.compare_digest(challenge, self._challenge):
            raise _Refused(Verdict.FAILED, "the initiator sent our own challenge back")
        own = self.secrets.own
        if own is None:
            raise _Refused(Verdict.FAILED, "mutual CHAP is asked for and not configured")
        answer = response(self._algorithm, identifier, own.secret, challenge)
        return ChapStage.PASSED, {"CHAP_N": own.name, "CHAP_R": format_binary(answer)}

    def _no_more(self, keys: Mapping[str, str]) -> tuple[ChapStage, dict[str, str]]:
        """Requests that negotiate other things may follow in the security stage."""
        _take(keys)
        return ChapStage.PASSED, {}

    def _refuse(self, _keys: Mapping[str, str]) -> tuple[ChapStage, dict[str, str]]:
        raise _Refused(Verdict.FAILED, "refused before")


def _take(keys: Mapping[str, str], *wanted: str) -> None:
    """The step has exactly these keys (RFC 7143 §12.1)."""
    if any(key not in wanted for key in keys):
        raise _Refused(Verdict.MALFORMED, "a security key that this step does not have")
    if any(key not in keys for key in wanted):
        raise _Refused(Verdict.MISSING, "a security key of this step is missing")


_STEPS: Final[Mapping[ChapStage, Callable[[Chap, Mapping[str, str]], tuple[ChapStage, dict[str, str]]]]] = {
    ChapStage.START: Chap._agree,
    ChapStage.AGREED: Chap._challenge_it,
    ChapStage.CHALLENGED: Chap._verify,
    ChapStage.PASSED: Chap._no_more,
    ChapStage.OVER: Chap._refuse,
}
