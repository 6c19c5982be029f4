"""The one suite that every block device passes: the contract of `pyjiva.block.device`, case by case.

Use, in the test module of a device (`pythonpath = ["."]` of pyproject.toml makes `tests.suites` importable):

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    async def test_contract(case: Case) -> None:
        batch = EndOfBatch()
        await case(Driver(MyDevice(SIZE_BYTES, ..., batch), batch))

- Give each case a fresh device of exactly SIZE_BYTES that reads as zeros, and the `EndOfBatch` that the
  device itself uses.
- A device that completes later from another trio task needs that task running around the call:
  `async with open_my_device(...) as device: await case(Driver(device, batch))`.
- A further property of a device (what survives a reopen, that all replicas are equal) is checked by its own
  tests, after the case: `driver.model` then holds the bytes that the device must have, if the case ran to
  its end.

Not checked: that a flush reaches stable storage (only a power cut shows that), the order of overlapping
requests (the contract gives none), failures other than OUT_OF_RANGE.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from pyjiva.block import (
    BlockDevice,
    BlockStatus,
    Buffer,
    Flush,
    Read,
    Request,
    Unmap,
    Write,
    WriteZeroes,
)
from pyjiva.errors import StorageFailure
from pyjiva.extent import Extent
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB, MIB

__all__ = ["CASES", "SIZE_BYTES", "Case", "Driver", "case_name"]

SIZE_BYTES: Final = 4 * MIB  # large enough for several layers' chunks, small enough to compare whole
ANSWER_TIME_S: Final = 30  # a device that has not answered by then has lost the request
RANDOM_STEPS: Final = 300


@attrs.define(eq=False)
class Driver:
    """Submits requests, ends the batch, waits for the answers, and keeps a plain copy of the contents."""

    device: BlockDevice
    batch: EndOfBatch = attrs.field(factory=EndOfBatch)
    model: bytearray = attrs.field(factory=lambda: bytearray(SIZE_BYTES))
    _answers: dict[Any, int] = attrs.field(factory=dict, init=False)  # request: how often it was answered
    _answered: trio.Event = attrs.field(factory=trio.Event, init=False)

    def done(self, request: Any) -> None:
        """What every request of the suite has as its `done`."""
        self._answers[request] = self._answers.get(request, 0) + 1
        self._answered.set()

    async def submit(self, *requests: Request) -> None:
        """Submit all as one batch and wait until each has been answered (with or without an error)."""
        for request in requests:
            self.device.submit(request)
        self.batch.end()
        await self.wait(*requests)

    async def wait(self, *requests: Request) -> None:
        """Wait until each request has been answered once; a second answer is an error."""
        with trio.fail_after(ANSWER_TIME_S):
            while not all(request in self._answers for request in requests):
                self._answered = trio.Event()
                await self._answered.wait()
        # An answer too many would come from a task that is ready to run now.
        await trio.lowlevel.checkpoint()
        for request in requests:
            assert self._answers[request] == 1, f"{self._answers[request]} answers to {request}"

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The bytes of a range."""
        request = Read(offset_bytes, length_bytes, self.done)
        await self.submit(request)
        assert request.error is None, request.error
        data = b"".join(request.data)
        assert len(data) == length_bytes
        return data

    async def write(
        self, offset_bytes: int, *data: Buffer, force_unit_access: bool = False, atomic: bool = False
    ) -> None:
        """Write the buffers one after the other, to the device and to the model."""
        length = sum(len(buffer) for buffer in data)
        request = Write(offset_bytes, length, data, self.done, force_unit_access, atomic=atomic)
        self.model[offset_bytes : offset_bytes + length] = b"".join(data)
        await self.submit(request)
        assert request.error is None, request.error

    async def zero(self, verb: type[Unmap] | type[WriteZeroes], offset_bytes: int, length_bytes: int) -> None:
        """Unmap or zero a range, on the device and in the model."""
        request = verb(offset_bytes, length_bytes, self.done)
        self.model[offset_bytes : offset_bytes + length_bytes] = bytes(length_bytes)
        await self.submit(request)
        assert request.error is None, request.error

    async def flush(self) -> None:
        """Flush everything."""
        request = Flush(self.done)
        await self.submit(request)
        assert request.error is None, request.error

    async def allocated(self, offset_bytes: int, length_bytes: int) -> Sequence[Extent]:
        """The allocated parts of a range, after checking their form."""
        request = BlockStatus(offset_bytes, length_bytes, self.done)
        await self.submit(request)
        assert request.error is None, request.error
        end = offset_bytes
        for extent in request.allocated:
            assert extent.offset_bytes >= end, "sorted, disjoint, inside the range"
            assert extent.length_bytes > 0
            end = extent.end_bytes
        assert end <= offset_bytes + length_bytes
        return request.allocated

    async def check(self) -> None:
        """The whole device has the contents of the model, and every byte that is not zero is allocated."""
        content = await self.read(0, len(self.model))
        if content != self.model:
            first = next(i for i, (a, b) in enumerate(zip(content, self.model, strict=True)) if a != b)
            raise AssertionError(f"byte {first} is {content[first]:#x}, should be {self.model[first]:#x}")
        holes = bytearray(self.model)
        for extent in await self.allocated(0, len(self.model)):
            holes[extent.offset_bytes : extent.end_bytes] = bytes(extent.length_bytes)
        assert not any(holes), "data in what is reported as a hole"


