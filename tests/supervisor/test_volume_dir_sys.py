"""The directory of a volume: made once, recognized again, and never taken for something else."""

from pathlib import Path
from typing import Any

import attrs
import pytest

from pyjiva.errors import ConfigError, StorageError
from pyjiva.supervisor import VolumeDirectory, VolumeRequest

MIB = 1024 * 1024
REQUEST = VolumeRequest("demo", 4 * MIB, 512, 3)


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file's content."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_it_is_made_once_and_found_again(tmp_path: Path) -> None:
    assert not VolumeDirectory.exists(tmp_path, "demo")
    with VolumeDirectory.open_or_create(tmp_path, REQUEST) as first:
        first.change(born=True, data_ports=(1, 2, 3))
    with VolumeDirectory.open_or_create(tmp_path, REQUEST) as second:
        assert second.description == first.description
        assert second.description.born
        assert second.key_file.stat().st_mode & 0o777 == 0o600
        assert len(bytes.fromhex(second.key_file.read_text())) == 32
    assert VolumeDirectory.exists(tmp_path, "demo")


def test_two_volumes_have_different_ids_and_keys(tmp_path: Path) -> None:
    with (
        VolumeDirectory.open_or_create(tmp_path, attrs.evolve(REQUEST, name="one")) as one,
        VolumeDirectory.open_or_create(tmp_path, attrs.evolve(REQUEST, name="two")) as two,
    ):
        assert one.description.volume_id != two.description.volume_id
        assert one.key_file.read_text() != two.key_file.read_text()


@pytest.mark.parametrize(
    "change", [{"size_bytes": 8 * MIB}, {"block_size_bytes": 4096}, {"replicas": 2}], ids=str
)
def test_another_volume_than_asked_for_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    VolumeDirectory.open_or_create(tmp_path, REQUEST).close()
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match="asked for"):
        VolumeDirectory.open_or_create(tmp_path, attrs.evolve(REQUEST, **change))
    assert snapshot(tmp_path) == before


def test_a_renamed_directory_is_another_volume(tmp_path: Path) -> None:
    """Its replicas and its initiators know it by the old name."""
    VolumeDirectory.open_or_create(tmp_path, REQUEST).close()
    (tmp_path / "demo").rename(tmp_path / "other")
    with pytest.raises(ConfigError, match="name demo, asked for was other"):
        VolumeDirectory.open_or_create(tmp_path, attrs.evolve(REQUEST, name="other"))


def test_a_second_user_is_kept_out(tmp_path: Path) -> None:
    with (
        VolumeDirectory.open_or_create(tmp_path, REQUEST),
        pytest.raises(ConfigError, match="another process"),
    ):
        VolumeDirectory.open_or_create(tmp_path, REQUEST)
    VolumeDirectory.open_or_create(tmp_path, REQUEST).close()


@pytest.mark.parametrize(
    "plant",
    [
        {"photo.jpg": b"mine"},
        {"replica-1/pyjiva.json": b"{}"},
        {"volume.json": b"{}", "volume.key": b"00"},
        {"volume.json": b"", "volume.key": b"00"},
    ],
    ids=lambda plant: next(iter(plant)),
)
def test_a_foreign_or_damaged_directory_is_not_touched(plant: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in plant.items():
        path = tmp_path / "demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        VolumeDirectory.open_or_create(tmp_path, REQUEST)
    assert snapshot(tmp_path) == before


def test_what_a_power_cut_left_of_its_making_is_made_whole(tmp_path: Path) -> None:
    """The key comes first: without volume.json nobody has used it."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "volume.key").write_bytes(b"half")
    (tmp_path / "demo" / "volume.json.tmp").write_bytes(b"{")
    with VolumeDirectory.open_or_create(tmp_path, REQUEST) as directory:
        assert len(bytes.fromhex(directory.key_file.read_text())) == 32
    assert sorted(snapshot(tmp_path)) == ["demo/volume.json", "demo/volume.key"]


def test_a_lost_key_is_not_made_anew(tmp_path: Path) -> None:
    VolumeDirectory.open_or_create(tmp_path, REQUEST).close()
    (tmp_path / "demo" / "volume.key").unlink()
    with pytest.raises(ConfigError, match=r"volume\.key is missing"):
        VolumeDirectory.open_or_create(tmp_path, REQUEST)


@pytest.mark.parametrize("data", ["file", "/proc/pyjiva"])
def test_where_no_directory_can_be_it_says_so(data: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises((ConfigError, StorageError), match="demo"):
        VolumeDirectory.open_or_create(tmp_path / data, REQUEST)
    assert (tmp_path / "file").read_bytes() == b"mine"
