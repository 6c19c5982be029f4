"""What a block device can do: one request class per verb, submitted without waiting, answered by a call.

The SCSI device server sits on this interface, and everything below offers it: the replicated volume, a
single sparse chain, memory, and the wrappers (locks, statistics, faults).  So each is built and tested
without the others.

The contract, which `tests/suites/block_device.py` checks for every device:

- `submit` never waits and raises nothing that an initiator, a peer or a disk can cause.  It calls
  `request.done(request)` exactly once, perhaps before it returns, with `request.error` set if the request
  failed.
- `done` must not raise and must not wait; it may submit further requests.
- Write data is scattered over any number of buffers.  They belong to the device until `done`, and nobody
  changes them until then.  Read data is gathered into `Read.data`, any number of read-only buffers whose
  lengths add up.
- A request lies inside the device (else StorageFailure.OUT_OF_RANGE), at any byte offset and length:
  alignment to logical blocks is the device server's business, not the device's.
- A request that failed leaves its own range in any mixture of old and new contents, and every other byte as
  it was.
- An atomic write is seen, and left by a crash, as a whole or not at all; after an error the device tries to
  put back what was there.
- Requests that are outstanding at the same time are not ordered; a request submitted after `done` of
  another sees it.
- After a batch of `submit` calls the caller ends the batch (`transport.EndOfBatch`): a device may collect
  work until then.

Source of the verbs: nbdkit's plugin interface, reduced to what SBC-3 asks for.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import attrs

from pyjiva.buffers import Buffer
from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.units import MIB

__all__ = [
    "ATOMIC_BYTES_MAX",
    "BlockDevice",
    "BlockStatus",
    "Flush",
    "Read",
    "Request",
    "Unmap",
    "Write",
    "WriteZeroes",
]


ATOMIC_BYTES_MAX: Final = 1 * MIB
"""The largest atomic write."""


@attrs.define(eq=False)
class _Metered:
    """What a `MeteredDevice` keeps with a request until it is done; unset without one."""

    begun_ns: int = attrs.field(init=False, repr=False)
    then: Callable[[Any], None] = attrs.field(init=False, repr=False)
    """The submitter's `done`."""


@attrs.define(eq=False)
class Read(_Metered):
    """Read `length_bytes` at `offset_bytes`; holes read as zeros."""

    offset_bytes: int
    length_bytes: int
    done: Callable[["Read"], None]
    data: Sequence[Buffer] = ()
    """The answer: buffers whose lengths add up to `length_bytes`."""
    error: StorageError | None = None


@attrs.define(eq=False)
class Write(_Metered):
    """Write `data`, `length_bytes` in all, at `offset_bytes`."""

    offset_bytes: int
    length_bytes: int
    data: Sequence[Buffer]
    done: Callable[["Write"], None]
    force_unit_access: bool = False
    """Answer only when this write is on stable storage (SBC-3 FUA)."""
    error: StorageError | None = None
    atomic: bool = False
    """A crash leaves all of it or nothing (SBC-4 WRITE ATOMIC).  At most ATOMIC_BYTES_MAX."""
    sums: bytes | None = None
    """The checksums of its blocks (`block_sums`), if they are known; then all of them are whole."""


@attrs.define(eq=False)
class Unmap(_Metered):
    """Make the range read as zeros for ever and give its space back where whole file-system blocks are
    free.
    """

    offset_bytes: int
    length_bytes: int
    done: Callable[["Unmap"], None]
    error: StorageError | None = None


@attrs.define(eq=False)
class WriteZeroes(_Metered):
    """Make the range read as zeros for ever.  Space may or may not be given back."""

    offset_bytes: int
    length_bytes: int
    done: Callable[["WriteZeroes"], None]
    force_unit_access: bool = False
    error: StorageError | None = None


@attrs.define(eq=False)
class Flush(_Metered):
    """Bring every write that was answered before this was submitted to stable storage (SBC-3 SYNCHRONIZE
    CACHE).
    """

    done: Callable[["Flush"], None]
    error: StorageError | None = None


@attrs.define(eq=False)
class BlockStatus(_Metered):
    """Which parts of the range hold data; the rest are holes (SBC-3 GET LBA STATUS: mapped, deallocated)."""

    offset_bytes: int
    length_bytes: int
    done: Callable[["BlockStatus"], None]
    allocated: Sequence[Extent] = ()
    """The answer: sorted, disjoint, inside the range.  May name more than was ever written (blocks of the
    file system).
    """
    error: StorageError | None = None


Request = Read | Write | Unmap | WriteZeroes | Flush | BlockStatus


class BlockDevice(Protocol):
    """Anything that takes requests (see the module's contract)."""

    @property
    def size_bytes(self) -> int:
        """Present size; it may grow while the device is open."""

    def submit(self, request: Request) -> None:
        """Start `request`; `request.done(request)` is called exactly once."""
