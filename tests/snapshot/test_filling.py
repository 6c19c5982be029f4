"""A layer that is being filled is flushed, and doubted after a power cut, wherever it is in the chain."""

from random import Random
from typing import Any

import pytest

from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import Store
from pyjiva.testing import MemoryDisk
from tests.checkup.replicas import look
from tests.snapshot.stacks import BLOCK, open_memory


def do(store: Store, kind: ChangeKind, **fields: Any) -> None:
    """A change, as all replicas of a volume are asked to make it."""
    before = store.chain.generation
    store.change(Change(kind=kind, before=before, after=before + 1, **fields))
    store.tidy()


def filling(disk: MemoryDisk, where: str) -> Store:
    """A store in which the snapshot "a" is being filled."""
    store = open_memory(disk)
    if where == "above another one":
        store.write(0, BLOCK, [b"o" * BLOCK])
        store.flush()
        do(store, ChangeKind.CREATE, number=1, name="o")
        do(store, ChangeKind.DELETE, number=1)
        do(store, ChangeKind.CREATE, number=2, name="a", filling=True, whole=False)
        do(store, ChangeKind.WHOLE, number=2)
    else:
        do(store, ChangeKind.CREATE, number=1, name="a", filling=True)
    if where == "beside the head":
        do(store, ChangeKind.REVERT, number=0, keep_newer=True)
    return store


PLACES = pytest.mark.parametrize("where", ["below the head", "above another one", "beside the head"])


@PLACES
def test_what_it_was_given_is_there_after_a_clean_stop_and_a_power_cut(where: str) -> None:
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        store = filling(disk, where)
        store.patch("a", Extent(0, BLOCK), [b"f" * BLOCK])
        store.flush()
        assert store.mark_clean()
        disk.power_cut()
        store = open_memory(disk, "b-2")
        assert store.intact
        assert store.chain.layer("a").whole
        assert store.read_at("a", Extent(0, BLOCK)) == b"f" * BLOCK


@PLACES
def test_no_block_of_it_is_refused_after_a_power_cut_and_the_check_says_so(where: str) -> None:
    unknown = 0
    for seed in range(20):
        disk = MemoryDisk(Random(seed))
        store = filling(disk, where)
        for again in range(3):
            for block in range(4):
                data = Random(again * 10 + block).randbytes(BLOCK)
                store.patch("a", Extent(block * BLOCK, BLOCK), [data])
        disk.power_cut()
        found = [each.data for each in look(disk, boot_id="b-2").layers if each.name == "a"]
        assert found[0] is not None
        assert found[0].bad == ()
        unknown += found[0].unknown_blocks
        store = open_memory(disk, "b-2")
        assert not store.chain.layer("a").whole
        for block in range(4):
            try:
                seen = store.read_at("a", Extent(block * BLOCK, BLOCK))
            except StorageError as error:
                pytest.fail(str(error))
            if where == "above another one":
                assert seen == (bytes(BLOCK) if block else b"o" * BLOCK), "what is below shows again"
    # Where it has a map, what the disk does not know to be held is gone from it.
    assert bool(unknown) == (where != "above another one")
