"""Zeros that a host writes take no space."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import MemoryDevice, Write, WriteZeroes, ZeroDetect
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name, noise


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case) -> None:
    batch = EndOfBatch()
    await case(Driver(ZeroDetect(MemoryDevice(SIZE_BYTES)), batch))


async def test_what_is_written_over_by_zeros_is_a_hole() -> None:
    driver = Driver(ZeroDetect(MemoryDevice(SIZE_BYTES)), EndOfBatch())
    await driver.write(0, noise(65536))
    await driver.write(8192, bytes(4096), bytes(4096))
    await driver.write(65536, bytes(1 << 20))
    assert await driver.allocated(0, SIZE_BYTES) == [Extent(0, 8192), Extent(16384, 49152)]
    await driver.check()


class Seen:
    """What comes through, refused."""

    size_bytes = SIZE_BYTES

    def __init__(self) -> None:
        self.requests: list[object] = []

    def submit(self, request: object) -> None:
        self.requests.append(request)
        request.error = StorageError(StorageFailure.NO_SPACE, "full")  # type: ignore[attr-defined]
        request.done(request)  # type: ignore[attr-defined]


@given(
    offset=st.sampled_from([0, 512, 4096, 8192]),
    length=st.sampled_from([512, 4096, 8192, 1 << 20]),
    place=st.none() | st.integers(0, (1 << 20) - 1),
    fua=st.booleans(),
    atomic=st.booleans(),
)
def test_only_whole_blocks_of_nothing_but_zeros_become_a_hole(
    offset: int, length: int, place: int | None, fua: bool, atomic: bool
) -> None:
    data = bytearray(length)
    if place is not None:
        data[place % length] = 1
    done: list[Write] = []
    seen = Seen()
    write = Write(offset, length, (data[:100], data[100:]), done.append, fua, atomic=atomic)
    ZeroDetect(seen).submit(write)
    passed = seen.requests[0]
    hole = place is None and not offset % 4096 and not length % 4096 and not atomic
    assert type(passed) is (WriteZeroes if hole else Write)
    assert (passed.offset_bytes, passed.length_bytes) == (offset, length)
    assert passed.force_unit_access == fua
    assert done == [write]
    assert write.error is not None
