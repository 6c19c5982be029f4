"""Replica directories on memory disks, as a store leaves them, for the tests of this folder."""

from collections.abc import Callable
from random import Random
from typing import Final

import attrs

from pyjiva.checkup import Report, check
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.testing import MemoryDisk
from pyjiva.units import KIB

BLOCK: Final = 4 * KIB
SIZE_BYTES: Final = 32 * KIB + 512
BOOT: Final = "b-1"
IDENTITY: Final = ReplicaState("v-1", 1, "demo", SIZE_BYTES, 512)
RECORD: Final = MembershipRecord(
    epoch=3, version=2, controller_id="c-1", configured=(1, 2, 3), in_sync=(1, 2), clean=True
)
_CHANGES: Final = ("create", "write", "punch", "truncate", "sync", "rename", "remove")


def open_store(disk: MemoryDisk, boot_id: str = BOOT) -> Store:
    """The store in `disk`, whatever its size is now."""
    size = SIZE_BYTES
    if STATE_FILE in disk.inodes():
        size = decode_state(disk.content(STATE_FILE)).size_bytes
    identity = attrs.evolve(IDENTITY, size_bytes=size)
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


def fill(store: Store, seed: int, *blocks: int) -> None:
    """Write whole blocks."""
    for block in blocks:
        length = min(BLOCK, SIZE_BYTES - block * BLOCK)
        store.write(block * BLOCK, length, [Random(seed * 100 + block).randbytes(length)])


def join(store: Store) -> None:
    """Let the replica be in sync, as its controller says."""
    state = attrs.evolve(store.state, promised_epoch=3, promised_to="c-1", record=RECORD, told_equal=True)
    store.save_state(state)


def stop(store: Store) -> None:
    """End as a replica does that is told to."""
    store.flush()
    assert store.mark_clean()
    store.close()


def alone(seed: int = 1) -> MemoryDisk:
    """A replica without snapshots, stopped cleanly."""
    disk = MemoryDisk(Random(seed))
    store = open_store(disk)
    join(store)
    fill(store, 1, 0, 1, 8)
    stop(store)
    return disk


def layered(seed: int = 1) -> MemoryDisk:
    """Snapshots a and b below the head, stopped cleanly."""
    disk = MemoryDisk(Random(seed))
    store = open_store(disk)
    join(store)
    fill(store, 1, 0, 1, 2, 8)
    store.create_snapshot("a", created="2026-01-02T03:04:05Z", labels={"by": "test"})
    fill(store, 2, 1, 3)
    store.zero(2 * BLOCK, BLOCK)
    store.create_snapshot("b", created="2026-01-03T03:04:05Z")
    fill(store, 3, 4, 8)
    stop(store)
    return disk


def content(store: Store) -> bytes:
    """All of the volume."""
    return bytes(store.read(0, store.size_bytes))


def look(disk: MemoryDisk, *, boot_id: str = BOOT, quick: bool = False) -> Report:
    """A check, which must change nothing."""

    before_step = disk.before_step

    def refuse_changes(step: str) -> None:
        assert not step.startswith(_CHANGES), f"a check made the step {step}"
        before_step(step)

    disk.before_step = refuse_changes
    directory = disk.open_directory()
    try:
        return check(directory, boot_id=boot_id, quick=quick)
    finally:
        directory.close()
        disk.before_step = before_step


def kinds(report: Report) -> list[str]:
    """The names of what was found."""
    return [each.kind.name for each in report.findings]


Damage = Callable[[MemoryDisk], None]


def remove(*names: str) -> Damage:
    """Take files away."""

    def damage(disk: MemoryDisk) -> None:
        directory = disk.open_directory()
        for name in names:
            directory.remove(name)
        directory.sync()
        directory.close()

    return damage


def flip(name: str, offset_bytes: int = 20) -> Damage:
    """Change a bit on the platter."""
    return lambda disk: disk.rot(name, offset_bytes)


def cut(name: str, rest_bytes: int) -> Damage:
    """Leave a file its first bytes only; holes do not matter."""
    return lambda disk: disk.put(name, disk.content(name)[:rest_bytes])


def extend(name: str, more: bytes = b"more") -> Damage:
    """Put something behind the end of a file."""
    return lambda disk: disk.put(name, disk.content(name) + more)


def put(name: str, content: bytes = b"") -> Damage:
    """Let a file be there."""
    return lambda disk: disk.put(name, content)
