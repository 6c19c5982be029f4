"""A file or a block device that a backup is restored to.  Blocking calls only."""

import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Self

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.sparse import SparseFile, storage_error
from pyjiva.units import MIB

__all__ = ["RawFile", "check_absent", "check_overwrite", "partial_of", "settle_file"]

PARTIAL_SUFFIX: Final = ".partial"
_ZEROS: Final = bytes(MIB)


@attrs.define(eq=False)
class RawFile:
    """An open file of a fixed size, or a block device."""

    path: Path
    size_bytes: int
    is_device: bool
    _fd: int
    _file: SparseFile

    @classmethod
    def open(cls, path: Path, size_bytes: int) -> Self:
        """The file `path` with this size, made if it is not there; a device has the size that it has.

        Ours alone until it is closed.  Raises ConfigError: it cannot be opened so.
        """
        try:
            is_device = path.exists() and stat.S_ISBLK(path.stat().st_mode)
            # O_EXCL without O_CREAT: a block device that is mounted or otherwise in use is refused (open(2)).
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if is_device else os.O_CREAT)
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error
        try:
            if not is_device and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path}: neither a file nor a block device")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_device:
                size_bytes = os.lseek(fd, 0, os.SEEK_END)
            elif os.fstat(fd).st_size != size_bytes:
                os.ftruncate(fd, size_bytes)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(f"{path}: another process is restoring to it") from None
        except OSError as error:
            os.close(fd)
            raise storage_error(error, StorageFailure.WRITE_ERROR, str(path)) from error
        except BaseException:
            os.close(fd)
            raise
        return cls(path, size_bytes, is_device, fd, SparseFile(fd, str(path)))

    def data(self, extent: Extent) -> list[Extent]:
        """See ResumableTarget.  Nobody can say what of a device is zeros without reading it."""
        return [extent] if self.is_device else self._file.allocated(extent)

    def read(self, extent: Extent) -> bytes:
        """See ResumableTarget."""
        return bytes(self._file.read(extent.offset_bytes, extent.length_bytes))

    def write(self, extent: Extent, data: bytes) -> None:
        """See RestoreTarget."""
        self._file.write(extent.offset_bytes, (data,))

    def zero(self, extent: Extent) -> None:
        """See ResumableTarget.  On a device, only what is not zeros yet is written."""
        if not self.is_device:
            self._file.punch(extent.offset_bytes, extent.length_bytes)
            return
        for piece in extent.split(len(_ZEROS)):
            zeros = memoryview(_ZEROS)[: piece.length_bytes]
            if self._file.read(piece.offset_bytes, piece.length_bytes) != zeros:
                self._file.write(piece.offset_bytes, (zeros,))

    def flush(self) -> None:
        """See RestoreTarget."""
        self._file.sync_data()

    def forget_cache(self) -> None:
        """See ResumableTarget."""
        self._file.drop_cache(0, self.size_bytes)

    def close(self) -> None:
        """Let others have it."""
        self._file.close()


def check_overwrite(path: Path, *, overwrite: bool) -> bool:
    """Whether `path` is a device.  Raises ConfigError: it is there, and is not to be overwritten."""
    is_device = path.is_block_device()
    if path.exists() and not overwrite:
        what = "a device, all of which will be replaced" if is_device else "there already"
        raise ConfigError(f"{path} is {what}: say --overwrite to do that")
    return is_device


def check_absent(path: Path) -> None:
    """Raises ConfigError: `path` is there, and is not an empty directory."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there already: give a directory that is not, or an empty one")


def partial_of(path: Path) -> Path:
    """Where a file is restored until it is whole."""
    return path.with_name(path.name + PARTIAL_SUFFIX)


def settle_file(partial: Path, path: Path) -> None:
    """Give what was restored its name, durably.  Raises StorageError."""
    try:
        partial.rename(path)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise StorageError(StorageFailure.WRITE_ERROR, f"{path}: {error.strerror}") from error
