"""One sparse file: reads that never wait, scattered writes, holes, and what stands between a write and the
power switch.

A hole reads as zeros and takes no space; `punch` makes one (fallocate(2), FALLOC_FL_PUNCH_HOLE) and
`allocated` finds the data between them (lseek(2), SEEK_DATA and SEEK_HOLE).  `read_nowait` answers only
from the page cache (preadv2(2), RWF_NOWAIT): about 2 us for 4 KiB, against 150 us for a trip to a thread.
Linux starts the read of what is missing at the same time, so the thread that asks again mostly finds it on
its way.

All methods may be called from any number of threads at once, but for `read_nowait`: that is the event loop's.
Every OSError leaves as a StorageError.
Left out: O_DIRECT (the page cache is what makes small reads cheap) and io_uring.
"""

import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import attrs

from pyjiva.buffers import Buffer, left_after
from pyjiva.compiled import native
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.recycled import RecycledBuffers
from pyjiva.units import KIB, MIB

__all__ = ["DataFile", "SparseFile", "list_names", "storage_error"]


IOV_MAX: Final = 1024  # Linux' limit on the buffers of one pwritev (UIO_MAXIOV)
RECYCLED_BYTES_MIN: Final = 64 * KIB  # a smaller buffer is made faster than it is looked for
PUNCH_BYTES_MAX: Final = 256 * MIB  # a punch holds the inode's lock, and every write waits for it meanwhile
ZEROS: Final = bytes(MIB)
FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
KEPT_BYTES_MAX: Final = 16 * MIB  # of buffers that were read into: enough for a MiB each at depth 8
#: For `read_nowait` of all files, which one thread calls, that of the event loop; `read` may run in many.
_large: Final = RecycledBuffers(KEPT_BYTES_MAX)
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_libc: Final = ctypes.CDLL(None, use_errno=True)  # CDLL, not PyDLL: gives the GIL back during the call
_fallocate: Final = getattr(_libc, "fallocate64", None) or _libc.fallocate  # musl has the 64-bit one only
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_fallocate.restype = ctypes.c_int


