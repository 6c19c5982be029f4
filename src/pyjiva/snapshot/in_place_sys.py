"""Requests of a chain's device that are carried out in place, inside `submit`: reads that the page cache can
answer and writes that only copy into it.  Pure; hot.
"""

from collections.abc import Callable
from typing import Any, Final

import attrs

from pyjiva.block import Read, Write
from pyjiva.errors import StorageError
from pyjiva.snapshot.layered_store_sys import Store
from pyjiva.units import MIB

__all__ = ["InPlace", "Verb"]

WRITE_IN_PLACE_BYTES_MAX: Final = 1 * MIB  # 50 us of copying at most: less than the trip to a thread

Verb = Callable[[Any], None]


@attrs.define(eq=False)
class InPlace:  # hot
    """What `ChainDevice` does without a wait."""

    store: Store
    queue_for_thread: Verb
    """Takes what may wait for the disk."""
    wait_for_flush: Verb
    """Takes what is done but for a flush."""
    verbs: dict[type, Verb] = attrs.field(factory=dict, init=False)
    """By the class of a request."""
    reads: int = attrs.field(default=0, init=False)
    read_bytes: int = attrs.field(default=0, init=False)
    reads_missed: int = attrs.field(default=0, init=False)
    writes: int = attrs.field(default=0, init=False)
    written_bytes: int = attrs.field(default=0, init=False)

    def submit(self, request: Any) -> None:
        """See BlockDevice."""
        self.verbs[type(request)](request)

    def read(self, request: Read) -> None:
        """From the page cache, or in a thread."""
        length = request.length_bytes
        self.reads += 1
        self.read_bytes += length
        try:
            data = self.store.read_nowait(request.offset_bytes, length)
        except StorageError as error:
            request.error = error
        else:
            if data is None:
                self.reads_missed += 1
                self.queue_for_thread(request)
                return
            request.data = (data,)
        request.done(request)

    def write(self, request: Write) -> None:
        """Into the page cache, or in a thread."""
        length = request.length_bytes
        self.writes += 1
        self.written_bytes += length
        offset = request.offset_bytes
        if (
            length > WRITE_IN_PLACE_BYTES_MAX
            or request.atomic
            or not self.store.writes_in_place(offset, length)
        ):
            self.queue_for_thread(request)
            return
        try:
            self.store.write(offset, length, request.data, request.sums, in_place=True)
        except StorageError as error:
            request.error = error
        if request.force_unit_access and request.error is None:
            self.wait_for_flush(request)
        else:
            request.done(request)
