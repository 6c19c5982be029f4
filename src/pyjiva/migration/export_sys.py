"""Writing what a pyjiva replica holds into one file, checksums compared on the way.  Blocking calls only."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.migration.qemu_img_sys import check_qemu_img, convert
from pyjiva.migration.upgrade_sys import Progress
from pyjiva.snapshot import Store
from pyjiva.sparse import (
    SUM_BLOCK_BYTES,
    Buffer,
    SparseFile,
    storage_error,
)
from pyjiva.units import MIB

__all__ = ["CheckedReader", "CheckedSource", "write_image"]

STEP_BYTES: Final = MIB
_PARTIAL_SUFFIX: Final = ".partial"
_RAW_SUFFIX: Final = ".raw.partial"


class CheckedSource(Protocol):
    """What is read from: `CheckedFile` and what looks like one."""

    def allocated(self, extent: Extent) -> list[Extent]:
        """See CheckedFile."""

    def verify(self, extent: Extent) -> list[Extent]:
        """See CheckedFile."""

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See CheckedFile."""

    def read_unverified(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See CheckedFile."""


@attrs.define
class CheckedReader:
    """Reads, and refuses rot or notes it.

    Each method raises StorageError: something cannot be read, or, unless `despite_rot`, BAD_CHECKSUM: it has
    rotted.
    """

    despite_rot: bool
    rotten: list[Extent] = attrs.field(factory=list)
    """Blocks that were not what had been written, and were taken all the same."""

    def pieces(self, source: CheckedSource, extent: Extent) -> Iterator[tuple[Extent, Buffer]]:
        """What `source` holds of `extent`, piece by piece; the rest is zeros, and is meant to be."""
        position = extent.offset_bytes
        for part in source.allocated(extent):
            self.check_hole(source, Extent(position, part.offset_bytes - position))
            for piece in part.split(STEP_BYTES):
                yield piece, self.read(source, piece)
            position = part.end_bytes
        self.check_hole(source, Extent(position, extent.end_bytes - position))

    def check_hole(self, source: CheckedSource, extent: Extent) -> None:
        """See that what is a hole was not written: the disk may have lost it."""
        bad = source.verify(extent) if extent.length_bytes else []
        if bad and not self.despite_rot:
            raise StorageError(StorageFailure.BAD_CHECKSUM, f"{bad[0]} are gone: they are zeros now")
        self.rotten = merge_extents([*self.rotten, *bad])

    def read(self, source: CheckedSource, extent: Extent) -> Buffer:
        """What `source` has there."""
        try:
            return source.read(extent.offset_bytes, extent.length_bytes)
        except StorageError as error:
            if error.failure is not StorageFailure.BAD_CHECKSUM or not self.despite_rot:
                raise
        for block in extent.split(SUM_BLOCK_BYTES):
            try:
                source.read(block.offset_bytes, block.length_bytes)
            except StorageError as error:
                if error.failure is not StorageFailure.BAD_CHECKSUM:
                    raise
                self.rotten.append(block)
        self.rotten = merge_extents(self.rotten)
        return source.read_unverified(extent.offset_bytes, extent.length_bytes)


def write_image(
    store: Store, snapshot: str, target: Path, *, qcow2: bool, reader: CheckedReader, progress: Progress
) -> None:
    """Write the volume as of `snapshot` ("" for now) to the new file `target`, sparse.

    The file has its name only when it is whole and on stable storage.  Raises ConfigError: there is such a
    file, no such snapshot, or no qemu-img.  Raises StorageError: as `CheckedReader.read`, or it cannot be
    written.
    """
    if qcow2:
        check_qemu_img()
    source = store.view(snapshot)
    if os.path.lexists(target):
        raise ConfigError(f"{target}: is there already; choose another name")
    raw = _beside(target, _RAW_SUFFIX if qcow2 else _PARTIAL_SUFFIX)
    with _new_file(raw) as file:
        file.truncate(store.size_bytes)
        for piece, data in reader.pieces(source, Extent(0, store.size_bytes)):
            file.write(piece.offset_bytes, (data,))
            progress(piece.length_bytes)
        if qcow2:
            done = _beside(target, _PARTIAL_SUFFIX)
            with _removed_on_error(done):
                convert(raw, "raw", done, "qcow2")
                _put_in_place(done, target)
        else:
            file.sync_data()
            _put_in_place(raw, target)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[SparseFile]:
    """A new file, which is removed at the end if it still has this name."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path}: an export that was interrupted left it; remove it first") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be created ({os.strerror(error.errno or 0)})") from error
    file = SparseFile(fd, str(path))
    try:
        with _removed_on_error(path):
            yield file
    finally:
        file.close()
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _put_in_place(path: Path, target: Path) -> None:
    try:
        _sync(path)
        path.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise storage_error(error, StorageFailure.WRITE_ERROR, f"write {target}") from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
