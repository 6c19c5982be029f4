"""Batched streams over real sockets: one send for a batch, order under pressure, all kinds of ends."""

import socket
import struct
import weakref
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.transport import EndOfBatch
from pyjiva.transport.outgoing_sys import IOV_MAX
from pyjiva.transport.receive_buffer import RECEIVE_BYTES_MAX, ReceiveBuffer
from pyjiva.transport.stream_io import UNPACED, BatchedStream, open_stream, own_stream

PATIENCE_S = 5  # far beyond what anything here takes


class CountingSocket(socket.socket):
    """Counts sends, and takes only so many bytes at each (0: refuses once)."""

    sends = 0
    receives = 0
    sizes: Iterable[int] = ()

    def sendmsg(self, buffers: Iterable[Any], *_: Any) -> int:
        """As a socket does whose buffer is nearly full."""
        self.sends += 1
        assert self.sends < 10_000, "it never ends"
        size = next(iter(self.sizes), None)
        if size is None:
            return super().sendmsg(buffers)
        self.sizes = list(self.sizes)[1:]
        if not size:
            raise BlockingIOError
        return super().sendmsg([b"".join(buffers)[:size]])

    def recv_into(self, *arguments: Any) -> int:
        """As of any socket."""
        self.receives += 1
        return super().recv_into(*arguments)


def socket_pair() -> tuple[CountingSocket, socket.socket]:
    """Ours, which does not block, and the peer's, for trio's asynchronous use or none."""
    ours, theirs = socket.socketpair()
    counting = CountingSocket(fileno=ours.detach())
    counting.setblocking(False)
    theirs.setblocking(False)
    return counting, theirs


def allowed_congestion_controls() -> list[str]:
    """What anybody may choose."""
    return Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()


@asynccontextmanager
async def running(
    *, send_buffer_bytes: int = 0
) -> AsyncIterator[tuple[BatchedStream, EndOfBatch, socket.socket, CountingSocket]]:
    """A stream with its sender task, and its peer as a plain socket."""
    sock, peer = socket_pair()
    if send_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    batch = EndOfBatch()
    stream = BatchedStream(sock, batch)
    try:
        with trio.fail_after(PATIENCE_S), peer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.run_sender)
                yield stream, batch, peer, sock
                nursery.cancel_scope.cancel()
    finally:
        stream.close()


