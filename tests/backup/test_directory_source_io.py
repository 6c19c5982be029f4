"""A snapshot of a replica's directory as a source."""

from pathlib import Path

import pytest

from pyjiva.backup.directory_source_io import DirectorySource, open_replica
from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.snapshot import Store

SIZE = 1 << 20


def replica(path: Path, *, witness: bool = False) -> Store:
    """A replica, made if it is not there."""
    return Store.open_or_create(
        path,
        volume_id="ab" * 16,
        replica_id=2,
        volume_name="demo",
        size_bytes=SIZE,
        block_size_bytes=512,
        witness=witness,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One with the snapshots `a` and `b`."""
    store = replica(tmp_path / "r")
    store.write(0, 4096, (b"1" * 4096,))
    store.create_snapshot("a", created="2026-01-01T00:00:00Z")
    store.write(65536, 8192, (b"2" * 8192,))
    store.create_snapshot("b", created="2026-01-02T00:00:00Z")
    store.write(0, 4096, (b"3" * 4096,))
    store.create_snapshot("gone")
    store.delete_snapshot("gone")
    store.flush()
    store.close()
    return tmp_path / "r"


async def test_it_is_the_volume_as_of_the_snapshot(directory: Path) -> None:
    with open_replica(directory) as store:
        source = DirectorySource.of(store, "b")
        assert (source.volume_name, source.volume_id, source.size_bytes) == ("demo", "ab" * 16, SIZE)
        assert (source.block_size_bytes, source.created) == (512, "2026-01-02T00:00:00Z")
        assert await source.snapshots() == {"a": "2026-01-01T00:00:00Z", "b": "2026-01-02T00:00:00Z"}
        assert await source.changed("a") == [Extent(65536, 8192)]
        assert await source.changed(None) == [Extent(0, 4096), Extent(65536, 8192)]
        assert await source.read(Extent(0, 8192)) == b"1" * 4096 + bytes(4096)


@pytest.mark.parametrize("name", ["gone", "never"])
def test_a_snapshot_that_is_not_there_is_refused(name: str, directory: Path) -> None:
    with open_replica(directory) as store, pytest.raises(ConfigError, match=name):
        DirectorySource.of(store, name)


def test_a_directory_that_is_served_or_none_is_refused(directory: Path, tmp_path: Path) -> None:
    store = replica(directory)
    with pytest.raises(ConfigError, match="another process has it open"), open_replica(directory):
        pass
    store.close()
    with pytest.raises(ConfigError, match="not the directory of a pyjiva replica"), open_replica(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [directory]
    replica(tmp_path / "w", witness=True).close()
    with pytest.raises(ConfigError, match="holds no data"), open_replica(tmp_path / "w"):
        pass
