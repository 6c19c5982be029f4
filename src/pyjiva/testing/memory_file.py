"""A disk in memory that behaves like the worst one that POSIX allows: a page cache, power cuts, faults.

`MemoryDisk` is what survives a process and a machine; `open_directory` gives the `sparse.Directory` of one
process on it.  What was not synced is decided at `power_cut`, by `random`:

- a page written since the last sync of its file is lost, kept, or torn (old and new by sectors of 512
  bytes); the write-back in between may also have kept an earlier version of it;
- creating, renaming or removing a name that the directory was not synced after is undone or not, in order
  (as by a journal) or each for itself; a name may come back with none of its file's content;
- after a sync that failed nothing is written back any more, though reads still give the new content from
  the cache: Linux' own behaviour.

Every step that could meet a fault or a power cut first calls `before_step` (see `cut_power_at`, `fail_at`).
Not modelled: misdirected writes, a disk that lies about a sync.
"""

import errno
import threading
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.extent import Extent, merge_extents
from pyjiva.sparse import Buffer
from pyjiva.testing.memory_slots import MemorySlots

__all__ = [
    "SECTOR_BYTES",
    "MemoryDirectory",
    "MemoryDisk",
    "MemoryFile",
    "PeekedFile",
    "PowerCut",
    "cut_power_at",
    "fail_at",
    "no_fault",
]

PAGE_BYTES: Final = 4096
DISK_BYTES: Final = 1 << 30  # what a memory disk says that it has
SECTOR_BYTES: Final = 512  # what a disk writes whole
WRITE_BACK_CHANCE: Final = 0.1  # per write: the kernel takes a dirty page to the disk of its own accord
_HOLE: Final = bytes(PAGE_BYTES)
_at_once: Final = threading.RLock()
"""Held while a call changes pages, as the kernel does: of two threads that write to one page, both have."""

Step = Callable[[str], None]
"""Called with "verb name" before each step; raises PowerCut or StorageError, or lets it happen."""


class PowerCut(BaseException):
    """The machine stopped before the step; like a kill, nothing may catch it and go on."""


def no_fault(_step: str) -> None:
    """Let every step happen."""


def cut_power_at(number: int) -> Step:
    """Let `number` steps happen, then stop the machine."""

    def before_step(step: str) -> None:
        nonlocal number
        if number == 0:
            raise PowerCut(step)
        number -= 1

    return before_step


def fail_at(number: int, failure: StorageFailure, verb: str = "") -> Step:
    """Let `number` steps that begin with `verb` happen, then fail one, then let all happen."""

    def before_step(step: str) -> None:
        nonlocal number
        if step.startswith(verb):
            number -= 1
            if number == -1:
                raise StorageError(failure, f"{step}: injected")

    return before_step


