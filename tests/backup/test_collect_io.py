"""Giving space back, and refusing to when it cannot be said what is needed."""

import time

import attrs
import pytest
import trio
import trio.testing

from pyjiva.backup.collect_io import Collected, collect
from pyjiva.backup.lock_io import BusyError
from pyjiva.backup.locks import TRUST_S
from pyjiva.errors import BackupError
from tests.backup.worlds import (
    CHUNK_BYTES,
    DeadError,
    MemoryObjects,
    Mortal,
    Volume,
    create,
    open_process,
    restored,
)


def volume_of(*values: int) -> Volume:
    """A chunk for each value, and the snapshot `a`."""
    volume = Volume(bytearray(b"".join(bytes([value]) * CHUNK_BYTES for value in values)))
    volume.snapshot("a")
    return volume


async def test_only_what_no_backup_has_goes(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    store = open_process(objects)
    first = await create(store, volume_of(1, 2, 3), "a")
    second = await create(store, volume_of(3, 4), "a", full=True)
    assert await collect(store) == Collected(0, 0)
    await store.delete_backup(first.id)
    sizes = {listed.key: listed.size_bytes for listed in objects.list("chunks/")}
    collected = await collect(store)
    assert collected.chunks == 2
    assert collected.freed_bytes == sum(sizes[key] for key in set(sizes) - objects.keys("chunks/"))
    assert await restored(store, second.id) == bytes([3]) * CHUNK_BYTES + bytes([4]) * CHUNK_BYTES


@pytest.mark.parametrize("prefix", ["manifests/", "tables/"])
async def test_nothing_goes_while_a_backup_cannot_be_read(
    prefix: str, autojump_clock: trio.testing.MockClock
) -> None:
    objects = MemoryObjects()
    store = open_process(objects)
    first = await create(store, volume_of(1), "a")
    second = await create(store, volume_of(2), "a", full=True)
    await store.delete_backup(second.id)
    objects.put(prefix + first.id, b"damaged")
    with pytest.raises(BackupError, match="no chunk was removed"):
        await collect(store)
    assert len(objects.keys("chunks/")) == 2
    await store.delete_backup(first.id)
    assert (await collect(store)).chunks == 2


@attrs.define(eq=False)
class StandsStill(MemoryObjects):
    """A collector's process is stopped for hours at its first removal of a chunk."""

    now_s: float = 0.0

    def delete(self, key: str) -> None:
        """See Objects."""
        super().delete(key)
        if key.startswith("chunks/"):
            self.now_s += TRUST_S + 1


async def test_a_collection_that_stood_still_removes_nothing_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = StandsStill()
    store = open_process(objects)
    store.clock = lambda: objects.now_s
    await store.delete_backup((await create(store, volume_of(*range(1, 20)), "a")).id)
    with pytest.raises(BackupError, match="stood still"):
        await collect(store)
    assert len(objects.keys("chunks/")) == 18


async def test_foreign_files_are_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    objects.put("chunks/README", b"not ours")
    await collect(open_process(objects))
    assert objects.keys("chunks/") == {"chunks/README"}


async def test_chunks_of_an_interrupted_backup_stay_for_a_week(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    now = [0.0]
    objects.clock = lambda: now[0]
    open_process(objects)
    with pytest.raises(DeadError):
        await create(
            open_process(Mortal(objects, dies_at=30), process="killed"),
            volume_of(*range(1, 40)),
            "a",
            checkpoint_bytes=CHUNK_BYTES,
        )
    for key, (content, _) in list(objects.content.items()):
        objects.content[key] = (content, time.time() - 6 * 86400)
    chunks = objects.keys("chunks/")
    store = open_process(objects, dead=lambda name: name == "killed")
    await collect(store)
    kept = objects.keys("chunks/")
    assert len(kept) >= len(chunks) - 9  # what was stored after the last checkpoint
    for key, (content, _) in list(objects.content.items()):
        objects.content[key] = (content, time.time() - 8 * 86400)
    await collect(store)
    assert not objects.keys("chunks/")
    assert not objects.keys("unfinished/")


async def test_a_collection_gives_way_to_a_backup(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    collector = open_process(objects)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(create, open_process(objects, call_s_max=5.0), volume_of(1, 2, 3), "a")
        await trio.sleep(10)
        with pytest.raises(BusyError, match="another process makes a backup, since"):
            await collect(collector)
    assert not objects.keys("locks/")
