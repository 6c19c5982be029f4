"""Looking at real directories: what is no ordinary file, one file under two names, a file in use."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from pyjiva.errors import ConfigError, StorageError
from pyjiva.migration import describe, look, open_image_file, open_read_only
from pyjiva.sparse import open_directory
from pyjiva.testing.foreign_directory import write_foreign
from tests.migration.volumes import BRANCHED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(open_directory(tmp_path / "r")) as directory:
        write_foreign(directory, BRANCHED)
    return tmp_path / "r"


def test_it_sees_what_there_is(path: Path) -> None:
    with closing(open_read_only(path)) as directory:
        facts = look(directory)
    assert facts.names == set(os.listdir(path))
    assert facts.sizes["volume-snap-a.img"] == 8 * 4096
    assert facts.allocated["volume-snap-a.img"] == 3 * 4096
    assert not facts.same_file
    assert not facts.in_use
    assert describe(facts).can_be_upgraded(accept_dirty=False)


def test_a_head_that_is_open_for_writing_is_in_use(path: Path) -> None:
    with closing(open_read_only(path)) as directory, (path / BRANCHED.head_file).open("r+b"):
        facts = look(directory)
    assert facts.in_use
    assert not describe(facts).can_be_read


def test_one_file_under_two_names(path: Path) -> None:
    head = BRANCHED.head_file
    os.link(path / head, path / "volume-snap-new.img")
    os.link(path / (head + ".meta"), path / "volume-snap-new.img.meta")
    with closing(open_read_only(path)) as directory:
        facts = look(directory)
    assert facts.same_file == {head: "volume-snap-new.img", "volume-snap-new.img": head}
    assert not describe(facts).can_be_upgraded(accept_dirty=True)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_ordinary_file_is_not_opened(kind: str, path: Path) -> None:
    name = path / "volume-snap-c.img"
    name.unlink()
    match kind:
        case "link":
            name.symlink_to("/etc/passwd")
        case "fifo":
            os.mkfifo(name)
        case "directory":
            name.mkdir()
    with closing(open_read_only(path)) as directory, pytest.raises(StorageError):
        look(directory)


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened as a directory"):
        open_read_only(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_it_cannot_be_written_to(path: Path) -> None:
    with closing(open_read_only(path)) as directory, closing(directory.open(BRANCHED.head_file)) as file:
        with pytest.raises(StorageError):
            file.write(0, (b"x",))
        with pytest.raises(StorageError):
            file.truncate(1 << 20)


def test_a_backing_file_is_an_ordinary_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no ordinary file"):
        open_image_file("/dev/zero")
    with pytest.raises(StorageError, match="No such file"):
        open_image_file(tmp_path / "x")


def test_metadata_that_is_large_is_not_read(path: Path) -> None:
    os.truncate(path / "volume.meta", 1 << 30)
    with closing(open_read_only(path)) as directory:
        facts = look(directory)
    assert "volume.meta" not in facts.contents
    assert not describe(facts).can_be_read
