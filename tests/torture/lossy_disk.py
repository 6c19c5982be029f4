"""A replica's directory on a machine whose power can be cut: what was not synced may be gone afterwards.

`kill -9` leaves the page cache, so it takes nothing back.  This layer lies between the replica's store and
its files.  Before each change it notes what is undone if the power goes, in a *journal* outside of the
directory; a sync that returned strikes out what it made stable.  After the process was killed `cut_power`
takes back a part of what is noted, drawn for each page of 4 KiB: nothing, all of it, all but what the kernel
had written back by chance, or sector by sector.  Names that were created, renamed or removed since the last
sync of the directory are undone from some point on, as by a file system with a journal.

A change is noted first and happens then; a sync is struck out after it returned.  So a kill in between only
takes back more than had to be, never what somebody was told is stable.

Not modelled: a sector that is torn, names that are lost out of order (`MemoryDisk` has that), the content of
removed files above 4 MiB.
"""

import json
import os
import shutil
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs

from pyjiva.extent import Extent
from pyjiva.sparse import Buffer, DataFile, Directory, Slots

__all__ = ["LossyDirectory", "cut_power"]

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096
SAVED_BYTES_MAX: Final = 4 << 20
PIECE_BYTES: Final = 1 << 20
WRITTEN_BACK: Final = 0.1  # chance that the kernel had taken the page to the disk before a given change of it
_RECORD: Final = struct.Struct("<QQ")  # offset, length; then the old bytes
_SIZE: Final = 2**64 - 1  # as an offset: the length is the old size of the file
_NAMES: Final = "names"


@attrs.define(eq=False)
class Journal:
    """What a power cut may undo, of one directory."""

    path: Path
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    _segments: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    """Inode → (number, descriptor) of the segment that is written to."""

    def note(self, inode: int, offset_bytes: int, old: Buffer) -> None:
        """The range of the file held `old`."""
        _write_all(self._segment(inode), _RECORD.pack(offset_bytes, len(old)) + bytes(old))

    def note_size(self, inode: int, size_bytes: int) -> None:
        """The file was so long."""
        _write_all(self._segment(inode), _RECORD.pack(_SIZE, size_bytes))

    def _segment(self, inode: int) -> int:
        if inode not in self._segments:
            number = max((number for number, _ in segments(self.path, inode)), default=0) + 1
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._segments[inode] = number, os.open(self.path / f"{inode}.{number}", flags, 0o600)
        return self._segments[inode][1]

    def begin_sync(self, inode: int) -> list[Path]:
        """What the sync that begins now will strike out."""
        with self.lock:
            if inode in self._segments:
                os.close(self._segments.pop(inode)[1])
            return [path for _, path in segments(self.path, inode)]

    def forget(self, inode: int) -> None:
        """The inode is a new file now."""
        for path in self.begin_sync(inode):
            path.unlink()

    def note_name(self, **change: str | int | None) -> None:
        """A name is about to change."""
        with (self.path / _NAMES).open("a") as log:
            log.write(json.dumps(change) + "\n")

    def save(self, path: Path) -> str | None:
        """A copy of a small file that is about to lose its name."""
        if not path.exists() or path.stat().st_size > SAVED_BYTES_MAX:
            return None
        number = len(list(self.path.glob("saved-*")))
        shutil.copyfile(path, self.path / f"saved-{number}")
        return f"saved-{number}"

    def names_are_stable(self) -> None:
        """The directory was synced."""
        (self.path / _NAMES).unlink(missing_ok=True)
        for saved in self.path.glob("saved-*"):
            saved.unlink()


def segments(journal: Path, inode: int) -> list[tuple[int, Path]]:
    """Number and path of the segments of a file, the oldest first."""
    return sorted((int(path.suffix[1:]), path) for path in journal.glob(f"{inode}.*"))


