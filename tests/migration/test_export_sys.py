"""Exports to one file: equal to what the replica shows, whole or not at all, and not of what has rotted."""

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.migration import CheckedReader, open_replica, write_image
from pyjiva.snapshot import Store
from pyjiva.testing.foreign_directory import SECTOR_BYTES
from tests.migration.replicas import SIZE_BYTES, flip, make_replica
from tests.real.volume_process import needs

NOBODY: Final = lambda _count: None  # noqa: E731


def export(
    path: Path, snapshot: str, target: Path, *, qcow2: bool = False, despite_rot: bool = False
) -> list[Extent]:
    reader = CheckedReader(despite_rot)
    with closing(open_replica(path)) as store:
        write_image(store, snapshot, target, qcow2=qcow2, reader=reader, progress=NOBODY)
    return reader.rotten


@pytest.mark.parametrize("snapshot", ["", "a", "b"])
def test_raw_is_what_the_replica_shows(snapshot: str, tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    target = tmp_path / "out.raw"
    assert export(tmp_path / "r", snapshot, target) == []
    assert target.read_bytes() == shown[snapshot]
    assert os.stat(target).st_blocks * 512 < SIZE_BYTES // 2, "holes stay holes"
    assert os.stat(target).st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["out.raw", "r"]


@pytest.mark.real
@needs(("qemu-img", "qemu-utils"))
@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("snapshot", ["", "a", "b"])
def test_qemu_img_reads_it_back_equal(snapshot: str, form: str, tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    target, wanted = tmp_path / "out", tmp_path / "wanted"
    wanted.write_bytes(shown[snapshot])
    export(tmp_path / "r", snapshot, target, qcow2=form == "qcow2")
    compare = ("qemu-img", "compare", "-f", "raw", "-F", form, str(wanted), str(target))
    done = subprocess.run(compare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    info = subprocess.run(
        ("qemu-img", "info", "--output=json", "-f", form, str(target)), capture_output=True, check=True
    )
    assert json.loads(info.stdout)["virtual-size"] == SIZE_BYTES
    assert sorted(os.listdir(tmp_path)) == ["out", "r", "wanted"]


def test_without_qemu_img_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_replica(tmp_path / "r")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt install qemu-utils"):
        export(tmp_path / "r", "", tmp_path / "out", qcow2=True)
    assert os.listdir(tmp_path) == ["r"]


def test_rot_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    flip(tmp_path / "r" / "volume-snap-a.img", 100)
    with pytest.raises(StorageError) as caught:
        export(tmp_path / "r", "", tmp_path / "out")
    assert caught.value.failure is StorageFailure.BAD_CHECKSUM
    assert os.listdir(tmp_path) == ["r"]


def test_rot_is_taken_and_named_if_that_is_asked_for(tmp_path: Path) -> None:
    shown = make_replica(tmp_path / "r")
    flip(tmp_path / "r" / "volume-snap-a.img", 100)
    rotten = export(tmp_path / "r", "", tmp_path / "out", despite_rot=True)
    assert rotten == [Extent(0, SECTOR_BYTES)]
    wrong = bytearray(shown[""])
    wrong[100] ^= 4
    assert (tmp_path / "out").read_bytes() == wrong


@pytest.mark.parametrize("despite_rot", [False, True])
def test_a_block_that_became_a_hole_has_rotted_too(despite_rot: bool, tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    layer = tmp_path / "r" / "volume-snap-a.img"
    with layer.open("r+b") as opened:
        subprocess.run(
            ("fallocate", "--punch-hole", "-o", "0", "-l", str(SECTOR_BYTES), str(layer)), check=True
        )
        os.fsync(opened.fileno())
    if despite_rot:
        assert export(tmp_path / "r", "a", tmp_path / "out", despite_rot=True) == [Extent(0, SECTOR_BYTES)]
    else:
        with pytest.raises(StorageError, match="4096 bytes at offset 0 are gone"):
            export(tmp_path / "r", "a", tmp_path / "out")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="is there already"):
        export(tmp_path / "r", "", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"
    (tmp_path / "new.partial").write_bytes(b"theirs")
    with pytest.raises(ConfigError, match="interrupted"):
        export(tmp_path / "r", "", tmp_path / "new")
    assert (tmp_path / "new.partial").read_bytes() == b"theirs"


@pytest.mark.parametrize("snapshot", ["x", "gone"])
def test_a_snapshot_that_is_not_there(snapshot: str, tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    with pytest.raises(ConfigError, match=snapshot):
        export(tmp_path / "r", snapshot, tmp_path / "out")


def test_what_is_no_replica_with_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        open_replica(tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no pyjiva replica"):
        open_replica(tmp_path / "empty")
    Store.open_or_create(
        tmp_path / "w",
        volume_id="v",
        replica_id=3,
        volume_name="v",
        size_bytes=SIZE_BYTES,
        block_size_bytes=512,
        witness=True,
    ).close()
    with pytest.raises(ConfigError, match="is a witness"):
        open_replica(tmp_path / "w")


def test_a_replica_that_is_served_is_refused(tmp_path: Path) -> None:
    make_replica(tmp_path / "r")
    with (
        closing(open_replica(tmp_path / "r")),
        pytest.raises(ConfigError, match="another process has it open"),
    ):
        open_replica(tmp_path / "r")
