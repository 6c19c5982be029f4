"""Words of the machine's memory that outlive the process, and not the machine.  Calls that never wait.

A process that writes says in such a word where it is writing just now (`checked_file_sys`), which takes no
system call.  If it is killed, the next one reads there which write was cut.  A power cut clears all of them,
as it does with the page cache.

The words lie in files of /dev/shm, one in each, whose names nobody can guess.  What is not tmpfs is not used:
a file of another file system may fail when it is written to, and through a mapping that ends the process
(SIGBUS).  Who gets another /dev/shm than the process before, in another container, finds no word: `look`
says None, and the caller has to think the worst.
"""

import mmap
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.sparse.mounts_sys import kind_of_file_system

__all__ = ["SharedSlots", "Slot", "Slots"]

_NAME: Final = re.compile(r"pyjiva-slot-[0-9a-f]{32}")
_PLACE: Final = Path("/dev/shm")  # where Linux has it, and shm_open(3) too
_WORD_BYTES: Final = 8
_FILE_BYTES: Final = mmap.PAGESIZE


@attrs.frozen(eq=False)
class Slot:
    """A word of this process."""

    name: str
    word: memoryview
    """One unsigned number of 64 bits, which is stored whole or not; 0 at first."""
    remove: Callable[[], None]
    """Let nobody find it any more."""


class Slots(Protocol):
    """Where a machine keeps them."""

    def make(self) -> Slot:
        """A new one.  Raises StorageError NOT_SUPPORTED: this machine has none, or no room for it."""

    def look(self, name: str) -> int | None:
        """What the word of an earlier process is; None: it is not here."""

    def remove(self, name: str) -> None:
        """Remove the word of an earlier process, if it is here."""


@attrs.frozen
class SharedSlots:
    """Those of this machine, as far as this process sees them."""

    place: Path = _PLACE

    def make(self) -> Slot:
        """See Slots."""
        name = f"pyjiva-slot-{secrets.token_hex(16)}"
        path = self.place / name
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                if kind_of_file_system(fd) != "tmpfs":
                    raise StorageError(StorageFailure.NOT_SUPPORTED, f"{self.place} is not tmpfs")
                os.posix_fallocate(fd, 0, _FILE_BYTES)  # so that storing never asks for memory
                memory = mmap.mmap(fd, _FILE_BYTES)
            except BaseException:
                path.unlink()
                raise
            finally:
                os.close(fd)
        except OSError as error:
            reason = f"{self.place}: {os.strerror(error.errno or 0)}"
            raise StorageError(StorageFailure.NOT_SUPPORTED, reason) from error
        return Slot(name, memoryview(memory)[:_WORD_BYTES].cast("Q"), lambda: self.remove(name))

    def look(self, name: str) -> int | None:
        """See Slots."""
        if not _NAME.fullmatch(name):
            return None
        try:
            fd = os.open(self.place / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return None
                word = os.pread(fd, _WORD_BYTES, 0)
            finally:
                os.close(fd)
        except OSError:  # not there, or not for this user: it is as good as lost
            return None
        return int.from_bytes(word, sys.byteorder) if len(word) == _WORD_BYTES else None

    def remove(self, name: str) -> None:
        """See Slots."""
        if _NAME.fullmatch(name):
            try:
                (self.place / name).unlink(missing_ok=True)
            except OSError:  # another user's: a page of memory that stays until the next boot
                return
