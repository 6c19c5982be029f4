"""When a process looks again before it sleeps: while that pays, and nobody else needs the processor."""

import itertools
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.transport.direct_io import direct_calls
from pyjiva.transport.looking_on import (
    CALM_S_MAX,
    CALM_S_MIN,
    LOOKS_TO_FORGET,
    RESTS_MAX,
    LookingOn,
)
from pyjiva.transport.ready_sys import KEPT_WAITING_S, LOOK_ON_S

PATIENCE_S = 5


def looks_of(looking_on: LookingOn, waits: int, now_s: float = 0.0) -> list[int]:
    """Which of so many waits it looked on before, when that never finds anything."""
    looked = []
    for number in range(waits):
        if looking_on.wanted(now_s):
            looked.append(number)
            looking_on.found_nothing()
    return looked


def test_while_it_finds_something_it_always_looks_on() -> None:
    looking_on = LookingOn()
    for _ in range(10):
        assert looking_on.wanted(0.0)
        looking_on.found()


def test_what_finds_nothing_is_tried_ever_more_seldom() -> None:
    looked = looks_of(LookingOn(), 1000)
    rests = [after - before - 1 for before, after in itertools.pairwise(looked)]
    assert rests[:8] == [1, 2, 4, 8, 16, 32, 64, RESTS_MAX]
    assert set(rests[6:]) == {RESTS_MAX}


def test_one_that_finds_something_begins_anew() -> None:
    looking_on = LookingOn()
    looks_of(looking_on, 1000)
    while not looking_on.wanted(0.0):
        pass
    looking_on.found()
    assert looks_of(looking_on, 8) == [0, 2, 5]


def calm_of(looking_on: LookingOn, now_s: float) -> float:
    """How long it does not look on when it is kept waiting now, to a millisecond."""
    looking_on.was_kept_waiting(now_s)
    return next(ms for ms in range(2000) if looking_on.wanted(now_s + (ms + 0.5) / 1000)) / 1000


def test_who_is_kept_waiting_again_and_again_rests_ever_longer() -> None:
    looking_on = LookingOn()
    calms = [calm_of(looking_on, 10.0 * n) for n in range(10)]
    assert calms[:7] == pytest.approx([CALM_S_MIN * 2**n for n in range(7)])
    assert set(calms[7:]) == {CALM_S_MAX}


@pytest.mark.parametrize("ends", [LookingOn.found, LookingOn.found_nothing])
def test_who_is_kept_waiting_seldom_rests_shortly(ends: Callable[[LookingOn], None]) -> None:
    """As a virtual machine is by its host."""
    looking_on = LookingOn()
    for n in range(20):
        assert calm_of(looking_on, 10.0 * n) == CALM_S_MIN
        for _ in range(LOOKS_TO_FORGET):
            ends(looking_on)
        while not looking_on.wanted(10.0 * n + CALM_S_MAX):  # rests of looks that found nothing
            pass


def test_a_long_calm_is_forgotten_by_halves() -> None:
    looking_on = LookingOn()
    for n in range(20):
        calm_of(looking_on, 10.0 * n)
    for _ in range(2 * LOOKS_TO_FORGET + LOOKS_TO_FORGET - 1):
        looking_on.found()
    assert calm_of(looking_on, 1000.0) == CALM_S_MAX / 4 == calm_of(looking_on, 2000.0) / 2


@given(st.lists(st.sampled_from(["found", "nothing", "kept"]), max_size=200))
def test_whatever_happened_it_looks_on_again_soon(steps: list[str]) -> None:
    """All states: after any past, one of the next waits that come after the calm is tried."""
    looking_on, now_s = LookingOn(), 0.0
    for step in steps:
        now_s += 0.001
        if looking_on.wanted(now_s):
            if step == "found":
                looking_on.found()
            else:
                looking_on.found_nothing()
        if step == "kept":
            looking_on.was_kept_waiting(now_s)
    assert looks_of(looking_on, RESTS_MAX + 1, now_s + CALM_S_MAX)


