"""A slot is a word that another process finds by its name after this one was killed, and nothing else."""

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.sparse import SharedSlots, extent_under_way
from pyjiva.sparse.mounts_sys import kind_of_file_system

ABSENT: Final = f"pyjiva-slot-{'0' * 32}"
HELD_BY_A_CHILD: Final = """
import sys, time
from pyjiva.sparse import SharedSlots
slot = SharedSlots().make()
slot.word[0] = 0x123456789ABCDEF0
print(slot.name, flush=True)
sys.stdin.read()
"""


def place_of(name: str) -> Path:
    return SharedSlots().place / name


def test_a_word_is_found_by_its_name_until_it_is_removed() -> None:
    slots = SharedSlots()
    slot = slots.make()
    try:
        assert slots.look(slot.name) == 0
        slot.word[0] = 2**64 - 1
        assert slots.look(slot.name) == 2**64 - 1
        assert place_of(slot.name).stat().st_mode & 0o777 == 0o600
    finally:
        slot.remove()
    assert slots.look(slot.name) is None
    slot.word[0] = 5  # nobody sees it any more, and it does no harm
    slot.remove()


def test_two_slots_are_two_words() -> None:
    slots = SharedSlots()
    one, other = slots.make(), slots.make()
    try:
        one.word[0] = 1
        assert (slots.look(one.name), slots.look(other.name)) == (1, 0)
    finally:
        one.remove()
        slots.remove(other.name)
    assert slots.look(other.name) is None


def test_the_word_of_a_killed_process_is_as_it_left_it() -> None:
    command = [sys.executable, "-c", HELD_BY_A_CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        child.send_signal(signal.SIGKILL)
    try:
        assert SharedSlots().look(name) == 0x123456789ABCDEF0
    finally:
        SharedSlots().remove(name)


@pytest.mark.parametrize("name", ["", "x", ABSENT, f"../shm/{ABSENT}", f"{ABSENT}\n", ABSENT.upper()])
def test_what_is_no_slot_is_not_there_and_is_not_removed(name: str) -> None:
    SharedSlots().remove(name)
    assert SharedSlots().look(name) is None


@pytest.mark.parametrize(
    "put",
    [
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/proc/self/stat"),
        lambda path: path.write_bytes(b"short"),
    ],
    ids=["directory", "pipe", "link", "short"],
)
def test_what_somebody_else_put_there_says_nothing(tmp_path: Path, put: Callable[[Path], object]) -> None:
    put(tmp_path / ABSENT)
    assert SharedSlots(tmp_path).look(ABSENT) is None
    SharedSlots(tmp_path).remove(ABSENT)


def test_a_file_system_that_keeps_its_files_is_not_used(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        if kind_of_file_system(fd) == "tmpfs":
            pytest.skip("temporary files lie in memory here")
    finally:
        os.close(fd)
    with pytest.raises(StorageError, match="is not tmpfs") as caught:
        SharedSlots(tmp_path).make()
    assert caught.value.failure is StorageFailure.NOT_SUPPORTED
    assert not list(tmp_path.iterdir())


def test_a_machine_without_the_place_has_none(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file") as caught:
        SharedSlots(tmp_path / "absent").make()
    assert caught.value.failure is StorageFailure.NOT_SUPPORTED


def test_without_memory_there_is_none_and_nothing_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(SharedSlots().place.iterdir())

    def refuse(_fd: int, _offset: int, length: int) -> None:
        assert length == mmap.PAGESIZE
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(StorageError, match="No space left") as caught:
        SharedSlots().make()
    assert caught.value.failure is StorageFailure.NOT_SUPPORTED
    assert set(SharedSlots().place.iterdir()) <= before


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**30).map(lambda sectors: sectors * 512))
def test_any_word_tells_of_blocks_of_the_file(word: int, size_bytes: int) -> None:
    extent = extent_under_way(word, size_bytes)
    assert 0 <= extent.offset_bytes <= extent.end_bytes <= size_bytes
    assert extent.length_bytes <= (word & 0xFFFF) * 4096
