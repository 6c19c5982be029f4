"""Two requests at once, as the controller lets them, whose locks are by bytes: to parts of one block, or to
two blocks near each other.

The second begins before each step that the first one takes, of the disk or at a lock, in another thread;
both must have been done, and be on the disk after a flush.
"""

import threading
from collections.abc import Callable
from random import Random
from typing import Any, Final

import attrs
import pytest

from pyjiva.extent import Extent
from pyjiva.snapshot import Store
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.testing import MemoryDisk, no_fault
from tests.snapshot.stacks import BLOCK, SIZE_BYTES, layered, open_memory
from tests.snapshot.test_reopened import finish, reopened

REQUESTS: Final[dict[str, Callable[[Store, int, bytes], object]]] = {
    "write": lambda store, at, letter: store.write(at, 512, [letter * 512]),
    "atomic": lambda store, at, letter: store.write_atomic(at, 512, [letter * 512]),
    "zero": lambda store, at, _: store.zero(at, 512),
    "block": lambda store, at, letter: store.write(at // BLOCK * BLOCK, BLOCK, [letter * BLOCK]),
    "in place": lambda store, at, letter: write_in_place(store, at // BLOCK * BLOCK, [letter * BLOCK]),
    "read": lambda store, at, _: store.read(at, 512),
    "flush": lambda store, _at, _: store.flush(),
}
#: What a merge does, which holds the locks of the requests that it cannot meet.
MERGES: Final[dict[str, Callable[[Store, int, bytes], object]]] = {
    "plan": lambda store, _at, _: store.next_merge(),
    "first step": lambda store, _at, _: step_of_a_merge(store),
    "retire": lambda store, _at, _: store.retire_regions(),
}
ALL: Final = REQUESTS | MERGES
LOCKS: Final = (type(threading.Lock()), type(threading.RLock()))
WAIT_S: Final = 0.005
"""By then the second one has ended, or waits for the first."""


def write_in_place(store: Store, at: int, data: list[bytes]) -> None:
    """As the one thread does that asks first whether it may."""
    store.write(at, BLOCK, data, in_place=store.writes_in_place(at, BLOCK))


def step_of_a_merge(store: Store) -> None:
    if merge := store.next_merge():
        merge.step()


@attrs.define
class NotedLock:
    """A lock that tells before it is taken, and after it was given back."""

    lock: Any
    disk: MemoryDisk

    def __enter__(self) -> None:
        self.disk.before_step("take a lock")
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()
        self.disk.before_step("have given a lock back")


def note_locks(store: Store, disk: MemoryDisk) -> None:
    """Let the locks of all that a request goes through tell of themselves."""
    owners: list[Any] = [store, store._layers, store._head]
    if isinstance(store._head, LayerStack):
        owners.append(store._head.index)
        owners += [part for layer in store._head.layers for part in (layer.file, layer.held) if part]
    for owner in owners:
        for field in attrs.fields(type(owner)):
            if isinstance(lock := getattr(owner, field.name, None), LOCKS):
                setattr(owner, field.name, NotedLock(lock, disk))


def after(model: bytearray, request: str, at: int, letter: bytes) -> None:
    """Change `model` as the request does."""
    if request in WHOLE:
        at -= at % BLOCK
        model[at : at + BLOCK] = letter * BLOCK
    elif request in ("write", "atomic", "zero"):
        model[at : at + 512] = bytes(512) if request == "zero" else letter * 512


def one_layer(disk: MemoryDisk) -> Store:
    return layered(disk)


def above_a_snapshot(disk: MemoryDisk) -> Store:
    return layered(disk, "a")


def above_two_whose_maps_are_read_first(disk: MemoryDisk) -> Store:
    store = layered(disk, "a")
    for name in ("b", ""):
        store.write(9 * BLOCK, BLOCK, [b"h" * BLOCK])
        if name:
            store.create_snapshot(name)
    return store


def above_what_was_reopened(disk: MemoryDisk) -> Store:
    return reopened(disk)[0]


def above_a_deleted_snapshot(disk: MemoryDisk) -> Store:
    store = above_two_whose_maps_are_read_first(disk)
    store.delete_snapshot("b")
    return store


MAKERS: Final = (one_layer, above_a_snapshot, above_two_whose_maps_are_read_first, above_what_was_reopened)


WHOLE: Final = {"block", "in place"}
CASES: Final = [
    (first, second, place)
    for first in REQUESTS
    for second in REQUESTS
    for place in (512, 3 * BLOCK + 512)
    if not (place < BLOCK and {first, second} & WHOLE)  # the controller lets one wait for the other
    and not first == second == "in place"  # one thread writes so
]


@pytest.mark.patches
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("first", "second", "place"), CASES)
def test_both_are_done(first: str, second: str, place: int, make: Callable[[MemoryDisk], Store]) -> None:
    go_through(first, second, place, make)


@pytest.mark.patches
@pytest.mark.parametrize("make", [above_a_deleted_snapshot, above_what_was_reopened])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pair
        for one, other in [
            *(("plan", request) for request in REQUESTS),
            *(("retire", request) for request in REQUESTS),
            *(("first step", request) for request in ("flush", "retire")),
        ]
        for pair in ((one, other), (other, one))
    ],
)
def test_so_are_requests_beside_a_merge(first: str, second: str, make: Callable[[MemoryDisk], Store]) -> None:
    go_through(first, second, 3 * BLOCK + 512, make)


def go_through(first: str, second: str, place: int, make: Callable[[MemoryDisk], Store]) -> None:
    """Let them meet before each step of the first."""
    number = 0
    while both_are_done(first, second, place, make, number):
        number += 1
    assert number > 1


def both_are_done(
    first: str, second: str, place: int, make: Callable[[MemoryDisk], Store], number: int
) -> bool:
    """Whether the first one has a step of that number, before which the second one began."""
    disk = MemoryDisk(Random(number))
    store = make(disk)
    store.write(7 * BLOCK, BLOCK, [b"m" * BLOCK])  # the state on disk says that there are writes
    model = bytearray(store.read(0, SIZE_BYTES))
    if isinstance(store._head, LayerStack):
        store._head.index.drop(0, 1)  # both find that it has to be loaded
    store.begin_in_place()
    note_locks(store, disk)
    reached = meet(disk, number, lambda: ALL[first](store, 0, b"f"), lambda: ALL[second](store, place, b"s"))
    after(model, first, 0, b"f")
    after(model, second, place, b"s")
    assert store.read(0, SIZE_BYTES) == model, number
    store.verify(Extent(0, SIZE_BYTES))
    store.flush()
    if store.chain.reopened and number % 2:
        finish(store)
    assert store.read(0, SIZE_BYTES) == model, number
    disk.power_cut()
    store = open_memory(disk, "b-2")
    assert store.read(0, SIZE_BYTES) == model, number
    return reached


def meet(disk: MemoryDisk, number: int, first: Callable[[], object], second: Callable[[], object]) -> bool:
    """Do both, the second from before the step of that number on; False: the first has not so many steps."""
    other = threading.Thread(target=second, daemon=True)  # one that never ends fails the test, and only it
    here = threading.current_thread()
    left = number

    def before_step(_: str) -> None:
        nonlocal left
        if threading.current_thread() is here:
            left -= 1
            if left == -1:
                other.start()
                other.join(WAIT_S)

    disk.before_step = before_step
    first()
    disk.before_step = no_fault
    if other.ident is None:
        second()
        return False
    other.join(10)
    assert not other.is_alive()
    return True
