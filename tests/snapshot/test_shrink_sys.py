"""Making a replica smaller: cut at every step, what was beyond the end never shows again."""

from random import Random
from typing import Final

import attrs
import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.metadata import VolumeMeta
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at, fail_at, no_fault
from pyjiva.units import KIB, MIB

BLOCK: Final = 4 * KIB
SIZES: Final = (32 * KIB, 32 * KIB + 512)
"""That the volume has: its end is that of a block, or is not."""
LARGE_BYTES: Final = 22 * BLOCK
"""That the replica has grown to."""
HUGE_BYTES: Final = 70 * MIB
"""The same, more than a region and than a chunk of a map."""


def open_memory(disk: MemoryDisk, size_bytes: int, boot_id: str) -> Store:
    identity = ReplicaState("v-1", 1, "demo", size_bytes, 512)
    if STATE_FILE in disk.inodes():
        has_bytes = decode_state(disk.content(STATE_FILE)).size_bytes
        identity = attrs.evolve(identity, size_bytes=has_bytes)
    return Store.open_in(disk.open_directory(), identity, boot_id=boot_id)


def write(store: Store, seed: int, *places: int) -> None:
    for place in places:
        length = min(BLOCK, store.size_bytes - place)
        store.write(place, length, [Random(seed + place).randbytes(length)])


def places(large_bytes: int) -> tuple[int, ...]:
    """Of blocks that are written to; the volume ends at, or in, that at 8 * BLOCK."""
    return (0, 3 * BLOCK, 7 * BLOCK, 8 * BLOCK, large_bytes - 6 * BLOCK, large_bytes - BLOCK)


def too_large(
    disk: MemoryDisk, size_bytes: int, history: str = "snapshots", large_bytes: int = LARGE_BYTES
) -> Store:
    """A replica that is larger than the volume, with data beyond the end of that in every layer."""
    snapshots = history == "snapshots"
    store = open_memory(disk, large_bytes if history == "made so" else size_bytes, "b-1")
    write(store, 1, *(place for place in places(large_bytes) if place < size_bytes))
    if snapshots:
        store.create_snapshot("a")
        write(store, 2, 3 * BLOCK)
    if history != "made so":
        store.grow(large_bytes)
    write(store, 3, *places(large_bytes)[3 if size_bytes % BLOCK == 0 else 4 :])
    store.write(size_bytes, 512, [b"m" * 512])
    if snapshots:
        store.create_snapshot("b")
        write(store, 4, large_bytes - 6 * BLOCK)
        store.delete_snapshot("a")
        store.create_snapshot("c")
        store.write(size_bytes + 512, 512, [b"n" * 512])
    store.flush()
    assert store.mark_clean()
    return store


def views(store: Store, extent: Extent) -> dict[str, bytes]:
    names = [each.name for each in store.chain.layers if not each.removed]
    shown = {name: bytes(store.read_at(name, extent)) for name in names}
    return {**shown, "": bytes(store.read(extent.offset_bytes, extent.length_bytes))}


def check_whole(
    store: Store, size_bytes: int, expected: dict[str, bytes], large_bytes: int = LARGE_BYTES
) -> None:
    """It holds what it held, and grows again by nothing but zeros."""
    assert views(store, Extent(0, size_bytes)) == expected
    store.self_check()
    store.shrink(size_bytes)
    assert store.size_bytes == size_bytes
    with pytest.raises(StorageError):
        store.read(size_bytes, 512)
    assert views(store, Extent(0, size_bytes)) == expected
    store.verify(Extent(0, size_bytes))
    store.self_check()
    store.grow(large_bytes)
    for place in places(large_bytes):
        beyond = Extent(max(place, size_bytes), BLOCK).clip(Extent(0, large_bytes))
        assert beyond is not None
        assert not any(b"".join(views(store, beyond).values())), beyond
    assert views(store, Extent(0, size_bytes)) == expected


