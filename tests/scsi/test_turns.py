"""Turns: one at a time, in order, without deep recursion."""

from hypothesis import given
from hypothesis import strategies as st

from pyjiva.scsi.turns import Turns


@given(stays=st.lists(st.booleans(), max_size=30))
def test_turns_come_in_order_and_one_at_a_time(stays: list[bool]) -> None:
    turns = Turns()
    started: list[int] = []
    finished: list[int] = []

    def start(number: int) -> None:
        assert started == finished, "nobody else has the turn"
        started.append(number)
        if not stays[number]:
            finish(number)

    def finish(number: int) -> None:
        finished.append(number)
        turns.leave()

    for number in range(len(stays)):
        turns.take(lambda number=number: start(number))  # type: ignore[misc]
    while len(finished) < len(stays):
        finish(len(finished))
    assert started == finished == list(range(len(stays)))


def test_many_that_leave_at_once_do_not_recurse() -> None:
    turns = Turns()
    turns.take(lambda: None)
    done = []

    def start() -> None:
        done.append(1)
        turns.leave()

    for _ in range(5000):
        turns.take(start)
    assert not done
    turns.leave()
    assert len(done) == 5000
