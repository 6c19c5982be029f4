"""An image as a block device: reads are right, whatever else is asked is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import attrs
import pytest
import trio

from pyjiva.block import BlockStatus, Flush, Read, Request, Unmap, Write, WriteZeroes
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.migration import ImageDevice, describe, look, open_image
from pyjiva.migration.image_device_io import QUEUE_MAX
from pyjiva.snapshot.chain import HEAD
from pyjiva.transport import EndOfBatch
from tests.migration.volumes import BRANCHED, SIZE_BYTES, disk_with

CONTENT = BRANCHED.content("")


@attrs.define
class Answers:
    """What has been answered, and a way to wait for it."""

    requests: list[Request] = attrs.field(factory=list)
    _arrived: trio.Event = attrs.field(factory=trio.Event)

    def done(self, request: Request) -> None:
        self.requests.append(request)
        self._arrived.set()

    async def wait(self, count: int) -> None:
        while len(self.requests) < count:
            self._arrived = trio.Event()
            await self._arrived.wait()


@asynccontextmanager
async def running_device() -> AsyncIterator[ImageDevice]:
    directory = disk_with(BRANCHED).open_directory()
    with closing(open_image(directory, describe(look(directory)), HEAD, None)) as image:
        device = ImageDevice(image, EndOfBatch())
        async with trio.open_nursery() as nursery:
            await nursery.start(device.run)
            yield device
            nursery.cancel_scope.cancel()


async def test_reads_in_any_number() -> None:
    async with running_device() as device:
        answers = Answers()
        for start in range(0, SIZE_BYTES, 1000):
            device.submit(Read(start, min(1000, SIZE_BYTES - start), answers.done))
        await answers.wait(SIZE_BYTES // 1000 + 1)
        for request in answers.requests:
            assert isinstance(request, Read)
            assert request.error is None
            start = request.offset_bytes
            assert b"".join(request.data) == CONTENT[start : start + request.length_bytes]


async def test_block_status() -> None:
    async with running_device() as device:
        answers = Answers()
        device.submit(BlockStatus(0, SIZE_BYTES, answers.done))
        await answers.wait(1)
        request = answers.requests[0]
        assert isinstance(request, BlockStatus)
        blocks = {0, 1, 2, 5, 7, 9}
        covered = [
            any(part.overlaps(Extent(at * 4096, 4096)) for part in request.allocated) for at in range(10)
        ]
        assert covered == [at in blocks for at in range(10)]


async def test_a_flush_has_nothing_to_do() -> None:
    async with running_device() as device:
        answers = Answers()
        device.submit(Flush(answers.done))
        assert [request.error for request in answers.requests] == [None]


@pytest.mark.parametrize("verb", ["write", "unmap", "zeroes"])
async def test_changes_are_refused(verb: str) -> None:
    async with running_device() as device:
        answers = Answers()
        match verb:
            case "write":
                device.submit(Write(0, 3, [b"abc"], answers.done))
            case "unmap":
                device.submit(Unmap(0, 4096, answers.done))
            case "zeroes":
                device.submit(WriteZeroes(0, 4096, answers.done))
        error = answers.requests[0].error
        assert isinstance(error, StorageError)
        assert error.failure is StorageFailure.NOT_SUPPORTED


@pytest.mark.parametrize(("offset", "length"), [(SIZE_BYTES, 1), (-1, 2), (0, SIZE_BYTES + 1)])
async def test_beyond_the_end(offset: int, length: int) -> None:
    async with running_device() as device:
        answers = Answers()
        device.submit(Read(offset, length, answers.done))
        error = answers.requests[0].error
        assert isinstance(error, StorageError)
        assert error.failure is StorageFailure.OUT_OF_RANGE


async def test_the_queue_has_an_end() -> None:
    async with running_device() as device:
        answers = Answers()
        for _ in range(QUEUE_MAX + 1):  # nobody takes them before the next checkpoint
            device.submit(Read(0, 1, answers.done))
        errors = [request.error for request in answers.requests]
        assert [error.failure for error in errors if error is not None] == [StorageFailure.NOT_READY]
        await answers.wait(QUEUE_MAX + 1)
