"""A step of a merge and a request to another chunk at once: a step holds the lock of its own extent only.

As in `test_two_at_once`, the one begins before each step of the other.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.snapshot import Store
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.snapshot.merge_sys import STEP_BYTES
from pyjiva.testing import MemoryDisk
from tests.snapshot.stacks import BLOCK, IDENTITY, merge_of, open_memory
from tests.snapshot.test_two_at_once import REQUESTS, WHOLE, meet, note_locks

LARGER: Final = attrs.evolve(IDENTITY, size_bytes=2 * STEP_BYTES)
PLACES: Final = [at + block * BLOCK for at in (0, STEP_BYTES) for block in range(6)]


def content(store: Store) -> dict[int, bytes]:
    return {at: bytes(store.read(at, BLOCK)) for at in PLACES}


def above_two(disk: MemoryDisk) -> Store:
    """Blocks 0 to 4 of either chunk are in the lowest layer, 1 to 3 in the next, 2 and 4 in the head."""
    store = open_memory(disk, identity=LARGER)
    for letter, blocks, name in ((b"a", range(5), "a"), (b"b", range(1, 4), "b"), (b"h", (2, 4), "")):
        for at in (0, STEP_BYTES):
            for block in blocks:
                store.write(at + block * BLOCK, BLOCK, [letter * BLOCK])
        if name:
            store.create_snapshot(name)
    store.flush()
    return store


def changed(before: dict[int, bytes], request: str, place: int) -> dict[int, bytes]:
    """`before`, and what the request writes."""
    start = place - place % BLOCK
    old = before[start]
    inner = place - start
    new = {"zero": bytes(512), "write": b"s" * 512, "atomic": b"s" * 512}.get(
        request, old[inner : inner + 512]
    )
    block = b"s" * BLOCK if request in WHOLE else old[:inner] + new + old[inner + 512 :]
    return before | {start: block}


@pytest.mark.patches
@pytest.mark.parametrize("request_first", [True, False])
@pytest.mark.parametrize("goes_down", [True, False])
@pytest.mark.parametrize("deleted", ["a", "b"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_both_are_done(request_: str, deleted: str, *, goes_down: bool, request_first: bool) -> None:
    numbers = [0, 0]
    for block in (1, 2):  # one that the head has not, and one that it has
        while both_are_done(request_, deleted, block, numbers[block - 1], goes_down, request_first):
            numbers[block - 1] += 1
    assert min(numbers) > 1


def both_are_done(
    request: str, deleted: str, block: int, number: int, goes_down: bool, request_first: bool
) -> bool:
    """Whether the first one has a step of that number, before which the second one began."""
    disk = MemoryDisk(Random(number))
    store = above_two(disk)
    store.delete_snapshot(deleted)
    merge = merge_of(store, goes_down=goes_down)
    assert merge.extent is not None
    assert merge.extent.end_bytes <= STEP_BYTES
    place = STEP_BYTES + block * BLOCK + 512
    expected = changed(content(store), request, place)
    assert isinstance(store._head, LayerStack)
    store._head.index.drop(0, 2 * STEP_BYTES // BLOCK)
    store.begin_in_place()
    note_locks(store, disk)

    def ask() -> None:
        REQUESTS[request](store, place, b"s")

    calls: list[Callable[[], object]] = [ask, merge.step] if request_first else [merge.step, ask]
    reached = meet(disk, number, *calls)
    assert content(store) == expected, number
    store._head.self_check()
    while merge.extent is not None:
        store.flush()
        merge.step()
    assert content(store) == expected, number
    store.flush()
    disk.power_cut()
    store = open_memory(disk, "b-2", identity=LARGER)
    assert content(store) == expected, number
    return reached
