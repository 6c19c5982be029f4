"""A socket that is received from and sent to in batches, without a wait: what `stream_io` puts tasks around.
Hot.

Nothing here raises for a broken connection: it is shut down, so that whoever waits for it sees its end.
"""

import socket
from collections.abc import Callable

import attrs

from pyjiva.buffers import Buffer
from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.outgoing_sys import Outgoing
from pyjiva.transport.receive_buffer import ReceiveBuffer

__all__ = ["BatchedSocket", "Served"]


@attrs.define(eq=False)
class BatchedSocket:  # hot
    """Bytes that came in (`buffer`) and views that are to go out."""

    sock: socket.socket
    batch: EndOfBatch
    buffer: ReceiveBuffer
    full: Callable[[], None]
    """Called when the socket takes no more for now: once it does, `go_on` is to be called."""
    received_bytes: int = attrs.field(default=0, init=False)
    drained: bool = attrs.field(default=False, init=False)
    """The last receive took all there was: another one would only be told so."""
    blocked: bool = attrs.field(default=False, init=False)
    """`full` was called, and `go_on` was not."""
    broken: bool = attrs.field(default=False, init=False)
    progress: Callable[[], None] | None = attrs.field(default=None, init=False)
    """Called once, when something has left or the connection is broken."""
    _outgoing: Outgoing = attrs.field(init=False)
    _registered: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._outgoing = Outgoing(self.sock)

    @property
    def queued_bytes(self) -> int:
        """Handed to `send`, and not taken by the kernel yet."""
        return self._outgoing.queued_bytes

    def receive(self, wanted_bytes: int) -> int:
        """Take what there is into `buffer`, of which a message needs `wanted_bytes`; how many bytes, 0 at the
        end of the connection.

        Raises BlockingIOError: nothing is there.
        """
        tail = self.buffer.tail(wanted_bytes)
        try:
            count: int = self.sock.recv_into(tail)
        except BlockingIOError:
            raise
        except OSError:
            count = 0
        self.drained = count < len(tail)
        self.buffer.received(count)
        self.received_bytes += count
        return count

    def send(self, *buffers: Buffer) -> None:
        """Queue `buffers`, which nobody may change from now on; they leave at the end of the batch."""
        self._outgoing.add(buffers)
        if not self._registered and not self.blocked:
            self._registered = True
            self.batch.at_very_end(self._send_now)

    def go_on(self) -> None:
        """The socket takes something again."""
        self.blocked = False
        self._send_now()

    def _send_now(self) -> None:
        self._registered = False
        if not self.broken:
            try:
                if not self._outgoing.send():
                    self.blocked = True
                    self.full()
            except OSError:
                self.shut_down()
        if self.broken:
            self._outgoing.clear()
        if self.progress is not None:
            self.made_progress()

    def made_progress(self) -> None:
        """Something has left, or will never."""
        progress, self.progress = self.progress, None
        if progress is not None:
            progress()

    def shut_down(self) -> None:
        """End the connection in both directions.  May be called again."""
        if not self.broken:
            self.broken = True
            try:
                self.sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # the peer was faster
                self.broken = True
            self.made_progress()

    def close(self) -> None:
        """Give the socket back, and the memory: what was made for a connection refers to itself in a circle,
        and stays until the collector comes, which it seldom does.
        """
        self.broken = True
        self.sock.close()
        self.buffer.release()
        self._outgoing.clear()
        self.made_progress()


@attrs.define(eq=False)
class Served:  # hot
    """What happens when a socket is ready, until `arrived` says that it is enough, or the connection ends."""

    socket: BatchedSocket
    wanted_bytes: Callable[[], int]
    arrived: Callable[[], bool]
    over: Callable[[], None]
    """Called then; may be called again."""
    stands: bool = attrs.field(default=False, init=False)
    """The connection had not ended when it was over."""
    error: BaseException | None = attrs.field(default=None, init=False)
    """What `arrived` raised."""

    def ready(self) -> None:
        """The socket has something, or has ended."""
        try:
            count = self.socket.receive(self.wanted_bytes())
            if count and self.arrived():
                return
            self.stands = count > 0
        except BlockingIOError:  # ready for nothing: it may happen
            return
        except BaseException as error:  # noqa: BLE001  # raised where the task is
            self.error = error
        self.over()
