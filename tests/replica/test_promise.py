"""The fence: a promise is for ever."""

import contextlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.membership import MembershipRecord
from pyjiva.replica.promise import Fenced, accept, promise
from pyjiva.snapshot import ReplicaState

BLANK = ReplicaState("volume", 1, "demo", 4096, 512)


def record(epoch: int, version: int = 1, controller: str = "a") -> MembershipRecord:
    """A record of the volume."""
    return MembershipRecord(epoch, version, controller, (1, 2, 3), (1, 2), clean=False)


def promised(epoch: int, to: str = "a") -> ReplicaState:
    """A replica that has promised `epoch`."""
    return attrs.evolve(BLANK, promised_epoch=epoch, promised_to=to)


@pytest.mark.parametrize(
    ("before", "to", "epoch", "controller", "given"),
    [
        (0, "", 1, "a", True),
        (0, "", 7, "a", True),
        (0, "", 0, "a", False),  # 0 is before the first
        (3, "a", 4, "a", True),
        (3, "a", 4, "b", True),
        (3, "a", 3, "a", True),  # the answer was lost
        (3, "a", 3, "b", False),
        (3, "a", 2, "a", False),
        (3, "a", 2, "b", False),
    ],
)
def test_an_epoch_is_promised_to_one_controller_and_no_lower_one_after_it(
    *, before: int, to: str, epoch: int, controller: str, given: bool
) -> None:
    state = promised(before, to)
    if given:
        after = promise(state, epoch=epoch, controller_id=controller)
        assert (after.promised_epoch, after.promised_to) == (epoch, controller)
        assert (after is state) == (before == epoch)
    else:
        with pytest.raises(Fenced) as fenced:
            promise(state, epoch=epoch, controller_id=controller)
        assert fenced.value.promised_epoch == before


@pytest.mark.parametrize(
    ("held", "offered", "epoch", "taken"),
    [
        (None, record(5), 5, True),
        (record(4, 9), record(5), 5, True),
        (record(5, 1), record(5, 2), 5, True),
        (record(5, 2), record(5, 2), 5, True),  # the answer was lost
        (record(5, 3), record(5, 2), 5, False),
        (None, record(5), 4, False),  # sent in another epoch than its own
        (None, record(4), 4, False),  # of a controller that was overtaken
        (None, record(6), 6, False),  # of one that has no promise
        (None, record(4), 5, False),
    ],
)
def test_a_record_is_accepted_from_the_controller_of_the_promised_epoch_alone(
    *, held: MembershipRecord | None, offered: MembershipRecord, epoch: int, taken: bool
) -> None:
    state = attrs.evolve(promised(5), record=held)
    if taken:
        after = accept(state, offered, epoch=epoch)
        assert after.record == offered
        assert (after is state) == (held == offered)
    else:
        with pytest.raises(Fenced) as fenced:
            accept(state, offered, epoch=epoch)
        assert fenced.value.promised_epoch == 5


ASKED = st.one_of(
    st.tuples(st.just("promise"), st.integers(0, 6), st.integers(1, 1), st.sampled_from("ab")),
    st.tuples(st.just("accept"), st.integers(0, 6), st.integers(1, 4), st.sampled_from("ab")),
)


@given(st.lists(ASKED, max_size=40))
def test_whatever_is_asked_neither_promise_nor_record_ever_gets_lower(
    asked: list[tuple[str, int, int, str]],
) -> None:
    state = BLANK
    controller_of: dict[int, str] = {}
    for what, epoch, version, controller in asked:
        before = state
        with contextlib.suppress(Fenced):
            if what == "promise":
                state = promise(state, epoch=epoch, controller_id=controller)
                assert controller_of.setdefault(epoch, controller) == controller
            else:
                state = accept(state, record(epoch, version, controller), epoch=epoch)
                assert epoch == before.promised_epoch
        assert state.promised_epoch >= before.promised_epoch
        assert before.record is None or (state.record is not None and state.record >= before.record)
