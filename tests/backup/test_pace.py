"""A rate holds over any sequence of requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup import Pace


@given(
    rate=st.integers(1, 1000),
    asks=st.lists(st.tuples(st.integers(1, 500), st.floats(0, 3)), min_size=1, max_size=30),
)
def test_no_more_than_the_rate_is_let_through(rate: int, asks: list[tuple[int, float]]) -> None:
    pace = Pace(rate)
    now_s = start_s = 1000.0
    let_through = 0
    for length, later_s in asks:
        now_s += later_s
        begins_s = now_s + pace.wait_s(length, now_s)
        assert let_through <= rate * (begins_s - start_s + 0.5) + 1e-6
        let_through += length


def test_without_a_limit_nothing_waits() -> None:
    assert Pace(None).wait_s(1 << 40, 0.0) == 0.0


def test_a_steady_stream_goes_as_fast_as_it_may() -> None:
    pace, now_s = Pace(1000), 50.0
    for _ in range(100):
        now_s += pace.wait_s(500, now_s)
    assert now_s - 50.0 == pytest.approx(49.0, abs=1.0)
