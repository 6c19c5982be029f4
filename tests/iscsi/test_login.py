"""The login machine: every flag combination in every stage, every status, text in parts."""

import itertools
from collections.abc import Mapping

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import LocalProtocolError, RemoteProtocolError
from pyjiva.iscsi.authentication import (
    NO_AUTHENTICATION,
    Authentication,
    AuthenticationStep,
    NoAuthentication,
    Verdict,
)
from pyjiva.iscsi.login import LOGIN_SEGMENT_BYTES, REQUESTS_MAX, TRANSITIONS, LoginMachine, LoginReply, Stage
from pyjiva.iscsi.pdu import LOGIN_REQUEST, LOGIN_RESPONSE, LoginStatus, Opcode, Pdu
from pyjiva.iscsi.text import decode_text, encode_text

NAMES = {"InitiatorName": "iqn.2026-01.test:a", "TargetName": "iqn.2026-01.test:t"}
TRANSIT, CONTINUE = 0x80, 0x40
SECURITY, OPERATIONAL, FULL_FEATURE = 0, 1, 3


@attrs.define
class Policy:
    """A target named iqn.2026-01.test:t."""

    proof: Authentication = NO_AUTHENTICATION
    verdict: int | LoginStatus = 77
    admitted: int = 0

    def has_target(self, target_name: str) -> bool:
        return target_name == NAMES["TargetName"]

    def allows(self, initiator_name: str, host: str) -> bool:
        return host != "forbidden"

    def authentication(self, initiator_name: str, *, discovery: bool) -> Authentication:
        return self.proof

    def admit(self, login: LoginMachine) -> int | LoginStatus:
        self.admitted += 1
        return self.verdict


def request(
    machine: LoginMachine,
    flags: int,
    keys: dict[str, str] | None = None,
    *,
    text: bytes | None = None,
    isid: bytes = b"isid00",
    version_min: int = 0,
    cmd_sn: int = 5,
) -> LoginReply:
    data = encode_text((keys or {}).items()) if text is None else text
    header = LOGIN_REQUEST.pack(Opcode.LOGIN_REQUEST | 0x40, flags, 0, version_min, isid, 0, 9, 1, cmd_sn, 0)
    return machine.receive(Pdu(header, data))


def flags_of(reply: LoginReply) -> int:
    return reply.header[1]


def keys_of(reply: LoginReply) -> dict[str, str]:
    return dict(decode_text(reply.data))


def stage_flags(current: int, following: int | None = None) -> int:
    return current << 2 | (0 if following is None else TRANSIT | following)


def machine_in(stage: Stage) -> LoginMachine:
    machine = LoginMachine(Policy(), 32)
    match stage:
        case Stage.SECURITY:
            request(machine, stage_flags(SECURITY), NAMES)
        case Stage.OPERATIONAL:
            request(machine, stage_flags(OPERATIONAL), NAMES)
        case Stage.FULL_FEATURE:
            request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), NAMES)
        case Stage.FAILED:
            request(machine, stage_flags(OPERATIONAL), {})
        case Stage.START:
            pass
    assert machine.stage is stage
    return machine


@pytest.mark.parametrize("stage", Stage)
def test_every_flag_byte_in_every_stage(stage: Stage) -> None:
    """All 256 values: accepted exactly where the table of transitions and RFC 7143 §11.12 say so."""
    for flags in range(256):
        machine = machine_in(stage)
        keys = NAMES if stage is Stage.START else {}
        if stage in (Stage.FULL_FEATURE, Stage.FAILED):
            with pytest.raises(LocalProtocolError):
                request(machine, flags, keys)
            continue
        reply = request(machine, flags, keys)
        current, following = flags >> 2 & 3, flags & 3
        transit, more = bool(flags & TRANSIT), bool(flags & CONTINUE)
        entered = current in (SECURITY, OPERATIONAL) and stage in (Stage.START, Stage(current))
        may_leave = (
            not more and following != 2 and entered and (Stage(current), Stage(following)) in TRANSITIONS
        )
        if not entered or (transit and not may_leave):
            assert reply.status != LoginStatus.SUCCESS, f"{flags:#x}"
            assert machine.stage is Stage.FAILED
        else:
            assert reply.status == LoginStatus.SUCCESS, f"{flags:#x}"
            assert machine.stage is (Stage(following) if transit else Stage(current))
            assert bool(flags_of(reply) & TRANSIT) == transit


