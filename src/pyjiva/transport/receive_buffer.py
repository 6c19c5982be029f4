"""Bytes from a stream, given out as views without a copy.  Pure.

The shell receives into `tail()`, then says how much came by `received()`.  A parser looks at the front by
`peek` and takes it off by `take` (a view that stays valid for as long as somebody holds it) or `skip`.

A view may be held long after it was taken: write data lives in it until the last replica has answered.  So
a region that was given out is never received into again: when the buffer's tail gets short, the bytes not
yet taken move to a new buffer, and the old one is free when its last view is gone (`recycled`).  When
nothing was given out since the buffer was last empty (a stream of small requests: all reads), it is simply
rewound.
"""

from typing import Final

import attrs

from pyjiva.buffers import bytes_at
from pyjiva.recycled import Buffers, RecycledBuffers
from pyjiva.units import KIB, MIB

__all__ = ["RECEIVE_BYTES_MAX", "RECEIVE_BYTES_MIN", "SHARED_BYTES_MAX", "ReceiveBuffer"]

RECEIVE_BYTES_MIN: Final = (
    64 * KIB
)  # a receive is offered at least this much room: a full 64 KiB burst in one call
RECEIVE_BYTES_MAX: Final = 1 * MIB + RECEIVE_BYTES_MIN
"""One buffer for a MiB of write data, so that a message of that size with its header lies in one."""
SHARED_BYTES_MAX: Final = 32 * RECEIVE_BYTES_MAX
"""Kept for the next receive, where all streams of a process are given their buffers from one place."""
EXACT_BYTES_MIN: Final = 256 * KIB
"""Of a message that misses this much no more is received than it misses: what came of the next one beside it
would have to be copied, up to all of it.
"""


@attrs.define
class ReceiveBuffer:  # hot
    """The not yet parsed bytes of one stream."""

    _large: Buffers = attrs.field(factory=RecycledBuffers)
    """Where a stream that carries data receives into."""
    _view: memoryview = attrs.field(init=False, factory=lambda: memoryview(bytearray(RECEIVE_BYTES_MIN)))
    _start: int = attrs.field(init=False, default=0)
    _end: int = attrs.field(init=False, default=0)
    _given_out: bool = attrs.field(init=False, default=False)

    def __len__(self) -> int:
        """How many bytes wait to be parsed."""
        return self._end - self._start

    def tail(self, wanted_bytes: int = 0) -> memoryview:
        """Room to receive into, at least RECEIVE_BYTES_MIN and enough to hold `wanted_bytes` unparsed
        bytes in all.
        """
        size = len(self._view)
        if self._start == self._end and not self._given_out:
            self._start = self._end = 0
        missing = wanted_bytes - len(self)
        room = max(RECEIVE_BYTES_MIN, missing)
        if size - self._end < room:
            self._renew(room)
        if missing >= EXACT_BYTES_MIN:
            return self._view[self._end : self._end + missing]
        return self._view[self._end :]

    def _renew(self, room_bytes: int) -> None:
        waiting = len(self)
        # A stream that carries data gets large buffers, one that carries only headers keeps the small one.
        size = RECEIVE_BYTES_MAX if self._given_out else RECEIVE_BYTES_MIN
        view = self._large.take(max(size, waiting + room_bytes))
        view[:waiting] = self._view[self._start : self._end]
        self._view, self._start, self._end, self._given_out = view, 0, waiting, False

    def received(self, count: int) -> None:
        """`count` bytes were received into the start of the last `tail()`."""
        assert 0 <= count <= len(self._view) - self._end
        self._end += count

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Append a copy of `data`: for tests and for streams that are not sockets."""
        self.tail(len(self) + len(data))[: len(data)] = data
        self.received(len(data))

    def peek(self, count: int) -> memoryview | None:
        """A view of the first `count` bytes, valid until the next call; None while fewer have arrived."""
        if self._end - self._start < count:
            return None
        return self._view[self._start : self._start + count]

    def copy_of(self, count: int) -> bytes | None:
        """A copy of the first `count` bytes; None while fewer have arrived."""
        if self._end - self._start < count:
            return None
        return bytes_at(self._view, self._start, count)

    def take(self, count: int) -> memoryview:
        """The first `count` bytes, taken off; the view stays valid for as long as it is held."""
        assert count <= self._end - self._start
        start = self._start
        self._start = start + count
        self._given_out = True
        return self._view[start : start + count]

    def release(self) -> None:
        """The stream has ended: hold no memory any more.  Views that were taken stay valid."""
        self._view, self._start, self._end, self._given_out = memoryview(b""), 0, 0, False

    def skip(self, count: int) -> None:
        """Take `count` bytes off without looking at them."""
        assert count <= self._end - self._start
        self._start += count
