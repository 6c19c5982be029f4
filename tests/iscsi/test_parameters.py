"""Negotiation of each key, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.iscsi.parameters import KEYS, Parameters, Phase, in_order, negotiate, parse_number

# key, offer, answer, field, value
CASES = [
    ("HeaderDigest", "CRC32C,None", "CRC32C", "header_digest", True),
    ("HeaderDigest", "None,CRC32C", "None", "header_digest", False),
    ("HeaderDigest", "X-sha,CRC32C", "CRC32C", "header_digest", True),
    ("HeaderDigest", "X-sha", "Reject", "header_digest", False),
    ("DataDigest", "CRC32C", "CRC32C", "data_digest", True),
    ("MaxConnections", "8", "1", "max_connections", 1),
    ("MaxConnections", "0", "Reject", "max_connections", 1),
    ("InitialR2T", "No", "No", "initial_r2t", False),
    ("InitialR2T", "Yes", "Yes", "initial_r2t", True),
    ("InitialR2T", "Maybe", "Reject", "initial_r2t", True),
    ("ImmediateData", "No", "No", "immediate_data", False),
    ("ImmediateData", "Yes", "Yes", "immediate_data", True),
    ("MaxBurstLength", "16776192", "1048576", "max_burst_length", 1048576),
    ("MaxBurstLength", "512", "512", "max_burst_length", 512),
    ("MaxBurstLength", "511", "Reject", "max_burst_length", 262144),
    ("MaxBurstLength", "0x10000", "65536", "max_burst_length", 65536),
    ("FirstBurstLength", "16777216", "Reject", "first_burst_length", 65536),
    ("FirstBurstLength", "1048576", "262144", "first_burst_length", 262144),
    ("MaxOutstandingR2T", "65535", "8", "max_outstanding_r2t", 8),
    ("MaxOutstandingR2T", "1", "1", "max_outstanding_r2t", 1),
    ("DefaultTime2Wait", "2", "2", "default_time2wait_s", 2),
    ("DefaultTime2Retain", "20", "0", "default_time2retain_s", 0),
    ("ErrorRecoveryLevel", "2", "0", "error_recovery_level", 0),
    ("ErrorRecoveryLevel", "3", "Reject", "error_recovery_level", 0),
    ("DataPDUInOrder", "No", "Yes", "", None),
    ("DataSequenceInOrder", "No", "Yes", "", None),
    ("TaskReporting", "FastAbort,RFC3720", "RFC3720", "", None),
    ("iSCSIProtocolLevel", "2", "1", "", None),
    ("IFMarker", "Yes", "No", "", None),
    ("OFMarker", "No", "No", "", None),
    ("IFMarkInt", "1~2", "Reject", "", None),
    ("MaxRecvDataSegmentLength", "262144", None, "max_recv_data_segment_length", 262144),
    ("InitiatorAlias", "me", None, "", None),
    ("TargetAlias", "you", "Reject", "", None),
    ("TargetAddress", "1.2.3.4", "Reject", "", None),
    ("SendTargets", "All", "Reject", "", None),
    ("AuthMethod", "None", "Reject", "", None),
    ("X-com.example.key", "1", "NotUnderstood", "", None),
    ("MaxBurstLength ", "512", "NotUnderstood", "", None),
    ("HeaderDigest", "x" * 256, "Reject", "header_digest", False),
    ("HeaderDigest", "", "Reject", "header_digest", False),
    ("HeaderDigest", ",,CRC32C", "CRC32C", "header_digest", True),
    ("MaxConnections", "65536", "Reject", "max_connections", 1),
    ("MaxConnections", "08", "Reject", "max_connections", 1),
    ("MaxBurstLength", "0x" + "0" * 70 + "200", "512", "max_burst_length", 512),
    ("MaxBurstLength", "512~1024", "Reject", "max_burst_length", 262144),
    ("MaxBurstLength", "512,1024", "Reject", "max_burst_length", 262144),
    ("MaxOutstandingR2T", "0", "Reject", "max_outstanding_r2t", 1),
    ("DefaultTime2Wait", "3600", "3600", "default_time2wait_s", 3600),
    ("DefaultTime2Wait", "3601", "Reject", "default_time2wait_s", 2),
    ("DefaultTime2Retain", "0", "0", "default_time2retain_s", 0),
    ("ErrorRecoveryLevel", "1", "0", "error_recovery_level", 0),
    ("TaskReporting", "FastAbort,ResponseFence", "Reject", "", None),
    ("iSCSIProtocolLevel", "0", "0", "", None),
    ("iSCSIProtocolLevel", "32", "Reject", "", None),
    ("OFMarkInt", "2048", "Reject", "", None),
    ("X#NodeArchitecture", "Linux", "NotUnderstood", "", None),
    ("RDMAExtensions", "Yes", "NotUnderstood", "", None),
    ("TargetPortalGroupTag", "1", "Reject", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("key", "offer", "answer", "field", "value"), CASES)
def test_key(key: str, offer: str, answer: str | None, field: str, value: object) -> None:
    parameters = Parameters()
    assert negotiate(parameters, key, offer, phase=Phase.OPERATIONAL, discovery=False) == answer
    if field:
        assert getattr(parameters, field) == value


@pytest.mark.parametrize("value", ["511", "16777216", "x", "", "Yes", "-1", "1e4"])
def test_segment_length_that_cannot_be_fails_the_login(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        negotiate(Parameters(), "MaxRecvDataSegmentLength", value, phase=Phase.OPERATIONAL, discovery=False)


@pytest.mark.parametrize("value", ["NotUnderstood", "Reject", "Irrelevant"])
@pytest.mark.parametrize("key", ["MaxBurstLength", "MaxRecvDataSegmentLength", "X-unknown", "TargetAlias"])
def test_answer_to_nothing_is_a_protocol_error(key: str, value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        negotiate(Parameters(), key, value, phase=Phase.OPERATIONAL, discovery=False)


def test_first_burst_is_never_longer_than_a_burst() -> None:
    """In whatever order the keys stand."""
    parameters = Parameters()
    pairs = [("FirstBurstLength", "262144"), ("X-a", "1"), ("MaxBurstLength", "4096")]
    answers = {
        key: negotiate(parameters, key, value, phase=Phase.OPERATIONAL, discovery=False)
        for key, value in in_order(pairs)
    }
    assert answers == {"X-a": "NotUnderstood", "MaxBurstLength": "4096", "FirstBurstLength": "4096"}
    assert parameters.first_burst_length == 4096


@pytest.mark.parametrize("key", [key for key, row in KEYS.items() if row.phase is Phase.INITIAL])
def test_names_are_taken_from_the_first_request_only(key: str) -> None:
    answer = negotiate(Parameters(), key, "iqn.a", phase=Phase.OPERATIONAL, discovery=False, initial=False)
    assert answer == "Reject"


NORMAL_ONLY = {
    "MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength",
    "MaxOutstandingR2T", "DataPDUInOrder", "DataSequenceInOrder", "TaskReporting", "iSCSIProtocolLevel",
}  # fmt: skip


def test_keys_of_normal_sessions_are_those_that_the_standard_says() -> None:
    assert {key for key, row in KEYS.items() if row.normal_only} == NORMAL_ONLY


def test_keys_of_normal_sessions_are_irrelevant_for_discovery() -> None:
    answer = negotiate(Parameters(), "InitialR2T", "No", phase=Phase.OPERATIONAL, discovery=True)
    assert answer == "Irrelevant"


def test_full_feature_phase_takes_declarations_only() -> None:
    parameters = Parameters()
    assert (
        negotiate(parameters, "MaxBurstLength", "512", phase=Phase.FULL_FEATURE, discovery=False) == "Reject"
    )
    assert (
        negotiate(parameters, "MaxRecvDataSegmentLength", "512", phase=Phase.FULL_FEATURE, discovery=False)
        is None
    )
    assert parameters.max_recv_data_segment_length == 512


@given(key=st.sampled_from(sorted(KEYS)), value=st.text(max_size=30), phase=st.sampled_from(Phase))
def test_any_value_is_answered_or_refused(key: str, value: str, phase: Phase) -> None:
    parameters = Parameters()
    try:
        answer = negotiate(parameters, key, value, phase=phase, discovery=False)
    except RemoteProtocolError:
        return
    assert answer is None or len(answer) < 256
    assert 512 <= parameters.max_burst_length < 1 << 24
    assert 512 <= parameters.first_burst_length < 1 << 24
    assert 512 <= parameters.max_recv_data_segment_length < 1 << 24


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("262144", 262144), ("0x40", 64), ("0XfF", 255), ("", None), ("0x", None), ("1_0", None),
     ("+1", None), (" 1", None), ("٣", None), ("9" * 30, None), ("00", None), ("01", None),
     ("18446744073709551615", 2**64 - 1), ("18446744073709551616", None), ("0xffffffffffffffff", 2**64 - 1),
     ("0x10000000000000000", None), ("0x" + "0" * 64 + "1", 1), ("0x" + "0" * 300, None), ("0x0x1", None),
     ("0b1", None), ("1~2", None)],
)  # fmt: skip
def test_numbers(text: str, number: int | None) -> None:
    assert parse_number(text) == number
