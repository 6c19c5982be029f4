"""Memory that a controller shares with replicas on its own machine, so that large payloads are not copied
from one process to another.

Theory.  A MiB that goes over loopback is copied into the kernel and out again, and each copy costs as much as
writing it to the page cache.  So a host's data is received into slots of an anonymous file (memfd_create(2)),
and a replica that has mapped the file is told *where* a payload lies.  For a read it is told where to put it.

*Who may use a slot.*  A slot is taken again when nobody has a view of it, as `recycled` has it.  Whoever
tells a replica of a part of a slot keeps a view of that part until the replica has answered
(`controller.sharing_link`). A replica whose connection is lost never answers, and may still read from the
slot, or write into it; so the whole file is then *abandoned*: its slots are never taken again, new ones
come from a new file, and the old one is gone when the last view and the last mapping are.  A process that
is killed takes its views with it, but not the file: what another process still reads stays as it was.

*How a replica finds it.*  By the controller's process number and descriptor, through /proc.  That works
between processes of one machine, one process namespace and one user, and fails otherwise: then payloads go
over the connection.  A secret at the start of the file tells that it is the one that was meant.
"""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import secrets
import stat
import sys
from typing import Final

import attrs

from pyjiva.errors import RemoteProtocolError
from pyjiva.recycled import RecycledBuffers
from pyjiva.transport.receive_buffer import RECEIVE_BYTES_MAX, SHARED_BYTES_MAX
from pyjiva.units import KIB, MIB

__all__ = ["SECRET_BYTES", "MappedMemory", "MemoryName", "SharedBuffers"]

PAGE_BYTES: Final = mmap.ALLOCATIONGRANULARITY
SLOT_BYTES: Final = RECEIVE_BYTES_MAX
SLOTS_MAX: Final = (
    64  # with 1 MiB in each, more than a host has outstanding; memory is taken as they are used
)
TAKE_BYTES_MIN: Final = 96 * KIB  # what is smaller than that would waste its slot
SECRET_BYTES: Final = 32
SIZE_BYTES: Final = PAGE_BYTES + SLOTS_MAX * SLOT_BYTES
_SIZE_BYTES_LIMIT: Final = 256 * MIB  # all that a replica maps
_F_ADD_SEALS: Final = 1033  # linux/fcntl.h
_F_GET_SEALS: Final = 1034
_F_SEAL_SHRINK: Final = 0x0002
_F_SEAL_GROW: Final = 0x0004

assert SLOT_BYTES % PAGE_BYTES == 0


@attrs.frozen
class MemoryName:
    """How another process of the machine finds a shared memory."""

    pid: int
    descriptor: int
    size_bytes: int
    secret: str
    """SECRET_BYTES random bytes, hexadecimal."""


def _references(slot: mmap.mmap) -> int:
    return sys.getrefcount(slot)