@pytest.mark.parametrize("history", ["made so", "grown", "snapshots"])
@pytest.mark.parametrize("size_bytes", SIZES)
@pytest.mark.parametrize("kind", ["power", "kill"])
def test_shrinking_can_be_cut_at_any_step(kind: str, size_bytes: int, history: str) -> None:
    """It has its old size or the new one, all that the volume has, and can be asked again."""
    sizes = set()
    for number in range(400):
        disk = MemoryDisk(Random(number))
        store = too_large(disk, size_bytes, history)
        expected = views(store, Extent(0, size_bytes))
        disk.before_step = cut_power_at(number)
        try:
            store.shrink(size_bytes)
            break
        except PowerCut:
            disk.before_step = no_fault
        if kind == "power":
            disk.power_cut()
        else:
            disk.kill_process()
        store = open_memory(disk, size_bytes, "b-2" if kind == "power" else "b-1")
        assert store.intact
        sizes.add(store.size_bytes)
        check_whole(store, size_bytes, expected)
    else:
        pytest.fail("it never came to its end")
    disk.before_step = no_fault
    assert number > 10
    assert sizes == {size_bytes, LARGE_BYTES}
    disk.power_cut()
    store = open_memory(disk, size_bytes, "b-2")
    assert store.size_bytes == size_bytes
    assert VolumeMeta.decode(disk.content("volume.meta")).size_bytes == size_bytes
    check_whole(store, size_bytes, expected)


@pytest.mark.parametrize("verb", ["create", "write", "rename", "punch", "sync", "truncate", "stat"])
def test_shrinking_in_which_any_step_fails_can_be_asked_again(verb: str) -> None:
    size_bytes = SIZES[1]
    for number in range(60):
        disk = MemoryDisk(Random(number))
        store = too_large(disk, size_bytes)
        expected = views(store, Extent(0, size_bytes))
        failed = False
        disk.before_step = fail_at(number, StorageFailure.NO_SPACE, verb)
        try:
            store.shrink(size_bytes)
        except StorageError:
            failed = True
        disk.before_step = no_fault
        if store.broken is not None:
            disk.kill_process()
            store = open_memory(disk, size_bytes, "b-1")
        check_whole(store, size_bytes, expected)
        if not failed and number > 5:
            return
    pytest.fail("it never came to its end")


def test_a_merge_that_is_under_way_begins_again() -> None:
    """It would move blocks from beyond the end."""
    size_bytes = SIZES[0]
    store = too_large(MemoryDisk(Random(1)), size_bytes)
    expected = views(store, Extent(0, size_bytes))
    store.prepare_snapshot()
    merge = store.next_merge()
    assert merge is not None
    merge.step()
    assert merge.extent is not None
    store.shrink(size_bytes)
    merge.step()
    assert merge.extent is None
    assert "a" in store.chain
    while (merge := store.next_merge()) is not None:
        while merge.extent is not None:
            merge.step()
    check_whole(store, size_bytes, expected)


@pytest.mark.parametrize("large_bytes", [LARGE_BYTES, HUGE_BYTES])
def test_files_end_where_the_volume_does(large_bytes: int) -> None:
    disk = MemoryDisk(Random(1))
    store = too_large(disk, SIZES[1], large_bytes=large_bytes)
    expected = views(store, Extent(0, SIZES[1]))
    store.shrink(SIZES[1])
    ends = {name: inode.size_bytes for name, inode in disk.inodes().items() if ".img" in name}
    assert {size for name, size in ends.items() if name.endswith(".img")} == {SIZES[1]}
    assert {size for name, size in ends.items() if name.endswith(".held")} == {9}
    assert {size for name, size in ends.items() if name.endswith(".sums")} == {9 * 8}
    check_whole(store, SIZES[1], expected, large_bytes)


def test_only_a_replica_that_is_brought_up_shrinks_and_never_grows_by_it() -> None:
    store = too_large(MemoryDisk(Random(1)), SIZES[0], "grown")
    shrink = Change(kind=ChangeKind.SHRINK, before=0, after=0, size_bytes=SIZES[0])
    with pytest.raises(ConfigError, match="only a replica that is behind"):
        store.change(attrs.evolve(shrink, after=1))
    for wrong in (LARGE_BYTES + 512, SIZES[0] + 100, 0):
        with pytest.raises(ConfigError):
            store.shrink(wrong)
    assert store.size_bytes == LARGE_BYTES
    store.change(shrink)
    store.change(shrink)
    assert (store.size_bytes, store.lineage.size_bytes) == (SIZES[0], SIZES[0])
