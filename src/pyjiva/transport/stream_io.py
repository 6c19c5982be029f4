"""A stream, of TCP or Unix, that is received and sent in batches: how all sockets of the data path are read
and written.

Theory.  A trio stream costs a task switch for every message.  Here the owner of a stream waits once
(`fill`) or is called (`serve`), takes every complete message out of `stream.buffer`, applies all of them,
and whoever has something to say calls `send`, which only queues views.  At the end of the batch
(`EndOfBatch`) each stream that has something queued makes one sendmsg in place, without waiting; only when
the socket is full does the stream's own sender task take over.  So a message costs no task, no channel and
no copy, and at high queue depth a syscall carries many.

Failures: a broken connection is not raised in the middle of a batch of somebody else's events.  `send` and
the inline sendmsg never raise; the connection is shut down, so that the task in `fill` sees its end and
does the cleaning up.

Between two ends on one machine there is no network to be congested.  Where the machine's congestion control
is BBR, which sends each piece at a time of its own and has a timer for it, such a connection has another one:
large reads took twice the processor time (decision 27).  Towards other machines it is what the machine says.

What needs no task is `socket_sys.BatchedSocket`, which is compiled; here are the tasks around it.
"""

import contextlib
import errno
import operator
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import attrs
import trio

from pyjiva.buffers import Buffer
from pyjiva.recycled import Buffers
from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.direct_io import DirectCalls, direct_calls
from pyjiva.transport.receive_buffer import ReceiveBuffer
from pyjiva.transport.socket_sys import BatchedSocket, Served
from pyjiva.transport.stream import serve_by_filling
from pyjiva.units import MIB

__all__ = ["UNIX_HOST", "UNPACED", "BatchedStream", "open_stream", "own_stream"]

UNIX_HOST: Final = "unix"  # stands for the host of whoever is connected by a Unix socket
UNIX_SEND_BYTES: Final = 1 * MIB  # asked for; the kernel gives what net.core.wmem_max allows
UNPACED: Final = b"reno"  # tcp(7): every Linux has it, and anybody may choose it


@attrs.define(eq=False)
class BatchedStream:
    """One connection: bytes that came in (`buffer`) and views that are to go out."""

    _sock: socket.socket
    _batch: EndOfBatch
    buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    send: Callable[[*tuple[Buffer, ...]], None] = attrs.field(init=False)
    """`BatchedSocket.send`: queue buffers, which nobody may change from now on, for the end of the batch."""
    _socket: BatchedSocket = attrs.field(init=False)
    _service: "_Service | None" = attrs.field(default=None, init=False)
    """Somebody is in `serve`, and is called."""
    _wake: trio.Event = attrs.field(factory=trio.Event, init=False)
    _progress: trio.Event | None = attrs.field(default=None, init=False)
    """Somebody waits for the queue to get shorter."""

    def __attrs_post_init__(self) -> None:
        self._socket = BatchedSocket(self._sock, self._batch, self.buffer, lambda: self._wake.set())
        self.send = self._socket.send

    queued_bytes = property(
        operator.attrgetter("_socket.queued_bytes"),  # asked for each batch, and this calls no function
        doc="Bytes handed to `send` that the kernel has not taken yet.",
    )

    @property
    def received_bytes(self) -> int:
        """All that ever came in: a peer is alive while this grows."""
        return self._socket.received_bytes

    async def fill(self, wanted_bytes: int = 0) -> bool:
        """Wait until something has arrived and take it into `buffer`; False when the connection has ended.

        `wanted_bytes`: how many unparsed bytes the buffer must be able to hold (a whole message).
        """
        must_wait, waited = self._socket.drained and not self._socket.broken, False
        while True:
            if must_wait:
                try:
                    await trio.lowlevel.wait_readable(self._sock)
                except trio.ClosedResourceError:
                    return False
                waited = True
            try:
                count = self._socket.receive(wanted_bytes)
            except BlockingIOError:
                must_wait = True
                continue
            break
        if not waited:
            # A stream that always has something must not keep the other tasks from running.
            await trio.lowlevel.checkpoint()
        return count > 0

    async def serve(self, wanted_bytes: Callable[[], int], arrived: Callable[[], bool]) -> bool:
        """Take what arrives into `buffer` and call `arrived`, again and again, until it returns False or the
        connection has ended; returns whether that still stands.

        `wanted_bytes` says what `fill` is told.  `arrived` must not wait; what it raises is raised here.
        It is called where nobody's task runs (`direct_io`), which is what makes this faster than `fill`.
        """
        calls = direct_calls()
        if calls is None:
            return await serve_by_filling(self, wanted_bytes, arrived)
        assert self._service is None, "somebody serves this stream already"
        if self._socket.broken:
            return False
        service = _Service(calls, self._sock.fileno())
        served = Served(self._socket, wanted_bytes, arrived, service.end)
        calls.add(service.fd, served.ready)
        self._service = service
        try:
            await service.over.wait()
        finally:
            self._end_service()
        if served.error is not None:
            raise served.error
        return served.stands

    def _end_service(self) -> None:
        """No calls any more; `serve` returns."""
        if self._service is not None:
            self._service.end()
            self._service = None

    async def run_sender(self) -> None:
        """Send what a full socket left over; runs beside the task that fills, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._socket.blocked:
                try:
                    await trio.lowlevel.wait_writable(self._sock)
                except trio.ClosedResourceError:
                    return
                self._socket.go_on()

    async def wait_queued_below(self, bound_bytes: int) -> None:
        """Wait until the kernel has all but `bound_bytes` of what was queued (or the connection broke)."""
        self._batch.end()
        while self.queued_bytes > bound_bytes and not self._socket.broken:
            if self._progress is None:
                self._progress = trio.Event()
                self._socket.progress = self._made_progress
            await self._progress.wait()

    def _made_progress(self) -> None:
        if self._progress is not None:
            self._progress.set()
            self._progress = None

    async def wait_sent(self) -> None:
        """Wait until the kernel has everything that was queued (or the connection broke)."""
        await self.wait_queued_below(0)

    def shut_down(self) -> None:
        """End the connection in both directions; the task in `fill` sees it at once.  May be called again."""
        self._socket.shut_down()

    def close(self) -> None:
        """Give the socket back; whoever waits on the stream is told that it has ended."""
        self._end_service()
        trio.lowlevel.notify_closing(self._sock)
        self._socket.close()

    @property
    def local_address(self) -> tuple[str, int]:
        """Host and port that the peer connected to."""
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    @property
    def is_local(self) -> bool:
        """Whether the peer is reached by an address of this machine, and its network namespace."""
        return self._sock.family == socket.AF_UNIX or self.local_address[0] == self.peer_address[0]

    @property
    def peer_address(self) -> tuple[str, int]:
        """Host and port of the peer, UNIX_HOST and 0 of a Unix socket's; empty when it is gone already."""
        if self._sock.family == socket.AF_UNIX:
            return UNIX_HOST, 0
        try:
            host, port = self._sock.getpeername()[:2]
        except OSError:
            return "", 0
        return str(host), int(port)