async def receive(peer: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes."""
    data = b""
    while len(data) < count:
        await trio.lowlevel.wait_readable(peer)
        got = peer.recv(count - len(data))
        assert got, "ended early"
        data += got
    return data


async def test_what_was_sent_leaves_at_the_end_of_the_batch_in_one_call() -> None:
    async with running() as (stream, batch, peer, sock):
        stream.send(b"one ", bytearray(b"two "))
        stream.send(memoryview(b"three"))
        assert stream.queued_bytes == 13
        with pytest.raises(BlockingIOError):
            peer.recv(100)
        batch.end()
        assert peer.recv(100) == b"one two three"
        assert (sock.sends, stream.queued_bytes) == (1, 0)


async def test_more_buffers_than_one_call_takes_leave_in_order() -> None:
    async with running() as (stream, batch, peer, sock):
        whole = bytes(n % 251 for n in range(2 * IOV_MAX + 10))
        stream.send(*[whole[n : n + 1] for n in range(len(whole))])
        batch.end()
        assert await receive(peer, len(whole)) == whole
        assert sock.sends == 3


async def test_empty_buffers_are_skipped() -> None:
    """One that stayed at the head of the queue was sent for ever."""
    async with running() as (stream, batch, peer, _):
        stream.send(b"")
        batch.end()
        stream.send(b"", b"a", b"", memoryview(b""), b"b", b"")
        batch.end()
        assert stream.queued_bytes == 0
        await stream.wait_sent()
        assert peer.recv(100) == b"ab"


async def test_a_full_socket_leaves_the_rest_to_the_sender_task() -> None:
    async with running(send_buffer_bytes=8192) as (stream, batch, peer, _):
        pieces = [bytes([n]) * 50_000 for n in range(40)]
        for piece in pieces[:30]:
            stream.send(piece)
        batch.end()  # must not wait for the peer
        assert stream.queued_bytes > 0
        for piece in pieces[30:]:  # queued behind what waits
            stream.send(piece)
            batch.end()
        assert await receive(peer, 2_000_000) == b"".join(pieces)
        await stream.wait_sent()
        assert stream.queued_bytes == 0


async def test_waiting_ends_when_the_queue_is_short_enough() -> None:
    async with running(send_buffer_bytes=8192) as (stream, _, peer, _), trio.open_nursery() as nursery:
        stream.send(bytes(1_000_000))
        nursery.start_soon(receive, peer, 700_000)
        await stream.wait_queued_below(400_000)
        assert 0 < stream.queued_bytes <= 400_000


@settings(deadline=None, max_examples=40)
@given(
    pieces=st.lists(st.binary(max_size=40), max_size=20),
    ends=st.sets(st.integers(0, 19)),
    sizes=st.lists(st.integers(0, 30), max_size=30),
)
def test_order_is_kept_however_little_the_socket_takes(
    pieces: list[bytes], ends: set[int], sizes: list[int]
) -> None:
    async def play() -> None:
        async with running() as (stream, batch, peer, sock):
            sock.sizes = sizes
            for number, piece in enumerate(pieces):
                stream.send(piece)
                if number in ends:
                    batch.end()
                    await trio.lowlevel.checkpoint()
            await stream.wait_sent()
            whole = b"".join(pieces)
            assert await receive(peer, len(whole)) == whole
            assert stream.queued_bytes == 0

    trio.run(play)


async def test_what_arrives_is_in_the_buffer() -> None:
    async with running() as (stream, _, peer, _):
        peer.send(b"hello")
        assert await stream.fill()
        peer.send(b" there")
        assert await stream.fill(100)
        assert bytes(stream.buffer.take(11)) == b"hello there"
        assert stream.received_bytes == 11


async def test_what_was_emptied_is_not_asked_again_before_something_comes() -> None:
    async with running() as (stream, _, peer, sock):
        for number in range(1, 10):
            peer.send(b"x")
            assert await stream.fill()
            assert sock.receives == number
        peer.send(b"y" * len(stream.buffer.tail()))
        assert await stream.fill()
        received = sock.receives
        with trio.move_on_after(0):
            await stream.fill()
        assert sock.receives == received + 1, "it was full: there may be more"


async def test_a_stream_that_always_has_something_lets_others_run() -> None:
    async with running() as (stream, _, peer, _), trio.open_nursery() as nursery:
        ran = trio.Event()

        async def other() -> None:
            ran.set()

        nursery.start_soon(other)
        # The first turn may come before the other task's; the second cannot.
        for _ in range(2):
            peer.send(bytes(64))
            await stream.fill()
        assert ran.is_set()


async def test_fill_ends_when_the_peer_closes() -> None:
    async with running() as (stream, _, peer, _):
        peer.send(b"last words")
        peer.close()
        assert await stream.fill()
        assert bytes(stream.buffer.take(10)) == b"last words"
        assert not await stream.fill()


async def test_a_broken_peer_is_seen_by_fill_and_not_by_who_sends() -> None:
    async with running() as (stream, batch, peer, _), trio.open_nursery() as nursery:
        ended = trio.Event()

        async def reader() -> None:
            while await stream.fill():
                stream.buffer.skip(len(stream.buffer))
            ended.set()

        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        peer.close()
        for _ in range(3):
            stream.send(b"into the void")
            batch.end()
        await ended.wait()
        await stream.wait_sent()  # nothing to wait for any more
        assert stream.queued_bytes == 0


async def test_a_peer_that_vanishes_frees_who_waits_for_a_full_socket() -> None:
    async with running(send_buffer_bytes=8192) as (stream, _, peer, _), trio.open_nursery() as nursery:
        stream.send(bytes(1_000_000))
        nursery.start_soon(stream.wait_sent)
        await trio.testing.wait_all_tasks_blocked()
        peer.close()


async def test_shutting_down_frees_everybody_who_waits() -> None:
    async with running(send_buffer_bytes=8192) as (stream, batch, _, _), trio.open_nursery() as nursery:
        stream.send(bytes(1_000_000))
        filled = list[bool]()

        async def reader() -> None:
            filled.append(await stream.fill())

        nursery.start_soon(reader)
        nursery.start_soon(stream.wait_sent)
        await trio.testing.wait_all_tasks_blocked()
        stream.shut_down()
        stream.shut_down()
        stream.send(b"too late")
        batch.end()
        await trio.testing.wait_all_tasks_blocked()
        assert filled == [False]


async def test_closing_frees_everybody_who_waits() -> None:
    sock, peer = socket_pair()
    batch = EndOfBatch()
    stream = BatchedStream(sock, batch)
    filled = list[bool]()

    async def reader() -> None:
        filled.append(await stream.fill())

    with trio.fail_after(PATIENCE_S), peer:
        async with trio.open_nursery() as nursery:  # left when all three have ended
            nursery.start_soon(stream.run_sender)
            nursery.start_soon(reader)
            stream.send(bytes(10_000_000))
            nursery.start_soon(stream.wait_sent)
            await trio.testing.wait_all_tasks_blocked()
            stream.close()
        assert filled == [False]
        stream.send(b"too late")
        batch.end()


@pytest.mark.parametrize("from_host", ["127.0.0.1", "127.0.0.2"])
async def test_only_what_stays_on_the_machine_has_a_congestion_control_without_timers(from_host: str) -> None:
    """Whose address is ours is on this machine; another one keeps what the machine or its routes chose."""
    allowed = allowed_congestion_controls()
    chosen = next((name for name in allowed if name != UNPACED.decode()), None)
    if chosen is None:
        pytest.skip(f"there is no other congestion control here: {' '.join(allowed)}")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), source_address=(from_host, 0)),
    ):
        accepted, _ = server.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, chosen.encode())
        with accepted.dup() as same:
            async with own_stream(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)), EndOfBatch()):
                found = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert found.rstrip(b"\0").decode() == (UNPACED.decode() if from_host == "127.0.0.1" else chosen)


async def test_a_stream_whose_peer_has_gone_already_only_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted, _ = server.accept()
        client.close()  # with a reset: nobody is the peer of `accepted` any more
        with pytest.raises(OSError, match="not connected"):
            accepted.getpeername()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        with trio.fail_after(PATIENCE_S):
            async with own_stream(stream, EndOfBatch()) as owned:
                assert not await owned.fill()


async def test_a_stream_is_taken_over_and_closed_at_the_end() -> None:
    """Also when its owner fails: by its own error, not a group."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()
    batch = EndOfBatch()

    async def serve(accepted: trio.SocketStream) -> None:
        async with own_stream(accepted, batch) as stream:
            while await stream.fill():
                stream.send(stream.buffer.take(len(stream.buffer)))
                batch.end()

    async def use() -> None:
        async with open_stream(address[0], address[1], batch, 5) as stream:
            assert stream.peer_address == address
            stream.send(b"echo")
            batch.end()
            assert await stream.fill()
            assert bytes(stream.buffer.take(4)) == b"echo"
            raise ZeroDivisionError

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            with pytest.raises(ZeroDivisionError):
                await use()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64, "\udc80"])
