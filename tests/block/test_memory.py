"""The memory device passes the suite of every device, also behind a wrapper that answers later."""

import pytest
import trio

from pyjiva.block import BlockDevice, Flush, MemoryDevice, Request
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name


class LateDevice:
    """Collects requests until the end of the batch; a task of its own carries them out one by one."""

    def __init__(self, device: BlockDevice, batch: EndOfBatch) -> None:
        self._device = device
        self._batch = batch
        self._waiting: list[Request] = []
        self._send, self._receive = trio.open_memory_channel[list[Request]](1000)

    @property
    def size_bytes(self) -> int:
        return self._device.size_bytes

    def submit(self, request: Request) -> None:
        if not self._waiting:
            self._batch.at_end(self._hand_over)
        self._waiting.append(request)

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._send.send_nowait(waiting)

    async def run(self) -> None:
        async for requests in self._receive:
            await trio.lowlevel.checkpoint()
            for request in requests:
                self._device.submit(request)
            self._batch.end()


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_memory_device_keeps_the_contract(case: Case) -> None:
    await case(Driver(MemoryDevice(SIZE_BYTES)))


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_suite_works_for_devices_that_answer_from_another_task(case: Case) -> None:
    batch = EndOfBatch()
    device = LateDevice(MemoryDevice(SIZE_BYTES), batch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        await case(Driver(device, batch))
        nursery.cancel_scope.cancel()


class LyingDevice(MemoryDevice):
    """Answers a flush twice and writes nothing at all: what the suite must notice."""

    def submit(self, request: Request) -> None:
        request.done(request)  # type: ignore[arg-type]
        if isinstance(request, Flush):
            request.done(request)


@pytest.mark.parametrize(
    "case", [case for case in CASES if "write" in case.__name__ or "flush" in case.__name__], ids=case_name
)
async def test_suite_fails_a_device_that_lies(case: Case) -> None:
    with pytest.raises(AssertionError):
        await case(Driver(LyingDevice(SIZE_BYTES)))


async def test_flushes_and_forced_writes_are_counted() -> None:
    device = MemoryDevice(SIZE_BYTES)
    driver = Driver(device)
    await driver.write(0, b"x")
    assert device.flush_count == 0
    await driver.write(0, b"x", force_unit_access=True)
    await driver.flush()
    assert device.flush_count == 2
