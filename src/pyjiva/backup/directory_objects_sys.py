"""A store of backups in a directory.  Blocking calls only.

An object is a file.  It is written under another name in `TEMPORARY`, synced, and given its name; then the
directory is synced.  So a power cut leaves the old object or the new one, and a name that is there has all
of its content: what was put need not be looked at again to be believed.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from pyjiva.backup.objects import KEY_PATTERN, Listed, MissingError
from pyjiva.errors import BackupError

__all__ = ["DirectoryObjects"]

TEMPORARY: Final = ".unfinished"
_numbers: Final = itertools.count()


@attrs.define(eq=False)
class DirectoryObjects:
    """The files below `path`, which is created with the first object."""

    path: Path

    @property
    def name(self) -> str:
        """See Objects."""
        return str(self.path)

    def put(self, key: str, content: bytes) -> None:
        """See Objects."""
        self._put(key, content, replace=True)

    def put_new(self, key: str, content: bytes) -> bool:
        """See Objects.  link(2) fails if the name is taken."""
        return self._put(key, content, replace=False)

    def _put(self, key: str, content: bytes, *, replace: bool) -> bool:
        target = self._file(key)
        try:
            _make_directory(self.path / TEMPORARY)
            _make_directory(target.parent)
            temporary = self.path / TEMPORARY / f"{os.getpid()}-{next(_numbers)}-{target.name}"
            try:
                with open(temporary, "xb", opener=_open_private) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    temporary.rename(target)
                else:
                    target.hardlink_to(temporary)
            except FileExistsError:
                if replace or not target.exists():
                    raise
                return False
            finally:
                temporary.unlink(missing_ok=True)
            _sync_directory(target.parent)
        except OSError as error:
            raise self._error(error, f"put {key}") from error
        return True

    def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            return self._file(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{self.name}: {key} is missing") from error
        except OSError as error:
            raise self._error(error, f"get {key}") from error

    def list(self, prefix: str) -> Iterator[Listed]:
        """See Objects.  A file that is removed meanwhile is left out."""
        top = self._file(prefix.removesuffix("/")) if prefix else self.path
        try:
            for folder, folders, names in os.walk(top, onerror=_raise):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    file = Path(folder) / name
                    with contextlib.suppress(FileNotFoundError):
                        status = file.stat()
                        key = file.relative_to(self.path).as_posix()
                        yield Listed(key, status.st_size, status.st_mtime)
        except OSError as error:
            raise self._error(error, f"list {prefix}") from error

    def delete(self, key: str) -> None:
        """See Objects."""
        file = self._file(key)
        try:
            file.unlink()
            _sync_directory(file.parent)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error(error, f"delete {key}") from error

    def _file(self, key: str) -> Path:
        assert KEY_PATTERN.fullmatch(key), key
        return self.path / key

    def _error(self, error: OSError, what: str) -> BackupError:
        return BackupError(f"{self.name}: cannot {what}: {error.strerror or error}")


def _open_private(path: str, flags: int) -> int:
    """As open(2), for the owner alone: it is what a disk held."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _raise(error: OSError) -> None:
    """For os.walk, which is silent about errors; a directory that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _make_directory(path: Path) -> None:
    """`path` with what is missing above it, each name stable before the next."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
