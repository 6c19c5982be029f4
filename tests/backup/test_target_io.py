"""Restoring to files and to new replicas' directories; test_block_device is for real devices."""

from pathlib import Path

import pytest
import trio

from pyjiva.backup import Manifest
from pyjiva.backup.directory_source_io import open_replica
from pyjiva.backup.restore_io import open_backup, restore
from pyjiva.backup.target_io import ThreadTarget, file_target, interrupted_volume_id, replica_target
from pyjiva.errors import BackupError, ConfigError
from tests.backup.worlds import (
    CHUNK_BYTES,
    MemoryObjects,
    Process,
    Volume,
    create,
    ignore,
    open_process,
    snapshot_of,
)

SIZE = 64 * CHUNK_BYTES + 512
CONTENT = (b"1" * 4096 + bytes(30 * 4096) + b"2" * 4096).ljust(SIZE - 512, b"\0") + b"3" * 512


async def backed_up() -> tuple[Process, Manifest, MemoryObjects]:
    """A store with one backup of CONTENT."""
    objects = MemoryObjects(clock=trio.current_time)
    store, volume = open_process(objects), Volume(bytearray(CONTENT))
    volume.snapshot("a")
    assert snapshot_of(volume, "a").size_bytes == SIZE
    return store, await create(store, volume, "a"), objects


async def restore_to(store: Process, manifest: Manifest, target: ThreadTarget) -> None:
    """All of it."""
    await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)


async def test_a_file_is_sparse_and_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    store, manifest, _ = await backed_up()
    file = tmp_path / "disk.img"
    async with file_target(file, SIZE, overwrite=False) as target:
        assert not file.exists()
        await restore_to(store, manifest, target)
    assert file.read_bytes() == CONTENT
    assert file.stat().st_blocks * 512 <= 4 * 4096
    assert not (tmp_path / "disk.img.partial").exists()


async def test_a_file_that_is_there_is_replaced_only_if_asked(tmp_path: Path) -> None:
    store, manifest, _ = await backed_up()
    file = tmp_path / "disk.img"
    file.write_bytes(b"precious")
    with pytest.raises(ConfigError, match="--overwrite"):
        async with file_target(file, SIZE, overwrite=False):
            pass
    assert file.read_bytes() == b"precious"
    async with file_target(file, SIZE, overwrite=True) as target:
        await restore_to(store, manifest, target)
    assert file.read_bytes() == CONTENT


async def test_an_interrupted_file_is_gone_on_with(tmp_path: Path) -> None:
    store, manifest, objects = await backed_up()
    file = tmp_path / "disk.img"
    lost = {key: objects.content.pop(key) for key in sorted(objects.keys("chunks/"))[:1]}
    with pytest.raises(BackupError, match="is missing"):
        async with file_target(file, SIZE, overwrite=False) as target:
            await restore_to(store, manifest, target)
    assert not file.exists()
    partial = tmp_path / "disk.img.partial"
    with partial.open("r+b") as left:  # what a power cut may leave
        left.seek(10 * 4096)
        left.write(b"torn")
    objects.content |= lost
    async with file_target(file, SIZE, overwrite=False) as target:
        await restore_to(store, manifest, target)
    assert file.read_bytes() == CONTENT


async def test_two_restores_to_one_file_are_refused(tmp_path: Path) -> None:
    async with file_target(tmp_path / "f", SIZE, overwrite=False):
        with pytest.raises(ConfigError, match="another process is restoring"):
            async with file_target(tmp_path / "f", SIZE, overwrite=False):
                pass


@pytest.mark.parametrize("place", ["missing/f", "."])
async def test_a_place_that_cannot_be_written_is_one_line(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        async with file_target(tmp_path / place, SIZE, overwrite=place != "."):
            pass


async def new_replica(path: Path, store: Process, manifest: Manifest, volume_id: str = "cd" * 16) -> None:
    """Restore to a replica's directory."""
    async with replica_target(
        path, volume_id=volume_id, replica_id=3, volume_name="new", size_bytes=SIZE, block_size_bytes=512
    ) as target:
        await restore_to(store, manifest, target)


async def test_a_replica_can_be_served_at_once(tmp_path: Path) -> None:
    store, manifest, _ = await backed_up()
    await new_replica(tmp_path / "r", store, manifest)
    with open_replica(tmp_path / "r") as replica:
        assert bytes(replica.read(0, SIZE)) == CONTENT
        state = replica.state
        assert (state.volume_name, state.volume_id, state.replica_id) == ("new", "cd" * 16, 3)
        assert state.written_boot_id == ""
        assert replica.intact
        assert replica.space().used_bytes < 40 * 4096


async def test_an_interrupted_replica_is_gone_on_with(tmp_path: Path) -> None:
    store, manifest, objects = await backed_up()
    lost = {key: objects.content.pop(key) for key in sorted(objects.keys("chunks/"))[:1]}
    with pytest.raises(BackupError, match="is missing"):
        await new_replica(tmp_path / "r", store, manifest)
    assert not (tmp_path / "r").exists()
    assert interrupted_volume_id(tmp_path / "r") == "cd" * 16
    objects.content |= lost
    with pytest.raises(ConfigError, match="belongs to volume"):
        await new_replica(tmp_path / "r", store, manifest, volume_id="ef" * 16)
    await new_replica(tmp_path / "r", store, manifest)
    assert interrupted_volume_id(tmp_path / "r") is None
    with open_replica(tmp_path / "r") as replica:
        assert bytes(replica.read(0, SIZE)) == CONTENT


async def test_a_replica_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    store, manifest, _ = await backed_up()
    await new_replica(tmp_path / "r", store, manifest)
    with pytest.raises(ConfigError, match="is there already"):
        await new_replica(tmp_path / "r", store, manifest)