class DataFile(Protocol):
    """A file of fixed size with holes.  Ranges lie inside the file: the caller has seen to that."""

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """The range, if it is all in memory; None when reading it would wait for the disk.  One thread alone
        may ask so, for all files.
        """

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """The range."""

    def write(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        """Write `buffers` one after the other.  After an error the range holds any mixture of old and new."""

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """Make the range read as zeros and give back the file-system blocks that lie in it whole."""

    def allocated(self, extent: Extent) -> list[Extent]:
        """The parts of `extent` that are not holes, sorted and disjoint; what was never written may be
        among them, what was written and not punched always is.
        """

    def sync_data(self) -> None:
        """Bring everything written before the call, and the size, to stable storage.

        After an error nobody knows what is stable: Linux reports a failed write-back once and then
        takes the pages for clean.  The caller must not ask again and believe the answer.
        """

    def drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        """Let the next read of the range come from the disk, but for what is not written back yet."""

    def truncate(self, size_bytes: int) -> None:
        """Set the size; what is added is a hole."""

    def size_bytes(self) -> int:
        """The present size."""

    @property
    def descriptor(self) -> int:
        """The number by which the kernel knows the open file within this process."""

    def close(self) -> None:
        """Give the file back; nothing is synced by this."""


def storage_error(error: OSError, failure: StorageFailure, what: str) -> StorageError:
    """`error` as a StorageError: NO_SPACE if it says that, else `failure`."""
    if error.errno in _NO_SPACE:
        failure = StorageFailure.NO_SPACE
    return StorageError(failure, f"{what}: {os.strerror(error.errno or 0)}")


@attrs.define(eq=False)
class SparseFile:  # hot
    """A DataFile over one file descriptor, which it owns."""

    _fd: int
    _name: str
    """For messages."""
    _call_bytes_max: int = 0
    """What one call writes at most (`large_folios_sys`), a power of two; 0: no limit but the kernel's."""
    _has_nowait: bool = attrs.field(default=True, init=False)
    _has_punch: bool = attrs.field(default=True, init=False)

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See DataFile.  One preadv: a range that is only partly in memory is left to `read` whole."""
        if not self._has_nowait:
            return None
        try:
            if length_bytes < RECYCLED_BYTES_MIN:
                return _read_nowait(self._fd, length_bytes, offset_bytes)
            data = _large.take(length_bytes)
            return data if _read_nowait_into(self._fd, data, offset_bytes) else None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:  # tmpfs, NFS, 9p: a thread reads all there
                self._has_nowait = False
                return None
            raise storage_error(error, StorageFailure.READ_ERROR, f"read {self._name}") from error

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See DataFile."""
        data = bytearray(length_bytes)
        view = memoryview(data)
        done = 0
        while done < length_bytes:
            try:
                count = os.preadv(self._fd, (view[done:],), offset_bytes + done)
            except OSError as error:
                raise storage_error(error, StorageFailure.READ_ERROR, f"read {self._name}") from error
            if count == 0:
                raise StorageError(StorageFailure.READ_ERROR, f"read {self._name}: the file was cut short")
            done += count
        return data

    def write(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        """See DataFile."""
        if len(buffers) > IOV_MAX:
            for start in range(0, len(buffers), IOV_MAX):
                part = buffers[start : start + IOV_MAX]
                self.write(offset_bytes, part)
                offset_bytes += sum(map(len, part))
            return
        limit = self._call_bytes_max
        if limit and (len(buffers) != 1 or len(buffers[0]) > limit):
            for piece in _pieces(offset_bytes, buffers, limit):
                self._write(offset_bytes, piece)
                offset_bytes += sum(map(len, piece))
        else:
            self._write(offset_bytes, buffers)

    def _write(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        try:
            if len(buffers) == 1:  # as nearly always
                buffer = buffers[0]
                count = os.pwrite(self._fd, buffer, offset_bytes)
                if count == len(buffer):
                    return
            else:
                count = os.pwritev(self._fd, buffers, offset_bytes)
            while rest := left_after(buffers, count):
                # The kernel stops early when the disk is full or a signal came: asking again tells which.
                if count == 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                offset_bytes += count
                buffers = rest
                count = os.pwritev(self._fd, buffers, offset_bytes)
        except OSError as error:
            raise storage_error(error, StorageFailure.WRITE_ERROR, f"write {self._name}") from error

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile.  fallocate(2): "partial filesystem blocks are zeroed, and whole filesystem blocks
        are removed".
        """
        for piece in Extent(offset_bytes, length_bytes).split(PUNCH_BYTES_MAX):
            if not (self._has_punch and self._punch_hole(piece)):
                self._write_zeros(piece)

    def _punch_hole(self, extent: Extent) -> bool:
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        while _fallocate(self._fd, mode, extent.offset_bytes, extent.length_bytes) != 0:
            code = ctypes.get_errno()
            if code == errno.EOPNOTSUPP:
                self._has_punch = False
                return False
            if code != errno.EINTR:
                error = OSError(code, os.strerror(code))
                raise storage_error(error, StorageFailure.WRITE_ERROR, f"punch {self._name}")
        return True

    def _write_zeros(self, extent: Extent) -> None:
        for part in self.allocated(extent):  # a hole need not be filled to read as zeros
            for piece in part.split(len(ZEROS)):
                self.write(piece.offset_bytes, (memoryview(ZEROS)[: piece.length_bytes],))

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile.  A file system without SEEK_DATA says that all is data."""
        parts = []
        start = extent.offset_bytes
        while start < extent.end_bytes:
            try:
                data = os.lseek(self._fd, start, os.SEEK_DATA)
                hole = os.lseek(self._fd, data, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data from here to the end
                    break
                raise storage_error(error, StorageFailure.READ_ERROR, f"map {self._name}") from error
            if data < extent.end_bytes:
                parts.append(Extent(data, min(hole, extent.end_bytes) - data))
            start = hole
        return parts

    def sync_data(self) -> None:
        """See DataFile.  fdatasync(2)."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise storage_error(error, StorageFailure.WRITE_ERROR, f"sync {self._name}") from error

    def drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile.  posix_fadvise(2), POSIX_FADV_DONTNEED."""
        try:
            os.posix_fadvise(self._fd, offset_bytes, length_bytes, os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"read {self._name}") from error

    def truncate(self, size_bytes: int) -> None:
        """See DataFile."""
        try:
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            if error.errno == errno.EFBIG:  # no want of room, which may come: there are no such files here
                detail = f"resize {self._name}: {os.strerror(errno.EFBIG)}"
                raise StorageError(StorageFailure.NOT_SUPPORTED, detail) from error
            raise storage_error(error, StorageFailure.WRITE_ERROR, f"resize {self._name}") from error

    def size_bytes(self) -> int:
        """See DataFile."""
        try:
            return os.fstat(self._fd).st_size
        except OSError as error:
            raise storage_error(error, StorageFailure.READ_ERROR, f"stat {self._name}") from error

    @property
    def descriptor(self) -> int:
        """See DataFile."""
        return self._fd

    def close(self) -> None:
        """See DataFile."""
        os.close(self._fd)


def _read_nowait_in_python(fd: int, size_bytes: int, offset_bytes: int) -> Buffer | None:
    """The range, if the page cache has all of it.  Raises OSError."""
    data = bytearray(size_bytes)
    return data if _read_nowait_into_in_python(fd, memoryview(data), offset_bytes) else None


def _read_nowait_into_in_python(fd: int, buffer: memoryview, offset_bytes: int) -> bool:
    """Whether the page cache had all that `buffer` takes.  Raises OSError."""
    try:
        return os.preadv(fd, (buffer,), offset_bytes, os.RWF_NOWAIT) == len(buffer)
    except BlockingIOError:
        return False


_read_nowait: Final[Callable[[int, int, int], Buffer | None]] = (
    native("read_nowait") or _read_nowait_in_python
)
_read_nowait_into: Final[Callable[[int, memoryview, int], bool]] = (
    native("read_nowait_into") or _read_nowait_into_in_python
)


def _pieces(offset_bytes: int, buffers: Sequence[Buffer], piece_bytes: int) -> Iterator[Sequence[Buffer]]:
    """`buffers`, which stand at `offset_bytes`, cut at the multiples of `piece_bytes`; no piece is empty."""
    piece: list[Buffer] = []
    room = piece_bytes - offset_bytes % piece_bytes
    for buffer in buffers:
        view, at = memoryview(buffer), 0
        while len(view) - at >= room:
            piece.append(view[at : at + room])
            yield piece
            at, piece, room = at + room, [], piece_bytes
        if at < len(view):
            piece.append(view[at:] if at else buffer)
            room -= len(view) - at
    if piece:
        yield piece


def list_names(directory_fd: int) -> list[str]:
    """What is in an open directory.  Raises OSError.

    Through a descriptor of its own: two threads that list by one share its position, and each misses what the
    other one has read.
    """
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)
