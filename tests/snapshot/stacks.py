"""Stores with a few layers on memory disks, and steps at which something happens to them."""

import threading
from collections.abc import Callable
from typing import Final

import pytest

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.snapshot import Merge, ReplicaState, Store
from pyjiva.snapshot.layer_stack_sys import LayerStack
from pyjiva.testing import MemoryDisk, PowerCut, no_fault
from pyjiva.testing.memory_file import Step
from pyjiva.units import KIB

BLOCK: Final = 4 * KIB
SIZE_BYTES: Final = 64 * KIB + 512
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)


def open_memory(disk: MemoryDisk, boot_id: str = "b-1", *, identity: ReplicaState = IDENTITY) -> Store:
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


def layered(disk: MemoryDisk, *names: str) -> Store:
    """A store in which block n of the first layer is full of n + 1, with snapshots on it."""
    store = open_memory(disk)
    for number in range(SIZE_BYTES // BLOCK):
        store.write(number * BLOCK, BLOCK, [bytes([number + 1]) * BLOCK])
    for name in names:
        store.create_snapshot(name)
    return store


def stack_of(store: Store) -> LayerStack:
    assert isinstance(store._head, LayerStack)
    return store._head


def cut_at(step: str, number: int = 0) -> Step:
    """Stop before the step of that name that comes after `number` others like it."""

    def before_step(each: str) -> None:
        nonlocal number
        if each == step:
            number -= 1
            if number < 0:
                raise PowerCut(each)

    return before_step


def hold_up(disk: MemoryDisk, step: str) -> tuple[threading.Event, threading.Event]:
    """Let who comes to that step first set the one event, and wait for the other."""
    entered, go = threading.Event(), threading.Event()

    def before_step(each: str) -> None:
        if each == step and not entered.is_set():
            entered.set()
            assert go.wait(10)

    disk.before_step = before_step
    return entered, go


def mark_a_part(disk: MemoryDisk, store: Store, block: int, mark: int) -> None:
    """Let a full disk take this byte alone of what is written next to the map of the head."""
    step, marks = f"write {store.chain.head_file}.held", stack_of(store)._held._file

    def before_step(each: str) -> None:
        if each == step:
            disk.before_step = no_fault
            marks.write(block, (bytes((mark,)),))
            raise StorageError(StorageFailure.NO_SPACE, step)

    disk.before_step = before_step


def held_bytes(disk: MemoryDisk, head: str = "volume-head-001.img") -> bytes:
    return disk.content(f"{head}.held")


def killed_at(disk: MemoryDisk, step: str, call: Callable[[], object]) -> Store:
    """The process is killed within `call`, before that step: the store of the next one."""
    disk.before_step = cut_at(step)
    with pytest.raises(PowerCut):
        call()
    disk.kill_process()
    disk.before_step = no_fault
    return open_memory(disk)


def merge_of(store: Store, *, goes_down: bool | None = None) -> Merge:
    """The merge that is to be done, in the shorter way if none is given."""
    merge = store.next_merge()
    assert merge is not None
    if goes_down is not None:
        merge.choose(goes_down=goes_down)
    return merge