async def test_a_name_that_no_host_can_have_is_an_error_of_the_system(host: str) -> None:
    """The volume tries again and again to reach a replica: any other error would end it."""
    with pytest.raises(OSError, match="no host can be called"):
        async with open_stream(host, 9502, EndOfBatch(), 5):
            pass


async def test_nobody_there_is_an_error_of_the_system() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        with pytest.raises(OSError, match="all attempts to connect"):
            async with open_stream("127.0.0.1", sock.getsockname()[1], EndOfBatch(), 5):
                pass


class Tracked(bytearray):
    """One of which it can be seen when it is gone."""


class TrackedBuffers:
    """Buffers that remember what they gave out."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Tracked]] = []

    def take(self, size_bytes: int) -> memoryview:
        made = Tracked(size_bytes)
        self.made.append(weakref.ref(made))
        return memoryview(made)


async def test_a_stream_that_has_ended_holds_no_memory_though_somebody_holds_the_stream() -> None:
    """An iSCSI session is a circle of objects: with its buffer, a thousand of them held a GiB."""
    sock, peer = socket_pair()
    buffers = TrackedBuffers()
    stream = BatchedStream(sock, EndOfBatch(), ReceiveBuffer(buffers))
    with trio.fail_after(PATIENCE_S), peer:
        peer.send(b"x" * 100)
        assert await stream.fill(RECEIVE_BYTES_MAX)  # more than the first, small buffer has
        taken = stream.buffer.take(60)
        stream.send(taken)
        stream.close()
    assert taken == b"x" * 60
    assert [made() is None for made in buffers.made] == [False], "a view that was taken stays valid"
    del taken
    assert [made() is None for made in buffers.made] == [True]
    assert not len(stream.buffer)
