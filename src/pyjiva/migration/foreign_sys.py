"""Looking at a directory without changing a byte of it.  Blocking calls only.

Files are opened for reading alone and only if they are ordinary ones: a directory that came from elsewhere
may hold symbolic links, FIFOs and devices under the names of layers.

Whether a process uses the volume is asked of the kernel: a read lease (fcntl(2), F_SETLEASE) is given only
while nobody has the file open for writing, in whatever container.  Where file systems have no leases, nothing
is known.
"""

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Protocol

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.migration.foreign import IMAGE, REVISION_FILE, DirectoryFacts
from pyjiva.snapshot.metadata import META_SUFFIX, VOLUME_META
from pyjiva.sparse import DataFile, SparseFile, list_names, storage_error
from pyjiva.units import MIB

__all__ = ["ReadOnlyDirectory", "ReadableDirectory", "look", "open_image_file", "open_read_only"]

META_BYTES_MAX: Final = MIB  # labels make them larger than the usual 200 bytes


class ReadableDirectory(Protocol):
    """What of a `sparse.Directory` reading needs."""

    @property
    def path(self) -> str:
        """See Directory."""

    def names(self) -> list[str]:
        """See Directory."""

    def open(self, name: str) -> DataFile:
        """See Directory."""


@attrs.define(eq=False)
class ReadOnlyDirectory:
    """A ReadableDirectory that cannot be written to."""

    path: str
    _fd: int

    def names(self) -> list[str]:
        """See Directory."""
        try:
            return sorted(list_names(self._fd))
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"{self.path}: list") from error

    def open(self, name: str) -> SparseFile:
        """See Directory.  Raises StorageError also for what is no ordinary file."""
        return _open(name, str(Path(self.path) / name), self._fd, os.O_NOFOLLOW)

    def same_file(self, names: list[str]) -> dict[str, str]:
        """Those of `names` that are one file, each with the next such name."""
        groups: dict[tuple[int, int], list[str]] = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                groups.setdefault((status.st_dev, status.st_ino), []).append(name)
        linked = [group for group in groups.values() if len(group) > 1]
        return {name: group[at - 1] for group in linked for at, name in enumerate(group)}

    def in_use(self, name: str) -> bool:
        """Whether a process has the file open for writing, as far as can be known."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"{self.path}: open {name}") from error
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
        finally:
            os.close(fd)
        return False

    def close(self) -> None:
        """See Directory."""
        os.close(self._fd)


def open_read_only(path: str | os.PathLike[str]) -> ReadOnlyDirectory:
    """The directory `path`.  Raises ConfigError: it cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be opened as a directory ({os.strerror(error.errno or 0)})"
        ) from error
    return ReadOnlyDirectory(str(path), fd)


def open_image_file(path: str | os.PathLike[str]) -> SparseFile:
    """A backing file, for reading.  Raises StorageError: it cannot be read, or is no ordinary file."""
    return _open(os.fspath(path), str(path), None, 0)


def _open(name: str, shown: str, directory: int | None, flags: int) -> SparseFile:
    try:
        # Without O_NONBLOCK the opening of a FIFO waits for its other end.
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=directory)
    except OSError as error:
        raise storage_error(error, StorageFailure.READ_ERROR, f"open {shown}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageError(StorageFailure.READ_ERROR, f"{shown} is no ordinary file")
    return SparseFile(fd, shown)


def look(directory: ReadableDirectory) -> DirectoryFacts:
    """What there is, for `describe`.  Raises StorageError: it cannot be read."""
    names = directory.names()
    images = [name for name in names if IMAGE.fullmatch(name)]
    sizes, allocated = {}, {}
    for name in images:
        file = directory.open(name)
        try:
            sizes[name] = file.size_bytes()
            extents = file.allocated(Extent(0, sizes[name]))
            allocated[name] = sum(extent.length_bytes for extent in extents)
        finally:
            file.close()
    contents = {}
    for name in names:
        is_meta = name not in images and IMAGE.fullmatch(name.removesuffix(META_SUFFIX)) is not None
        if name in (VOLUME_META, REVISION_FILE) or is_meta:
            content = _content(directory, name)
            if content is not None:
                contents[name] = content
    facts = DirectoryFacts(names=frozenset(names), sizes=sizes, allocated=allocated, contents=contents)
    if not isinstance(directory, ReadOnlyDirectory):
        return facts
    heads = [name for name in images if (match := IMAGE.fullmatch(name)) and match[1] is not None]
    return attrs.evolve(
        facts,
        same_file=directory.same_file(images),
        in_use=any(directory.in_use(head) for head in heads),
    )


def _content(directory: ReadableDirectory, name: str) -> bytes | None:
    file = directory.open(name)
    try:
        size_bytes = file.size_bytes()
        return None if size_bytes > META_BYTES_MAX else bytes(file.read(0, size_bytes))
    finally:
        file.close()
