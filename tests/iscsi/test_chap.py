"""CHAP without sockets: values, every step in every stage, and that nothing gives a secret away."""

import base64
import hashlib
import itertools
from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.iscsi.authentication import AuthenticationStep, Verdict
from pyjiva.iscsi.chap import (
    ALGORITHMS,
    BINARY_BYTES_MAX,
    CHAP_TRANSITIONS,
    Chap,
    ChapSecrets,
    ChapStage,
    OwnSecret,
    check_separate,
    format_binary,
    parse_binary,
    parse_secrets,
    response,
)

SECRET, OWN = b"initiator-secret", b"target-own-secret"
SECRETS = ChapSecrets({"alice": SECRET, "bob": b"another-secret"}, OwnSecret("target", OWN))


def chap(secrets: ChapSecrets = SECRETS, seed: int = 1) -> Chap:
    return Chap(secrets, Random(seed).randbytes)


def challenged(algorithms: str = "7", seed: int = 1) -> tuple[Chap, Mapping[str, str]]:
    """A machine that has sent its challenge, and what it sent."""
    machine = chap(seed=seed)
    machine.receive({"AuthMethod": "CHAP"})
    step = machine.receive({"CHAP_A": algorithms})
    assert machine.stage is ChapStage.CHALLENGED
    return machine, step.answer


def proof(sent: Mapping[str, str], secret: bytes = SECRET, name: str = "alice") -> dict[str, str]:
    challenge = parse_binary(sent["CHAP_C"])
    assert challenge is not None
    data = response(int(sent["CHAP_A"]), int(sent["CHAP_I"]), secret, challenge)
    return {"CHAP_N": name, "CHAP_R": format_binary(data)}


# Values

VALUES = [
    ("0x00ff", b"\0\xff"),
    ("0X0aB1", b"\x0a\xb1"),
    ("0bAAEC", b"\0\1\2"),
    ("0BAAE=", b"\0\1"),
    ("0x", None),
    ("0b", None),
    ("", None),
    ("00ff", None),
    ("0x0", None),
    ("0x0g", None),
    ("0x 0", None),
    ("0x00 ff", None),
    ("0bAAE", None),
    ("0bAAF=", None),  # bits that belong to no byte
    ("0bAA==AA==", None),
    ("0bAA\nEC", None),
    ("0b-_-_", None),
    ("0xé0", None),
    ("0b" + "é" * 4, None),
    ("255", None),
]


@pytest.mark.parametrize(("text", "data"), VALUES)
def test_binary_values(text: str, data: bytes | None) -> None:
    assert parse_binary(text) == data


