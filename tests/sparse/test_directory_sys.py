"""A directory has one owner, and a replaced file is old or new after a power cut at any step."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import ConfigError, StorageError
from pyjiva.sparse import Directory, directory_sys, open_directory, read_file, replace_file
from pyjiva.testing import MemoryDisk, PowerCut, cut_power_at


def test_missing_directories_are_created(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "a" / "b" / "c")
    assert directory.names() == []
    assert (tmp_path / "a" / "b" / "c").is_dir()
    directory.close()


def test_every_created_directory_is_made_stable_by_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    open_directory(tmp_path / "a" / "b").close()
    assert synced == [str(tmp_path), str(tmp_path / "a")]


def test_second_owner_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    directory = open_directory(tmp_path / "d")
    with pytest.raises(ConfigError, match=r"/d: another process has it open"):
        open_directory(tmp_path / "d")
    directory.close()
    open_directory(tmp_path / "d").close()


def test_space_is_what_the_files_take_and_what_the_file_system_has_left(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    assert directory.used_bytes() == 0
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    assert directory.used_bytes() == 0
    (tmp_path / "full").write_bytes(b"x" * 100_000)
    os.sync()
    assert 100_000 <= directory.used_bytes() < 200_000
    there = os.statvfs(tmp_path)
    assert abs(directory.available_bytes() - there.f_bavail * there.f_frsize) < 1 << 30
    directory.close()
    with pytest.raises(StorageError, match="look at the file"):
        directory.used_bytes()
    with pytest.raises(StorageError, match="look at the file"):
        directory.available_bytes()


def test_owner_in_another_process_is_noticed(tmp_path: Path) -> None:
    program = (
        "import sys; from pyjiva.sparse import open_directory; open_directory(sys.argv[1]);"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError, match="another process"):
            open_directory(tmp_path)
        owner.kill()
    open_directory(tmp_path).close()


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_path_that_cannot_be_a_directory_is_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(ConfigError, match="cannot be opened as a directory") as caught:
        open_directory(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_replace_gives_the_new_content_and_no_other_file(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    for content in (b"one", b"", b"three" * 5000):
        replace_file(directory, "f", content)
        assert read_file(directory, "f") == content
        assert directory.names() == ["f"]
    directory.close()


def test_remains_of_a_replacement_are_replaced(tmp_path: Path) -> None:
    """Jiva went into a crash loop over a left `.tmp` file (openebs#2813)."""
    directory = open_directory(tmp_path)
    (tmp_path / "f.tmp").write_bytes(b"much more than the new content")
    replace_file(directory, "f", b"new")
    assert read_file(directory, "f") == b"new"
    directory.close()


def test_large_file_is_not_read_as_metadata(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    os.truncate(os.open(tmp_path / "f", os.O_CREAT | os.O_RDWR), directory_sys.SMALL_FILE_BYTES_MAX + 1)
    with pytest.raises(StorageError, match="not metadata"):
        read_file(directory, "f")
    directory.close()


def test_failures_name_the_directory(tmp_path: Path) -> None:
    directory = open_directory(tmp_path)
    directory.create("there").close()
    calls = (
        lambda: directory.create("there"),
        lambda: directory.open("gone"),
        lambda: directory.rename("gone", "x"),
        lambda: directory.remove("gone"),
    )
    for call in calls:
        with pytest.raises(StorageError, match=str(tmp_path)):
            call()
    directory.close()


def _replace(directory: Directory) -> None:
    replace_file(directory, "f", b"new" * 3000)


def test_replaced_file_is_old_or_new_after_a_power_cut_at_any_step() -> None:
    """D15: Jiva's and Longhorn's metadata were found empty after a crash."""
    count = _steps_of_replacement()
    outcomes = set()
    for number in range(count + 1):
        for seed in range(60):
            disk = MemoryDisk(Random(seed))
            disk.put("f", b"old")
            disk.before_step = cut_power_at(number)
            told = False
            try:
                _replace(disk.open_directory())
                told = True
            except PowerCut:
                pass
            disk.power_cut()
            content = disk.content("f")
            assert content == b"new" * 3000 or (content == b"old" and not told), (number, seed)
            outcomes.add((told, content))
    assert len(outcomes) == 3  # each that can be was seen


def _steps_of_replacement() -> int:
    disk = MemoryDisk(Random(0))
    disk.put("f", b"old")
    _replace(disk.open_directory())
    return disk.steps


@given(st.integers(0, 2**32), st.lists(st.integers(0, 9), max_size=6))
def test_replacements_one_after_the_other_survive_power_cuts(seed: int, cuts: list[int]) -> None:
    disk = MemoryDisk(Random(seed))
    disk.put("f", b"0")
    acknowledged = 0
    for number, cut in enumerate(cuts, start=1):
        disk.before_step = cut_power_at(cut)
        try:
            replace_file(disk.open_directory(), "f", str(number).encode())
            acknowledged = number
        except PowerCut:
            pass
        disk.power_cut()
        present = int(disk.content("f"))
        assert acknowledged <= present <= number
        acknowledged = present  # what was once seen stays


def test_several_threads_list_a_directory_at_once(tmp_path: Path) -> None:
    """A listing that misses a file had a snapshot's data removed as a file that nothing names."""
    directory = open_directory(tmp_path)
    wanted = sorted(f"file-{n}" for n in range(20))
    for name in wanted:
        (tmp_path / name).touch()
    wrong: list[list[str]] = []

    def look() -> None:
        for _ in range(300):
            names = directory.names()
            directory.used_bytes()
            if not set(wanted) <= set(names):
                wrong.append(names)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    directory.close()
    assert not wrong
