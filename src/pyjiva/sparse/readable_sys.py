"""A directory that is only looked at: nothing in it can change through what is offered here.
Blocking calls only.

It is locked as for its owner (`directory_sys`), but shared: others may look at it meanwhile, and no replica
can be started over it.  Files are opened for reading alone, so it works on a file system that is mounted
read-only, and a bug in what looks cannot destroy what it looks at.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Protocol

import attrs

from pyjiva.buffers import Buffer
from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.sparse.file_sys import SparseFile, list_names, storage_error
from pyjiva.sparse.slot_sys import SharedSlots, Slots

__all__ = ["ReadOnlyDirectory", "ReadableDirectory", "ReadableFile", "open_read_only"]


class ReadableFile(Protocol):
    """The verbs of a DataFile that change nothing."""

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See DataFile."""

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile."""

    def drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile."""

    def size_bytes(self) -> int:
        """See DataFile."""

    def close(self) -> None:
        """See DataFile."""


class ReadableDirectory(Protocol):
    """The verbs of a Directory that change nothing."""

    @property
    def path(self) -> str:
        """See Directory."""

    def names(self) -> list[str]:
        """See Directory."""

    def open(self, name: str) -> ReadableFile:
        """See Directory."""

    @property
    def slots(self) -> Slots:
        """See Directory."""

    def close(self) -> None:
        """See Directory."""


@attrs.define(eq=False)
class ReadOnlyDirectory:
    """A ReadableDirectory over one descriptor."""

    path: str
    _fd: int
    slots: Slots = attrs.field(factory=SharedSlots, init=False)

    def names(self) -> list[str]:
        """See Directory."""
        try:
            return sorted(list_names(self._fd))
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"{self.path}: list") from error

    def open(self, name: str) -> SparseFile:
        """See Directory.  Raises StorageError: it cannot be read, or is no plain file."""
        try:
            # O_NONBLOCK: a pipe that somebody put here is not waited for.
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=self._fd)
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"{self.path}: open {name}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StorageError(StorageFailure.READ_ERROR, f"{self.path}: {name} is not a file")
        return SparseFile(fd, str(Path(self.path) / name))

    def close(self) -> None:
        """See Directory."""
        os.close(self._fd)  # and the lock with it


def open_read_only(path: str | os.PathLike[str]) -> ReadOnlyDirectory:
    """Look at the directory `path`.  Raises ConfigError: it cannot be read, or a process owns it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(f"{path}: cannot be opened as a directory ({reason})") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EWOULDBLOCK:
            raise ConfigError(f"{path}: another process has it open; stop that one first") from error
        raise ConfigError(f"{path}: cannot be locked ({os.strerror(error.errno or 0)})") from error
    return ReadOnlyDirectory(str(path), fd)
