"""How long background work rests: cases, and what comes of it over any length of time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import FLOOR_BYTES_PER_S, Hosts, Yielding
from pyjiva.block.yielding import QUIET_S, REST, STEP_BYTES_MIN
from pyjiva.units import KIB, MIB

NOBODY = Hosts(0, waiting=False)


@pytest.mark.parametrize(
    ("hosts", "at_once", "length_bytes", "took_s", "rest_s"),
    [
        # hosts                        at once  length     took    rest
        (NOBODY,                       1,       1 * MIB,   0.010,  0.0),
        (NOBODY,                       9,       1 * MIB,   9.0,    0.0),
        (Hosts(1, waiting=False),      1,       1 * MIB,   0.010,  0.030),
        (Hosts(0, waiting=True),       1,       1 * MIB,   0.010,  0.030),
        (Hosts(5, waiting=True),       2,       1 * MIB,   0.010,  0.060),
        (Hosts(1, waiting=False),      1,       64 * KIB,  0.003,  0.009),
        # the floor, 1 MiB/s: a step and its rest take no longer than that allows
        (Hosts(1, waiting=False),      1,       1 * MIB,   0.400,  0.600),
        (Hosts(1, waiting=False),      2,       1 * MIB,   0.400,  1.600),
        (Hosts(1, waiting=False),      1,       1 * MIB,   1.000,  0.0),
        (Hosts(1, waiting=False),      1,       1 * MIB,   7.000,  0.0),
        # a step that found nothing to copy
        (Hosts(1, waiting=False),      1,       0,         0.001,  0.003),
        (Hosts(1, waiting=False),      1,       0,         0.050,  0.0125),
        (Hosts(1, waiting=False),      1,       0,         0.0,    0.0),
    ],
)  # fmt: skip
def test_rests_after_one_step(
    hosts: Hosts, at_once: int, length_bytes: int, took_s: float, rest_s: float
) -> None:
    rest = Yielding().rest_s(hosts, now_s=100.0, took_s=took_s, length_bytes=length_bytes, at_once=at_once)
    assert rest == pytest.approx(rest_s)


def test_hosts_are_quiet_a_while_after_their_last_request() -> None:
    yielding = Yielding()

    def rests(hosts: Hosts, now_s: float) -> bool:
        return yielding.rest_s(hosts, now_s=now_s, took_s=0.01, length_bytes=MIB) > 0

    assert rests(Hosts(1, waiting=False), 10.0)
    assert rests(Hosts(1, waiting=False), 10.0 + 0.9 * QUIET_S)
    assert not rests(Hosts(1, waiting=False), 10.0 + QUIET_S)
    assert rests(Hosts(2, waiting=False), 20.0), "one has come since"
    assert not rests(Hosts(2, waiting=False), 30.0)
    assert rests(Hosts(2, waiting=True), 30.0), "it waits still"
    assert rests(Hosts(2, waiting=False), 30.0 + 0.9 * QUIET_S), "it was answered just now"


@given(
    steps=st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, MIB)), min_size=1, max_size=50),
    at_once=st.integers(1, 6),
    floor=st.sampled_from([1 * KIB, 1 * MIB, 100 * MIB]),
)
def test_busy_hosts_have_their_share_and_the_work_its_floor(
    steps: list[tuple[float, int]], at_once: int, floor: int
) -> None:
    """Of several that work at once each has its part of the floor; no rest is longer than either asks for."""
    yielding, now_s, worked_s, least_s = Yielding(floor), 0.0, 0.0, 0.0
    for number, (took_s, length_bytes) in enumerate(steps):
        now_s += took_s
        rest = yielding.rest_s(
            Hosts(number + 1, waiting=False),
            now_s=now_s,
            took_s=took_s,
            length_bytes=length_bytes,
            at_once=at_once,
        )
        floor_s = at_once * max(length_bytes, STEP_BYTES_MIN) / floor
        assert 0 <= rest <= max(0.0, floor_s - took_s)
        if took_s * (1 + at_once * REST) <= floor_s:  # no need of the floor
            assert took_s / (took_s + rest) <= 1 / (1 + at_once * REST) + 1e-9 if took_s else rest == 0
        now_s += rest
        worked_s += took_s
        least_s += max(took_s, floor_s)
    assert now_s <= least_s * (1 + 1e-9)


def test_several_at_once_have_a_third_of_the_time_together() -> None:
    assert all(workers / (1 + workers * REST) < 1 / REST for workers in range(1, 100))
    assert FLOOR_BYTES_PER_S == MIB, "documented so"
    assert math.isclose(1 / (1 + REST), 0.25), "documented so"
