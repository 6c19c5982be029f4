"""What is counted by several threads, and in place, comes to what was done."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.snapshot.write_counts_sys import WriteCounts


def test_what_earlier_processes_left_has_ended() -> None:
    counts = WriteCounts.after(1)
    assert (counts.begun(), counts.ended(), counts.under_way()) == (1, 1, False)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_begun_and_ended_count_both_kinds(steps: list[tuple[bool, bool]]) -> None:
    counts = WriteCounts.after(0)
    open_ones = {False: 0, True: 0}
    begun = ended = 0
    for begins, in_place in steps:
        if begins:
            counts.begin(in_place=in_place)
            open_ones[in_place] += 1
            begun += 1
        elif open_ones[in_place]:
            counts.end(in_place=in_place)
            open_ones[in_place] -= 1
            ended += 1
        assert (counts.begun(), counts.ended(), counts.under_way()) == (begun, ended, begun != ended)


@pytest.mark.parametrize("in_place", [False, True])
def test_one_of_either_kind_is_under_way_until_it_has_ended(*, in_place: bool) -> None:
    counts = WriteCounts.after(0)
    counts.begin(in_place=not in_place)
    counts.end(in_place=not in_place)
    counts.begin(in_place=in_place)
    assert counts.under_way()
    counts.end(in_place=in_place)
    assert not counts.under_way()


def test_threads_and_the_one_in_place_lose_nothing() -> None:
    counts, rounds = WriteCounts.after(0), 2000

    def count(in_place: bool) -> None:
        for _ in range(rounds):
            counts.begin(in_place=in_place)
            assert counts.under_way()  # this one at least
            counts.end(in_place=in_place)

    threads = [threading.Thread(target=count, args=[number == 0]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counts.begun(), counts.ended()) == (4 * rounds, 4 * rounds)