class Epoll:
    """One that has nothing when it is only looked at, and counts the looks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.register, self.unregister, self.close = (
            self._epoll.register,
            self._epoll.unregister,
            self._epoll.close,
        )
        self.looks = self.waits = 0
        self.finds_at = 0  # the look that finds something; 0: none

    def poll(self, timeout_s: float, count: int) -> list[tuple[int, int]]:
        if timeout_s > 0:
            self.waits += 1
            return self._epoll.poll(timeout_s, count)
        self.looks += 1
        return self._epoll.poll(0, count) if self.looks == self.finds_at else []


class TestTheWait:
    """In a real run, with an epoll that is watched."""

    @pytest.fixture
    def epoll(self, monkeypatch: pytest.MonkeyPatch) -> Epoll:
        epoll = Epoll()
        monkeypatch.setattr("pyjiva.transport.ready_sys.epoll", lambda: epoll)
        return epoll

    @pytest.fixture
    def yields(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
        """How long others have the processor, one after the other; then nobody wants it."""
        durations: list[float] = []
        clock_s = time.monotonic()

        def sched_yield() -> None:
            nonlocal clock_s
            clock_s += durations.pop(0) if durations else LOOK_ON_S / 10

        monkeypatch.setattr("pyjiva.transport.ready_sys.sched_yield", sched_yield)
        monkeypatch.setattr("pyjiva.transport.ready_sys.monotonic", lambda: clock_s)
        return iter([durations])

    async def play(self, bytes_: int) -> None:
        """A call for each of so many bytes; the next is sent by the call before it."""
        calls = direct_calls()
        assert calls is not None
        ours, peer = socket.socketpair()
        done = trio.Event()
        left = bytes_

        def call() -> None:
            nonlocal left
            ours.recv(1)
            left -= 1
            if left:
                peer.send(b"x")
            else:
                done.set()

        with ours, peer, trio.fail_after(PATIENCE_S):
            calls.add(ours.fileno(), call)
            peer.send(b"x")
            await done.wait()
            calls.remove(ours.fileno())

    def test_what_comes_while_it_looks_on_is_not_slept_for(
        self, epoll: Epoll, yields: Iterator[list[float]]
    ) -> None:
        epoll.finds_at = 3
        trio.run(self.play, 2)
        assert epoll.looks == 3

    def test_it_sleeps_after_a_while(self, epoll: Epoll, yields: Iterator[list[float]]) -> None:
        trio.run(self.play, 2)
        assert 10 <= epoll.looks <= 11
        assert epoll.waits >= 2

    def test_what_never_finds_anything_becomes_seldom(
        self, epoll: Epoll, yields: Iterator[list[float]]
    ) -> None:
        trio.run(self.play, 50)
        assert epoll.looks <= 6 * 11, "of 49 waits six: the first, and after 1, 2, 4, 8, 16 that rest"

    def test_it_does_not_look_on_where_others_need_the_processor(
        self, epoll: Epoll, yields: Iterator[list[float]]
    ) -> None:
        next(yields).append(2 * KEPT_WAITING_S)
        trio.run(self.play, 50)
        assert epoll.looks == 1

    def test_a_look_that_was_kept_waiting_is_none_that_found_nothing(
        self, epoll: Epoll, yields: Iterator[list[float]]
    ) -> None:
        """When the calm is over, no wait is slept through for it."""
        next(yields).append(2 * KEPT_WAITING_S)
        wanted: list[bool] = []

        async def play() -> None:
            calls = direct_calls()
            assert calls is not None
            await self.play(2)
            wanted.append(calls._ready._looking_on.wanted(time.monotonic() + CALM_S_MAX))

        trio.run(play)
        assert epoll.looks == 1
        assert wanted == [True]

    def test_tasks_that_can_run_come_first(self, epoll: Epoll, yields: Iterator[list[float]]) -> None:
        """The only call wakes a task."""
        trio.run(self.play, 1)
        assert epoll.looks == 0
