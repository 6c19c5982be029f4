"""A membership record survives its dictionary, and no other dictionary gives one."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.membership import MembershipRecord


@st.composite
def records(draw: st.DrawFn) -> MembershipRecord:
    configured = draw(st.lists(st.integers(0, 9), min_size=1, max_size=7, unique=True))
    in_sync = draw(st.lists(st.sampled_from(configured), min_size=1, unique=True))
    return MembershipRecord(
        epoch=draw(st.integers(0, 2**64)),
        version=draw(st.integers(0, 2**64)),
        controller_id=draw(st.text(max_size=10)),
        configured=tuple(configured),
        in_sync=tuple(in_sync),
        clean=draw(st.booleans()),
        parameters=draw(st.binary(max_size=40)),
    )


@given(records())
def test_a_record_survives_its_dictionary_and_json(record: MembershipRecord) -> None:
    assert MembershipRecord.from_dict(record.to_dict()) == record
    assert MembershipRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(records(), st.sampled_from(sorted(MembershipRecord.__annotations__)), _JSON)
def test_any_json_in_a_field_gives_a_record_or_value_error(
    record: MembershipRecord, name: str, value: Any
) -> None:
    fields = record.to_dict() | {name: value}
    try:
        read = MembershipRecord.from_dict(fields)
    except ValueError:
        return
    assert read.to_dict() == fields
    assert set(read.in_sync) <= set(read.configured)


@given(_JSON)
def test_any_json_gives_a_record_or_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="membership record has"):
        MembershipRecord.from_dict(value)


def test_order_is_epoch_then_version_and_nothing_else() -> None:
    def record(epoch: int, version: int, controller_id: str) -> MembershipRecord:
        return MembershipRecord(epoch, version, controller_id, (1, 2), (1,), clean=False)

    ordered = [record(1, 1, "z"), record(1, 2, "y"), record(2, 0, "x")]
    for low, high in itertools.combinations(ordered, 2):
        assert low < high
        assert not high < low
    assert not record(1, 1, "a") < record(1, 1, "b")
    assert not record(1, 1, "b") < record(1, 1, "a")


@pytest.mark.parametrize(
    ("configured", "in_sync"),
    [
        ((), ()),
        ((1,), ()),
        ((1, 1), (1,)),
        ((1,), (2,)),
        ((True,), (True,)),
        ((-1,), (-1,)),
        ([1], [1]),
        (tuple(range(1, 9)), (1,)),
    ],
)
def test_contradicting_members_are_no_record(configured: Any, in_sync: Any) -> None:
    with pytest.raises(ValueError, match=r"configured|replica"):
        MembershipRecord(1, 1, "c", configured, in_sync, clean=True)


def test_an_address_that_would_fill_every_record_is_none() -> None:
    with pytest.raises(ValueError, match="at most 300 characters"):
        MembershipRecord(1, 1, "c", (1,), (1,), clean=True, addresses=("h" * 301,))