def test_transitions_only_go_forward() -> None:
    order = [Stage.START, Stage.SECURITY, Stage.OPERATIONAL, Stage.FULL_FEATURE]
    for before, after in itertools.product(order, order):
        if (before, after) in TRANSITIONS:
            assert order.index(after) > order.index(before)


def test_linux_logs_in_with_one_request() -> None:
    """What open-iscsi 2.1.8 sends without CHAP."""
    offer = {
        **NAMES, "SessionType": "Normal", "HeaderDigest": "None,CRC32C", "DataDigest": "None",
        "DefaultTime2Wait": "2", "DefaultTime2Retain": "0", "IFMarker": "No", "OFMarker": "No",
        "ErrorRecoveryLevel": "0", "InitialR2T": "No", "ImmediateData": "Yes", "MaxBurstLength": "16776192",
        "FirstBurstLength": "262144", "MaxOutstandingR2T": "1", "MaxConnections": "1",
        "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "MaxRecvDataSegmentLength": "262144",
    }  # fmt: skip
    machine = LoginMachine(Policy(), 32)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), offer)
    assert keys_of(reply) == {
        "TargetPortalGroupTag": "1", "HeaderDigest": "None", "DataDigest": "None", "DefaultTime2Wait": "2",
        "DefaultTime2Retain": "0", "IFMarker": "No", "OFMarker": "No", "ErrorRecoveryLevel": "0",
        "InitialR2T": "No", "ImmediateData": "Yes", "MaxBurstLength": "1048576", "FirstBurstLength": "262144",
        "MaxOutstandingR2T": "1", "MaxConnections": "1", "DataPDUInOrder": "Yes",
        "DataSequenceInOrder": "Yes", "MaxRecvDataSegmentLength": "262144",
    }  # fmt: skip
    _, flags, _, _, length, isid, tsih, itt, stat_sn, exp_cmd_sn, max_cmd_sn, status = LOGIN_RESPONSE.unpack(
        reply.header
    )
    assert (flags, isid, tsih, itt, status) == (0x87, b"isid00", 77, 9, 0)
    assert length == len(reply.data)
    assert (exp_cmd_sn, max_cmd_sn) == (5, 5 + 31)
    assert machine.stat_sn == stat_sn + 1
    assert machine.parameters.max_outstanding_r2t == 1


def test_security_stage_with_no_method_and_then_operational() -> None:
    machine = LoginMachine(Policy(), 32)
    reply = request(machine, stage_flags(SECURITY, OPERATIONAL), {**NAMES, "AuthMethod": "CHAP,None"})
    assert keys_of(reply) == {"TargetPortalGroupTag": "1", "AuthMethod": "None"}
    assert flags_of(reply) == stage_flags(SECURITY, OPERATIONAL)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), {"MaxBurstLength": "512"})
    assert keys_of(reply) == {"MaxBurstLength": "512", "MaxRecvDataSegmentLength": "262144"}
    assert machine.stage is Stage.FULL_FEATURE


FAILURES = [
    ("no initiator name", {"TargetName": NAMES["TargetName"]}, LoginStatus.MISSING_PARAMETER),
    ("no target name", {"InitiatorName": "iqn.a"}, LoginStatus.MISSING_PARAMETER),
    ("other target", {**NAMES, "TargetName": "iqn.other"}, LoginStatus.NOT_FOUND),
    ("session type", {**NAMES, "SessionType": "Strange"}, LoginStatus.SESSION_TYPE_NOT_SUPPORTED),
    ("long name", {**NAMES, "InitiatorName": "i" * 224}, LoginStatus.INITIATOR_ERROR),
    ("bad length", {**NAMES, "MaxRecvDataSegmentLength": "12"}, LoginStatus.INITIATOR_ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "status"), [case[1:] for case in FAILURES], ids=[c[0] for c in FAILURES])
def test_login_that_cannot_be_is_answered_with_its_status(keys: dict[str, str], status: LoginStatus) -> None:
    machine = LoginMachine(Policy(), 32)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), keys)
    assert reply.status == status
    assert int.from_bytes(reply.header[36:38], "big") == status
    assert machine.stage is Stage.FAILED
    assert machine.failure