@attrs.define(eq=False)
class SharedBuffers:
    """Large buffers in a memory that others can map; `recycled.Buffers`.  One task's business.

    Raises OSError when it is made: the kernel gives no such memory.
    """

    generation: int = attrs.field(default=0, init=False)
    """Of the memory that is in use now; the next one after `abandon`."""
    _descriptor: int = attrs.field(default=-1, init=False)
    _secret: bytes = attrs.field(init=False)
    _slots: list[mmap.mmap] = attrs.field(factory=list, init=False)
    _start_of: dict[int, tuple[int, int]] = attrs.field(factory=dict, init=False)
    """By the identity of a slot: its place in the file and its address, bytes."""
    _free_references: int = attrs.field(init=False)
    """What `_references` says of a slot of which nobody has a view."""
    _used: set[int] = attrs.field(factory=set, init=False)
    """Numbers of the slots that were taken since `trim`."""
    _holds_memory: set[int] = attrs.field(factory=set, init=False)
    _others: RecycledBuffers = attrs.field(factory=lambda: RecycledBuffers(SHARED_BYTES_MAX), init=False)
    """For what no slot is free, too large or too small."""

    def __attrs_post_init__(self) -> None:
        self._begin()
        self._add_slot()
        for slot in self._slots:
            self._free_references = _references(slot)

    def _begin(self) -> None:
        descriptor = os.memfd_create("pyjiva", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._secret = secrets.token_bytes(SECRET_BYTES)
        try:
            os.ftruncate(descriptor, SIZE_BYTES)
            fcntl.fcntl(descriptor, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_GROW)
            os.pwrite(descriptor, self._secret, 0)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _add_slot(self) -> None:
        place = PAGE_BYTES + len(self._slots) * SLOT_BYTES
        slot = mmap.mmap(self._descriptor, SLOT_BYTES, offset=place)
        self._start_of[id(slot)] = place, ctypes.addressof(ctypes.c_char.from_buffer(slot))
        self._slots.append(slot)

    @property
    def name(self) -> MemoryName | None:
        """Where to find the memory that is in use now; None: the kernel gave no new one."""
        if self._descriptor < 0:
            return None
        return MemoryName(os.getpid(), self._descriptor, SIZE_BYTES, self._secret.hex())

    def take(self, size_bytes: int) -> memoryview:
        """See Buffers.  Not shared if it is small or no slot is free."""
        return self.take_shared(size_bytes) or self._others.take(size_bytes)

    def take_shared(self, size_bytes: int) -> memoryview | None:
        """The same, or None if it would not be shared."""
        if not TAKE_BYTES_MIN <= size_bytes <= SLOT_BYTES:
            return None
        number = self._free_slot()
        if number is None:
            if len(self._slots) == SLOTS_MAX or self._descriptor < 0:
                return None
            number = len(self._slots)
            try:
                self._add_slot()
            except OSError:  # no address space: as if none were free
                return None
        self._used.add(number)
        return memoryview(self._slots[number])[:size_bytes]

    def _free_slot(self) -> int | None:
        """The first one, so that few are used."""
        free_references = self._free_references
        number = 0
        for slot in self._slots:
            if _references(slot) == free_references:
                return number
            number += 1  # noqa: SIM113  # enumerate's tuple would hold a reference
        return None

    def place(self, view: bytes | bytearray | memoryview) -> int | None:
        """Where `view`, of at least one byte, lies in the memory that is in use now; None: somewhere else."""
        if type(view) is not memoryview:
            return None
        start = self._start_of.get(id(view.obj))
        if start is None:
            return None
        return start[0] + ctypes.addressof(ctypes.c_char.from_buffer(view)) - start[1]

    def abandon(self) -> None:
        """Never take a slot again that was taken until now: somebody may still use it and cannot be asked."""
        self._start_of.clear()  # before a new slot can have the identity of an old one
        self._slots.clear()
        self._used.clear()
        self._holds_memory.clear()
        self.close()
        self.generation += 1
        with contextlib.suppress(OSError):  # then nothing is shared any more
            self._begin()

    def trim(self) -> None:
        """Give back the memory of slots that nobody has had since the last call."""
        free_references = self._free_references
        number = 0
        for slot in self._slots:
            idle = number in self._holds_memory and number not in self._used
            if idle and _references(slot) == free_references:
                slot.madvise(mmap.MADV_REMOVE)
                self._holds_memory.discard(number)
            number += 1  # noqa: SIM113
        self._holds_memory |= self._used
        self._used.clear()

    def close(self) -> None:
        """Let go of the file; views stay good, and nothing more is shared."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@attrs.define(eq=False)
class MappedMemory:
    """Another process's `SharedBuffers`, as it was when it was mapped."""

    _memory: mmap.mmap

    @classmethod
    def of(cls, name: MemoryName) -> "MappedMemory":
        """Map it.  Raises OSError: it cannot be reached from here, or is not what was meant."""
        if not PAGE_BYTES <= name.size_bytes <= _SIZE_BYTES_LIMIT:
            raise OSError(errno.EFBIG, f"a shared memory of {name.size_bytes} bytes")
        path = f"/proc/{int(name.pid)}/fd/{int(name.descriptor)}"
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != name.size_bytes:
                raise OSError(errno.ENOENT, "there is something else")
            # Else it could be cut short under our feet, which ends a process that looks at it.
            if not fcntl.fcntl(descriptor, _F_GET_SEALS) & _F_SEAL_SHRINK:
                raise OSError(errno.EPERM, "it is not sealed")
            memory = mmap.mmap(descriptor, name.size_bytes)
        finally:
            os.close(descriptor)
        if not secrets.compare_digest(memory[:SECRET_BYTES].hex(), name.secret.lower()):
            raise OSError(errno.ENOENT, "it is another controller's")
        return cls(memory)

    def view(self, offset_bytes: int, length_bytes: int) -> memoryview:
        """A part of it, which keeps the mapping.  Raises RemoteProtocolError: it does not lie in it."""
        if length_bytes <= 0 or not PAGE_BYTES <= offset_bytes <= len(self._memory) - length_bytes:
            raise RemoteProtocolError(f"{length_bytes} bytes at {offset_bytes} lie not in the shared memory")
        return memoryview(self._memory)[offset_bytes : offset_bytes + length_bytes]
