"""Restoring to a real block device: a loop device over a file."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from pyjiva.backup.restore_io import open_backup, restore
from pyjiva.backup.target_io import file_target
from pyjiva.errors import ConfigError
from tests.backup.worlds import CHUNK_BYTES, MemoryObjects, Volume, create, ignore, open_process

pytestmark = pytest.mark.real
SIZE = 64 * CHUNK_BYTES
CONTENT = (b"1" * CHUNK_BYTES + bytes(10 * CHUNK_BYTES) + b"2" * CHUNK_BYTES).ljust(SIZE, b"\0")
OLD = b"old" * (2 * SIZE)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A block device, twice as large as the volume, full of something else."""
    losetup = shutil.which("losetup") or shutil.which("losetup", path="/usr/sbin:/sbin")
    if losetup is None:
        pytest.skip("losetup is missing: apt-get install mount")
    file = tmp_path / "disk"
    file.write_bytes(OLD[: 2 * SIZE])
    made = subprocess.run([losetup, "--find", "--show", file], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device can be had here: {made.stderr.strip()}")
    yield Path(made.stdout.strip())
    subprocess.run([losetup, "--detach", made.stdout.strip()], check=True)


def content_of(path: Path) -> bytes:
    """From the device, not the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 2 * SIZE + 1, 0)
    finally:
        os.close(fd)


async def test_a_device_becomes_the_backup_zeros_included(device: Path) -> None:
    store, volume = open_process(MemoryObjects(clock=trio.current_time)), Volume(bytearray(CONTENT))
    volume.snapshot("a")
    manifest = await create(store, volume, "a")
    with pytest.raises(ConfigError, match="all of which will be replaced: say --overwrite"):
        async with file_target(device, SIZE, overwrite=False):
            pass
    async with file_target(device, SIZE, overwrite=True) as target:
        assert target.size_bytes == 2 * SIZE
        await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    assert content_of(device) == CONTENT + OLD[SIZE : 2 * SIZE]


async def test_a_device_that_is_in_use_or_too_small_is_refused(device: Path, tmp_path: Path) -> None:
    fd = os.open(device, os.O_RDONLY | os.O_EXCL)  # as mount(8) holds it
    try:
        with pytest.raises(ConfigError, match="busy"):
            async with file_target(device, SIZE, overwrite=True):
                pass
    finally:
        os.close(fd)
    store, volume = open_process(MemoryObjects(clock=trio.current_time)), Volume(bytearray(3 * SIZE))
    volume.snapshot("a")
    manifest = await create(store, volume, "a")
    with pytest.raises(ConfigError, match="take a larger one"):
        async with file_target(device, manifest.size_bytes, overwrite=True) as target:
            await restore(await open_backup(store, manifest.id), target, rate=None, report=ignore)
    assert content_of(device) == OLD[: 2 * SIZE]
