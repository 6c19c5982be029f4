"""A sparse file, real or in memory, is a bytearray with holes; its failures are StorageErrors."""

import ctypes
import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.sparse import DataFile, SparseFile, file_sys, storage_error
from pyjiva.testing import MemoryDisk
from pyjiva.units import GIB, KIB

SIZE_BYTES: Final = 300_000  # not a multiple of a page


def make_file(path: Path) -> SparseFile:
    return SparseFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), str(path))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SparseFile]:
    file = make_file(tmp_path / "file")
    file.truncate(SIZE_BYTES)
    yield file
    file.close()


class FileMachine(RuleBasedStateMachine):
    """The file and a bytearray, side by side."""

    def open_file(self, cleanup: ExitStack) -> DataFile:
        path = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        return make_file(path / "file")

    def __init__(self) -> None:
        super().__init__()
        self.cleanup = ExitStack()

    @initialize()
    def make(self) -> None:
        self.file = self.open_file(self.cleanup)
        self.cleanup.callback(self.file.close)
        self.file.truncate(SIZE_BYTES)
        self.model = bytearray(SIZE_BYTES)

    ranges = st.tuples(
        st.integers(0, SIZE_BYTES),
        st.one_of(st.integers(0, 10_000), st.integers(0, SIZE_BYTES)),
    ).map(lambda r: (r[0], min(r[1], SIZE_BYTES - r[0])))

    @rule(at=ranges, seed=st.integers(0, 999), pieces=st.integers(1, 5))
    def write(self, at: tuple[int, int], seed: int, pieces: int) -> None:
        offset, length = at
        data = Random(seed).randbytes(length)
        step = length // pieces + 1
        self.file.write(offset, [data[start : start + step] for start in range(0, length, step)])
        self.model[offset : offset + length] = data

    @rule(at=ranges)
    def punch(self, at: tuple[int, int]) -> None:
        offset, length = at
        self.file.punch(offset, length)
        self.model[offset : offset + length] = bytes(length)
        whole_pages = range(-(-offset // 4096), (offset + length) // 4096)
        if whole_pages:
            inner = Extent(whole_pages.start * 4096, len(whole_pages) * 4096)
            assert self.file.allocated(inner) == []

    @rule(at=ranges)
    def read(self, at: tuple[int, int]) -> None:
        offset, length = at
        assert self.file.read(offset, length) == self.model[offset : offset + length]
        assert self.file.read_nowait(offset, length) in (None, self.model[offset : offset + length])

    @rule(at=ranges)
    def find_data(self, at: tuple[int, int]) -> None:
        wanted = Extent(*at)
        rest = bytearray(self.model)
        end = wanted.offset_bytes
        for part in self.file.allocated(wanted):
            assert part.offset_bytes >= end
            assert part.length_bytes > 0
            end = part.end_bytes
            rest[part.offset_bytes : end] = bytes(part.length_bytes)
        assert end <= max(wanted.end_bytes, wanted.offset_bytes)
        assert not any(rest[wanted.offset_bytes : wanted.end_bytes])

    @rule()
    def sync(self) -> None:
        self.file.sync_data()
        assert self.file.size_bytes() == SIZE_BYTES

    def teardown(self) -> None:
        self.cleanup.close()


class NoPunchMachine(FileMachine):
    """The same on a file system that cannot punch holes: zeros are written instead."""

    def open_file(self, cleanup: ExitStack) -> DataFile:
        file = super().open_file(cleanup)
        file._has_punch = False  # type: ignore[attr-defined]
        return file

    @rule(at=FileMachine.ranges)
    def punch(self, at: tuple[int, int]) -> None:
        offset, length = at
        self.file.punch(offset, length)
        self.model[offset : offset + length] = bytes(length)


class MemoryFileMachine(FileMachine):
    """The same in memory: what tests of others stand on must behave as the real one does."""

    def open_file(self, cleanup: ExitStack) -> DataFile:
        return MemoryDisk(Random(1)).open_directory().create("file")


_settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestSparseFile = FileMachine.TestCase
TestSparseFile.settings = _settings
TestSparseFileWithoutPunching = NoPunchMachine.TestCase
TestSparseFileWithoutPunching.settings = _settings
TestMemoryFile = MemoryFileMachine.TestCase
TestMemoryFile.settings = _settings


def test_punch_gives_space_back(file: SparseFile, tmp_path: Path) -> None:
    file.write(0, [os.urandom(256 * KIB)])
    file.sync_data()
    before = (tmp_path / "file").stat().st_blocks
    file.punch(0, 256 * KIB)
    assert (tmp_path / "file").stat().st_blocks <= before - 256 * KIB // 512


def test_huge_hole_is_punched_and_mapped_at_once(file: SparseFile, tmp_path: Path) -> None:
    file.truncate(100 * GIB)
    file.write(77 * GIB, [b"x" * 4096])
    assert file.allocated(Extent(0, 100 * GIB)) == [Extent(77 * GIB, 4096)]
    file.punch(1, 100 * GIB - 1)
    assert file.allocated(Extent(0, 100 * GIB)) == []


def test_more_buffers_than_the_kernel_takes_in_one_call(file: SparseFile) -> None:
    buffers = [bytes([index % 251]) * 3 for index in range(3000)]
    file.write(100, buffers)
    assert file.read(100, 9000) == b"".join(buffers)


def test_writes_and_reads_that_the_kernel_cuts_short_go_on(
    file: SparseFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, pwritev, preadv = os.pwrite, os.pwritev, os.preadv

    def write_100_of_one(fd: int, buffer: Any, offset: int) -> int:
        return pwrite(fd, buffer[:100], offset)

    def write_100(fd: int, buffers: Any, offset: int) -> int:
        return pwritev(fd, [b"".join(buffers)[:100]], offset)

    def read_100(fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        return preadv(fd, [memoryview(buffers[0])[:100]], offset, flags)

    data = os.urandom(1050)
    monkeypatch.setattr(os, "pwritev", write_100)
    monkeypatch.setattr(os, "pwrite", write_100_of_one)
    file.write(7, [data[:30], b"", data[30:250], data[250:]])
    file.write(2007, [data])
    monkeypatch.setattr(os, "preadv", read_100)
    assert file.read(7, 1050) == file.read(2007, 1050) == data
    for call in ("pwrite", "pwritev"):
        monkeypatch.setattr(os, call, lambda *_: 0)
    for buffers in ([b"x"], [b"x", b"y"]):
        with pytest.raises(StorageError, match="Input/output error"):
            file.write(0, buffers)


@pytest.mark.patches
def test_read_nowait_leaves_misses_to_the_caller(file: SparseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(code: int) -> Callable[..., int]:
        def preadv(*_: Any) -> int:
            raise OSError(code, os.strerror(code))

        return preadv

    file.write(0, [b"0123456789"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", lambda *_: 9)
        assert file.read_nowait(0, 10) is None  # a part of it is not in memory
    monkeypatch.setattr(os, "preadv", answer(errno.EAGAIN))
    assert file.read_nowait(0, 10) is None
    monkeypatch.setattr(os, "preadv", answer(errno.EIO))
    with pytest.raises(StorageError) as caught:
        file.read_nowait(0, 10)
    assert caught.value.failure is StorageFailure.READ_ERROR
    monkeypatch.setattr(os, "preadv", answer(errno.EOPNOTSUPP))
    assert file.read_nowait(0, 10) is None
    monkeypatch.undo()
    assert file.read_nowait(0, 10) is None  # that file system was asked once
    assert file.read(0, 10) == b"0123456789"


@pytest.mark.patches
def test_file_system_that_cannot_punch_is_noticed(file: SparseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fallocate(*arguments: int) -> int:
        calls.append(arguments)
        ctypes.set_errno(errno.EINTR if len(calls) == 1 else errno.EOPNOTSUPP)
        return -1

    monkeypatch.setattr(file_sys, "_fallocate", fallocate)
    file.write(0, [b"x" * SIZE_BYTES])
    file.punch(100, 2 * 4096)
    file.punch(100, 2 * 4096)
    assert len(calls) == 2
    assert file.read(0, SIZE_BYTES) == b"x" * 100 + bytes(8192) + b"x" * (SIZE_BYTES - 8292)


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (errno.ENOSPC, StorageFailure.NO_SPACE),
        (errno.EDQUOT, StorageFailure.NO_SPACE),
        (errno.EFBIG, StorageFailure.NO_SPACE),
        (errno.EIO, StorageFailure.WRITE_ERROR),
        (errno.EROFS, StorageFailure.WRITE_ERROR),
    ],
)
@pytest.mark.patches
def test_every_failure_says_what_to_answer(
    file: SparseFile, monkeypatch: pytest.MonkeyPatch, code: int, failure: StorageFailure
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    def fallocate(*_: int) -> int:
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(file_sys, "_fallocate", fallocate)
    for name in ("pwrite", "pwritev", "fdatasync", "ftruncate"):
        monkeypatch.setattr(os, name, fail)
    calls: list[Callable[[], object]] = [
        lambda: file.write(0, [b"x"]),
        lambda: file.punch(0, 1),
        file.sync_data,
        *([] if code == errno.EFBIG else [lambda: file.truncate(1)]),
    ]
    for call in calls:
        with pytest.raises(StorageError, match=os.strerror(code)) as caught:
            call()
        assert caught.value.failure is failure
    read_calls: list[tuple[str, Callable[[], object]]] = [
        ("preadv", lambda: file.read(0, 1)),
        ("lseek", lambda: file.allocated(Extent(0, 1))),
        ("fstat", file.size_bytes),
    ]
    for name, call in read_calls:
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(StorageError, match=os.strerror(code)):
                call()


def test_a_size_that_no_file_can_have_is_not_a_full_disk(
    file: SparseFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(StorageError, match="File too large") as caught:
        file.truncate(1 << 60)
    assert caught.value.failure is StorageFailure.NOT_SUPPORTED


def test_file_that_was_cut_short_is_a_read_error(file: SparseFile) -> None:
    file.truncate(100)
    with pytest.raises(StorageError, match="cut short"):
        file.read(50, 100)
    assert file.read_nowait(50, 100) is None


def test_full_disk_is_no_space_and_leaves_other_bytes(file: SparseFile) -> None:
    """A limit on the file's size stands for a full disk: the kernel takes what fits, refuses the rest."""
    file.write(0, [b"a" * 8192])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, hard))
    try:
        with pytest.raises(StorageError) as caught:
            file.write(8192, [b"b" * 3000, b"c" * 3000])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.failure is StorageFailure.NO_SPACE
    assert file.read(0, 16_384) == b"a" * 8192 + b"b" * 3000 + b"c" * 808 + bytes(4384)


def test_storage_error_names_the_file_and_the_reason() -> None:
    error = storage_error(OSError(errno.EIO, "ignored"), StorageFailure.READ_ERROR, "read x")
    assert str(error) == "read x: Input/output error"
