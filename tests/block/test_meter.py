"""What a metered device counts, against a plain list of what was done to it."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import (
    BlockStatus,
    Flush,
    MemoryDevice,
    MeteredDevice,
    Meters,
    Read,
    Request,
    Times,
    Unmap,
    Write,
    WriteZeroes,
)
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name

VERBS: dict[str, Callable[[Callable[[Any], None]], Request]] = {
    "read": lambda done: Read(0, 4096, done),
    "write": lambda done: Write(0, 3, (b"abc",), done),
    "unmap": lambda done: Unmap(0, 8192, done),
    "write_zeroes": lambda done: WriteZeroes(0, 512, done),
    "flush": Flush,
    "block_status": lambda done: BlockStatus(0, 100, done),
}
LENGTHS = {"read": 4096, "write": 3, "unmap": 8192, "write_zeroes": 512, "flush": 0, "block_status": 100}


@attrs.define(eq=False)
class SlowDevice:
    """Answers when it is told to."""

    size_bytes: int = SIZE_BYTES
    open: list[Request] = attrs.field(factory=list)

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        self.open.append(request)


class Bench:
    """A metered device over one that waits, with a clock that is set."""

    def __init__(self) -> None:
        self.now_ns = 5
        self.meters = Meters(lambda: self.now_ns)
        self.below = SlowDevice()
        self.device = MeteredDevice(self.below, self.meters)
        self.answered: list[Request] = []

    def submit(self, name: str) -> Request:
        request = VERBS[name](self.answered.append)
        self.device.submit(request)
        return request

    def answer(self, place: int = 0, error: StorageError | None = None) -> None:
        request = self.below.open.pop(place)
        request.error = error
        request.done(request)  # type: ignore[arg-type]  # each class's `done` takes that class


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case) -> None:
    await case(Driver(MeteredDevice(MemoryDevice(SIZE_BYTES), Meters(lambda: 0)), EndOfBatch()))


@pytest.mark.parametrize("name", VERBS)
def test_a_request_is_counted_with_its_verb_alone(name: str) -> None:
    bench = Bench()
    request = bench.submit(name)
    assert {other: meter.in_flight for other, meter in bench.meters.items()} == {
        other: int(other == name) for other in VERBS
    }
    bench.now_ns += 3_000_000
    bench.answer()
    assert bench.answered == [request]
    for other, meter in bench.meters.items():
        assert (
            meter.times.count,
            meter.times.total_ns,
            meter.length_bytes,
            meter.errors,
            meter.in_flight,
        ) == ((1, 3_000_000, LENGTHS[name], 0, 0) if other == name else (0, 0, 0, 0, 0))


def test_a_request_that_failed_took_time_and_moved_nothing() -> None:
    bench = Bench()
    bench.submit("write")
    bench.now_ns += 7_000
    bench.answer(error=StorageError(StorageFailure.NOT_READY, "parked"))
    meter = bench.meters.of[Write]
    assert (meter.errors, meter.length_bytes, meter.times.total_ns) == (1, 0, 7_000)


def test_a_request_may_be_submitted_again() -> None:
    """Its `done` is the submitter's again when it is called."""
    bench = Bench()
    request = bench.submit("read")
    bench.answer()
    bench.device.submit(request)
    bench.answer()
    assert bench.answered == [request, request]
    assert bench.meters.of[Read].times.count == 2


@given(st.lists(st.tuples(st.sampled_from(sorted(VERBS)), st.integers(0, 10**11), st.booleans())))
def test_sums_are_those_of_a_list(requests: list[tuple[str, int, bool]]) -> None:
    """All are under way at once, and answered last first, each after a while."""
    bench = Bench()
    for name, _, _ in requests:
        bench.submit(name)
    took: dict[str, list[int]] = {name: [] for name in VERBS}
    waited_ns = 0
    for name, after_ns, fails in reversed(requests):
        bench.now_ns += after_ns
        waited_ns += after_ns
        bench.answer(-1, StorageError(StorageFailure.NO_SPACE, "") if fails else None)
        took[name].append(waited_ns)
    for name, meter in bench.meters.items():
        good = sum(1 for other, _, fails in requests if other == name and not fails)
        assert meter.times.total_ns == sum(took[name])
        assert meter.times.count == len(took[name])
        assert meter.errors == len(took[name]) - good
        assert meter.length_bytes == good * LENGTHS[name]


@given(st.lists(st.integers(0, 2**70)))
def test_buckets_hold_what_is_below_their_bound(took_ns: list[int]) -> None:
    times = Times()
    for each in took_ns:
        times.add(each)
    bounds = list(times.cumulative())
    assert bounds[-1] == (float("inf"), len(took_ns))
    for bound_s, count in bounds[:-1]:
        assert count == sum(each < round(bound_s * 1e9) for each in took_ns)
    assert [round(bound_s * 1e9) for bound_s, _ in bounds[:-1]] == [2**power for power in range(14, 37)]


def test_uptime_is_counted_from_when_the_meters_were_made() -> None:
    bench = Bench()
    bench.now_ns += 2_500_000_000
    assert bench.meters.uptime_s == 2.5