@attrs.define(eq=False)
class _Inode:
    """A file's content, in the cache and on the platter; pages that are not there are holes."""

    pages: dict[int, bytes] = attrs.field(factory=dict)
    size_bytes: int = 0
    stable_pages: dict[int, bytes] = attrs.field(factory=dict)
    stable_size_bytes: int = 0
    dirty: set[int] = attrs.field(factory=set)

    def put(self, number: int, page: bytes | None) -> None:
        """Change a page in the cache."""
        _put(self.pages, number, page)
        self.dirty.add(number)

    def write_back(self, number: int) -> None:
        """Take a page to the platter."""
        _put(self.stable_pages, number, self.pages.get(number))
        self.dirty.discard(number)

    def lose_power(self, random: Random) -> None:
        """Decide about everything that was not synced."""
        with _at_once:
            for number in sorted(self.dirty):
                new = self.pages.get(number)
                match random.choice(("lost", "kept", "torn")):
                    case "kept":
                        _put(self.stable_pages, number, new)
                    case "torn":
                        old = self.stable_pages.get(number, _HOLE)
                        _put(self.stable_pages, number, _tear(old, new or _HOLE, random))
            if random.getrandbits(1):
                self.stable_size_bytes = self.size_bytes
            self.dirty.clear()
            self.size_bytes = self.stable_size_bytes
            pages_end = -(-self.size_bytes // PAGE_BYTES)
            self.stable_pages = {n: page for n, page in self.stable_pages.items() if n < pages_end}
            self.pages = dict(self.stable_pages)


def _put(pages: dict[int, bytes], number: int, page: bytes | None) -> None:
    if page is None:
        pages.pop(number, None)
    else:
        pages[number] = page


def _tear(old: bytes, new: bytes, random: Random) -> bytes:
    sectors = range(0, PAGE_BYTES, SECTOR_BYTES)
    return b"".join((new if random.getrandbits(1) else old)[at : at + SECTOR_BYTES] for at in sectors)


@attrs.define(eq=False)
class MemoryDisk:
    """One directory's worth of disk, with the machine's page cache in front of it."""

    random: Random
    path: str = "memory"
    before_step: Step = no_fault
    cached_share: float = 1.0
    """How likely a `read_nowait` finds what it wants."""
    on_change: Callable[[str, int, bytes], None] | None = None
    """Called with (name, offset, data) after bytes of a file have changed."""
    steps: int = attrs.field(default=0, init=False)
    """Steps that happened or were asked for."""
    _names: dict[str, _Inode] = attrs.field(factory=dict, init=False)
    _stable_names: dict[str, _Inode] = attrs.field(factory=dict, init=False)
    _unsynced_names: list[dict[str, _Inode | None]] = attrs.field(factory=list, init=False)
    _owner: "MemoryDirectory | None" = attrs.field(default=None, init=False)
    _numbered: list[_Inode] = attrs.field(factory=list, init=False)
    power_cuts: int = attrs.field(default=0, init=False)
    """How many there have been."""
    slots: MemorySlots = attrs.field(factory=MemorySlots, init=False)
    """Of the machine."""

    def open_directory(self) -> "MemoryDirectory":
        """The directory, for one process at a time.  Raises ConfigError: one has it."""
        if self._owner is not None:
            raise ConfigError(f"{self.path}: another process has it open; stop that one first")
        self._owner = MemoryDirectory(self)
        return self._owner

    def kill_process(self) -> None:
        """The process that has the directory is gone; the machine and its cache go on."""
        self._owner = None

    def power_cut(self) -> None:
        """The machine is gone, with all that `random` does not keep."""
        self._owner = None
        self.power_cuts += 1
        self.slots.words.clear()
        in_order = bool(self.random.getrandbits(1))
        for change in self._unsynced_names:
            if self.random.getrandbits(1):
                _apply(self._stable_names, change)
            elif in_order:
                break
        self._unsynced_names.clear()
        self._names = dict(self._stable_names)
        for name in sorted(self._names):
            self._names[name].lose_power(self.random)

    def step(self, owner: "MemoryDirectory", what: str) -> None:
        """Count a step of `owner`, which is dead if it does not own the directory any more."""
        if not self.is_owner(owner):
            raise PowerCut(what)
        self.steps += 1
        self.before_step(what)

    def is_owner(self, directory: "MemoryDirectory") -> bool:
        """Whether the process that opened `directory` lives."""
        return self._owner is directory

    def change_names(self, change: dict[str, _Inode | None]) -> None:
        """Change names in the cache."""
        self._unsynced_names.append(change)
        _apply(self._names, change)

    def sync_names(self) -> None:
        """Make all names stable."""
        self._unsynced_names.clear()
        self._stable_names = dict(self._names)

    def number_of(self, inode: _Inode) -> int:
        """By which another process may look at the file (`peek`)."""
        if inode not in self._numbered:
            self._numbered.append(inode)
        return self._numbered.index(inode)

    def peek(self, number: int) -> "PeekedFile":
        """A file that was given a number, as another process reads it.  Raises OSError: there is none."""
        if number >= len(self._numbered):
            raise OSError(errno.ENOENT, f"file {number} of {self.path}")
        return PeekedFile(MemoryDirectory(self), f"file {number}", self._numbered[number])

    def inodes(self) -> dict[str, _Inode]:
        """Name and content of every file, as the running machine sees it."""
        return self._names

    def content(self, name: str) -> bytes:
        """All of a file, as the running machine sees it."""
        inode = self._names[name]
        return _read(inode, 0, inode.size_bytes)

    def read(self, name: str, offset_bytes: int, length_bytes: int) -> bytes:
        """A part of a file, as the running machine sees it."""
        return _read(self._names[name], offset_bytes, length_bytes)

    def has_room_for(self, name: str) -> bool:
        """Whether a full disk takes writes to the file: a map of held blocks that has its only page already.

        Other files have pages that are there and pages that are not, and take no write.
        """
        return name.endswith(".held") and name in self._names and bool(self._names[name].pages)

    def rot(self, name: str, offset_bytes: int) -> None:
        """Change a bit of what the platter has; the page leaves the cache, if it is not dirty."""
        inode = self._names[name]
        number, start = divmod(offset_bytes, PAGE_BYTES)
        page = bytearray(inode.stable_pages.get(number, _HOLE))
        page[start] ^= 1 << self.random.randrange(8)
        _put(inode.stable_pages, number, bytes(page))
        if number not in inode.dirty:
            _put(inode.pages, number, bytes(page))

    def put(self, name: str, content: bytes) -> None:
        """Make a file with `content`, all stable: what somebody else left here."""
        inode = _Inode(size_bytes=len(content), stable_size_bytes=len(content))
        for start in range(0, len(content), PAGE_BYTES):
            inode.put(start // PAGE_BYTES, content[start : start + PAGE_BYTES].ljust(PAGE_BYTES, b"\0"))
            inode.write_back(start // PAGE_BYTES)
        self._names[name] = self._stable_names[name] = inode


def _apply(names: dict[str, _Inode], change: dict[str, _Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


@attrs.define(eq=False)
class MemoryDirectory:
    """A `sparse.Directory` on a MemoryDisk."""

    disk: MemoryDisk

    @property
    def path(self) -> str:
        """See Directory."""
        return self.disk.path

    @property
    def slots(self) -> MemorySlots:
        """See Directory."""
        return self.disk.slots

    def names(self) -> list[str]:
        """See Directory."""
        self.disk.step(self, "list")
        return sorted(self.disk.inodes())

    def create(self, name: str) -> "MemoryFile":
        """See Directory."""
        self.disk.step(self, f"create {name}")
        if name in self.disk.inodes():
            raise StorageError(StorageFailure.WRITE_ERROR, f"{self.path}: open {name}: File exists")
        inode = _Inode()
        self.disk.change_names({name: inode})
        return MemoryFile(self, name, inode)

    def open(self, name: str) -> "MemoryFile":
        """See Directory."""
        self.disk.step(self, f"open {name}")
        return MemoryFile(self, name, self._inode(name))

    def rename(self, old: str, new: str) -> None:
        """See Directory."""
        self.disk.step(self, f"rename {old}")
        self.disk.change_names({old: None, new: self._inode(old)})

    def remove(self, name: str) -> None:
        """See Directory."""
        self.disk.step(self, f"remove {name}")
        self._inode(name)
        self.disk.change_names({name: None})

    def sync(self) -> None:
        """See Directory."""
        self.disk.step(self, "sync directory")
        self.disk.sync_names()

    def used_bytes(self) -> int:
        """See Directory."""
        self.disk.step(self, "look at the files")
        return sum(len(inode.pages) for inode in self.disk.inodes().values()) * PAGE_BYTES

    def available_bytes(self) -> int:
        """See Directory: as on a disk of DISK_BYTES that nobody else uses."""
        return max(0, DISK_BYTES - self.used_bytes())

    def close(self) -> None:
        """See Directory."""
        if self.disk.is_owner(self):
            self.disk.kill_process()

    def _inode(self, name: str) -> _Inode:
        inode = self.disk.inodes().get(name)
        if inode is None:
            raise StorageError(StorageFailure.READ_ERROR, f"{self.path}: {name}: No such file or directory")
        return inode


@attrs.define(eq=False)
class MemoryFile:
    """A `sparse.DataFile` on a MemoryDisk."""

    _directory: MemoryDirectory
    _name: str
    _inode: _Inode

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See DataFile."""
        disk = self._directory.disk
        if disk.cached_share < 1.0 and disk.random.random() >= disk.cached_share:
            return None
        return self.read(offset_bytes, length_bytes)

    def read(self, offset_bytes: int, length_bytes: int) -> Buffer:
        """See DataFile."""
        self._step("read")
        return _read(self._inode, offset_bytes, length_bytes)

    def write(self, offset_bytes: int, buffers: Sequence[Buffer]) -> None:
        """See DataFile."""
        data = b"".join(buffers)
        disk = self._directory.disk
        try:
            self._step("write")
        except (StorageError, PowerCut):
            if disk.is_owner(self._directory):
                self._change(offset_bytes, data[: _whole_sectors(offset_bytes, len(data), disk.random)])
            raise
        self._change(offset_bytes, data)
        with _at_once:
            if self._inode.dirty and disk.random.random() < WRITE_BACK_CHANCE:
                self._inode.write_back(disk.random.choice(sorted(self._inode.dirty)))

    def punch(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile."""
        self._step("punch")
        for piece in Extent(offset_bytes, length_bytes).split(PAGE_BYTES):
            if piece.length_bytes < PAGE_BYTES:
                self._change(piece.offset_bytes, bytes(piece.length_bytes))
            else:
                with _at_once:
                    if piece.offset_bytes // PAGE_BYTES in self._inode.pages:
                        self._inode.put(piece.offset_bytes // PAGE_BYTES, None)

    def _change(self, offset_bytes: int, data: bytes) -> None:
        assert offset_bytes + len(data) <= self._inode.size_bytes, "beyond the end"
        with _at_once:
            for piece in Extent(offset_bytes, len(data)).split(PAGE_BYTES):
                number, start = divmod(piece.offset_bytes, PAGE_BYTES)
                page = bytearray(self._inode.pages.get(number, _HOLE))
                taken = piece.offset_bytes - offset_bytes
                page[start : start + piece.length_bytes] = data[taken : taken + piece.length_bytes]
                self._inode.put(number, bytes(page))
        if (on_change := self._directory.disk.on_change) is not None:
            on_change(self._name, offset_bytes, data)

    def allocated(self, extent: Extent) -> list[Extent]:
        """See DataFile."""
        self._step("map")
        with _at_once:
            return _clip((Extent(n * PAGE_BYTES, PAGE_BYTES) for n in self._inode.pages), extent)

    def sync_data(self) -> None:
        """See DataFile."""
        inode = self._inode
        try:
            self._step("sync")
        except StorageError:
            # The pages are taken for clean, and never written; holes are the file system's own business.
            with _at_once:
                inode.dirty.intersection_update(inode.dirty - set(inode.pages))
            raise
        with _at_once:
            for number in sorted(inode.dirty):
                inode.write_back(number)
            inode.stable_size_bytes = inode.size_bytes

    def drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        """See DataFile.  What is clean in the cache is what the platter has, but for rot: see `rot`."""
        self._step("drop")

    def truncate(self, size_bytes: int) -> None:
        """See DataFile."""
        self._step("truncate")
        inode = self._inode
        if size_bytes < inode.size_bytes:
            end = -(-size_bytes // PAGE_BYTES)
            for number in [number for number in sorted(inode.pages) if number >= end]:
                inode.put(number, None)
            if size_bytes % PAGE_BYTES and end - 1 in inode.pages:
                inode.put(end - 1, inode.pages[end - 1][: size_bytes % PAGE_BYTES].ljust(PAGE_BYTES, b"\0"))
        inode.size_bytes = size_bytes

    def size_bytes(self) -> int:
        """See DataFile."""
        self._step("stat")
        return self._inode.size_bytes

    @property
    def descriptor(self) -> int:
        """See DataFile."""
        return self._directory.disk.number_of(self._inode)

    def close(self) -> None:
        """See DataFile."""

    def _step(self, verb: str) -> None:
        self._directory.disk.step(self._directory, f"{verb} {self._name}")


@attrs.define(eq=False)
class PeekedFile(MemoryFile):
    """A file that another process has opened; this one may read what is in memory, and nothing else.

    It is there whatever becomes of that process, its directory or the file's name; but for the power.
    """

    _power_cuts: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._power_cuts = self._directory.disk.power_cuts

    def read_nowait(self, offset_bytes: int, length_bytes: int) -> Buffer | None:
        """See DataFile."""
        disk = self._directory.disk
        if disk.power_cuts != self._power_cuts:
            return None
        beyond = offset_bytes + length_bytes > self._inode.size_bytes
        if beyond or (disk.cached_share < 1.0 and disk.random.random() >= disk.cached_share):
            return None
        return _read(self._inode, offset_bytes, length_bytes)

    def size_bytes(self) -> int:
        """See DataFile."""
        return self._inode.size_bytes


def _whole_sectors(offset_bytes: int, length_bytes: int, random: Random) -> int:
    """How much of a write that failed happened all the same: it ends where a sector ends, or nowhere."""
    happened = random.randint(0, length_bytes)
    return (
        happened if happened == length_bytes else max(0, happened - (offset_bytes + happened) % SECTOR_BYTES)
    )


def _read(inode: _Inode, offset_bytes: int, length_bytes: int) -> bytes:
    pieces = []
    for piece in Extent(offset_bytes, length_bytes).split(PAGE_BYTES):
        number, start = divmod(piece.offset_bytes, PAGE_BYTES)
        pieces.append(inode.pages.get(number, _HOLE)[start : start + piece.length_bytes])
    return b"".join(pieces)


def _clip(parts: Iterable[Extent], wanted: Extent) -> list[Extent]:
    return [part for whole in merge_extents(parts) if (part := whole.clip(wanted)) is not None]
