"""What a backup reads, stores and leaves behind."""

import attrs
import pytest
import trio
import trio.testing

from pyjiva.backup import Progress
from pyjiva.backup.create_io import CreateOptions, create_backup
from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent
from tests.backup.worlds import (
    CHUNK_BYTES,
    SECRET,
    DeadError,
    MemoryObjects,
    MemorySource,
    Mortal,
    Volume,
    create,
    open_process,
    restored,
    snapshot_of,
)

CHUNKS = 10


def filled(chunks: int = CHUNKS) -> Volume:
    """A volume whose chunks all differ, with the snapshot `a`."""
    volume = Volume(bytearray(b"".join(bytes([n + 1]) * CHUNK_BYTES for n in range(chunks))))
    volume.snapshot("a")
    return volume


def indices(volume: Volume) -> list[int]:
    """The chunks that were read since last asked."""
    found = sorted(extent.offset_bytes // CHUNK_BYTES for extent in volume.reads)
    volume.reads.clear()
    return found


async def test_only_what_has_changed_is_read_and_stored(autojump_clock: trio.testing.MockClock) -> None:
    store, volume = open_process(MemoryObjects()), filled()
    first = await create(store, volume, "a")
    assert indices(volume) == list(range(CHUNKS))
    volume.content[3 * CHUNK_BYTES] = 99
    volume.content[7 * CHUNK_BYTES : 8 * CHUNK_BYTES] = bytes(CHUNK_BYTES)
    volume.snapshot("b")
    second = await create(store, volume, "b")
    assert indices(volume) == [3, 7]
    assert (second.base, second.chunks) == (first.id, CHUNKS - 1)
    assert 0 < second.stored_bytes < first.stored_bytes / 5
    for manifest, name in ((first, "a"), (second, "b")):
        assert await restored(store, manifest.id) == volume.snapshots[name][0]


async def test_the_same_content_is_stored_once(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    store = open_process(objects)
    volume = Volume(bytearray(b"x" * CHUNK_BYTES * CHUNKS))
    volume.snapshot("a")
    await create(store, volume, "a")
    other = Volume(bytearray(b"x" * CHUNK_BYTES))
    other.snapshot("a")
    await create(store, other, "a", full=True)
    assert len(objects.keys("chunks/")) == 1


async def test_zeros_take_nothing(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    volume = Volume(bytearray(CHUNK_BYTES * CHUNKS))
    volume.snapshot("a")
    manifest = await create(open_process(objects), volume, "a")
    assert (manifest.chunks, manifest.read_bytes) == (0, 0)
    assert not objects.keys("chunks/")


async def test_a_snapshot_that_only_has_the_name_of_the_base_is_not_compared_with(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, volume = open_process(MemoryObjects()), filled()
    await create(store, volume, "a")
    volume.content[0:3] = b"new"
    volume.snapshot("a")  # another one
    volume.snapshot("b")
    second = await create(store, volume, "b")
    assert second.base == ""
    assert await restored(store, second.id) == bytes(volume.content)


async def test_what_the_store_has_lost_is_read_again(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    store, volume = open_process(objects), filled()
    await create(store, volume, "a")
    objects.delete(min(objects.keys("chunks/")))
    indices(volume)
    volume.snapshot("b")
    second = await create(store, volume, "b")
    assert len(indices(volume)) == 1
    assert await restored(store, second.id) == bytes(volume.content)


async def test_a_base_without_its_table_gives_way_to_an_older_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    store, volume = open_process(objects), filled()
    first = await create(store, volume, "a")
    volume.snapshot("b")
    second = await create(store, volume, "b")
    objects.delete(f"tables/{second.id}")
    volume.snapshot("c")
    assert (await create(store, volume, "c")).base == first.id


async def test_an_interrupted_backup_goes_on_where_it_was(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    volume = filled(60)
    open_process(objects)
    process = open_process(Mortal(objects, dies_at=45), process="first")
    with pytest.raises(DeadError):
        await create(process, volume, "a", checkpoint_bytes=4 * CHUNK_BYTES)
    assert len(objects.keys("unfinished/")) == 1
    before = indices(volume)
    store = open_process(objects, process="second", dead=lambda name: name == "first")
    manifest = await create(store, volume, "a")
    again = indices(volume)
    assert min(again) >= 20
    assert set(before) | set(again) == set(range(60))
    assert await restored(store, manifest.id) == bytes(volume.content)
    assert not objects.keys("unfinished/")


async def test_a_backup_that_is_cancelled_keeps_how_far_it_was(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    volume = filled(60)
    with trio.move_on_after(40):
        await create(open_process(objects, call_s_max=5.0), volume, "a")
    assert len(objects.keys("unfinished/")) == 1
    assert not objects.keys("locks/")
    read = len(indices(volume))
    await create(open_process(objects), volume, "a")
    assert len(indices(volume)) < 60 - read / 2


async def test_progress_goes_from_nothing_to_everything(autojump_clock: trio.testing.MockClock) -> None:
    said: list[Progress] = []
    options = CreateOptions()
    await create_backup(open_process(MemoryObjects()), snapshot_of(filled(), "a"), options, said.append)
    total = CHUNKS * CHUNK_BYTES
    assert [one.done_bytes for one in said] == [n * CHUNK_BYTES for n in range(CHUNKS + 1)]
    assert {one.total_bytes for one in said} == {total}


async def test_the_rate_holds(autojump_clock: trio.testing.MockClock) -> None:
    options = CreateOptions(rate=CHUNK_BYTES)
    start_s = trio.current_time()
    await create_backup(open_process(MemoryObjects()), snapshot_of(filled(60), "a"), options, lambda _: None)
    assert 55 < trio.current_time() - start_s < 62


@attrs.define(eq=False)
class TakenForDead(MemoryObjects):
    """While the manifest is on its way, a collector takes its maker for dead, and the chunks with it."""

    def put(self, key: str, content: bytes) -> None:
        """See Objects."""
        if key.startswith("manifests/"):
            for gone in self.keys("locks/") | self.keys("chunks/"):
                self.delete(gone)
        super().put(key, content)


async def test_a_backup_whose_maker_was_taken_for_dead_is_withdrawn(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = TakenForDead()
    with pytest.raises(BackupError, match="stood still for too long"):
        await create(open_process(objects), filled(), "a")
    assert not objects.keys("manifests/") | objects.keys("tables/")


class Unreadable(MemorySource):
    """Nothing of it can be read."""

    async def read(self, extent: Extent) -> bytes:
        """See SnapshotSource."""
        raise BackupError(f"{extent} cannot be read")


async def test_a_source_that_cannot_be_read_leaves_no_backup(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    volume = filled()
    source = Unreadable(volume, "a", "today", bytes(volume.content))
    with pytest.raises(BackupError, match="cannot be read"):
        await create_backup(open_process(objects), source, CreateOptions(), lambda _: None)
    assert not objects.keys("manifests/")
    assert not objects.keys("locks/")


async def test_a_volume_whose_table_would_not_fit_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    source = Huge(filled(), "a", "today", b"")
    with pytest.raises(ConfigError, match="chunks of 4KiB are too small for a volume of 1TiB"):
        await create_backup(open_process(MemoryObjects()), source, CreateOptions(), lambda _: None)


class Huge(MemorySource):
    """As if it was large."""

    @property
    def size_bytes(self) -> int:
        """See SnapshotSource."""
        return 1 << 40


async def test_an_encrypted_store_shows_nothing_of_the_content(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    volume = Volume(bytearray(b"a secret of the host's".ljust(CHUNK_BYTES, b".")))
    volume.snapshot("a-secret-name")
    manifest = await create(open_process(objects, secret=SECRET), volume, "a-secret-name")
    assert not any(b"secret" in content for content, _ in objects.content.values())
    plain = MemoryObjects()
    await create(open_process(plain), volume, "a-secret-name")
    assert not plain.keys("chunks/") & objects.keys("chunks/")
    assert await restored(open_process(objects, secret=SECRET), manifest.id) == bytes(volume.content)
    with pytest.raises(ConfigError, match="not its key"):
        open_process(objects, secret=b"another")
