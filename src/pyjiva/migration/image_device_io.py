"""An image as a block device that can only be read.

Every read goes to a thread: what the page cache has is not known ahead, as each read asks several files.
"""

import collections
from typing import Any, Final

import attrs
import trio

from pyjiva.block import BlockStatus, Flush, Read, Request
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.migration.image_sys import Image
from pyjiva.transport import EndOfBatch

__all__ = ["ImageDevice"]

WORKERS: Final = 8  # reads that run at once: a disk's own queue takes over beyond that
QUEUE_MAX: Final = 4096  # more than the command windows of all sessions hold


@attrs.define(eq=False)
class ImageDevice:
    """A BlockDevice over `image`, which stays the caller's to close after `run` has ended."""

    image: Image
    _batch: EndOfBatch
    _queue: collections.deque[Any] = attrs.field(factory=collections.deque, init=False)
    _idle: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    @property
    def size_bytes(self) -> int:
        """See BlockDevice."""
        return self.image.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice.  Whatever would change the image is refused."""
        request.error = self._refusal(request)
        if request.error is not None or isinstance(request, Flush):
            request.done(request)  # type: ignore[arg-type]  # each class's `done` takes that class
            return
        self._queue.append(request)
        self._idle.unpark()

    def _refusal(self, request: Request) -> StorageError | None:
        if isinstance(request, Flush):
            return None
        if request.offset_bytes < 0 or request.offset_bytes + request.length_bytes > self.size_bytes:
            return StorageError(
                StorageFailure.OUT_OF_RANGE,
                f"{request.length_bytes} bytes at {request.offset_bytes}: the image has {self.size_bytes}",
            )
        if not isinstance(request, Read | BlockStatus):
            return StorageError(StorageFailure.NOT_SUPPORTED, "the image can only be read")
        if len(self._queue) >= QUEUE_MAX:
            return StorageError(StorageFailure.NOT_READY, f"{QUEUE_MAX} requests are waiting")
        return None

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out what `submit` queues, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(self._work)
            task_status.started()

    async def _work(self) -> None:
        while True:
            if not self._queue:
                await self._idle.park()
                continue
            request = self._queue.popleft()
            await trio.to_thread.run_sync(self._carry_out, request)
            request.done(request)
            self._batch.end()

    def _carry_out(self, request: Read | BlockStatus) -> None:
        try:
            if isinstance(request, Read):
                request.data = (self.image.read(request.offset_bytes, request.length_bytes),)
            else:
                request.allocated = self.image.allocated(Extent(request.offset_bytes, request.length_bytes))
        except StorageError as error:
            request.error = error