Case = Callable[[Driver], Awaitable[None]]


def case_name(case: Case) -> str:
    """The id of a case for pytest."""
    return str(getattr(case, "__name__", case))


def noise(length_bytes: int, seed: int = 1) -> bytes:
    """Bytes that differ from zeros and from each other's neighbours; the same for the same seed."""
    return random.Random(seed).randbytes(length_bytes)


async def size_is_the_size_asked_for(driver: Driver) -> None:
    assert driver.device.size_bytes == SIZE_BYTES


async def fresh_device_reads_as_zeros(driver: Driver) -> None:
    await driver.check()


async def written_bytes_are_read_back(driver: Driver) -> None:
    await driver.write(64 * KIB, noise(8 * KIB))
    await driver.check()


async def any_offset_and_length_works(driver: Driver) -> None:
    for index, (offset, length) in enumerate(
        [(0, 1), (511, 2), (4095, 2), (4096, 4095), (8191, 8194), (MIB - 1, 3), (SIZE_BYTES - 1, 1)]
    ):
        await driver.write(offset, noise(length, seed=index))
        assert await driver.read(offset, length) == driver.model[offset : offset + length]
    await driver.check()


async def write_data_may_be_scattered(driver: Driver) -> None:
    data = noise(12 * KIB)
    view = memoryview(data)
    await driver.write(1000, data[:1], bytearray(data[1:700]), view[700:5000], b"", view[5000:])
    await driver.check()


async def write_buffers_are_the_callers_again_after_done(driver: Driver) -> None:
    data = bytearray(noise(8 * KIB))
    await driver.write(16 * KIB, data)
    data[:] = bytes(len(data))
    await driver.check()


async def data_read_does_not_change_by_a_later_write(driver: Driver) -> None:
    """The answer may still wait in a socket's queue when the next write comes."""
    await driver.write(0, noise(8 * KIB, seed=1))
    request = Read(0, 8 * KIB, driver.done)
    await driver.submit(request)
    await driver.write(0, noise(8 * KIB, seed=2))
    await driver.zero(Unmap, 0, 4 * KIB)
    assert b"".join(request.data) == noise(8 * KIB, seed=1)


async def whole_device_in_one_request(driver: Driver) -> None:
    await driver.write(0, noise(SIZE_BYTES))
    await driver.check()


