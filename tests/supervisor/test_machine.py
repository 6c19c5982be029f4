"""Which child runs when: every state and event, back-off, and the order of the end."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import LocalProtocolError
from pyjiva.supervisor.machine import (
    BACK_OFF_S_MAX,
    BACK_OFF_S_MIN,
    HEALTHY_S,
    NEXT_STATE,
    STOP_S,
    Child,
    ChildExited,
    ChildState,
    Effect,
    Finished,
    Kill,
    Start,
    Step,
    StopRequested,
    Supervisor,
    Terminate,
    Tick,
)

RANKS = [("replica-1", 1), ("replica-2", 1), ("controller", 0)]


def started() -> Supervisor:
    """All three run."""
    supervisor = Supervisor(RANKS)
    assert supervisor.apply(Tick(0)) == [Start(name) for name, _ in RANKS]
    return supervisor


#: State of the child, event → its next state, what is done; None: cannot happen.
TABLE: list[tuple[ChildState, str, ChildState | None, list[Effect]]] = [
    (ChildState.WAITING, "exited", None, []),
    (ChildState.WAITING, "exited 2", None, []),
    (ChildState.WAITING, "stop", ChildState.ENDED, [Finished(0)]),
    (ChildState.WAITING, "tick", ChildState.RUNNING, [Start("only")]),
    (ChildState.RUNNING, "exited", ChildState.WAITING, []),
    (ChildState.RUNNING, "exited 2", ChildState.ENDED, [Finished(2)]),
    (ChildState.RUNNING, "stop", ChildState.STOPPING, [Terminate("only")]),
    (ChildState.RUNNING, "tick", ChildState.RUNNING, []),
    (ChildState.STOPPING, "exited", ChildState.ENDED, [Finished(0)]),
    (ChildState.STOPPING, "exited 2", ChildState.ENDED, [Finished(0)]),
    (ChildState.STOPPING, "stop", ChildState.STOPPING, []),
    (ChildState.STOPPING, "tick", ChildState.STOPPING, []),
    (ChildState.ENDED, "exited", None, []),
    (ChildState.ENDED, "exited 2", None, []),
    (ChildState.ENDED, "stop", ChildState.ENDED, [Finished(0)]),
    (ChildState.ENDED, "tick", ChildState.ENDED, [Finished(0)]),
]


@pytest.mark.parametrize(("state", "event", "after", "effects"), TABLE)
def test_every_state_and_event(
    state: ChildState, event: str, after: ChildState | None, effects: list[Effect]
) -> None:
    """One child; what cannot happen says so."""
    events: dict[str, Any] = {
        "exited": ChildExited("only", 1, 5.0),
        "exited 2": ChildExited("only", 2, 5.0),
        "stop": StopRequested(5.0),
        "tick": Tick(5.0),
    }
    supervisor = Supervisor([("only", 0)])
    child = supervisor.children["only"]
    child.state, child.since_s = state, 4.0
    supervisor.stopping = state in (ChildState.STOPPING, ChildState.ENDED)
    if after is None:
        with pytest.raises(LocalProtocolError):
            supervisor.apply(events[event])
        return
    assert supervisor.apply(events[event]) == effects
    assert child.state is after


def test_the_table_above_is_whole() -> None:
    """A new state or event needs its rows."""
    assert len({(state, event) for state, event, _, _ in TABLE}) == len(ChildState) * 4


def test_a_child_that_dies_is_started_again_later_and_later() -> None:
    supervisor, now, waits = started(), 0.0, []
    for _ in range(10):
        supervisor.apply(ChildExited("replica-1", -9, now))
        due = supervisor.children["replica-1"].start_at_s
        assert supervisor.apply(Tick(due - 0.001)) == []
        assert supervisor.apply(Tick(due)) == [Start("replica-1")]
        waits.append(due - now)
        now = due
    assert waits[0] == pytest.approx(BACK_OFF_S_MIN)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(BACK_OFF_S_MAX)


def test_a_healthy_minute_is_forgiven() -> None:
    supervisor = started()
    supervisor.children["replica-1"].back_off_s = BACK_OFF_S_MAX
    supervisor.apply(ChildExited("replica-1", 1, HEALTHY_S))
    assert supervisor.children["replica-1"].start_at_s == HEALTHY_S + BACK_OFF_S_MIN


def test_the_controller_stops_before_the_replicas() -> None:
    """It commits a clean record to them."""
    supervisor = started()
    assert supervisor.apply(StopRequested(1)) == [Terminate("controller")]
    assert supervisor.apply(Tick(2)) == []
    assert supervisor.apply(ChildExited("controller", 0, 3)) == [
        Terminate("replica-1"),
        Terminate("replica-2"),
    ]
    assert supervisor.apply(ChildExited("replica-2", 0, 4)) == []
    assert supervisor.apply(ChildExited("replica-1", 0, 4)) == [Finished(0)]


def test_one_that_does_not_stop_is_killed() -> None:
    supervisor = started()
    supervisor.apply(StopRequested(0))
    assert supervisor.apply(Tick(STOP_S - 0.1)) == []
    assert supervisor.apply(Tick(STOP_S)) == [Kill("controller")]


def test_every_pair_of_the_table_and_no_other() -> None:
    """A pair that is absent is refused and changes nothing."""
    for state, step in itertools.product(ChildState, Step):
        child = Child("only", 0, state)
        if (state, step) in NEXT_STATE:
            child.step(step)
            assert child.state is NEXT_STATE[state, step]
        else:
            with pytest.raises(LocalProtocolError):
                child.step(step)
            assert child.state is state


def test_from_every_state_but_the_last_there_is_a_way_to_it() -> None:
    for state in ChildState:
        reached = {state}
        for _ in ChildState:
            reached |= {after for (before, _), after in NEXT_STATE.items() if before in reached}
        assert ChildState.ENDED in reached


def test_it_says_when_it_wants_to_be_asked_again() -> None:
    """The shell sleeps until then."""
    supervisor = started()
    assert supervisor.next_tick_s == math.inf
    supervisor.apply(ChildExited("replica-1", 1, 5.0))
    assert supervisor.next_tick_s == 5.0 + BACK_OFF_S_MIN
    supervisor.apply(StopRequested(5.1))
    assert supervisor.next_tick_s == 5.1 + STOP_S
    supervisor.apply(Tick(5.1 + STOP_S))
    assert supervisor.next_tick_s == pytest.approx(5.1 + 2 * STOP_S)  # killed again, should that be needed


@pytest.mark.parametrize(
    ("starts", "lived_s", "stops"),
    [(1, 0.5, True), (1, HEALTHY_S, False), (2, 0.5, False)],
    ids=["at once", "after a healthy minute", "in its second life"],
)
def test_only_a_child_that_never_lived_can_say_that_it_cannot(
    starts: int, lived_s: float, stops: bool
) -> None:
    """Later the same code is a death like any other: one broken replica must not end the volume."""
    supervisor = started()
    supervisor.children["replica-2"].starts = starts
    supervisor.apply(ChildExited("replica-2", 2, lived_s))
    assert supervisor.stopping is stops


def test_the_first_reason_to_stop_gives_the_exit_code() -> None:
    supervisor = Supervisor([("only", 0)])
    supervisor.apply(Tick(0))
    supervisor.apply(StopRequested(1, code=2))
    supervisor.apply(StopRequested(2))
    assert supervisor.apply(ChildExited("only", 0, 3)) == [Finished(2)]


def test_an_impossible_configuration_stops_everything_with_its_code() -> None:
    supervisor = started()
    assert supervisor.apply(ChildExited("replica-1", 2, 1)) == [Terminate("controller")]
    supervisor.apply(ChildExited("controller", 0, 2))
    assert supervisor.apply(ChildExited("replica-2", 0, 3)) == [Finished(2)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["tick", "exit", "exit 2", "stop"]), st.integers(0, 2), st.floats(0, 30)),
        max_size=60,
    )
)
def test_whatever_happens_it_ends_once_asked_to(steps: list[tuple[str, int, float]]) -> None:
    """No child runs twice, none is left, and the end is announced once."""
    supervisor, now, running = Supervisor(RANKS), 0.0, set[str]()
    finished = 0

    def apply(event: Any) -> None:
        nonlocal finished
        for effect in supervisor.apply(event):
            match effect:
                case Start(name):
                    assert name not in running
                    running.add(name)
                case Terminate(name) | Kill(name):
                    assert name in running
                case Finished():
                    assert not running
                    finished += 1

    for what, which, seconds in steps:
        now += seconds
        name = RANKS[which][0]
        if what == "tick":
            apply(Tick(now))
        elif what == "stop":
            apply(StopRequested(now))
        elif name in running:
            running.discard(name)
            apply(ChildExited(name, 2 if what == "exit 2" else 1, now))
    apply(StopRequested(now))
    while running:
        now += STOP_S
        apply(Tick(now))
        name = running.pop()
        apply(ChildExited(name, -9, now))
    assert finished == 1
