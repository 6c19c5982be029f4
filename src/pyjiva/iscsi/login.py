"""The login phase of one connection as a machine: requests in, responses out (RFC 7143 §6.3, §11.12-11.13).
Pure.

Stages are the RFC's; `TRANSITIONS` says which may follow which.  The machine asks a `LoginPolicy` (the
target) about names, authentication and admission, so that nothing of it depends on who else is connected.
A login that fails is answered with its status and is over: the connection is closed.
"""

import enum
from collections.abc import Mapping
from typing import Final, Protocol

import attrs

from pyjiva.errors import LocalProtocolError, RemoteProtocolError
from pyjiva.iscsi.authentication import Authentication, Verdict
from pyjiva.iscsi.parameters import (
    DATA_SEGMENT_LENGTH_MAX,
    KEYS,
    Parameters,
    Phase,
    Rule,
    in_order,
    negotiate,
)
from pyjiva.iscsi.pdu import (
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    OPCODE_MASK,
    LoginStatus,
    Opcode,
    Pdu,
    serial_add,
)
from pyjiva.iscsi.text import TextCollector, encode_text, first_part

__all__ = ["LOGIN_SEGMENT_BYTES", "TRANSITIONS", "LoginMachine", "LoginPolicy", "LoginReply", "Stage"]

LOGIN_SEGMENT_BYTES: Final = 8192  # MaxRecvDataSegmentLength of both sides during login (RFC 7143 §13.12)
REQUESTS_MAX: Final = 32  # of one login, parts of long texts included: the longest CHAP login takes six
NAME_BYTES_MAX: Final = 223  # RFC 7143 §4.2.7.1
PORTAL_GROUP_TAG: Final = 1
VERSION: Final = 0
FIRST_STAT_SN: Final = 1

_TRANSIT: Final = 0x80
_CONTINUE: Final = 0x40


class Stage(enum.Enum):
    """Where the login stands; the values are those of the CSG and NSG fields."""

    SECURITY = 0
    OPERATIONAL = 1
    FULL_FEATURE = 3
    START = "no request yet"
    FAILED = "answered with an error"


TRANSITIONS: Final[frozenset[tuple[Stage, Stage]]] = frozenset(
    {
        (Stage.START, Stage.SECURITY),
        (Stage.START, Stage.OPERATIONAL),
        (Stage.SECURITY, Stage.OPERATIONAL),
        (Stage.SECURITY, Stage.FULL_FEATURE),
        (Stage.OPERATIONAL, Stage.FULL_FEATURE),
    }
)


# RFC 7143 §12.1: what is not of the step is no authentication failure.
_REFUSALS: Final[Mapping[Verdict, LoginStatus]] = {
    Verdict.FAILED: LoginStatus.AUTHENTICATION_FAILURE,
    Verdict.MALFORMED: LoginStatus.INITIATOR_ERROR,
    Verdict.MISSING: LoginStatus.MISSING_PARAMETER,
}


class LoginPolicy(Protocol):
    """What the target decides about a login."""

    def has_target(self, target_name: str) -> bool:
        """Whether a target of this name is here."""

    def allows(self, initiator_name: str, host: str) -> bool:
        """Whether this initiator, at this address, may log in to the target at all."""

    def authentication(self, initiator_name: str, *, discovery: bool) -> Authentication:
        """What this initiator must prove."""

    def admit(self, login: "LoginMachine") -> int | LoginStatus:
        """The login is complete: a new TSIH, or why not."""


@attrs.frozen
class LoginReply:
    """One Login Response."""

    header: bytes
    data: bytes
    status: LoginStatus


