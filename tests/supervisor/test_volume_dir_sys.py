"""The directory of a volume: made once, recognized again, and never taken for something else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError
from pyjiva.supervisor import VolumeDirectory

MIB = 1024 * 1024
SAME: dict[str, Any] = {"size_bytes": 4 * MIB, "block_size_bytes": 512, "replicas": 3}


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file's content."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_it_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    first.change(born=True, data_ports=(1, 2, 3))
    description = first.description
    first.close()
    second = VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    assert second.description == description
    assert second.key_file.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(second.key_file.read_text())) == 32
    second.close()


def test_two_volumes_have_different_ids_and_keys(tmp_path: Path) -> None:
    one = VolumeDirectory.open_or_create(tmp_path, "one", **SAME)
    two = VolumeDirectory.open_or_create(tmp_path, "two", **SAME)
    assert one.description.volume_id != two.description.volume_id
    assert one.key_file.read_text() != two.key_file.read_text()


@pytest.mark.parametrize(
    "change", [{"size_bytes": 8 * MIB}, {"block_size_bytes": 4096}, {"replicas": 2}], ids=str
)
def test_another_volume_than_asked_for_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    VolumeDirectory.open_or_create(tmp_path, "demo", **SAME).close()
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError, match="asked for"):
        VolumeDirectory.open_or_create(tmp_path, "demo", **(SAME | change))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "size", "block", "replicas"),
    [
        ("", 4096, 512, 3),
        ("Upper", 4096, 512, 3),
        ("a/b", 4096, 512, 3),
        ("..", 4096, 512, 3),
        ("-a", 4096, 512, 3),
        ("a" * 64, 4096, 512, 3),
        ("demo", 0, 512, 3),
        ("demo", 1000, 512, 3),
        ("demo", 4608, 4096, 3),
        ("demo", 4096, 1024, 3),
        ("demo", 4096, 512, 0),
        ("demo", 4096, 512, 8),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    name: str, size: int, block: int, replicas: int, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        VolumeDirectory.open_or_create(
            tmp_path / "data", name, size_bytes=size, block_size_bytes=block, replicas=replicas
        )
    assert not (tmp_path / "data").exists()


def test_a_second_user_is_kept_out(tmp_path: Path) -> None:
    first = VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    with pytest.raises(ConfigError, match="another process"):
        VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    first.close()


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
        VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    assert snapshot(tmp_path) == before


def test_a_lost_key_is_not_made_anew(tmp_path: Path) -> None:
    VolumeDirectory.open_or_create(tmp_path, "demo", **SAME).close()
    (tmp_path / "demo" / "volume.key").unlink()
    with pytest.raises(ConfigError, match=r"volume\.key is missing"):
        VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)


@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_any_damage_of_the_description_is_one_clear_error(
    cut: int, junk: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never another exception; what still is the same description may be taken."""
    tmp_path = tmp_path_factory.mktemp("volume")
    VolumeDirectory.open_or_create(tmp_path, "demo", **SAME).close()
    file = tmp_path / "demo" / "volume.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:cut] + junk + whole[cut + len(junk) :])
    try:
        opened = VolumeDirectory.open_or_create(tmp_path, "demo", **SAME)
    except ConfigError as error:
        message = str(error)
    else:
        opened.close()
        json.loads(file.read_bytes())
        message = "still the same"
    assert "\n" not in message
