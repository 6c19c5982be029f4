"""`maya.kube.queue`: a key is at work once at a time, and none is lost; against a naive model."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pyjiva.errors import LocalProtocolError
from pyjiva.maya.kube.queue import Statistics, WorkQueue

KEYS = st.sampled_from("abcd")


class QueueMachine(RuleBasedStateMachine):
    """The queue beside lists that are searched."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str] = WorkQueue(retry_min_s=1, retry_max_s=10)
        self.now_s = 0.0
        self.ready: list[str] = []
        self.at_work: list[str] = []
        self.again: list[str] = []
        self.later: list[tuple[float, int, str]] = []
        self.count = 0

    def _add(self, key: str) -> None:
        line = self.again if key in self.at_work else self.ready
        if key not in line:
            line.append(key)

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self._add(key)

    @rule(key=KEYS, seconds=st.integers(0, 5))
    def add_later(self, key: str, seconds: int) -> None:
        self.queue.add_at(key, self.now_s + seconds)
        self._add_later(key, self.now_s + seconds)

    def _add_later(self, key: str, at_s: float) -> None:
        earlier = [entry for entry in self.later if entry[2] == key]
        if earlier and earlier[0][0] <= at_s:
            return
        self.count += 1
        self.later = [entry for entry in self.later if entry[2] != key] + [(at_s, self.count, key)]

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(target=taken)
    def take(self) -> str:
        for entry in sorted(self.later):
            if entry[0] <= self.now_s:
                self.later.remove(entry)
                self._add(entry[2])
        expected = self.ready.pop(0) if self.ready else None
        assert self.queue.take(self.now_s) == expected
        if expected is not None:
            self.at_work.append(expected)
        return expected or ""

    @rule(key=consumes(taken), fails=st.booleans())
    def finish(self, key: str, fails: bool) -> None:
        if not key:
            return
        if fails:
            self._add_later(key, self.now_s + self.queue.fail(key, self.now_s))
        else:
            self.queue.forget(key)
        self.queue.done(key)
        self.at_work.remove(key)
        if key in self.again:
            self.again.remove(key)
            self.ready.append(key)

    @invariant()
    def agrees(self) -> None:
        self.queue.self_check()
        found = self.queue.statistics()
        assert (found.ready, found.at_work, found.later) == (
            len(self.ready),
            len(self.at_work),
            len(self.later),
        )
        assert self.queue.next_s() == (min(self.later)[0] if self.later else None)


TestQueue = QueueMachine.TestCase


def test_a_key_that_fails_waits_twice_as_long_each_time_until_it_is_well() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_min_s=0.5, retry_max_s=3)
    assert [queue.fail("a", 0) for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert queue.failures("a") == 5
    assert queue.fail("b", 0) == 0.5
    queue.forget("a")
    assert (queue.fail("a", 0), queue.failures("a")) == (0.5, 1)
    assert [queue.fail("c", 0, chance=chance) for chance in (0, 0.5)] == [0.25, 0.75]
    for _ in range(2000):  # no number grows beyond what a float can hold
        assert queue.fail("a", 0) <= 3


def test_what_fails_is_looked_at_earlier_if_something_happens_to_it() -> None:
    queue: WorkQueue[str] = WorkQueue(retry_min_s=100)
    queue.add("a")
    assert queue.take(0) == "a"
    queue.fail("a", 0)
    queue.add("a")
    queue.done("a")
    assert queue.take(1) == "a"
    assert queue.statistics() == Statistics(ready=0, at_work=1, later=1, failing=1)


def test_a_key_that_is_not_at_work_cannot_be_done() -> None:
    with pytest.raises(LocalProtocolError):
        WorkQueue[str]().done("a")
