"""Changes of a volume's lineage as one replica's store carries them out."""

from random import Random

import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.lineage import NOTHING, Change, ChangeKind
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.chain import CHAIN_FILE
from pyjiva.testing.memory_file import MemoryDisk, fail_at, no_fault

SIZE = 1 << 20
BLOCK = 4096


def reopen(disk: MemoryDisk) -> Store:
    disk.kill_process()
    return Store.open_in(
        disk.open_directory(), ReplicaState("f" * 32, 1, "world", SIZE, 512), boot_id="boot-1"
    )


def change(store: Store, kind: ChangeKind, **fields: object) -> Change:
    before = store.lineage.generation
    number = before + 1 if kind is ChangeKind.CREATE else NOTHING
    return Change(**{"kind": kind, "before": before, "after": before + 1, "number": number, **fields})  # type: ignore[arg-type]


def bring_up(kind: ChangeKind, **fields: object) -> Change:
    return Change(**{"kind": kind, "before": 0, "after": 0, **fields})  # type: ignore[arg-type]


def test_a_snapshot_that_was_deleted_before_it_was_compared_keeps_what_others_show_of_it() -> None:
    """And it is merged away, as any other (campaign seed 204)."""
    disk = MemoryDisk(Random(1))
    store = reopen(disk)
    for number, name in ((1, "a"), (2, "b"), (3, "c")):
        store.change(bring_up(ChangeKind.CREATE, number=number, name=name, whole=False))
    store.change(bring_up(ChangeKind.WHOLE, number=1))
    store.patch("b", Extent(0, BLOCK), (b"x" * BLOCK,))
    store.change(bring_up(ChangeKind.DELETE, number=2))
    assert store.read_at("c", Extent(0, BLOCK)) == b"x" * BLOCK
    store.change(bring_up(ChangeKind.WHOLE, number=3))
    store = reopen(disk)
    assert store.read_at("c", Extent(0, BLOCK)) == b"x" * BLOCK
    while (merge := store.next_merge()) is not None:
        while merge.extent is not None:
            merge.step()
    assert [layer.name for layer in store.chain.layers] == ["a", "c"]
    assert store.read_at("c", Extent(0, BLOCK)) == b"x" * BLOCK
    assert store.read_at("a", Extent(0, BLOCK)) == bytes(BLOCK)


@pytest.mark.parametrize("seed", range(10))
def test_what_was_patched_before_a_flush_failed_is_written_again(seed: int) -> None:
    """The page cache shows it, so whoever compares finds nothing to patch; the disk does not have it."""
    disk = MemoryDisk(Random(seed))
    store = reopen(disk)
    store.change(bring_up(ChangeKind.CREATE, number=1, name="a", whole=False))
    store.patch("a", Extent(0, BLOCK), (b"x" * BLOCK,))
    whole = bring_up(ChangeKind.WHOLE, number=1)
    disk.before_step = fail_at(0, StorageFailure.WRITE_ERROR, "sync volume-head-000.img")  # its name then
    with pytest.raises(StorageError):
        store.change(whole)
    disk.before_step = no_fault
    store = reopen(disk)
    assert store.read_at("a", Extent(0, BLOCK)) == b"x" * BLOCK
    store.change(whole)
    store.flush()
    store.mark_intact()
    disk.power_cut()
    assert reopen(disk).read_at("a", Extent(0, BLOCK)) == b"x" * BLOCK


def test_a_change_that_was_made_before_is_not_made_again() -> None:
    store = reopen(MemoryDisk(Random(1)))
    create = change(store, ChangeKind.CREATE, name="a", created="then")
    store.change(create)
    store.write(0, BLOCK, (b"x" * BLOCK,))
    store.change(create)
    revert = change(store, ChangeKind.REVERT, number=1)
    store.change(revert)
    store.write(0, BLOCK, (b"y" * BLOCK,))
    store.change(revert)
    assert store.read(0, BLOCK) == b"y" * BLOCK
    delete = change(store, ChangeKind.DELETE, number=1)
    store.change(delete)
    store.change(delete)
    grow = change(store, ChangeKind.GROW, size_bytes=2 * SIZE)
    store.change(grow)
    store.change(grow)
    assert (store.size_bytes, store.lineage.snapshots) == (2 * SIZE, ())


@pytest.mark.parametrize("made", list(ChangeKind)[:4])
def test_another_change_of_the_same_generation_is_not_taken_for_it(made: ChangeKind) -> None:
    """Campaign seed 224: a snapshot was answered that the replica did not have."""
    store = reopen(MemoryDisk(Random(1)))
    for name in "ab":
        store.change(change(store, ChangeKind.CREATE, name=name, created="then"))
    changes = {
        ChangeKind.CREATE: change(store, ChangeKind.CREATE, name="c", created="first"),
        ChangeKind.DELETE: change(store, ChangeKind.DELETE, number=1),
        ChangeKind.REVERT: change(store, ChangeKind.REVERT, number=2),
        ChangeKind.GROW: change(store, ChangeKind.GROW, size_bytes=2 * SIZE),
    }
    others = {**changes, made: change(store, ChangeKind.CREATE, name="c", created="second")}
    store.change(changes[made])
    before = store.lineage
    for other in others.values():
        with pytest.raises(ConfigError, match="generation"):
            store.change(other)
    assert store.lineage == before


def test_which_snapshots_there_are_is_unknown_after_a_failure_alone_not_while_one_is_made() -> None:
    """A promise that is asked for while a thread makes one is given (campaign seed 8278: and not after)."""
    disk = MemoryDisk(Random(1))
    store = reopen(disk)
    disk.before_step = lambda _: store.refuse_if_unsure()
    store.change(change(store, ChangeKind.CREATE, name="a"))
    steps: list[str] = []

    def fail_after_the_rename(step: str) -> None:
        steps.append(step)
        if steps[-2:] == [f"rename {CHAIN_FILE}.tmp", "sync directory"]:
            raise StorageError(StorageFailure.WRITE_ERROR, step)

    disk.before_step = fail_after_the_rename
    with pytest.raises(StorageError):
        store.change(change(store, ChangeKind.CREATE, name="b"))
    disk.before_step = no_fault
    with pytest.raises(StorageError, match="start the replica again"):
        store.refuse_if_unsure()
    reopen(disk).refuse_if_unsure()