@given(data=st.binary(min_size=1, max_size=BINARY_BYTES_MAX))
def test_binary_values_come_back_from_both_forms(data: bytes) -> None:
    assert parse_binary(format_binary(data)) == data
    assert parse_binary("0b" + base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("size", [BINARY_BYTES_MAX, BINARY_BYTES_MAX + 1])
def test_binary_values_have_at_most_1024_bytes(size: int) -> None:
    data = bytes(size)
    for text in (format_binary(data), "0b" + base64.b64encode(data).decode()):
        assert (parse_binary(text) == data) == (size == BINARY_BYTES_MAX)


@given(text=st.text(max_size=40))
@example(text="0x" + "٣" * 2)
def test_any_text_is_a_binary_value_or_none(text: str) -> None:
    data = parse_binary(text)
    assert data is None or 0 < len(data) <= BINARY_BYTES_MAX


# The exchange


@pytest.mark.parametrize("number", ALGORITHMS)
def test_response_is_the_hash_of_identifier_secret_and_challenge(number: int) -> None:
    expected = hashlib.new(ALGORITHMS[number], b"\x05" + b"secret" + b"challenge").digest()
    assert response(number, 5, b"secret", b"challenge") == expected
    assert len(expected) == {5: 16, 6: 20, 7: 32, 8: 32}[number]


@pytest.mark.parametrize("number", ALGORITHMS)
def test_right_secret_passes_with_every_algorithm(number: int) -> None:
    machine, sent = challenged(str(number))
    assert int(sent["CHAP_A"]) == number
    challenge = parse_binary(sent["CHAP_C"])
    assert challenge is not None
    assert len(challenge) >= 16
    step = machine.receive(proof(sent))
    assert (step.verdict, dict(step.answer)) == (Verdict.PASSED, {})
    assert machine.receive({}).verdict is Verdict.PASSED, "other keys may follow in this stage"


def test_first_algorithm_in_the_offer_that_we_have_is_taken() -> None:
    assert challenged("9,0x6,5")[1]["CHAP_A"] == "6"


def test_mutual_answer_proves_our_secret() -> None:
    machine, sent = challenged("8")
    step = machine.receive({**proof(sent), "CHAP_I": "0xff", "CHAP_C": "0bAAEC"})
    assert step.verdict is Verdict.PASSED
    assert step.answer["CHAP_N"] == "target"
    assert parse_binary(step.answer["CHAP_R"]) == response(8, 255, OWN, b"\0\1\2")


def test_challenges_are_fresh_for_each_login() -> None:
    sent = {challenged(seed=seed)[1]["CHAP_C"] for seed in range(20)}
    assert len(sent) == 20


def test_our_own_challenge_sent_back_is_refused() -> None:
    machine, sent = challenged()
    back = {"CHAP_I": sent["CHAP_I"], "CHAP_C": sent["CHAP_C"]}
    step = machine.receive({**proof(sent), **back})
    assert (step.verdict, dict(step.answer)) == (Verdict.FAILED, {})


def test_wrong_secret_and_unknown_user_look_alike() -> None:
    """The same verdict, the same reason, the same draws; and no proof of ours to either."""
    steps = []
    for name, secret in (("alice", b"wrong"), ("mallory", SECRET), ("", b""), ("bob", SECRET)):
        machine, sent = challenged()
        steps.append(machine.receive({**proof(sent, secret, name), "CHAP_I": "1", "CHAP_C": "0x01"}))
        assert machine.stage is ChapStage.OVER
    assert all(step == steps[0] for step in steps)
    assert (steps[0].verdict, dict(steps[0].answer)) == (Verdict.FAILED, {})


def test_unknown_user_cannot_log_in_with_the_decoy() -> None:
    """Even if somebody guessed what is drawn in the place of a secret."""
    machine = Chap(SECRETS, bytes)
    machine.receive({"AuthMethod": "CHAP"})
    sent = machine.receive({"CHAP_A": "7"}).answer
    assert machine.receive(proof(sent, bytes(16), "mallory")).verdict is Verdict.FAILED


def test_mutual_chap_that_is_not_configured_is_refused() -> None:
    machine = chap(ChapSecrets({"alice": SECRET}))
    machine.receive({"AuthMethod": "CHAP"})
    sent = machine.receive({"CHAP_A": "7"}).answer
    step = machine.receive({**proof(sent), "CHAP_I": "1", "CHAP_C": "0x01"})
    assert step.verdict is Verdict.FAILED


METHOD, ALGORITHM = {"AuthMethod": "CHAP,None"}, {"CHAP_A": "5"}
BAD, MISSING, FAILED = Verdict.MALFORMED, Verdict.MISSING, Verdict.FAILED
# What each stage says to each request; a good request goes on.
REQUESTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "method": METHOD,
    "another method": {"AuthMethod": "KRB5,None"},
    "algorithm": ALGORITHM,
    "no algorithm of ours": {"CHAP_A": "1,99"},
    "no number": {"CHAP_A": "5,md5"},
    "method and algorithm": {**METHOD, **ALGORITHM},
    "proof": {"CHAP_N": "alice", "CHAP_R": "right"},
    "wrong proof": {"CHAP_N": "alice", "CHAP_R": "0x" + "00" * 16},
    "short proof": {"CHAP_N": "alice", "CHAP_R": "0x00"},
    "malformed proof": {"CHAP_N": "alice", "CHAP_R": "right!"},
    "no name": {"CHAP_R": "0x00"},
    "half a challenge": {"CHAP_N": "alice", "CHAP_R": "right", "CHAP_I": "1"},
    "large identifier": {"CHAP_N": "alice", "CHAP_R": "right", "CHAP_I": "256", "CHAP_C": "0x00"},
    "malformed challenge": {"CHAP_N": "alice", "CHAP_R": "right", "CHAP_I": "1", "CHAP_C": "0x0"},
}
EXPECTED: dict[ChapStage, tuple[Verdict, dict[str, Verdict | ChapStage]]] = {
    # stage: (what is said to every request but), those
    ChapStage.START: (
        BAD,
        {"nothing": FAILED, "method": ChapStage.AGREED, "another method": FAILED},
    ),
    ChapStage.AGREED: (
        BAD,
        {"nothing": MISSING, "algorithm": ChapStage.CHALLENGED, "no algorithm of ours": FAILED},
    ),
    ChapStage.CHALLENGED: (
        BAD,
        {
            "nothing": MISSING, "proof": ChapStage.PASSED, "wrong proof": FAILED, "short proof": FAILED,
            "no name": MISSING, "half a challenge": MISSING,
        },
    ),
    ChapStage.PASSED: (BAD, {"nothing": ChapStage.PASSED}),
    ChapStage.OVER: (FAILED, {}),
}  # fmt: skip


