"""Two requests to parts of one block at once, as the controller lets them, whose locks are by bytes.

The second begins before each step that the first one takes, in another thread; both must have been done.
"""

import threading
from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from pyjiva.extent import Extent
from pyjiva.snapshot import Store
from pyjiva.testing import MemoryDisk, no_fault
from tests.snapshot.stacks import BLOCK, SIZE_BYTES, layered
from tests.snapshot.test_reopened import finish, reopened

REQUESTS: Final[dict[str, Callable[[Store, int, bytes], None]]] = {
    "write": lambda store, at, letter: store.write(at, 512, [letter * 512]),
    "atomic": lambda store, at, letter: store.write_atomic(at, 512, [letter * 512]),
    "zero": lambda store, at, _: store.zero(at, 512),
}
WAIT_S: Final = 0.02
"""By then the second one has ended, or waits for the first."""


def one_layer(disk: MemoryDisk) -> Store:
    return layered(disk)


def above_a_snapshot(disk: MemoryDisk) -> Store:
    return layered(disk, "a")


def above_what_was_reopened(disk: MemoryDisk) -> Store:
    return reopened(disk)[0]


@pytest.mark.parametrize("make", [one_layer, above_a_snapshot, above_what_was_reopened])
@pytest.mark.parametrize("second", REQUESTS)
@pytest.mark.parametrize("first", REQUESTS)
def test_both_are_done(first: str, second: str, make: Callable[[MemoryDisk], Store]) -> None:
    number, reached = 0, True
    while reached:
        disk = MemoryDisk(Random(number))
        store = make(disk)
        store.write(7 * BLOCK, BLOCK, [b"m" * BLOCK])  # the state on disk says that there are writes
        model = bytearray(store.read(0, SIZE_BYTES))
        other = threading.Thread(target=REQUESTS[second], args=(store, 512, b"s"))
        steps = 0

        def begin_the_other(_: str, number: int = number, other: threading.Thread = other) -> None:
            nonlocal steps
            steps += 1
            if steps == number + 1:
                other.start()
                other.join(WAIT_S)

        disk.before_step = begin_the_other
        REQUESTS[first](store, 0, b"f")
        disk.before_step = no_fault
        reached = other.ident is not None
        if reached:
            other.join(10)
            assert not other.is_alive()
        else:
            REQUESTS[second](store, 512, b"s")
        model[:512] = bytes(512) if first == "zero" else b"f" * 512
        model[512:1024] = bytes(512) if second == "zero" else b"s" * 512
        assert store.read(0, SIZE_BYTES) == model, number
        store.verify(Extent(0, SIZE_BYTES))
        store.flush()
        if store.chain.reopened:
            finish(store)
        assert store.read(0, SIZE_BYTES) == model
        number += 1
    assert number > 2
