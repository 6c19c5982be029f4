"""Control messages: what arrives is what was sent or a protocol error; proofs hold for one exchange only."""

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.errors import RemoteProtocolError
from pyjiva.lineage import Change, ChangeKind, Lineage, Snapshot
from pyjiva.membership import MembershipRecord
from pyjiva.replication import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Authenticate,
    Hello,
    HelloAnswer,
    LineageAnswer,
    LineageMark,
    PingAnswer,
    PromiseAnswer,
    Refusal,
    ReplicaReport,
    controller_proof,
    decode_message,
    encode_message,
    replica_proof,
)

TEXT = st.text(max_size=12)
COUNT = st.integers(0, 2**64 - 1)
IDS = st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=5, unique=True).map(tuple)
RECORDS = IDS.flatmap(
    lambda ids: st.builds(
        MembershipRecord,
        epoch=COUNT,
        version=COUNT,
        controller_id=TEXT,
        configured=st.just(ids),
        in_sync=st.sets(st.sampled_from(ids), min_size=1).map(lambda some: tuple(sorted(some))),
        clean=st.booleans(),
    )
)
MARKS = st.builds(LineageMark, COUNT, TEXT, COUNT, st.booleans())
MAYBE_RECORD = st.none() | RECORDS
MESSAGES: dict[type, st.SearchStrategy[Any]] = {
    Hello: st.builds(Hello, st.lists(COUNT, max_size=3).map(tuple), TEXT, TEXT, TEXT),
    HelloAnswer: st.builds(HelloAnswer, COUNT, COUNT, TEXT, TEXT),
    Authenticate: st.builds(Authenticate, TEXT),
    ReplicaReport: st.builds(
        ReplicaReport, TEXT, COUNT, COUNT, COUNT, TEXT, COUNT, TEXT, MAYBE_RECORD, st.booleans()
    ),
    PromiseAnswer: st.builds(
        PromiseAnswer,
        MAYBE_RECORD,
        st.booleans(),
        st.none() | st.lists(st.tuples(COUNT, COUNT), max_size=4).map(tuple),
        st.booleans(),
        MARKS,
    ),
    LineageMark: MARKS,
    PingAnswer: st.builds(
        PingAnswer,
        st.floats(allow_nan=False, allow_infinity=False),
        *(st.none() | COUNT for _ in range(4)),
    ),
    Refusal: st.builds(Refusal, TEXT),
    MembershipRecord: RECORDS,
}
KINDS = pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

HELLO = Hello((PROTOCOL_VERSION,), "volume", "controller", "ab" * NONCE_BYTES)


