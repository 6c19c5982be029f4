"""A directory that one process owns: its names, and replacing a small file so that a power cut at any step
leaves the old or the new content, never neither.

The order that makes it so (`replace_file`): write a new file under another name, sync its data, rename it
over the old one, sync the directory.  Renaming before the data is stable leaves an empty file after a power
cut (seen in Longhorn, `pkg/replica/replica.go:686`, and Jiva, jiva#338); without the last step the old file
may come back after the caller was told that the new one is there.

`Directory` has only the primitive steps, so that the same `replace_file` runs over memory files with power
cuts between any two of them (`pyjiva.testing.MemoryDirectory`).
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.sparse.file_sys import DataFile, SparseFile, list_names, storage_error
from pyjiva.sparse.large_folios_sys import call_bytes_max
from pyjiva.sparse.readable_sys import ReadableDirectory
from pyjiva.sparse.slot_sys import SharedSlots, Slots
from pyjiva.units import MIB

__all__ = [
    "TEMPORARY_SUFFIX",
    "Directory",
    "FileDirectory",
    "open_directory",
    "prepare_file",
    "put_in_place",
    "read_file",
    "replace_file",
]

TEMPORARY_SUFFIX: Final = ".tmp"
STAT_BLOCK_BYTES: Final = 512  # unit of st_blocks, whatever the file system has (stat(2))
SMALL_FILE_BYTES_MAX: Final = 4 * MIB  # a metadata file is a few hundred bytes; more is not one of ours


class Directory(Protocol):
    """The steps.  Names are plain file names; nothing is stable before `sync`."""

    @property
    def path(self) -> str:
        """For messages: what the operator knows the directory by."""

    def names(self) -> list[str]:
        """What is in it, sorted."""

    def create(self, name: str) -> DataFile:
        """A new empty file.  The name must be free."""

    def open(self, name: str) -> DataFile:
        """An existing file."""

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`, in place of what had that name."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def sync(self) -> None:
        """Bring the names to stable storage (not what is in the files)."""

    @property
    def slots(self) -> Slots:
        """Words of the memory of the machine that it is on."""

    def used_bytes(self) -> int:
        """What its files take on the disk, as far as the file system says so."""

    def available_bytes(self) -> int:
        """What its file system has left for this user."""

    def close(self) -> None:
        """Give the directory back to others."""


def read_file(directory: ReadableDirectory, name: str) -> bytes:
    """All of a small file.  Raises StorageError: it cannot be read or is not small."""
    file = directory.open(name)
    try:
        size_bytes = file.size_bytes()
        if size_bytes > SMALL_FILE_BYTES_MAX:
            raise StorageError(StorageFailure.READ_ERROR, f"{name} has {size_bytes} bytes: not metadata")
        return bytes(file.read(0, size_bytes))
    finally:
        file.close()


def replace_file(directory: Directory, name: str, content: bytes) -> None:
    """Make `content` the whole content of `name`; when this returns, it is on stable storage."""
    put_in_place(directory, prepare_file(directory, name, content), name)


def prepare_file(directory: Directory, name: str, content: bytes) -> str:
    """The first half of `replace_file`, which changes nothing yet: the name of a stable file."""
    temporary = name + TEMPORARY_SUFFIX
    if temporary in directory.names():
        directory.remove(temporary)  # left by a power cut, or by a disk that was full
    file = directory.create(temporary)
    try:
        file.truncate(len(content))
        file.write(0, (content,))
        file.sync_data()
    finally:
        file.close()
    return temporary


def put_in_place(directory: Directory, temporary: str, name: str) -> None:
    """The second half.  Raises StorageError: a later power cut leaves the old content or the new one."""
    directory.rename(temporary, name)
    directory.sync()


@attrs.define(eq=False)
class FileDirectory:
    """A Directory over one descriptor, whose flock(2) keeps other processes out."""

    path: str
    _fd: int
    slots: Slots = attrs.field(factory=SharedSlots, init=False)
    _call_bytes_max: int = attrs.field(init=False)
    """Of its files."""

    def __attrs_post_init__(self) -> None:
        self._call_bytes_max = call_bytes_max(self._fd)

    def names(self) -> list[str]:
        """See Directory."""
        try:
            return sorted(list_names(self._fd))
        except OSError as error:
            raise self._error(error, StorageFailure.READ_ERROR, "list") from error

    def create(self, name: str) -> SparseFile:
        """See Directory."""
        return self._open(name, os.O_CREAT | os.O_EXCL, StorageFailure.WRITE_ERROR)

    def open(self, name: str) -> SparseFile:
        """See Directory."""
        return self._open(name, 0, StorageFailure.READ_ERROR)

    def _open(self, name: str, flags: int, failure: StorageFailure) -> SparseFile:
        try:
            fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise self._error(error, failure, f"open {name}") from error
        return SparseFile(fd, str(Path(self.path) / name), self._call_bytes_max)

    def rename(self, old: str, new: str) -> None:
        """See Directory."""
        try:
            os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            raise self._error(error, StorageFailure.WRITE_ERROR, f"rename {old}") from error

    def remove(self, name: str) -> None:
        """See Directory."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except OSError as error:
            raise self._error(error, StorageFailure.WRITE_ERROR, f"remove {name}") from error

    def sync(self) -> None:
        """See Directory."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._error(error, StorageFailure.WRITE_ERROR, "sync") from error

    def used_bytes(self) -> int:
        """See Directory.  A file that is removed meanwhile counts as nothing."""
        total = 0
        try:
            for name in list_names(self._fd):
                with contextlib.suppress(FileNotFoundError):
                    total += os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_blocks
        except OSError as error:
            raise self._error(error, StorageFailure.READ_ERROR, "look at the files") from error
        return total * STAT_BLOCK_BYTES

    def available_bytes(self) -> int:
        """See Directory."""
        try:
            file_system = os.fstatvfs(self._fd)
        except OSError as error:
            raise self._error(error, StorageFailure.READ_ERROR, "look at the file system") from error
        return file_system.f_bavail * file_system.f_frsize

    def close(self) -> None:
        """See Directory."""
        os.close(self._fd)  # and the lock with it

    def _error(self, error: OSError, failure: StorageFailure, what: str) -> StorageError:
        return storage_error(error, failure, f"{self.path}: {what}")


def open_directory(path: str | os.PathLike[str]) -> FileDirectory:
    """Own the directory `path`, created durably with its parents if it is not there.

    Raises ConfigError: it cannot be a directory of ours, or another process owns it.
    """
    directory = Path(path).absolute()
    try:
        _make_directories(directory)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise storage_error(error, StorageFailure.WRITE_ERROR, f"create {path}") from error
        reason = os.strerror(error.errno or 0)
        raise ConfigError(f"{path}: cannot be opened as a directory ({reason})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EWOULDBLOCK:
            raise ConfigError(f"{path}: another process has it open; stop that one first") from error
        raise ConfigError(f"{path}: cannot be locked ({os.strerror(error.errno or 0)})") from error
    return FileDirectory(str(path), fd)


def _make_directories(path: Path) -> None:
    """Create `path` and what is missing above it, each name stable before the next."""
    if path.is_dir():
        return
    if path.parent != path:
        _make_directories(path.parent)
    with contextlib.suppress(
        FileExistsError
    ):  # made by a sibling at this moment; if a file, opening it fails
        path.mkdir()
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