def machine_in(stage: ChapStage) -> tuple[Chap, Mapping[str, str]]:
    if stage in (ChapStage.START, ChapStage.AGREED, ChapStage.OVER):
        machine = chap()
        if stage is not ChapStage.START:
            machine.receive(METHOD if stage is ChapStage.AGREED else {})
        assert machine.stage is stage
        return machine, {}
    machine, sent = challenged("5")
    if stage is ChapStage.PASSED:
        machine.receive(proof(sent))
    assert machine.stage is stage
    return machine, sent


@pytest.mark.parametrize(("stage", "request_name"), list(itertools.product(ChapStage, REQUESTS)))
def test_every_request_in_every_stage(stage: ChapStage, request_name: str) -> None:
    machine, sent = machine_in(stage)
    keys = dict(REQUESTS[request_name])
    if keys.get("CHAP_R") == "right":
        keys["CHAP_R"] = proof(sent)["CHAP_R"] if sent else "0x00"
    step = machine.receive(keys)
    usual, others = EXPECTED[stage]
    expected = others.get(request_name, usual)
    if isinstance(expected, ChapStage):
        assert machine.stage is expected
        assert step.verdict is (Verdict.PASSED if expected is ChapStage.PASSED else Verdict.PENDING)
    else:
        assert step.verdict is expected
        assert machine.stage is ChapStage.OVER
        assert step.answer == {}
        assert step.reason
    assert machine.stage is stage or (stage, machine.stage) in CHAP_TRANSITIONS


KEYS = st.sampled_from(["AuthMethod", "CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"])
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["CHAP", "5", "7,5", "alice", "0x00", "0bAA==", "0", "256"])
)


@given(requests=st.lists(st.dictionaries(KEYS, TEXTS, max_size=4), max_size=6))
def test_nobody_passes_without_the_secret(requests: list[dict[str, str]]) -> None:
    machine = chap()
    for keys in requests:
        step: AuthenticationStep = machine.receive(keys)
        assert step.verdict is not Verdict.PASSED
        assert step.verdict is Verdict.PENDING or machine.stage is ChapStage.OVER


# Configuration


def test_secrets_are_read_line_by_line() -> None:
    text = "# initiators\n\nalice  a secret with spaces \r\niqn.2004-10.com.example:b\tbbbbbbbbbbbb\n"
    assert parse_secrets(text, "file") == {
        "alice": b"a secret with spaces",
        "iqn.2004-10.com.example:b": b"bbbbbbbbbbbb",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no line"),
        ("# alice secret-secret\n", "no line"),
        ("alice\n", "line 1"),
        ("alice short-TOP\n", "12 to 255 bytes"),
        ("alice TOP" + "x" * 255, "12 to 255 bytes"),
        ("a" * 256 + " TOP-secret-TOP", "longer than 255"),
        ("alice TOP-secret-TOP\nalice TOP-secret-2\n", "line 2: the name stands here twice"),
    ],
)
def test_wrong_secrets_are_refused_without_saying_them(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_secrets(text, "file")
    assert says in str(error.value)
    assert "TOP" not in str(error.value)


def test_own_secret_is_none_of_the_initiators() -> None:
    """Also not one for the other type of session: what is proved there could be used here."""
    check_separate([SECRETS, ChapSecrets({"c": b"c" * 12}, OwnSecret("target", b"d" * 12))])
    for other in (ChapSecrets({"a": OWN}), ChapSecrets({"a": b"a" * 12}, OwnSecret("t", SECRET))):
        with pytest.raises(ConfigError, match="must differ"):
            check_separate([SECRETS, other])


def test_nothing_shows_a_secret() -> None:
    machine, sent = challenged()
    machine.receive({**proof(sent), "CHAP_I": "1", "CHAP_C": "0x01"})
    shown = f"{machine!r} {SECRETS!r} {SECRETS.own!r}"
    for secret in (*SECRETS.incoming.values(), OWN):
        assert secret.decode() not in shown
