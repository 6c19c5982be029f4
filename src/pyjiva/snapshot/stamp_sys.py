"""The stamp of a replica's directory: by it another process that reads the replica's files sees that they are
as they were when it began to.  Blocking calls only.

Theory.  A process that looks at the files of a replica (`window_sys`) knows which layer has which block, and
keeps that up to date with the writes it orders itself.  What the replica does of its own accord, such as
merging two layers, it does not know.  So the replica changes 16 random bytes in the file `pyjiva-stamp`
*before* it moves a block, or changes the chain, by itself; and whoever reads looks at the stamp *after* it
has read: if it is still the one that it was told, nothing had begun to move when the data was read.

Both go through one page cache, and that is all there is to it: nothing is synced, as a look does not outlive
the machine.  It may outlive the process, so whoever opens the directory changes the stamp first of all.

The file is made when somebody asks to look for the first time; a replica that nobody looks at has none.
"""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.sparse import DataFile, Directory

__all__ = ["STAMP_BYTES", "STAMP_FILE", "Stamp"]

STAMP_FILE: Final = "pyjiva-stamp"
STAMP_BYTES: Final = 16  # two that are equal by chance are not to be feared


@attrs.define(eq=False)
class Stamp:
    """Of a directory that this process owns."""

    _directory: Directory
    _file: DataFile | None = None
    _told: bool = False
    """Whether somebody may know the present one."""
    _moving: int = attrs.field(default=0, init=False)
    """How many are in the body of `moving`."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @classmethod
    def of(cls, directory: Directory) -> "Stamp":
        """The stamp of a directory that was just opened, another one than anybody was told before.

        Raises StorageError: the disk fails.
        """
        if STAMP_FILE not in directory.names():
            return cls(directory)
        try:
            file = directory.open(STAMP_FILE)
        except StorageError:  # something odd, which no replica has written a stamp to: see `tell`
            return cls(directory)
        stamp = cls(directory, file, told=True)
        try:
            stamp.change()
        except BaseException:
            stamp.close()
            raise
        return stamp

    def change(self) -> None:
        """Before something moves that nobody else knows of, and while nobody calls `tell`.

        Raises StorageError: it must not move.
        """
        with self._lock:
            self._change()

    def _change(self) -> None:
        if not self._told:
            return
        assert self._file is not None
        try:
            self._write()
        except StorageError:  # a full disk, where writing in place needs space: no stamp is another one too
            self._file.truncate(0)
        self._told = False

    @contextmanager
    def moving(self) -> Iterator[None]:
        """As `change`, for what moves in the body beside whatever else goes on: `tell` refuses meanwhile."""
        with self._lock:
            self._change()
            self._moving += 1
        try:
            yield
        finally:
            with self._lock:
                self._moving -= 1

    def tell(self) -> tuple[int, bytes]:
        """A new one, and the descriptor of the file that has it, for somebody who is to look from now on.

        That it is new proves that the file which shows it is this one.  Raises StorageError NOT_READY:
        something is moving; NOT_SUPPORTED: the file system does not say what is in memory; others: no room.
        """
        with self._lock:
            if self._moving:
                raise StorageError(StorageFailure.NOT_READY, "blocks are being moved")
            if self._file is None:
                self._file = self._directory.create(STAMP_FILE)
            new = self._write()
            self._told = True
            if self._file.read_nowait(0, STAMP_BYTES) != new:
                reason = "what is in memory cannot be told from what is not"
                raise StorageError(StorageFailure.NOT_SUPPORTED, reason)
            return self._file.descriptor, new

    def _write(self) -> bytes:
        assert self._file is not None
        new = secrets.token_bytes(STAMP_BYTES)
        if self._file.size_bytes() < STAMP_BYTES:
            self._file.truncate(STAMP_BYTES)
        self._file.write(0, (new,))
        return new

    def close(self) -> None:
        """Give the file back, if that was not done yet."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
