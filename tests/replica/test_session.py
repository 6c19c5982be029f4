"""Who may ask what, and when."""

import itertools

import pytest

from pyjiva.errors import RemoteProtocolError
from pyjiva.replica.session import ALLOWED, Phase, Session
from pyjiva.replication import (
    ANSWER,
    PROTOCOL_VERSION,
    Authenticate,
    Frame,
    FrameType,
    Hello,
    HelloAnswer,
    Refusal,
    Status,
    controller_proof,
    decode_message,
    encode_message,
    replica_proof,
)
from tests.replica.peers import FakePeer, request, session_in

KEY = b"k" * 32
HELLO = Hello((PROTOCOL_VERSION,), "volume", "controller", "ab" * 32)
DATA = {
    *(FrameType.READ, FrameType.WRITE, FrameType.UNMAP, FrameType.WRITE_ZEROES),
    *(FrameType.FLUSH, FrameType.BLOCK_STATUS, FrameType.HASH, FrameType.SPOIL),
    *(FrameType.LINEAGE, FrameType.PREPARE, FrameType.CHANGE, FrameType.WINDOW),
    *(FrameType.PAST_READ, FrameType.PAST_WRITE, FrameType.PAST_UNMAP, FrameType.PAST_BLOCK_STATUS),
    *(FrameType.PAST_HASH, FrameType.PAST_SPOIL, FrameType.PAST_CHANGED),
}
#: Written out once more, by hand: what a phase lets through.
EXPECTED = {
    Phase.GREETING: {FrameType.HELLO},
    Phase.CHALLENGED: {FrameType.AUTHENTICATE},
    Phase.KNOWN: {FrameType.PROMISE, FrameType.PING, FrameType.SHARE},
    Phase.ATTACHED: {FrameType.PROMISE, FrameType.PING, FrameType.SHARE, FrameType.ACCEPT, *DATA},
    Phase.REPLACED: set[FrameType](),
}
PAIRS = list(itertools.product(Phase, FrameType))


def hello(**changes: object) -> Frame:
    """A HELLO frame."""
    fields = {
        "versions": (PROTOCOL_VERSION,),
        "volume_id": "volume",
        "controller_id": "controller",
        "nonce": "ab" * 32,
    }
    return request(FrameType.HELLO, payload=encode_message(Hello(**{**fields, **changes})))  # type: ignore[arg-type]


def greet(session: Session, frame: Frame) -> None:
    """As the replica of these tests does."""
    session.greet(frame, key=KEY, volume_id="volume", replica_id=3)


def refusal(frame: Frame) -> tuple[int, str]:
    """Status and reason."""
    return frame.code, decode_message(frame.payload, Refusal).reason


@pytest.mark.parametrize(("phase", "type_"), PAIRS)
def test_each_phase_lets_its_own_frames_through(phase: Phase, type_: FrameType) -> None:
    peer = FakePeer()
    session = session_in(phase, peer)
    frame = request(type_, request_id=9)
    if type_ in EXPECTED[phase]:
        session.check_allowed(frame)
        assert peer.answers() == []
    else:
        with pytest.raises(RemoteProtocolError, match=f"on a connection that is {phase.value}"):
            session.check_allowed(frame)
        answer = peer.answer()
        assert (answer.type, answer.request_id) == (type_ | ANSWER, 9)
        assert answer.code == (Status.FENCED if phase is Phase.REPLACED else Status.FORBIDDEN)
    assert session.phase is phase


@pytest.mark.parametrize(("phase", "type_"), PAIRS)
def test_an_answer_is_never_a_question(phase: Phase, type_: FrameType) -> None:
    with pytest.raises(RemoteProtocolError):
        session_in(phase, FakePeer()).check_allowed(request(type_ | ANSWER))


def test_the_table_has_every_phase() -> None:
    assert set(ALLOWED) == set(Phase) == set(EXPECTED)


def test_both_sides_prove_the_key() -> None:
    peer = FakePeer()
    session = Session(peer, nonce="cd" * 32)
    greet(session, hello())
    said = decode_message(peer.answer().payload, HelloAnswer)
    assert said.proof == replica_proof(KEY, HELLO, 3, said.nonce)
    assert (said.version, said.replica_id, said.nonce, session.phase) == (
        PROTOCOL_VERSION,
        3,
        "cd" * 32,
        Phase.CHALLENGED,
    )
    proof = controller_proof(KEY, HELLO, 3, said.nonce)
    session.authenticate(
        request(FrameType.AUTHENTICATE, payload=encode_message(Authenticate(proof))), key=KEY, replica_id=3
    )
    assert session.phase is Phase.KNOWN


@pytest.mark.parametrize(
    "proof",
    [
        controller_proof(b"another key", HELLO, 3, "cd" * 32),
        controller_proof(KEY, HELLO, 3, "of another connection"),
        controller_proof(KEY, HELLO, 4, "cd" * 32),
        replica_proof(KEY, HELLO, 3, "cd" * 32),  # ours, sent back
        "",
        "no hexadecimal: é",
    ],
)
def test_who_does_not_know_the_key_stays_outside(proof: str) -> None:
    peer = FakePeer()
    session = Session(peer, nonce="cd" * 32)
    greet(session, hello())
    peer.answers()
    frame = request(FrameType.AUTHENTICATE, payload=encode_message(Authenticate(proof)))
    with pytest.raises(RemoteProtocolError, match="another volume key"):
        session.authenticate(frame, key=KEY, replica_id=3)
    assert refusal(peer.answer()) == (Status.FORBIDDEN, "the controller has another volume key")
    assert session.phase is Phase.CHALLENGED


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"versions": (1, 6)}, Status.UNSUPPORTED_VERSION, "speaks versions [1, 6], this replica speaks 7"),
        ({"versions": ()}, Status.UNSUPPORTED_VERSION, "speaks versions [], this replica speaks 7"),
        ({"volume_id": "other"}, Status.WRONG_VOLUME, "belongs to another volume"),
    ],
)
def test_a_controller_of_another_kind_is_told_what_was_expected(
    changes: dict[str, object], status: Status, reason: str
) -> None:
    peer = FakePeer()
    session = Session(peer, nonce="cd" * 32)
    with pytest.raises(RemoteProtocolError):
        greet(session, hello(**changes))
    code, said = refusal(peer.answer())
    assert code == status
    assert reason in said
    assert session.phase is Phase.GREETING


def test_a_hello_that_is_none_is_a_protocol_error() -> None:
    session = Session(FakePeer(), nonce="cd" * 32)
    with pytest.raises(RemoteProtocolError, match="not a Hello"):
        greet(session, request(FrameType.HELLO, payload=b"{}"))
    assert session.phase is Phase.GREETING