class _LoginFailure(Exception):
    def __init__(self, status: LoginStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@attrs.define(eq=False)
class LoginMachine:
    """One connection's login."""

    policy: LoginPolicy
    window: int
    """How many commands the initiator may send at once (MaxCmdSN)."""
    host: str = ""
    """The initiator's address."""
    stage: Stage = Stage.START
    parameters: Parameters = attrs.field(factory=Parameters)
    initiator_name: str = ""
    target_name: str = ""
    discovery: bool = False
    isid: bytes = bytes(6)
    tsih: int = 0
    cid: int = 0
    cmd_sn: int = 0
    """CmdSN of the login: the first command of the session has the same."""
    stat_sn: int = FIRST_STAT_SN
    failure: str = ""
    """Why the login failed, for the log."""
    _itt: int = 0
    _requests: int = 0
    _collector: TextCollector = attrs.field(factory=TextCollector)
    _authentication: Authentication | None = None
    _authenticated: bool = False
    _seen: set[str] = attrs.field(factory=set)
    _declared: bool = False
    _unsent: bytes = b""

    def receive(self, pdu: Pdu) -> LoginReply:
        """The answer to one request.

        Raises RemoteProtocolError: not a Login Request (the connection is closed without an answer).
        Raises LocalProtocolError: the login is over.
        """
        if self.stage in (Stage.FULL_FEATURE, Stage.FAILED):
            raise LocalProtocolError(f"login request in stage {self.stage}")
        if pdu.header[0] & OPCODE_MASK != Opcode.LOGIN_REQUEST:
            raise RemoteProtocolError(f"PDU with operation code {pdu.header[0]:#x} before the login")
        try:
            return self._receive(pdu)
        except _LoginFailure as failure:
            return self._fail(failure.status, str(failure))
        except RemoteProtocolError as error:
            return self._fail(LoginStatus.INITIATOR_ERROR, str(error))

    def _receive(self, pdu: Pdu) -> LoginReply:
        _, flags, _, version_min, isid, tsih, itt, cid, cmd_sn, _ = LOGIN_REQUEST.unpack(pdu.header)
        transit, more = bool(flags & _TRANSIT), bool(flags & _CONTINUE)
        self._requests += 1
        if self._requests == 1:
            self.isid, self.tsih, self.cid, self._itt, self.cmd_sn = isid, tsih, cid, itt, cmd_sn
        elif (isid, tsih, cid, itt) != (self.isid, self.tsih, self.cid, self._itt):
            raise _LoginFailure(LoginStatus.INVALID_DURING_LOGIN, "another ISID, TSIH, CID or task tag")
        if version_min > VERSION:
            raise _LoginFailure(LoginStatus.UNSUPPORTED_VERSION, f"version {version_min}")
        if self._requests > REQUESTS_MAX:
            raise _LoginFailure(LoginStatus.OUT_OF_RESOURCES, f"more than {REQUESTS_MAX} login requests")
        current, following = _stage(flags >> 2 & 3), _stage(flags & 3) if transit else None
        self._enter(current)
        if transit and (more or (current, following) not in TRANSITIONS):
            raise _LoginFailure(LoginStatus.INITIATOR_ERROR, f"flags {flags:#04x} in stage {current}")
        pairs = self._collector.add(bytes(pdu.data), more=more)
        if pairs is None:
            return self._reply(current, None, b"")
        if self._unsent:
            if pairs:
                raise _LoginFailure(LoginStatus.INITIATOR_ERROR, "keys while our answer is being sent")
            return self._reply_text(current, following)
        answers, may_pass = self._answer(current, pairs)
        self._unsent = encode_text(answers)
        return self._reply_text(current, following if may_pass else None)

    def _enter(self, current: Stage) -> None:
        if current is self.stage:
            return
        if self.stage is not Stage.START or (self.stage, current) not in TRANSITIONS:
            raise _LoginFailure(LoginStatus.INVALID_DURING_LOGIN, f"stage {current} after {self.stage}")
        self.stage = current

    def _answer(self, current: Stage, pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bool]:
        """What to answer to a complete request, and whether the stage may be left."""
        if len({key for key, _ in pairs}) < len(pairs):
            raise _LoginFailure(LoginStatus.INITIATOR_ERROR, "a key stands twice in one request")
        for key, _ in pairs:
            if key in self._seen and not _may_repeat(key):
                raise _LoginFailure(LoginStatus.INITIATOR_ERROR, f"{key} was negotiated before")
            self._seen.add(key)
        answers: list[tuple[str, str]] = []
        initial = self._authentication is None
        if initial:
            self._identify(dict(pairs), answers)
        phase = Phase.SECURITY if current is Stage.SECURITY else Phase.OPERATIONAL
        security: dict[str, str] = {}
        for key, value in in_order(pairs):
            row = KEYS.get(key)
            if row is not None and row.rule is Rule.SECURITY and phase is Phase.SECURITY:
                security[key] = value
                continue
            answer = negotiate(
                self.parameters, key, value, phase=phase, discovery=self.discovery, initial=initial
            )
            if answer is not None:
                answers.append((key, answer))
        if current is Stage.SECURITY:
            return answers, self._authenticate(security, answers)
        if not self._declared:
            self._declared = True
            answers.append(("MaxRecvDataSegmentLength", str(DATA_SEGMENT_LENGTH_MAX)))
        return answers, True

    def _identify(self, keys: dict[str, str], answers: list[tuple[str, str]]) -> None:
        """Who logs in, and to what: the first request must say it (RFC 7143 §6.3)."""
        self.initiator_name = keys.get("InitiatorName", "")
        if not self.initiator_name:
            raise _LoginFailure(LoginStatus.MISSING_PARAMETER, "no InitiatorName")
        if len(self.initiator_name.encode()) > NAME_BYTES_MAX:
            raise _LoginFailure(LoginStatus.INITIATOR_ERROR, "InitiatorName is too long")
        session_type = keys.get("SessionType", "Normal")
        if session_type not in ("Normal", "Discovery"):
            raise _LoginFailure(LoginStatus.SESSION_TYPE_NOT_SUPPORTED, f"SessionType={session_type}")
        self.discovery = session_type == "Discovery"
        self.target_name = keys.get("TargetName", "")
        if self.target_name:
            if not self.policy.has_target(self.target_name):
                raise _LoginFailure(LoginStatus.NOT_FOUND, f"no target {self.target_name[:NAME_BYTES_MAX]}")
            if not self.policy.allows(self.initiator_name, self.host):
                raise _LoginFailure(LoginStatus.AUTHORIZATION_FAILURE, "no rule allows this initiator")
            answers.append(("TargetPortalGroupTag", str(PORTAL_GROUP_TAG)))
        elif not self.discovery:
            raise _LoginFailure(LoginStatus.MISSING_PARAMETER, "no TargetName")
        self._authentication = self.policy.authentication(self.initiator_name, discovery=self.discovery)
        if self.stage is Stage.OPERATIONAL and self._authentication.required:
            raise _LoginFailure(LoginStatus.AUTHENTICATION_FAILURE, "no security stage")

    def _authenticate(self, security: dict[str, str], answers: list[tuple[str, str]]) -> bool:
        assert self._authentication is not None
        step = self._authentication.receive(security)
        if step.verdict in _REFUSALS:
            raise _LoginFailure(_REFUSALS[step.verdict], step.reason)
        answers.extend(step.answer.items())
        return step.verdict is Verdict.PASSED

    def _reply_text(self, current: Stage, following: Stage | None) -> LoginReply:
        part, self._unsent = first_part(self._unsent, LOGIN_SEGMENT_BYTES)
        return self._reply(current, None if self._unsent else following, part)

    def _reply(self, current: Stage, following: Stage | None, data: bytes) -> LoginReply:
        if following is not None:
            if following is Stage.FULL_FEATURE:
                admitted = self.policy.admit(self)
                if isinstance(admitted, LoginStatus):
                    raise _LoginFailure(admitted, f"refused: {admitted.name}")
                self.tsih = admitted
            self.stage = following
        flags = current.value << 2
        if following is not None:
            flags |= _TRANSIT | following.value
        elif self._unsent:
            flags |= _CONTINUE
        return self._encode(flags, data, LoginStatus.SUCCESS)

    def _fail(self, status: LoginStatus, detail: str) -> LoginReply:
        self.stage = Stage.FAILED
        self.failure = detail
        return self._encode(0, b"", status)

    def _encode(self, flags: int, data: bytes, status: LoginStatus) -> LoginReply:
        header = LOGIN_RESPONSE.pack(
            Opcode.LOGIN_RESPONSE,
            flags,
            VERSION,
            VERSION,
            len(data),
            self.isid,
            self.tsih,
            self._itt,
            self.stat_sn,
            self.cmd_sn,
            serial_add(self.cmd_sn, self.window - 1),
            status,
        )
        self.stat_sn = serial_add(self.stat_sn, 1)
        return LoginReply(header, data, status)


def _stage(code: int) -> Stage:
    try:
        return Stage(code)
    except ValueError:
        raise _LoginFailure(LoginStatus.INITIATOR_ERROR, f"stage {code}") from None


def _may_repeat(key: str) -> bool:
    """Authentication methods have exchanges of their own; what we do not know we cannot judge."""
    row = KEYS.get(key)
    return row is None or row.rule is Rule.SECURITY