def test_version_that_we_do_not_speak() -> None:
    reply = request(LoginMachine(Policy(), 32), stage_flags(OPERATIONAL), NAMES, version_min=1)
    assert reply.status == LoginStatus.UNSUPPORTED_VERSION


def test_refusal_of_the_target_is_the_answer() -> None:
    machine = LoginMachine(Policy(verdict=LoginStatus.OUT_OF_RESOURCES), 32)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), NAMES)
    assert reply.status == LoginStatus.OUT_OF_RESOURCES
    assert machine.stage is Stage.FAILED


def test_key_may_be_negotiated_once_only() -> None:
    machine = LoginMachine(Policy(), 32)
    request(machine, stage_flags(OPERATIONAL), {**NAMES, "MaxBurstLength": "512"})
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), {"MaxBurstLength": "1024"})
    assert reply.status == LoginStatus.INITIATOR_ERROR


def test_key_stands_once_in_a_request() -> None:
    text = encode_text([*NAMES.items(), ("AuthMethod", "None"), ("AuthMethod", "CHAP")])
    reply = request(LoginMachine(Policy(), 32), stage_flags(SECURITY), text=text)
    assert reply.status == LoginStatus.INITIATOR_ERROR


def test_target_portal_group_tag_answers_a_target_name_in_discovery_too() -> None:
    machine = LoginMachine(Policy(), 32)
    keys = {**NAMES, "SessionType": "Discovery"}
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), keys)
    assert keys_of(reply)["TargetPortalGroupTag"] == "1"
    machine = LoginMachine(Policy(), 32)
    reply = request(machine, stage_flags(OPERATIONAL), {**keys, "TargetName": "iqn.other"})
    assert reply.status == LoginStatus.NOT_FOUND


@pytest.mark.parametrize("stage", [SECURITY, OPERATIONAL])
def test_initiator_that_no_rule_allows_is_refused(stage: int) -> None:
    machine = LoginMachine(Policy(), 32, "forbidden")
    reply = request(machine, stage_flags(stage), {**NAMES, "AuthMethod": "None"})
    assert reply.status == LoginStatus.AUTHORIZATION_FAILURE
    machine = LoginMachine(Policy(), 32, "forbidden")
    names = {"InitiatorName": "iqn.a", "SessionType": "Discovery"}
    assert request(machine, stage_flags(stage), names).status == LoginStatus.SUCCESS


def test_target_is_named_in_the_first_request_or_never() -> None:
    machine = LoginMachine(Policy(), 32)
    request(machine, stage_flags(OPERATIONAL), {"InitiatorName": "iqn.a", "SessionType": "Discovery"})
    reply = request(machine, stage_flags(OPERATIONAL), {"TargetName": NAMES["TargetName"]})
    assert keys_of(reply)["TargetName"] == "Reject"
    assert machine.target_name == ""


def test_another_isid_in_the_middle_is_refused() -> None:
    machine = machine_in(Stage.OPERATIONAL)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), isid=b"other0")
    assert reply.status == LoginStatus.INVALID_DURING_LOGIN


def test_login_must_begin_with_a_login_request() -> None:
    machine = LoginMachine(Policy(), 32)
    with pytest.raises(RemoteProtocolError):
        machine.receive(Pdu(bytes(48)))


def test_login_does_not_go_on_for_ever() -> None:
    machine = machine_in(Stage.OPERATIONAL)
    replies = [request(machine, stage_flags(OPERATIONAL)) for _ in range(REQUESTS_MAX - 1)]
    assert {reply.status for reply in replies} == {LoginStatus.SUCCESS}
    assert request(machine, stage_flags(OPERATIONAL)).status == LoginStatus.OUT_OF_RESOURCES


def test_text_may_come_in_parts() -> None:
    machine = LoginMachine(Policy(), 32)
    text = encode_text({**NAMES, "MaxBurstLength": "512"}.items())
    for start in range(0, 30, 10):
        part = text[start : start + 10]
        reply = request(machine, stage_flags(OPERATIONAL) | CONTINUE, text=part)
        assert (reply.data, flags_of(reply)) == (b"", stage_flags(OPERATIONAL))
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), text=text[30:])
    assert keys_of(reply)["MaxBurstLength"] == "512"
    assert machine.stage is Stage.FULL_FEATURE


