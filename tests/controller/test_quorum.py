"""The tables of quorums against their formula."""

from pyjiva.controller.quorum import MAJORITY, MIN_COPIES_DEFAULT, REPLICAS_MAX


def test_a_majority_is_more_than_half() -> None:
    assert {n: n // 2 + 1 for n in range(1, REPLICAS_MAX + 1)} == MAJORITY


def test_two_majorities_always_share_a_replica() -> None:
    assert all(2 * majority > replicas for replicas, majority in MAJORITY.items())


def test_a_write_has_a_majority_of_copies_unless_told_otherwise() -> None:
    assert MIN_COPIES_DEFAULT == MAJORITY