async def requests_beyond_the_end_fail_and_change_nothing(driver: Driver) -> None:
    await driver.write(SIZE_BYTES - 8 * KIB, noise(8 * KIB))
    for offset, length in [(SIZE_BYTES, 1), (SIZE_BYTES - 1, 2), (SIZE_BYTES - 4096, 8192), (2**62, 512)]:
        requests: list[Request] = [
            Read(offset, length, driver.done),
            Write(offset, length, [bytes(length)], driver.done),
            Unmap(offset, length, driver.done),
            WriteZeroes(offset, length, driver.done),
            BlockStatus(offset, length, driver.done),
        ]
        await driver.submit(*requests)
        for request in requests:
            assert request.error is not None, request
            assert request.error.failure is StorageFailure.OUT_OF_RANGE, request
    await driver.check()


async def unmapped_and_zeroed_bytes_read_as_zeros(driver: Driver) -> None:
    for verb in (Unmap, WriteZeroes):
        await driver.write(0, noise(256 * KIB))
        for offset, length in [(0, 512), (4096, 4096), (10_001, 1), (12_287, 4098), (65_536, 131_072)]:
            await driver.zero(verb, offset, length)
        await driver.check()


async def unmap_of_what_was_never_written_is_no_error(driver: Driver) -> None:
    await driver.zero(Unmap, MIB, MIB)
    await driver.zero(WriteZeroes, MIB + 100, 1000)
    await driver.check()


async def unmap_of_the_whole_device_leaves_holes(driver: Driver) -> None:
    await driver.write(0, noise(SIZE_BYTES))
    await driver.flush()
    await driver.zero(Unmap, 0, SIZE_BYTES)
    await driver.check()
    assert not await driver.allocated(0, SIZE_BYTES)


async def unmapped_space_can_be_written_again(driver: Driver) -> None:
    await driver.write(0, noise(MIB))
    await driver.zero(Unmap, 0, MIB)
    await driver.write(5000, noise(5000, seed=2))
    await driver.check()


async def block_status_tells_data_from_holes(driver: Driver) -> None:
    await driver.write(MIB, noise(64 * KIB))
    await driver.write(3 * MIB, noise(64 * KIB))
    await driver.zero(Unmap, 3 * MIB, 64 * KIB)
    assert MIB in {extent.offset_bytes for extent in await driver.allocated(MIB, MIB)}
    assert not await driver.allocated(3 * MIB, 64 * KIB)
    parts = await driver.allocated(MIB + 10_000, 1000)
    assert [tuple(attrs.astuple(part)) for part in parts] == [(MIB + 10_000, 1000)]


async def flush_and_force_unit_access_are_answered(driver: Driver) -> None:
    await driver.flush()
    await driver.write(0, noise(4096), force_unit_access=True)
    request = WriteZeroes(0, 1024, driver.done, True)
    driver.model[:1024] = bytes(1024)
    await driver.submit(request)
    assert request.error is None
    await driver.flush()
    await driver.check()


async def an_atomic_write_is_a_write(driver: Driver) -> None:
    await driver.write(0, noise(12288))
    data = noise(8192, 2)
    await driver.write(512, data[:100], data[100:], force_unit_access=True, atomic=True)
    assert await driver.read(0, 12288) == noise(12288)[:512] + data + noise(12288)[8704:]


async def many_requests_in_one_batch(driver: Driver) -> None:
    writes = []
    for index in range(200):
        offset, data = index * 20_000, noise(5000 + index, seed=index)
        driver.model[offset : offset + len(data)] = data
        writes.append(Write(offset, len(data), [data], driver.done))
    await driver.submit(*writes)
    assert not [request for request in writes if request.error]
    reads = [Read(request.offset_bytes, request.length_bytes, driver.done) for request in writes]
    await driver.submit(*reads, Flush(driver.done))
    for request, read in zip(writes, reads, strict=True):
        assert read.error is None
        assert b"".join(read.data) == b"".join(request.data)
    await driver.check()


