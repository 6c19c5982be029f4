"""Looking whether backups can be restored, and letting the next backup heal what cannot."""

import pytest
import trio.testing

from pyjiva.backup.collect_io import discard_chunks
from pyjiva.backup.manifest import chunk_key
from pyjiva.backup.verify_io import verify
from pyjiva.errors import ConfigError
from tests.backup.worlds import CHUNK_BYTES, MemoryObjects, Volume, create, ignore, open_process, restored


def volume_of(*values: int) -> Volume:
    """A chunk for each value, and the snapshot `a`."""
    volume = Volume(bytearray(b"".join(bytes([value]) * CHUNK_BYTES for value in values)))
    volume.snapshot("a")
    return volume


async def test_whole_backups_have_no_problem(autojump_clock: trio.testing.MockClock) -> None:
    store = open_process(MemoryObjects())
    volume = volume_of(1, 2, 3)
    first = await create(store, volume, "a")
    await create(store, volume, "a")
    found = await verify(store, (), quick=False, rate=None, report=ignore)
    assert (found.backups, found.chunks, found.problems) == (2, 3, ())
    found = await verify(store, [first.id], quick=False, rate=None, report=ignore)
    assert (found.backups, found.chunks) == (1, 3)


@pytest.mark.parametrize("damage", [None, b"", b"PJBK", b"x" * 100])
async def test_a_bad_chunk_is_found_with_every_backup_that_has_it(
    damage: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    objects = MemoryObjects()
    store = open_process(objects)
    first = await create(store, volume_of(1, 2), "a")
    shared = chunk_key(store.keys.name_of(b"\1" * CHUNK_BYTES))
    second = await create(store, volume_of(1, 3), "a", full=True)
    third = await create(store, volume_of(2, 3), "a", full=True)
    if damage is None:
        objects.delete(shared)
    else:
        objects.put(shared, damage)
    found = await verify(store, (), quick=False, rate=None, report=ignore)
    assert [(set(problem.backups), problem.chunk) for problem in found.problems] == [
        ({first.id, second.id}, shared)
    ]
    assert shared in found.problems[0].what
    assert not (await verify(store, [third.id], quick=False, rate=None, report=ignore)).problems
    quick = await verify(store, (), quick=True, rate=None, report=ignore)
    assert [problem.chunk for problem in quick.problems] == ([shared] if damage is None else [])


@pytest.mark.parametrize("prefix", ["tables/", "manifests/"])
async def test_a_bad_table_or_manifest_is_found(prefix: str, autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    store = open_process(objects)
    manifest = await create(store, volume_of(1), "a")
    objects.put(prefix + manifest.id, b"damaged")
    found = await verify(store, (), quick=True, rate=None, report=ignore)
    assert len(found.problems) == 1
    assert prefix + manifest.id in found.problems[0].what


async def test_a_discarded_chunk_is_stored_again_by_the_next_backup(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    store, volume = open_process(objects), volume_of(1, 2)
    first = await create(store, volume, "a")
    objects.put(min(objects.keys("chunks/")), b"rot")
    found = await verify(store, (), quick=False, rate=None, report=ignore)
    await discard_chunks(store, [problem.chunk for problem in found.problems])
    volume.snapshot("b")
    await create(store, volume, "b")
    assert not (await verify(store, (), quick=False, rate=None, report=ignore)).problems
    assert await restored(store, first.id) == volume.snapshots["a"][0]


async def test_a_backup_that_is_not_there_is_named(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ConfigError, match="has no backup 20260101T000000Z-00000000"):
        await verify(
            open_process(MemoryObjects()), ["20260101T000000Z-00000000"], quick=True, rate=None, report=ignore
        )
