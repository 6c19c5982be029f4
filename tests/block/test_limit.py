"""What hosts may ask in a second: counted against a plain sum, and the contract of a block device."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pyjiva.block import (
    BlockDevice,
    Flush,
    LimitedDevice,
    Limiter,
    Limits,
    MemoryDevice,
    Read,
    Request,
    Unmap,
    Write,
)
from pyjiva.controller import HostLimits
from pyjiva.errors import ConfigError
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name


@asynccontextmanager
async def open_limited(limits: Limits) -> AsyncIterator[tuple[Driver, HostLimits]]:
    batch = EndOfBatch()
    host = HostLimits(limits, batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        device: BlockDevice = LimitedDevice(MemoryDevice(SIZE_BYTES), host.limiter)
        yield Driver(device, batch), host
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("limits", [Limits(), Limits(20_000, 1 << 30, 0.01)], ids=["none", "some"])
@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case, limits: Limits, autojump_clock: MockClock) -> None:
    async with open_limited(limits) as (driver, _):
        await case(driver)


class Bench:
    """A limiter, a clock that is set, and who has gone on."""

    def __init__(self, limits: Limits) -> None:
        self.now_s = 1000.0
        self.woken = 0
        self.gone: list[Request] = []
        self.limiter = Limiter(limits, lambda: self.now_s, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def submit(self, request: Request) -> None:
        self.limiter.submit(request, self.gone.append)

    def read(self, length: int = 512) -> Read:
        request = Read(0, length, ignore)
        self.submit(request)
        return request

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.limiter.go_on()


def ignore(_: object) -> None:
    pass


def test_after_rest_a_burst_and_then_as_many_as_the_limit_says() -> None:
    bench = Bench(Limits(iops=10, burst_s=0.5))
    requests = [bench.read() for _ in range(20)]
    assert bench.gone == requests[:6], "five, and the one that leaves something owed"
    assert bench.woken == 1
    assert bench.limiter.waiting == 14
    for second in range(1, 15):
        bench.pass_time(0.1)
        assert bench.gone == requests[: 6 + second]
    assert not bench.limiter.waiting
    assert bench.limiter.delayed == 14


def test_bytes_are_those_that_are_read_or_written() -> None:
    bench = Bench(Limits(bytes_per_s=1000, burst_s=1))
    bench.submit(Unmap(0, 1 << 30, ignore))
    first = Write(0, 5000, (bytes(5000),), ignore)
    bench.submit(first)
    assert bench.gone[-1:] == [first], "larger than the bucket"
    second = bench.read(1)
    assert bench.limiter.due_s() == pytest.approx(4.0)
    bench.pass_time(3.9)
    assert bench.gone[-1:] == [first]
    bench.pass_time(0.1)
    assert bench.gone[-1:] == [second]


def test_a_flush_waits_for_nothing() -> None:
    bench = Bench(Limits(iops=1, burst_s=0.1))
    requests = [bench.read() for _ in range(3)]
    flush = Flush(ignore)
    bench.submit(flush)
    assert bench.gone == [*requests[:2], flush]


def test_requests_go_on_in_the_order_of_coming() -> None:
    bench = Bench(Limits(bytes_per_s=1000, burst_s=0.001))
    large = bench.read(2000)
    larger, small = bench.read(3000), bench.read(1)
    assert bench.gone == [large]
    bench.pass_time(2)
    assert bench.gone == [large, larger]
    bench.pass_time(3)
    assert bench.gone == [large, larger, small]


def test_other_limits_hold_at_once_also_for_those_who_wait() -> None:
    bench = Bench(Limits(iops=1, burst_s=1))
    requests = [bench.read() for _ in range(12)]
    assert bench.limiter.due_s() == pytest.approx(1.0)
    bench.limiter.change(Limits(iops=10, burst_s=0.1))
    assert bench.woken == 2
    bench.pass_time(1.0)
    assert len(bench.gone) > 2
    bench.limiter.change(Limits())
    bench.pass_time(0)
    assert bench.gone == requests
    assert not bench.limiter.limited


def test_what_went_while_one_of_the_limits_was_lifted_is_not_owed_when_it_is_back() -> None:
    bench = Bench(Limits(iops=10, bytes_per_s=1 << 30))
    bench.limiter.change(Limits(bytes_per_s=1 << 30))
    for _ in range(1000):
        bench.read()
    assert not bench.limiter.waiting
    bench.limiter.change(Limits(iops=10, bytes_per_s=1 << 30))
    requests = [bench.read() for _ in range(5)]
    assert bench.gone[-5:] == requests


def test_no_limit_costs_nothing() -> None:
    assert not Bench(Limits()).limiter.limited
    assert Bench(Limits(iops=1)).limiter.limited


@pytest.mark.parametrize(
    "make",
    [
        lambda: Limits(iops=0),
        lambda: Limits(bytes_per_s=-1),
        lambda: Limits(iops=math.nan),
        lambda: Limits(bytes_per_s=math.inf),
        lambda: Limits(iops=5, burst_s=0),
    ],
)
def test_limits_that_make_no_sense_are_refused(make: Callable[[], Limits]) -> None:
    with pytest.raises(ConfigError):
        make()


@given(
    iops=st.none() | st.integers(1, 50),
    rate=st.none() | st.integers(1, 5000),
    burst_s=st.sampled_from([0.1, 1.0, 3.0]),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 4000)), max_size=60),
)
def test_in_no_span_of_time_more_goes_on_than_the_limits_let(
    iops: int | None, rate: int | None, burst_s: float, steps: list[tuple[float, int]]
) -> None:
    """Before a request goes on, no more has gone than what the span brings, and a burst."""
    bench = Bench(Limits(iops, rate, burst_s))
    went_s: list[float] = []

    def pass_time(seconds: float) -> None:
        bench.pass_time(seconds)
        went_s.extend([bench.now_s] * (len(bench.gone) - len(went_s)))

    for wait_s, length in steps:
        pass_time(wait_s)
        bench.read(length)
        pass_time(0)
    while (due_s := bench.limiter.due_s()) is not None:
        pass_time(due_s)
    assert len(went_s) == len(steps)
    for first in range(len(steps)):
        for last in range(first, len(steps)):
            span_s = went_s[last] - went_s[first]
            if iops is not None:
                assert last - first <= span_s * iops + max(1, burst_s * iops) + 0.01
            if rate is not None:
                length = sum(length for _, length in steps[first:last])
                assert length <= span_s * rate + max(1, burst_s * rate) + 0.01