def fields_of(kind: type) -> list[str]:
    """The keys of a message."""
    return [field.name for field in attrs.fields(kind)]


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_sent_arrives(kind: type, data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    assert decode_message(encode_message(message), kind) == message
    assert decode_message(memoryview(encode_message(message)), kind) == message


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_json_gives_a_message_or_a_protocol_error(kind: type, data: st.DataObject) -> None:
    """Half of the time with the right keys, so that the values are looked at."""
    shaped = st.fixed_dictionaries(dict.fromkeys(fields_of(kind), JSON))
    payload = json.dumps(data.draw(JSON | shaped)).encode()
    try:
        message: object = decode_message(payload, kind)
    except RemoteProtocolError:
        return
    assert type(message) is kind
    encode_message(message)


@KINDS
@settings(max_examples=40, deadline=None)
@given(payload=st.binary(max_size=60))
def test_any_bytes_give_a_message_or_a_protocol_error(kind: type, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"not a {kind.__name__}"):
        decode_message(payload, kind)


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_value_of_another_type_is_refused(kind: type, data: st.DataObject) -> None:
    """Numbers in quotation marks, true for 1, null for what must be there, a list for a text."""
    fields = json.loads(encode_message(data.draw(MESSAGES[kind])))
    name = data.draw(st.sampled_from(sorted(fields)))
    values: list[Any] = [None, True, "1", 1, 1.5, {"1": 1}, [], [None], [True]]
    fits: dict[type, list[Any]] = {
        bool: [True],
        int: [1],
        float: [1, 1.5],
        str: ["1"],
        list: [[]],
        dict: [],
        type(None): [None, []],  # `unstable` may be null or a list
    }
    value = fields[name]
    optional: list[Any] = [None] if name in ("record", "unstable") else []
    if name in ("used_bytes", "available_bytes", "merged_bytes", "to_merge_bytes"):
        optional = [None, 1]
    wrong = [
        w for w in values if not any(type(w) is type(f) and w == f for f in (*fits[type(value)], *optional))
    ]
    fields[name] = data.draw(st.sampled_from(wrong))
    if type(fields[name]) is not type(value) or fields[name] != value:
        with pytest.raises(RemoteProtocolError):
            decode_message(json.dumps(fields).encode(), kind)


@KINDS
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_missing_and_foreign_fields_are_refused(kind: type, data: st.DataObject) -> None:
    fields = json.loads(encode_message(data.draw(MESSAGES[kind])))
    name = data.draw(st.sampled_from(sorted(fields)))
    without = {key: value for key, value in fields.items() if key != name}
    for broken in (without, {**fields, "and": 1}):
        with pytest.raises(RemoteProtocolError):
            decode_message(json.dumps(broken).encode(), kind)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[" * 100_000,
        b'{"reason":' * 50_000,
        b'{"reason": "\xff"}',
        b'{"reason": 1' + b"0" * 5000 + b"}",
        b'{"reason": ["a"]}',
        b'{"reason": "\\ud800"}',
        b"\xff\xfe",
        b"null",
    ],
    ids=[
        "empty",
        "deep list",
        "deep object",
        "no UTF-8",
        "huge number",
        "list",
        "half a pair",
        "other encoding",
        "null",
    ],
)
def test_hostile_bytes_are_a_protocol_error(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not a Refusal"):
        decode_message(payload, Refusal)


def test_proofs_differ_by_everything_that_is_part_of_the_exchange() -> None:
    nonce = "cd" * NONCE_BYTES
    others = [
        Hello((PROTOCOL_VERSION,), "another volume", HELLO.controller_id, HELLO.nonce),
        Hello((PROTOCOL_VERSION,), HELLO.volume_id, "another controller", HELLO.nonce),
        Hello((PROTOCOL_VERSION,), HELLO.volume_id, HELLO.controller_id, "another nonce"),
        # The same characters, cut elsewhere.
        Hello((PROTOCOL_VERSION,), "volumec", "ontroller", HELLO.nonce),
    ]
    proofs = [
        replica_proof(b"key", HELLO, 1, nonce),
        controller_proof(b"key", HELLO, 1, nonce),
        replica_proof(b"another key", HELLO, 1, nonce),
        replica_proof(b"key", HELLO, 2, nonce),
        replica_proof(b"key", HELLO, 1, "another nonce"),
        *[replica_proof(b"key", hello, 1, nonce) for hello in others],
    ]
    assert len(set(proofs)) == len(proofs)
    assert replica_proof(b"key", HELLO, 1, nonce) == proofs[0]
    assert all(len(proof) == 64 for proof in proofs)


LABELS = st.dictionaries(TEXT, TEXT, max_size=2)
CHANGES = st.builds(
    Change,
    kind=st.sampled_from(ChangeKind),
    before=COUNT,
    after=COUNT,
    number=COUNT,
    name=TEXT,
    created=TEXT,
    labels=LABELS,
    user_created=st.booleans(),
    whole=st.booleans(),
    keep_newer=st.booleans(),
    size_bytes=COUNT,
)
LINEAGES = st.builds(
    lambda size, count, generation, labels, whole: Lineage(
        size_bytes=size,
        generation=generation,
        standing_on=count,
        snapshots=tuple(
            Snapshot(number=n, name=f"s{n}", parent=n - 1, labels=labels, whole=whole)
            for n in range(1, count + 1)
        ),
    ),
    COUNT,
    st.integers(0, 4),
    COUNT,
    LABELS,
    st.booleans(),
)
PASTS: dict[type, st.SearchStrategy[Any]] = {
    Change: CHANGES,
    Lineage: LINEAGES,
    LineageAnswer: st.builds(LineageAnswer, LINEAGES, COUNT, st.dictionaries(TEXT, COUNT, max_size=3), COUNT),
}


@pytest.mark.parametrize("kind", PASTS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_said_of_the_past_arrives(kind: type, data: st.DataObject) -> None:
    message = data.draw(PASTS[kind])
    arrived: Any = decode_message(encode_message(message), kind)
    assert attrs.asdict(arrived) == attrs.asdict(message)


@pytest.mark.parametrize("kind", PASTS, ids=lambda kind: kind.__name__)
@given(raw=JSON)
def test_anything_else_is_nothing_of_the_past(kind: type, raw: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_message(json.dumps(raw).encode(), kind)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_wrong_value_in_a_lineage_is_refused_or_is_another_lineage(data: st.DataObject) -> None:
    fields = json.loads(encode_message(data.draw(LINEAGES)))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(JSON)
    try:
        lineage = decode_message(json.dumps(fields).encode(), Lineage)
    except RemoteProtocolError:
        return
    assert json.loads(encode_message(lineage)).keys() == fields.keys()


def test_equal_marks_are_equal_lineages_whatever_is_still_to_be_compared() -> None:
    snapshot = Snapshot(number=1, name="a")
    lineage = Lineage(size_bytes=1, generation=1, standing_on=1, snapshots=(snapshot,))
    unequal = attrs.evolve(lineage, snapshots=(attrs.evolve(snapshot, whole=False),))
    assert LineageMark.of(lineage).digest == LineageMark.of(unequal).digest
    assert LineageMark.of(lineage) != LineageMark.of(unequal)
    other = attrs.evolve(lineage, snapshots=(attrs.evolve(snapshot, created="later"),))
    assert LineageMark.of(lineage).digest != LineageMark.of(other).digest
