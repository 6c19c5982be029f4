"""Neighbouring small writes of one batch go down as one, and nothing else changes."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.block import Flush, MemoryDevice, Read, Request, Sampler, Unmap, Write
from pyjiva.controller.coalescing import COALESCED_BYTES_MAX, SMALL_BYTES_MAX, CoalescingDevice
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name, noise

BLOCK = 4 * KIB
Place = tuple[int, int]


@attrs.define(eq=False)
class Below:
    """A device that keeps what it is given, and answers when it is told to."""

    inner: MemoryDevice = attrs.field(factory=lambda: MemoryDevice(SIZE_BYTES))
    given: list[Request] = attrs.field(factory=list)

    @property
    def size_bytes(self) -> int:
        return self.inner.size_bytes

    def submit(self, request: Request) -> None:
        self.given.append(request)

    @property
    def places(self) -> list[Place]:
        """Of the writes."""
        return [(each.offset_bytes, each.length_bytes) for each in self.given if isinstance(each, Write)]

    def answer(self, error: StorageError | None = None) -> None:
        """Carry out what was given, or refuse it."""
        given, self.given = self.given, []
        for request in given:
            if error is None:
                self.inner.submit(request)
            else:
                request.error = error
                request.done(request)  # type: ignore[arg-type]


@attrs.define
class Bench:
    """One over the other."""

    below: Below = attrs.field(factory=Below)
    batch: EndOfBatch = attrs.field(factory=EndOfBatch)
    device: CoalescingDevice = attrs.field(init=False)
    done: list[Any] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.device = CoalescingDevice(self.below, self.batch)

    def write(self, offset: int, length: int = BLOCK, **fields: Any) -> Write:
        data = noise(length)
        write = Write(offset, length, (data[:100], data[100:]), self.done.append, **fields)
        self.device.submit(write)
        return write


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case) -> None:
    batch = EndOfBatch()
    await case(Driver(CoalescingDevice(MemoryDevice(SIZE_BYTES), batch), batch))


def test_neighbours_are_one_request_and_each_is_answered() -> None:
    it = Bench()
    writes = [it.write(number * BLOCK) for number in range(5)]
    assert not it.below.given
    it.batch.end()
    assert it.below.places == [(0, 5 * BLOCK)]
    (whole,) = it.below.given
    assert isinstance(whole, Write)
    assert b"".join(whole.data) == b"".join(b"".join(write.data) for write in writes)
    assert not it.done
    it.below.answer()
    assert it.done == writes
    assert not any(write.error for write in writes)


def test_one_alone_is_the_same_request() -> None:
    it = Bench()
    write = it.write(BLOCK)
    it.batch.end()
    assert it.below.given == [write]


def test_what_cannot_be_done_is_an_error_of_each() -> None:
    it = Bench()
    writes = [it.write(number * BLOCK) for number in range(3)]
    it.batch.end()
    error = StorageError(StorageFailure.NO_SPACE, "full")
    it.below.answer(error)
    assert [write.error for write in writes] == [error] * 3
    assert it.done == writes


@pytest.mark.parametrize(
    "between",
    [
        lambda done: Flush(done),
        lambda done: Read(0, BLOCK, done),
        lambda done: Unmap(0, BLOCK, done),
        lambda done: Write(BLOCK, SMALL_BYTES_MAX + 512, (bytes(SMALL_BYTES_MAX + 512),), done),
        lambda done: Write(BLOCK, BLOCK, (bytes(BLOCK),), done, atomic=True),
        lambda done: Write(BLOCK, BLOCK, (bytes(BLOCK),), done, sums=bytes(8)),
        lambda done: Write(SIZE_BYTES - 512, BLOCK, (bytes(BLOCK),), done),
    ],
    ids=["flush", "read", "unmap", "large", "atomic", "sums", "beyond-the-end"],
)
def test_what_comes_between_keeps_its_turn(between: Callable[[Any], Request]) -> None:
    it = Bench()
    first = it.write(0)
    other = between(it.done.append)
    it.device.submit(other)
    second = it.write(BLOCK)
    third = it.write(2 * BLOCK)
    assert it.below.given == [first, other]
    it.batch.end()
    assert len(it.below.given) == 3
    assert it.below.places[-1] == (BLOCK, 2 * BLOCK)
    it.below.answer()
    assert it.done == [first, other, second, third]


def test_only_what_is_alike_and_adjacent() -> None:
    it = Bench()
    it.write(0)
    it.write(BLOCK, force_unit_access=True)
    it.write(2 * BLOCK, force_unit_access=True)
    it.write(4 * BLOCK)
    it.write(3 * BLOCK)
    it.batch.end()
    assert it.below.places == [(0, BLOCK), (BLOCK, 2 * BLOCK), (4 * BLOCK, BLOCK), (3 * BLOCK, BLOCK)]
    assert [each.force_unit_access for each in it.below.given if isinstance(each, Write)] == [
        False, True, False, False,
    ]  # fmt: skip


def test_it_does_not_grow_without_end() -> None:
    it = Bench()
    count = COALESCED_BYTES_MAX // SMALL_BYTES_MAX
    for number in range(2 * count + 1):
        it.write(number * SMALL_BYTES_MAX, SMALL_BYTES_MAX)
    it.batch.end()
    assert [length for _, length in it.below.places] == [
        COALESCED_BYTES_MAX, COALESCED_BYTES_MAX, SMALL_BYTES_MAX,
    ]  # fmt: skip


def test_batches_are_kept_apart() -> None:
    it = Bench()
    it.write(0)
    it.batch.end()
    it.write(BLOCK)
    it.batch.end()
    it.batch.end()
    assert it.below.places == [(0, BLOCK), (BLOCK, BLOCK)]


def test_one_that_is_traced_goes_alone() -> None:
    it = Bench()
    sampler = Sampler(lambda: 0, 1.0, lambda: 0.5, lambda span, context: None)
    step = sampler.begin("command")
    it.write(0)
    traced = Write(BLOCK, BLOCK, (bytes(BLOCK),), it.done.append)
    sampler.follow(traced, "write", step)
    it.device.submit(traced)
    it.write(2 * BLOCK)
    it.batch.end()
    assert it.below.places == [(0, BLOCK), (BLOCK, BLOCK), (2 * BLOCK, BLOCK)]


def test_what_an_answer_asks_for_next_is_not_lost() -> None:
    """A device may answer at once, and who hears it may go on at once."""
    batch = EndOfBatch()
    device = CoalescingDevice(MemoryDevice(SIZE_BYTES), batch)
    done: list[Write] = []

    def again(write: Write) -> None:
        done.append(write)
        if len(done) < 6:
            for place in (0, BLOCK):
                device.submit(Write(place, BLOCK, (bytes(BLOCK),), again))

    device.submit(Write(0, BLOCK, (bytes(BLOCK),), again))
    device.submit(Write(BLOCK, BLOCK, (bytes(BLOCK),), again))
    batch.end()
    assert len(done) >= 6
    assert len(done) == len(set(map(id, done)))
    assert not device._held


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 12), st.integers(1, 3), st.booleans()),
            st.tuples(st.just("read"), st.integers(0, 12), st.integers(1, 3), st.just(False)),
            st.tuples(st.just("end"), st.just(0), st.just(0), st.just(False)),
        ),
        max_size=40,
    )
)
def test_each_byte_is_given_down_once_in_order(steps: list[tuple[str, int, int, bool]]) -> None:
    """What goes down, taken to pieces again, is what was submitted; each is answered once."""
    it = Bench()
    submitted: list[tuple[str, int, bytes]] = []
    requests: list[Any] = []
    for number, (kind, block, count, fua) in enumerate(steps):
        offset, length = block * BLOCK, count * BLOCK
        if kind == "end":
            it.batch.end()
        elif kind == "read":
            requests.append(Read(offset, length, it.done.append))
            submitted.append(("read", offset, bytes(length)))
        else:
            data = bytes([number + 1]) * length
            requests.append(Write(offset, length, (data[:512], data[512:]), it.done.append, fua))
            submitted.append(("write", offset, data))
        if kind != "end":
            it.device.submit(requests[-1])
    it.batch.end()
    found: list[tuple[str, int, bytes]] = []
    expected = iter(submitted)
    for each in it.below.given:
        at, left = each.offset_bytes, each.length_bytes  # type: ignore[union-attr]
        assert left <= COALESCED_BYTES_MAX
        data = b"".join(each.data) if isinstance(each, Write) else bytes(left)
        while data:
            kind, offset, piece = next(expected)
            assert offset == at and kind == ("write" if isinstance(each, Write) else "read")
            found.append((kind, at, data[: len(piece)]))
            at, data = at + len(piece), data[len(piece) :]
    assert found == submitted
    it.below.answer()
    assert sorted(map(id, it.done)) == sorted(map(id, requests))