async def done_may_submit_the_next_request(driver: Driver) -> None:
    """A chain of requests: each is submitted in the `done` of the one before, which it must see."""
    steps: list[Request] = []

    def next_step(request: Any) -> None:
        assert request.error is None
        number = len(steps)
        if number < 40:
            offset = 4096 * (number // 2)
            following: Request
            if number % 2:
                following = Read(offset, 4096, next_step)
            else:
                following = Write(offset, 4096, [noise(4096, seed=number)], next_step)
            steps.append(following)
            driver.device.submit(following)
            driver.batch.end()
        driver.done(request)

    first = Flush(next_step)
    await driver.submit(first)
    with trio.fail_after(ANSWER_TIME_S):
        while len(steps) < 40:
            await trio.lowlevel.checkpoint()
    await driver.wait(*steps)
    for number, request in enumerate(steps):
        if isinstance(request, Read):
            assert b"".join(request.data) == noise(4096, seed=number - 1)
            driver.model[request.offset_bytes : request.offset_bytes + 4096] = b"".join(request.data)
    await driver.check()


async def random_requests_match_a_plain_copy(driver: Driver) -> None:
    """One at a time, of every verb, aligned and not, compared with a bytearray."""
    chance = random.Random(20260)
    for step in range(RANDOM_STEPS):
        unit = chance.choice([1, 512, 4096])
        longest = chance.choice([unit, 16 * KIB, 300 * KIB])
        offset = chance.randrange(0, SIZE_BYTES // unit) * unit
        length = min(SIZE_BYTES - offset, max(unit, chance.randrange(0, longest + 1) // unit * unit))
        match chance.choice(["write", "write", "read", "unmap", "zero", "flush", "status"]):
            case "write":
                await driver.write(offset, noise(length, seed=step))
            case "read":
                assert await driver.read(offset, length) == driver.model[offset : offset + length]
            case "unmap":
                await driver.zero(Unmap, offset, length)
            case "zero":
                await driver.zero(WriteZeroes, offset, length)
            case "flush":
                await driver.flush()
            case "status":
                await driver.allocated(offset, length)
    await driver.check()


async def disjoint_requests_run_in_parallel(driver: Driver) -> None:
    """Requests of all verbs outstanding together, each in a region of its own, several rounds."""
    chance = random.Random(7)
    region = 64 * KIB
    for round_number in range(6):
        requests: list[Request] = []
        for index in range(SIZE_BYTES // region):
            offset = index * region + chance.randrange(0, 9000)
            length = chance.randrange(1, region - 9000)
            match chance.choice(["write", "write", "read", "unmap", "zero", "flush"]):
                case "write":
                    data = noise(length, seed=round_number * 1000 + index)
                    driver.model[offset : offset + length] = data
                    requests.append(Write(offset, length, [data[:100], data[100:]], driver.done))
                case "read":
                    requests.append(Read(offset, length, driver.done))
                case "unmap":
                    driver.model[offset : offset + length] = bytes(length)
                    requests.append(Unmap(offset, length, driver.done))
                case "zero":
                    driver.model[offset : offset + length] = bytes(length)
                    requests.append(WriteZeroes(offset, length, driver.done))
                case "flush":
                    requests.append(Flush(driver.done))
        await driver.submit(*requests)
        for request in requests:
            assert request.error is None
            if isinstance(request, Read):
                end = request.offset_bytes + request.length_bytes
                assert b"".join(request.data) == driver.model[request.offset_bytes : end]
    await driver.check()


CASES: Final[tuple[Case, ...]] = (
    size_is_the_size_asked_for,
    fresh_device_reads_as_zeros,
    written_bytes_are_read_back,
    any_offset_and_length_works,
    write_data_may_be_scattered,
    write_buffers_are_the_callers_again_after_done,
    data_read_does_not_change_by_a_later_write,
    whole_device_in_one_request,
    requests_beyond_the_end_fail_and_change_nothing,
    unmapped_and_zeroed_bytes_read_as_zeros,
    unmap_of_what_was_never_written_is_no_error,
    unmap_of_the_whole_device_leaves_holes,
    unmapped_space_can_be_written_again,
    block_status_tells_data_from_holes,
    flush_and_force_unit_access_are_answered,
    an_atomic_write_is_a_write,
    many_requests_in_one_batch,
    done_may_submit_the_next_request,
    random_requests_match_a_plain_copy,
    disjoint_requests_run_in_parallel,
)
