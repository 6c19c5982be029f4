"""A disk is given up when it is much slower than it was and than the others are, and not before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.controller.disk_deadline import FACTOR, HALF_LIFE_S, DiskDeadline, overdue

FLOOR, CEILING = 4.0, 30.0


def disk(*ages: float) -> DiskDeadline:
    """A disk whose oldest operations were seen at these ages, one after the other, every half second."""
    deadline = DiskDeadline(FLOOR, CEILING)
    for number, age_s in enumerate(ages):
        deadline.seen(age_s, number / 2)
    return deadline


@pytest.mark.parametrize(
    ("ages", "limit_s"),
    [
        ((), FLOOR),
        ((0.1, 0.0), FLOOR),
        ((3.0,), FLOOR),  # not completed: nothing is known of it
        ((3.0, 0.0), FACTOR * 3.0),
        ((3.0, 3.5, 1.0), FACTOR * 3.5),
        ((3.0, 0.0, 1.0, 0.0), FACTOR * 3.0),
        ((20.0, 0.0), CEILING),
    ],
)
def test_the_limit_comes_from_what_was_completed(ages: tuple[float, ...], limit_s: float) -> None:
    assert disk(*ages).limit_s(len(ages) / 2) == pytest.approx(limit_s, rel=0.01)


def test_what_was_slow_long_ago_counts_less() -> None:
    deadline = disk(6.0, 0.0)
    assert deadline.limit_s(0.5) == pytest.approx(24.0)
    assert deadline.limit_s(0.5 + HALF_LIFE_S) == pytest.approx(12.0)
    assert deadline.limit_s(0.5 + 10 * HALF_LIFE_S) == FLOOR


def test_a_lost_connection_completes_nothing() -> None:
    deadline = disk(9.0)
    deadline.lost()
    deadline.seen(0.0, 1.0)
    assert deadline.limit_s(1.0) == FLOOR


@pytest.mark.parametrize(
    ("ages", "given_up"),
    [
        ((4.5, 0.0, 0.0), [1]),
        ((4.5, 0.0, 2.2), [1]),
        ((3.9, 0.0, 0.0), []),
        ((4.5, 4.4, 4.3), []),  # all are slow: one disk below them all, perhaps
        ((4.5, 4.4, 2.0), [1, 2]),
        ((31.0, 30.5, 29.0), [1, 2]),  # not for ever
        ((31.0,), [1]),
        ((4.5,), []),
    ],
)
def test_who_is_given_up(ages: tuple[float, ...], given_up: list[int]) -> None:
    disks = {number: disk(age_s) for number, age_s in enumerate(ages, 1)}
    assert overdue(disks, disks, 1.0) == given_up


def test_only_members_in_sync_are_compared_with() -> None:
    """One that is idle as it has nothing to do says nothing."""
    disks = {1: disk(5.0), 2: disk(0.0)}
    assert overdue(disks, {1}, 1.0) == []
    assert overdue(disks, {1, 2}, 1.0) == [1]
    assert overdue(disks, {2}, 1.0) == [1], "a rebuilding one is compared with those in sync"


@given(st.lists(st.floats(0, 100), max_size=30))
def test_the_limit_stays_between_floor_and_ceiling(ages: list[float]) -> None:
    deadline = disk(*ages)
    assert FLOOR <= deadline.limit_s(len(ages) / 2) <= CEILING