@attrs.define(eq=False)
class LossyFile:
    """A DataFile that notes what it changes."""

    _file: DataFile
    _inode: int
    _journal: Journal

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See DataFile."""
        return self._file.read_nowait(offset_bytes, length_bytes)

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See DataFile."""
        return self._file.read(offset_bytes, length_bytes)

    def write(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        """See DataFile."""
        length = sum(map(len, buffers))
        with self._journal.lock:
            self._journal.note(self._inode, offset_bytes, self._file.read(offset_bytes, length))
        self._file.write(offset_bytes, buffers)

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile."""
        with self._journal.lock:
            for part in self._file.allocated(Extent(offset_bytes, length_bytes)):
                for piece in part.split(PIECE_BYTES):
                    old = self._file.read(piece.offset_bytes, piece.length_bytes)
                    self._journal.note(self._inode, piece.offset_bytes, old)
        self._file.punch(offset_bytes, length_bytes)

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile."""
        return self._file.allocated(extent)

    def sync_data(self) -> None:
        """See DataFile."""
        stable = self._journal.begin_sync(self._inode)
        self._file.sync_data()
        for path in stable:
            path.unlink(missing_ok=True)  # by another sync that ran at the same time

    def drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile."""
        self._file.drop_cache(offset_bytes, length_bytes)

    def truncate(self, size_bytes: int) -> None:
        """See DataFile."""
        with self._journal.lock:
            self._journal.note_size(self._inode, self._file.size_bytes())
        self._file.truncate(size_bytes)

    def size_bytes(self) -> int:
        """See DataFile."""
        return self._file.size_bytes()

    @property
    def descriptor(self) -> int:
        """See DataFile."""
        return self._file.descriptor

    def close(self) -> None:
        """See DataFile."""
        self._file.close()


@attrs.define(eq=False)
class LossyDirectory:
    """A Directory that notes what it changes in `journal`, a directory that exists."""

    _directory: Directory
    _journal: Journal

    @classmethod
    def over(cls, directory: Directory, journal: Path) -> "LossyDirectory":
        """The layer over `directory`."""
        return cls(directory, Journal(journal))

    @property
    def path(self) -> str:
        """See Directory."""
        return self._directory.path

    def names(self) -> list[str]:
        """See Directory."""
        return self._directory.names()

    def create(self, name: str) -> LossyFile:
        """See Directory."""
        self._journal.note_name(verb="create", name=name)
        file = self._directory.create(name)
        inode = self._place(name).stat().st_ino
        self._journal.forget(inode)
        return LossyFile(file, inode, self._journal)

    def open(self, name: str) -> LossyFile:
        """See Directory."""
        file = self._directory.open(name)
        return LossyFile(file, self._place(name).stat().st_ino, self._journal)

    def rename(self, old: str, new: str) -> None:
        """See Directory."""
        saved = self._journal.save(self._place(new))
        inode = self._place(old).stat().st_ino if self._place(old).exists() else None
        self._journal.note_name(verb="rename", old=old, new=new, inode=inode, saved=saved)
        self._directory.rename(old, new)

    def remove(self, name: str) -> None:
        """See Directory."""
        self._journal.note_name(verb="remove", name=name, saved=self._journal.save(self._place(name)))
        self._directory.remove(name)

    @property
    def slots(self) -> Slots:
        """See Directory.  They say nothing after a power cut, as that makes another boot."""
        return self._directory.slots

    def used_bytes(self) -> int:
        """See Directory."""
        return self._directory.used_bytes()

    def available_bytes(self) -> int:
        """See Directory."""
        return self._directory.available_bytes()

    def sync(self) -> None:
        """See Directory."""
        self._directory.sync()
        self._journal.names_are_stable()

    def close(self) -> None:
        """See Directory."""
        self._directory.close()

    def _place(self, name: str) -> Path:
        return Path(self.path) / name


def cut_power(directory: Path, journal: Path, random: Random) -> int:
    """Undo what the power cut takes; nobody has the directory open.  How many changes were not stable."""
    names = journal / _NAMES
    changes = [json.loads(line) for line in names.read_text().splitlines()] if names.exists() else []
    for change in reversed(changes[random.randint(0, len(changes)) :]):
        _undo_name(directory, journal, change)
    count = len(changes)
    for path in sorted(directory.iterdir()):
        found = segments(journal, path.stat().st_ino)
        if path.is_file() and found:
            records = list(_records(b"".join(segment.read_bytes() for _, segment in found)))
            _undo_writes(path, records, random)
            count += len(records)
    for path in journal.iterdir():
        path.unlink()
    return count


def _undo_name(directory: Path, journal: Path, change: dict[str, Any]) -> None:
    match change["verb"]:
        case "create":
            (directory / change["name"]).unlink(missing_ok=True)
        case "remove":
            _bring_back(journal, change["saved"], directory / change["name"])
        case _:
            new = directory / change["new"]
            if new.exists() and new.stat().st_ino == change["inode"]:  # else it was killed before the rename
                new.rename(directory / change["old"])
                _bring_back(journal, change["saved"], new)


def _bring_back(journal: Path, saved: str | None, path: Path) -> None:
    if saved is not None and not path.exists():
        shutil.copyfile(journal / saved, path)


def _records(log: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(offset, length, old bytes); a last one that a kill has cut is left out: its change did not happen."""
    at = 0
    while at + _RECORD.size <= len(log):
        offset, length = _RECORD.unpack_from(log, at)
        at += _RECORD.size
        old = b"" if offset == _SIZE else log[at : at + length]
        at += len(old)
        if offset == _SIZE or len(old) == length:
            yield offset, length, old


def _undo_writes(path: Path, records: Sequence[tuple[int, int, bytes]], random: Random) -> None:
    kept: dict[int, bool] = {}
    """Sector → whether what it holds stays."""
    with path.open("r+b") as file:
        for offset, length, old in reversed(records):
            if offset == _SIZE:
                if random.getrandbits(1):
                    file.truncate(length)
                continue
            for page in Extent(offset, length).split(PAGE_BYTES):
                _draw_page(page.offset_bytes // PAGE_BYTES, kept, random)
                for piece in page.split(SECTOR_BYTES):
                    if not kept[piece.offset_bytes // SECTOR_BYTES]:
                        file.seek(piece.offset_bytes)
                        start = piece.offset_bytes - offset
                        file.write(old[start : start + piece.length_bytes])


def _draw_page(number: int, kept: dict[int, bool], random: Random) -> None:
    """Decide what stays of a page, when the first change of it is met, or that a change is as old as that."""
    sectors_of_page = PAGE_BYTES // SECTOR_BYTES
    sectors = range(number * sectors_of_page, (number + 1) * sectors_of_page)
    if sectors[0] not in kept:
        kept |= _what_stays(sectors, random)
    if random.random() < WRITTEN_BACK:
        kept |= dict.fromkeys(sectors, True)


def _what_stays(sectors: range, random: Random) -> dict[int, bool]:
    match random.choice(("kept", "lost", "torn")):
        case "kept":
            return dict.fromkeys(sectors, True)
        case "lost":
            return dict.fromkeys(sectors, False)
        case _:
            return {number: bool(random.getrandbits(1)) for number in sectors}


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