@attrs.define(eq=False)
class _Service:
    """One call of `BatchedStream.serve`."""

    calls: DirectCalls
    fd: int
    over: trio.Event = attrs.field(factory=trio.Event, init=False)

    def end(self) -> None:
        """Over; may be called again."""
        if not self.over.is_set():
            self.over.set()
            self.calls.remove(self.fd)


def _tune(sock: socket.socket) -> None:
    if sock.family == socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BYTES)
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError):  # the peer has gone, which the first receive says; or it is slower
        if sock.getsockname()[0] == sock.getpeername()[0]:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, UNPACED)


@contextlib.asynccontextmanager
async def own_stream(
    stream: trio.SocketStream, batch: EndOfBatch, buffers: Buffers | None = None
) -> AsyncIterator[BatchedStream]:
    """Take `stream` over (accepted or connected, of TCP or Unix) as a BatchedStream with its sender
    task.  `buffers`: where data is received into; None: buffers of its own.
    """
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    _tune(sock)
    batched = BatchedStream(sock, batch, ReceiveBuffer() if buffers is None else ReceiveBuffer(buffers))
    error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(batched.run_sender)
            try:
                yield batched
            except Exception as raised:  # noqa: BLE001  # goes on below, without the nursery's exception group
                error = raised
            nursery.cancel_scope.cancel()
    finally:
        batched.close()
    if error is not None:
        raise error


@contextlib.asynccontextmanager
async def open_stream(
    host: str, port: int, batch: EndOfBatch, timeout_s: float
) -> AsyncIterator[BatchedStream]:
    """Connect to `host`:`port`.

    Raises OSError: nobody answers there, or no host can be called so; trio.TooSlowError: not within
    `timeout_s`.
    """
    with trio.fail_after(timeout_s):
        try:
            stream = await trio.open_tcp_stream(host, port)
        except UnicodeError as error:  # names become IDNA first, where a label may be empty or too long
            raise OSError(errno.EINVAL, f"no host can be called {host!r}") from error
    async with own_stream(stream, batch) as batched:
        yield batched