def test_long_answer_goes_out_in_parts() -> None:
    machine = LoginMachine(Policy(), 32)
    unknown = {f"X-org.example.{number:040}": "1" for number in range(150)}
    pieces = [encode_text(list(NAMES.items()) + list(unknown.items())[:50])]
    request(machine, stage_flags(OPERATIONAL) | CONTINUE, text=pieces[0])
    rest = encode_text(list(unknown.items())[50:])
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), text=rest)
    collected = reply.data
    assert len(reply.data) == LOGIN_SEGMENT_BYTES
    while flags_of(reply) & CONTINUE:
        assert not flags_of(reply) & TRANSIT
        reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE))
        collected += reply.data
    assert machine.stage is Stage.FULL_FEATURE
    answers = dict(decode_text(collected))
    assert all(answers[key] == "NotUnderstood" for key in unknown)


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict.FAILED, LoginStatus.AUTHENTICATION_FAILURE),
        (Verdict.MALFORMED, LoginStatus.INITIATOR_ERROR),
        (Verdict.MISSING, LoginStatus.MISSING_PARAMETER),
    ],
)
def test_verdict_has_its_status(verdict: Verdict, status: LoginStatus) -> None:
    """RFC 7143 §12.1: what does not belong to the step is no authentication failure."""

    @attrs.define
    class Refuses:
        required: bool = True

        def receive(self, keys: Mapping[str, str]) -> AuthenticationStep:
            return AuthenticationStep(verdict, reason="because")

    machine = LoginMachine(Policy(proof=Refuses()), 32)
    assert request(machine, stage_flags(SECURITY), NAMES).status == status
    assert machine.failure == "because"


@attrs.define
class TwoSteps:
    """A method that needs two exchanges."""

    required: bool = True
    passes: bool = True
    step: int = 0

    def receive(self, keys: Mapping[str, str]) -> AuthenticationStep:
        self.step += 1
        if self.step == 1:
            return AuthenticationStep(Verdict.PENDING, {"CHAP_A": "7"})
        return AuthenticationStep(Verdict.PASSED if self.passes else Verdict.FAILED)


@pytest.mark.parametrize("passes", [True, False])
def test_authentication_method_decides_when_the_stage_may_be_left(passes: bool) -> None:
    machine = LoginMachine(Policy(proof=TwoSteps(passes=passes)), 32)
    reply = request(machine, stage_flags(SECURITY, OPERATIONAL), {**NAMES, "AuthMethod": "CHAP"})
    assert keys_of(reply)["CHAP_A"] == "7"
    assert not flags_of(reply) & TRANSIT
    assert flags_of(reply) == stage_flags(SECURITY)
    reply = request(machine, stage_flags(SECURITY, OPERATIONAL), {"CHAP_R": "0x00"})
    if passes:
        assert machine.stage is Stage.OPERATIONAL
    else:
        assert reply.status == LoginStatus.AUTHENTICATION_FAILURE


def test_login_without_security_stage_is_refused_where_proof_is_required() -> None:
    machine = LoginMachine(Policy(proof=NoAuthentication(required=True)), 32)
    reply = request(machine, stage_flags(OPERATIONAL, FULL_FEATURE), NAMES)
    assert reply.status == LoginStatus.AUTHENTICATION_FAILURE


def test_method_that_is_not_ours_is_refused() -> None:
    machine = LoginMachine(Policy(), 32)
    reply = request(machine, stage_flags(SECURITY, OPERATIONAL), {**NAMES, "AuthMethod": "KRB5"})
    assert reply.status == LoginStatus.AUTHENTICATION_FAILURE


@given(
    requests=st.lists(
        st.tuples(
            st.integers(0, 255), st.one_of(st.binary(max_size=80), st.just(encode_text(NAMES.items())))
        ),
        max_size=6,
    )
)
def test_any_requests_end_in_a_stage(requests: list[tuple[int, bytes]]) -> None:
    policy = Policy()
    machine = LoginMachine(policy, 32)
    for flags, text in requests:
        reply = request(machine, flags, text=text)
        assert len(reply.header) == 48
        if machine.stage in (Stage.FULL_FEATURE, Stage.FAILED):
            break
    assert policy.admitted == (machine.stage is Stage.FULL_FEATURE)
