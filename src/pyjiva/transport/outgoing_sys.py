"""What a socket is still to send: buffers in a queue, of which each call takes as many as it can.  Hot.

The socket must not block.  Nobody waits here: when it is full, the rest stays queued.
"""

import socket
from typing import Final

import attrs

from pyjiva.buffers import Buffer, left_after
from pyjiva.units import MIB

__all__ = ["IOV_MAX", "Outgoing"]

IOV_MAX: Final = 1024  # Linux' limit on the buffers of one sendmsg
SEND_BYTES_MAX: Final = 4 * MIB  # more in one call only makes the other streams wait


@attrs.define(eq=False)
class Outgoing:  # hot
    """The queue of one socket."""

    _sock: socket.socket
    queued_bytes: int = attrs.field(default=0, init=False)
    """What the kernel has not taken yet."""
    _buffers: list[Buffer] = attrs.field(factory=list, init=False)
    """None is empty: it would never be sent, and so never leave the queue."""

    def add(self, buffers: tuple[Buffer, ...]) -> None:
        """Queue `buffers`, which nobody may change from now on."""
        for buffer in buffers:
            size = len(buffer)
            if size:
                self.queued_bytes += size
                self._buffers.append(buffer)

    def send(self) -> bool:
        """Give the kernel what it takes; False: the socket is full and something is left.

        Raises OSError: the connection is broken.
        """
        while self._buffers:
            try:
                sent: int = self._sock.sendmsg(self._next_call())
            except BlockingIOError:
                return False
            self._taken(sent)
        return True

    def _next_call(self) -> list[Buffer]:
        """What one call is given."""
        if self.queued_bytes <= SEND_BYTES_MAX and len(self._buffers) <= IOV_MAX:
            return self._buffers
        batch: list[Buffer] = []
        size = 0
        for buffer in self._buffers:
            batch.append(buffer)
            size += len(buffer)
            if len(batch) == IOV_MAX or size >= SEND_BYTES_MAX:
                break
        return batch

    def _taken(self, count: int) -> None:
        if count == self.queued_bytes:
            self.clear()
        else:
            self.queued_bytes -= count
            self._buffers = left_after(self._buffers, count)

    def clear(self) -> None:
        """Forget all that is queued."""
        self.queued_bytes = 0
        self._buffers = []
