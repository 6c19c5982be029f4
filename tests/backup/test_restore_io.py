"""Reading a backup anywhere, restoring all of it, and refusing what is not what it was."""

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.backup import Manifest, Progress
from pyjiva.backup.envelope import Kind, wrap
from pyjiva.backup.manifest import chunk_key
from pyjiva.backup.restore_io import open_backup, restore
from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent
from tests.backup.worlds import (
    CHUNK_BYTES,
    DeadError,
    MemoryObjects,
    MemoryTarget,
    Mortal,
    Process,
    Volume,
    create,
    ignore,
    open_process,
    restored,
)

SIZE = 9 * CHUNK_BYTES + 512
CONTENT = b"".join(bytes([n % 4 and n + 1]) * CHUNK_BYTES for n in range(9)) + b"e" * 512


async def backed_up(objects: MemoryObjects) -> tuple[Process, Manifest]:
    """A store with one backup of CONTENT."""
    store, volume = open_process(objects), Volume(bytearray(CONTENT))
    volume.snapshot("a")
    return store, await create(store, volume, "a")


@given(offset=st.integers(0, SIZE), length=st.integers(0, SIZE))
def test_any_part_can_be_read_without_the_rest(offset: int, length: int) -> None:
    async def play() -> None:
        objects = MemoryObjects()
        store, manifest = await backed_up(objects)
        backup = await open_backup(store, manifest.id)
        extent = Extent(offset, min(length, SIZE - offset))
        calls = store.calls
        assert await backup.read(extent) == CONTENT[offset : extent.end_bytes]
        assert store.calls - calls <= extent.length_bytes // CHUNK_BYTES + 2

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_read_beyond_the_end_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    store, manifest = await backed_up(MemoryObjects())
    backup = await open_backup(store, manifest.id)
    with pytest.raises(ConfigError, match=f"has {SIZE} bytes"):
        await backup.read(Extent(SIZE - 1, 2))


async def test_what_is_zeros_is_not_written(autojump_clock: trio.testing.MockClock) -> None:
    store, manifest = await backed_up(MemoryObjects())
    target = MemoryTarget(bytearray(SIZE))
    await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    assert bytes(target.content) == CONTENT
    assert sorted(e.offset_bytes // CHUNK_BYTES for e in target.writes) == [1, 2, 3, 5, 6, 7, 9]


async def test_a_target_that_holds_something_becomes_the_backup(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, manifest = await backed_up(MemoryObjects())
    target = MemoryTarget(bytearray(CONTENT[: 4 * CHUNK_BYTES] + b"x" * (SIZE + 100 - 4 * CHUNK_BYTES)))
    said: list[Progress] = []
    await restore(await open_backup(store, manifest.id), target, rate=None, report=said.append)
    assert bytes(target.content) == CONTENT + b"x" * 100
    assert min(e.offset_bytes for e in target.writes) == 5 * CHUNK_BYTES
    assert said[-1].done_bytes == said[-1].total_bytes


async def test_an_interrupted_restore_goes_on_where_it_was(autojump_clock: trio.testing.MockClock) -> None:
    objects = MemoryObjects()
    store, manifest = await backed_up(objects)
    key = chunk_key(store.keys.name_of(CONTENT[6 * CHUNK_BYTES : 7 * CHUNK_BYTES]))
    kept = objects.content.pop(key)
    target = MemoryTarget(bytearray(SIZE))
    with pytest.raises(BackupError, match="is missing"):
        await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    objects.content[key] = kept
    done = set(target.writes)
    target.writes.clear()
    await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    assert not done & set(target.writes)
    assert bytes(target.content) == CONTENT


async def test_a_target_that_is_too_small_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    store, manifest = await backed_up(MemoryObjects())
    with pytest.raises(ConfigError, match="take a larger one"):
        await restore(
            await open_backup(store, manifest.id), MemoryTarget(bytearray(SIZE - 1)), rate=None, report=ignore
        )


class Forgetful(MemoryTarget):
    """Loses a byte when it is flushed."""

    async def flush(self) -> None:
        """See RestoreTarget."""
        await super().flush()
        self.content[self.lost] ^= 1

    lost = 0


@pytest.mark.parametrize(("lost", "chunk"), [(0, 0), (CHUNK_BYTES + 5, 1), (SIZE - 1, 9)])
async def test_a_target_that_gives_back_other_bytes_is_found(
    lost: int, chunk: int, autojump_clock: trio.testing.MockClock
) -> None:
    store, manifest = await backed_up(MemoryObjects())
    target = Forgetful(bytearray(SIZE))
    Forgetful.lost = lost
    with pytest.raises(BackupError, match=f"gives back other bytes.*offset {chunk * CHUNK_BYTES}"):
        await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "swapped", "empty"])
@pytest.mark.parametrize("prefix", ["chunks/", "tables/", "manifests/"])
async def test_what_is_not_what_it_was_is_refused_by_name(
    prefix: str, damage: str, autojump_clock: trio.testing.MockClock
) -> None:
    objects = MemoryObjects()
    store, manifest = await backed_up(objects)
    key, *others = sorted(objects.keys(prefix))
    content = objects.get(key)
    if damage == "missing":
        objects.delete(key)
    else:
        other = objects.get(others[0] if others else min(objects.keys("chunks/")))
        changed = {
            "cut": content[:-5],
            "flipped": content[:20] + bytes([content[20] ^ 4]) + content[21:],
            "swapped": other,
            "empty": b"",
        }
        objects.put(key, changed[damage])
    target = MemoryTarget(bytearray(SIZE))
    with pytest.raises((BackupError, ConfigError)) as caught:
        await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    missing_backup = prefix == "manifests/" and damage == "missing"
    assert (f"has no backup {manifest.id}" if missing_backup else key) in str(caught.value)


async def test_a_backup_can_be_read_while_another_one_is_killed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    objects = MemoryObjects()
    store, manifest = await backed_up(objects)
    other = Volume(bytearray(b"z" * SIZE))
    other.snapshot("b")
    with pytest.raises(DeadError):
        await create(open_process(Mortal(objects, dies_at=4)), other, "b")
    assert await restored(store, manifest.id) == CONTENT


@pytest.mark.parametrize("content", [b"x" * CHUNK_BYTES, b"short"])
async def test_a_chunk_whose_envelope_is_right_and_its_content_is_not_is_refused(
    content: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    objects = MemoryObjects()
    store, manifest = await backed_up(objects)
    key = min(objects.keys("chunks/"))
    objects.put(key, wrap(Kind.CHUNK, key, content, None, b""))
    with pytest.raises(BackupError, match="its content is another one's"):
        await restored(store, manifest.id)
