"""The read lease: two controllers, one of which is cut off, never disagree about what is newest."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.lease import LEASE_S, WAIT_OUT_S, Lease

IDS = (1, 2, 3)


def test_nobody_heard_no_lease() -> None:
    assert Lease().until_s([IDS]) < 0


@pytest.mark.parametrize(
    ("confirmed", "until_s"),
    [
        ({1: 10.0}, float("-inf")),
        ({1: 10.0, 2: 7.0}, 7.0 + LEASE_S),
        ({1: 10.0, 2: 7.0, 3: 8.0}, 8.0 + LEASE_S),
        ({1: 10.0, 9: 10.0}, float("-inf")),  # not of this volume
    ],
)
def test_it_lasts_from_when_a_majority_was_asked(confirmed: dict[int, float], until_s: float) -> None:
    lease = Lease()
    for member, asked_at_s in confirmed.items():
        lease.confirm(member, asked_at_s)
    assert lease.until_s([IDS]) == until_s


def test_while_the_set_changes_both_must_confirm() -> None:
    lease = Lease()
    for member, asked_at_s in {1: 10.0, 2: 9.0, 4: 5.0}.items():
        lease.confirm(member, asked_at_s)
    assert lease.until_s([IDS]) == 9.0 + LEASE_S
    assert lease.until_s([IDS, (1, 2, 3, 4)]) == 5.0 + LEASE_S


def test_a_late_answer_to_an_early_question_takes_nothing_back() -> None:
    lease = Lease()
    lease.confirm(1, 10.0)
    lease.confirm(1, 3.0)
    assert lease.until_s([(1,)]) == 10.0 + LEASE_S


@pytest.mark.parametrize(
    ("confirmed", "now_s", "needed"),
    [
        ({1: 10.0, 2: 10.0, 3: 4.0}, 10.5, False),
        ({1: 10.0, 2: 10.0, 3: 4.0}, 11.05, False),  # the next ping of a quiet volume
        ({1: 10.0, 2: 10.0, 3: 4.0}, 11.25, True),  # the tick after it: it was not answered
        ({1: 10.0, 2: 5.0, 3: 10.0}, 10.0, True),  # one of them is
        ({1: 10.0, 3: 10.0}, 10.0, True),
    ],
)
def test_a_witness_is_needed_before_the_copies_alone_lose_it(
    confirmed: dict[int, float], now_s: float, needed: bool
) -> None:
    lease = Lease()
    for member, asked_at_s in confirmed.items():
        lease.confirm(member, asked_at_s)
    assert lease.needs([3], [IDS], now_s) is needed
    assert lease.needs([], [(1,)], 10.5) is False


@given(
    st.lists(st.tuples(st.sampled_from(IDS), st.floats(0, 20), st.floats(0, 3)), max_size=30),
    st.tuples(st.floats(0, 20), st.floats(0, 20)),
)
def test_the_next_controller_never_serves_before_the_lease_has_ended(
    pings: list[tuple[int, float, float]], promises: tuple[float, float]
) -> None:
    """Pings (member, sent, how long until it answers) count only if answered before the member's promise."""
    for pair in itertools.combinations(IDS, 2):
        promised = dict(zip(pair, promises, strict=True))
        lease = Lease()
        for member, sent, delay in pings:
            if sent + delay <= promised.get(member, float("inf")):
                lease.confirm(member, sent)
        assert lease.until_s([IDS]) <= max(promised.values()) + WAIT_OUT_S
