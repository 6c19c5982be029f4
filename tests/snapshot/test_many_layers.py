"""Ten thousand snapshots: nothing is limited by their number but the open files that the system allows."""

import copy
import time
from random import Random

import attrs

from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.chain import CHAIN_FILE, DATA_SUFFIXES, snapshot_file
from pyjiva.snapshot.chain_file import decode_chain, encode_chain
from pyjiva.snapshot.metadata import VOLUME_META
from pyjiva.sparse import replace_file
from pyjiva.testing import MemoryDisk
from pyjiva.testing.memory_file import PAGE_BYTES
from pyjiva.units import MIB

SNAPSHOTS = 10_000
IDENTITY = ReplicaState("v-1", 1, "demo", 64 * MIB, 512)
SECOND = Extent(2 * 4096, 4096)
PATIENCE_S = 60.0  # everything here takes seconds; what took a square of the number would take minutes


def block(number: int) -> bytes:
    return bytes([number]) * 4096


def change(store: Store, kind: ChangeKind, number: int, name: str = "") -> None:
    generation = store.chain.generation
    store.change(Change(kind=kind, before=generation, after=generation + 1, number=number, name=name))


def disk_with_snapshots() -> MemoryDisk:
    """Of a replica with so many; each but the lowest is a twin of the second: to make them takes an hour."""
    disk = MemoryDisk(Random(1))
    store = Store.open_in(disk.open_directory(), IDENTITY, boot_id="b-1")
    for number in (1, 2):
        store.write(number * 4096, 4096, [block(number)])
        change(store, ChangeKind.CREATE, number, f"s{number}")
        store.tidy()
    store.flush()
    store.mark_clean()
    store.close()
    disk.kill_process()
    chain = decode_chain(bytes(disk.content(CHAIN_FILE)))
    lowest, second = chain.layers
    twins = [
        attrs.evolve(second, name=f"s{n}", parent=f"s{n - 1}", number=n) for n in range(3, SNAPSHOTS + 1)
    ]
    inodes = disk.inodes()
    for twin in twins:
        for suffix in DATA_SUFFIXES:
            inode = copy.deepcopy(inodes[snapshot_file("s2") + suffix])
            disk.change_names({snapshot_file(twin.name) + suffix: inode})
    many = attrs.evolve(
        chain,
        layers=(lowest, second, *twins),
        head_parent=twins[-1].name,
        generation=SNAPSHOTS,
    )
    for name, content in many.metas(IDENTITY.size_bytes, known=chain).items():
        inode = copy.deepcopy(inodes[VOLUME_META])
        inode.put(0, content.ljust(PAGE_BYTES, b"\0"))
        inode.size_bytes = len(content)
        disk.change_names({name: inode})
    directory = disk.open_directory()
    replace_file(directory, CHAIN_FILE, encode_chain(many))
    directory.close()
    disk.kill_process()
    return disk


def test_ten_thousand_snapshots_are_opened_read_through_and_changed() -> None:
    disk = disk_with_snapshots()
    began_at = time.monotonic()
    store = Store.open_in(disk.open_directory(), IDENTITY, boot_id="b-1")
    assert len(store.lineage.snapshots) == SNAPSHOTS
    for number in (1, 2):
        assert store.read(number * 4096, 4096) == block(number)
    assert store.read_at("s1", SECOND) == bytes(4096)
    store.write(2 * 4096, 4096, [block(3)])
    change(store, ChangeKind.CREATE, SNAPSHOTS + 1, "newest")
    change(store, ChangeKind.DELETE, SNAPSHOTS // 2)
    while (merge := store.next_merge()) is not None:
        while merge.extent is not None:
            merge.step()
    assert len(store.chain.layers) == SNAPSHOTS
    assert store.read(2 * 4096, 4096) == block(3)
    assert store.read_at(f"s{SNAPSHOTS}", SECOND) == block(2)
    store.self_check()
    assert time.monotonic() - began_at < PATIENCE_S
