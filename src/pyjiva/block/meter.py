"""How many requests a device has answered, and how long each took: a wrapper that counts.  Pure; hot.

Nothing here is a metric yet: a request costs two looks at the clock and a few additions, and whoever is asked
for metrics reads the sums.

Theory.  A time is counted in the bucket of its power of two, which is one `bit_length`, so p99 is known to a
factor of two at worst, over seven powers of ten, for 64 integers.  Buckets with edges of one's own choice
would need a search, and linear ones a range that is known beforehand.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from pyjiva.block.device import BlockDevice, BlockStatus, Flush, Read, Request, Unmap, Write, WriteZeroes

__all__ = ["OPERATIONS", "Meter", "MeteredDevice", "Meters", "Times"]

SHIFT: Final = 10  # the finest bucket ends at 1.024 us: no request is faster
_BUCKETS: Final = 64  # 2**74 ns is more than a clock of 64 bits counts
#: The powers of two in ns that are told of: 16 us, as fast as a request in memory gets, to 69 s, which is
#: longer than hosts wait for a command.
_FIRST_TOLD, _LAST_TOLD = 14, 36

OPERATIONS: Final[dict[type[Any], str]] = {
    Read: "read",
    Write: "write",
    Unmap: "unmap",
    WriteZeroes: "write_zeroes",
    Flush: "flush",
    BlockStatus: "block_status",
}
"""What each verb is called where it is told of."""


@attrs.define(eq=False)
class Times:  # hot
    """How long something took, each time."""

    buckets: list[int] = attrs.field(factory=lambda: [0] * _BUCKETS)
    """How often it took at least 2**(9 + index) ns and less than twice that; index 0: less than 1.024 us."""
    total_ns: int = 0

    def add(self, took_ns: int) -> None:
        """It took so long once more."""
        self.total_ns += took_ns
        self.buckets[(took_ns >> SHIFT).bit_length()] += 1

    @property
    def count(self) -> int:
        """How often, in all."""
        return sum(self.buckets)

    @property
    def total_s(self) -> float:
        """How long, in all."""
        return self.total_ns / 1e9

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """How often it took no longer than so many seconds; the last bound is infinite."""
        for power in range(_FIRST_TOLD, _LAST_TOLD + 1):
            yield 2**power / 1e9, sum(self.buckets[: power - SHIFT + 1])
        yield float("inf"), self.count


@attrs.define(eq=False)
class Meter:  # hot
    """What was asked of one verb, since the process started."""

    clock_ns: Callable[[], int]
    times: Times = attrs.field(factory=Times, init=False)
    """From `submit` to `done`, failures included."""
    begun: int = attrs.field(default=0, init=False)
    length_bytes: int = attrs.field(default=0, init=False)
    """Of those that did not fail."""
    errors: int = attrs.field(default=0, init=False)
    done: Callable[[Any], None] = attrs.field(init=False)
    """Takes the place of a request's own."""

    def __attrs_post_init__(self) -> None:
        self.done = self._done

    @property
    def in_flight(self) -> int:
        """How many are not answered yet."""
        return self.begun - self.times.count

    def _done(self, request: Any) -> None:
        # As Times.add, which would be one call more.
        took_ns = self.clock_ns() - request.begun_ns
        times = self.times
        times.total_ns += took_ns
        times.buckets[(took_ns >> SHIFT).bit_length()] += 1
        if request.error is not None:
            self.errors += 1
        elif type(request) is not Flush:
            self.length_bytes += request.length_bytes
        request.done = then = request.then
        then(request)


@attrs.define(eq=False)
class Meters:
    """One for each verb of a device."""

    clock_ns: Callable[[], int]
    """Steady."""
    of: dict[type[Any], Meter] = attrs.field(init=False)
    began_ns: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.of = {verb: Meter(self.clock_ns) for verb in OPERATIONS}
        self.began_ns = self.clock_ns()

    @property
    def uptime_s(self) -> float:
        """Since when they count."""
        return (self.clock_ns() - self.began_ns) / 1e9

    def items(self) -> Iterator[tuple[str, Meter]]:
        """Each with the name of its operation."""
        for verb, meter in self.of.items():
            yield OPERATIONS[verb], meter


@attrs.frozen(eq=False)
class MeteredDevice:  # hot
    """The block device `device`, as whoever submits to it sees it.  No other one may be below it: what it
    must know of a request stands in the request.
    """

    device: BlockDevice
    meters: Meters

    @property
    def size_bytes(self) -> int:
        """Of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        meter = self.meters.of[type(request)]
        meter.begun += 1
        request.then = request.done
        request.done = meter.done
        request.begun_ns = meter.clock_ns()
        self.device.submit(request)
