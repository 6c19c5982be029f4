"""Small writes to neighbouring places that come together become one: a wrapper of a block device.  Pure.

To a replicated volume each write is a frame for every replica, an answer of each, and three calls of the
system there, whatever its size.  A host that writes in order, with several commands outstanding, sends many
in one batch.  So a small write waits for the end of its batch, when its frame would have left anyway; if what
comes next in the same batch begins where it ends, both are one request from then on.

What holds:

- Nothing is answered before the request that it is part of (DESIGN G1), and an error of that is one of each
  part: the contract of a block device lets a write that failed leave any mixture in its own range.
- Whatever comes between two writes goes down after the first of them, in the order in which it was
  submitted.
- What is not like the others goes alone: atomic writes, those beyond the end, those with known checksums,
  those that are traced.
"""  # hot

from typing import Final

import attrs

from pyjiva.block import BlockDevice, Request, Step, Write
from pyjiva.errors import StorageError
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB, MIB

__all__ = ["COALESCED_BYTES_MAX", "SMALL_BYTES_MAX", "CoalescingDevice"]

SMALL_BYTES_MAX: Final = 256 * KIB  # a larger one costs by its bytes
COALESCED_BYTES_MAX: Final = 1 * MIB  # of one request that is made of small ones


@attrs.define(eq=False)
class _Parts:
    """What is to be told when the request that was made of `writes` is done."""

    writes: list[Write]

    def done(self, whole: Write) -> None:
        """Its `done`."""
        error: StorageError | None = whole.error
        for write in self.writes:
            write.error = error
            write.done(write)


@attrs.define(eq=False)
class CoalescingDevice:
    """The block device `device`, given fewer and larger writes."""

    device: BlockDevice
    batch: EndOfBatch
    _held: list[Write] = attrs.field(factory=list, init=False)
    """Each begins where the one before it ends."""
    _registered: bool = attrs.field(default=False, init=False)

    @property
    def size_bytes(self) -> int:
        """Of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        if type(request) is not Write or not self._may_wait(request):
            self._pass_on()
            self.device.submit(request)
            return
        if self._held and not self._continues(request):
            self._pass_on()
        self._held.append(request)
        if not self._registered:
            self._registered = True
            self.batch.at_end(self._batch_ends)

    def _may_wait(self, write: Write) -> bool:
        if not 0 < write.length_bytes <= SMALL_BYTES_MAX or write.atomic or write.sums is not None:
            return False
        end = write.offset_bytes + write.length_bytes
        return write.offset_bytes >= 0 and end <= self.device.size_bytes and type(write.done) is not Step

    def _continues(self, write: Write) -> bool:
        first, last = self._held[0], self._held[-1]
        return (
            write.offset_bytes == last.offset_bytes + last.length_bytes
            and write.offset_bytes + write.length_bytes - first.offset_bytes <= COALESCED_BYTES_MAX
            and write.force_unit_access == first.force_unit_access
        )

    def _batch_ends(self) -> None:
        self._registered = False
        self._pass_on()

    def _pass_on(self) -> None:
        held = self._held
        if not held:
            return
        self._held = []
        first = held[0]
        if len(held) == 1:
            self.device.submit(first)
            return
        data = tuple(buffer for write in held for buffer in write.data)
        length = held[-1].offset_bytes + held[-1].length_bytes - first.offset_bytes
        parts = _Parts(held)
        self.device.submit(Write(first.offset_bytes, length, data, parts.done, first.force_unit_access))
