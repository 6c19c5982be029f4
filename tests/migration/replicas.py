"""pyjiva replicas with snapshots, for tests of exports."""

from contextlib import closing
from pathlib import Path
from typing import Final

from pyjiva.extent import Extent
from pyjiva.migration import open_replica
from pyjiva.snapshot import Store
from pyjiva.snapshot.chain import HEAD
from pyjiva.testing.foreign_directory import SECTOR_BYTES
from tests.migration.volumes import sector

__all__ = ["SIZE_BYTES", "contents", "flip", "make_replica"]

SIZE_BYTES: Final = 64 * SECTOR_BYTES


def make_replica(path: Path, size_bytes: int = SIZE_BYTES) -> dict[str, bytes]:
    """Snapshots a and b, a deleted one, blocks unmapped above a snapshot; what each of them shows."""
    store = Store.open_or_create(
        path, volume_id="v-1", replica_id=1, volume_name="v", size_bytes=size_bytes, block_size_bytes=512
    )
    with closing(store):
        for number in (0, 1, 2, 3, 40):
            store.write(number * SECTOR_BYTES, SECTOR_BYTES, [sector(number)])
        store.create_snapshot("a")
        store.zero(SECTOR_BYTES, 2 * SECTOR_BYTES)
        store.write(3 * SECTOR_BYTES, SECTOR_BYTES, [bytes(SECTOR_BYTES)])
        store.write(5 * SECTOR_BYTES + 512, 512, [sector(50, 512)])
        store.create_snapshot("gone")
        store.write(6 * SECTOR_BYTES, SECTOR_BYTES, [sector(6)])
        store.create_snapshot("b")
        store.delete_snapshot("gone")
        store.write(2 * SECTOR_BYTES, SECTOR_BYTES, [sector(22)])
        store.zero(6 * SECTOR_BYTES, SECTOR_BYTES)
        store.zero(40 * SECTOR_BYTES, SECTOR_BYTES)
        store.flush()
        assert store.mark_clean()
    return contents(path)


def contents(path: Path) -> dict[str, bytes]:
    """What a replica shows: every snapshot, and the head as ""."""
    with closing(open_replica(path)) as store:
        whole = Extent(0, store.size_bytes)
        shown = {
            each.name: bytes(store.read_at(each.name, whole))
            for each in store.chain.layers
            if not each.removed
        }
        return shown | {HEAD: bytes(store.read(0, store.size_bytes))}


def flip(file: Path, offset_bytes: int) -> None:
    """Let a bit rot."""
    with file.open("r+b") as opened:
        opened.seek(offset_bytes)
        byte = opened.read(1)[0]
        opened.seek(offset_bytes)
        opened.write(bytes((byte ^ 4,)))
