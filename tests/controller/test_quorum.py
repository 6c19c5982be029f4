"""The tables of quorums against their formula."""

import pytest

from pyjiva.controller.quorum import MAJORITY, REPLICAS_MAX, is_majority, min_copies_default


def test_a_majority_is_more_than_half() -> None:
    assert {n: n // 2 + 1 for n in range(1, REPLICAS_MAX + 1)} == MAJORITY


def test_two_majorities_always_share_a_replica() -> None:
    assert all(2 * majority > replicas for replicas, majority in MAJORITY.items())


def test_a_write_has_a_majority_of_copies_unless_told_otherwise() -> None:
    assert {n: min_copies_default(n, 0) for n in MAJORITY} == MAJORITY


@pytest.mark.parametrize(
    ("replicas", "witnesses", "copies"), [(2, 1, 1), (1, 2, 1), (3, 2, 1), (4, 1, 2), (5, 2, 2), (1, 1, 1)]
)
def test_each_witness_takes_the_place_of_a_copy_in_a_majority(
    replicas: int, witnesses: int, copies: int
) -> None:
    assert min_copies_default(replicas, witnesses) == copies


def test_a_majority_of_each_configuration_is_needed() -> None:
    assert is_majority({1, 2}, [(1, 2, 3)])
    assert not is_majority({1, 2}, [(1, 2, 3), (1, 2, 3, 4)])
    assert is_majority({1, 2, 4}, [(1, 2, 3), (1, 2, 3, 4)])
    assert not is_majority({1, 9}, [(1, 2, 3)]), "not of this volume"


def test_sets_that_differ_by_one_have_no_two_majorities_apart() -> None:
    """What changes of the configured set stand on."""
    for n in range(1, REPLICAS_MAX):
        assert MAJORITY[n] + MAJORITY[n + 1] > n + 1
