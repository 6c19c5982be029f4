"""What is queued leaves in order and once, however little a socket takes at a time."""

import socket
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyjiva.transport.outgoing_sys import IOV_MAX, SEND_BYTES_MAX, Outgoing


class FakeSocket(socket.socket):
    """Takes so many bytes at each call, and all when nothing is said; 0: it is full; -1: it is broken."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes: Iterator[int] = iter(sizes)
        self.calls: list[list[bytes]] = []
        self.taken = b""

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        """See socket."""
        self.calls.append([bytes(buffer) for buffer in buffers])
        data = b"".join(buffers)
        size = next(self.sizes, len(data))
        if size == 0:
            raise BlockingIOError
        if size < 0:
            raise BrokenPipeError
        self.taken += data[:size]
        return min(size, len(data))


@given(st.lists(st.lists(st.binary(max_size=20), max_size=5), max_size=6), st.lists(st.integers(0, 30)))
def test_all_leaves_in_order_whatever_the_socket_takes(batches: list[list[bytes]], sizes: list[int]) -> None:
    with FakeSocket(*sizes) as sock:
        outgoing = Outgoing(sock)
        expected = b""
        for batch in batches:
            outgoing.add(tuple(batch))
            expected += b"".join(batch)
            sent = outgoing.send()
            assert sock.taken + bytes(outgoing.queued_bytes) == expected[: len(sock.taken)] + bytes(
                len(expected) - len(sock.taken)
            )
            assert sent is (outgoing.queued_bytes == 0)
        while not outgoing.send():
            assert outgoing.queued_bytes
        assert (sock.taken, outgoing.queued_bytes) == (expected, 0)


def test_nothing_and_empty_buffers_make_no_call() -> None:
    with FakeSocket() as sock:
        outgoing = Outgoing(sock)
        assert outgoing.send()
        outgoing.add((b"", memoryview(b""), bytearray()))
        assert outgoing.send()
        assert sock.calls == []
        outgoing.add((b"", b"a", b"", b"b"))
        assert outgoing.send()
        assert sock.calls == [[b"a", b"b"]]


def test_a_call_has_no_more_buffers_than_the_kernel_takes() -> None:
    with FakeSocket() as sock:
        outgoing = Outgoing(sock)
        data = Random(1).randbytes(2 * IOV_MAX + 3)
        outgoing.add(tuple(data[at : at + 1] for at in range(len(data))))
        assert outgoing.send()
        assert [len(call) for call in sock.calls] == [IOV_MAX, IOV_MAX, 3]
        assert sock.taken == data


def test_a_call_ends_when_it_has_enough_bytes() -> None:
    with FakeSocket() as sock:
        outgoing = Outgoing(sock)
        outgoing.add((bytes(SEND_BYTES_MAX // 2),) * 3 + (b"last",))
        assert outgoing.send()
        assert [sum(map(len, call)) for call in sock.calls] == [SEND_BYTES_MAX, SEND_BYTES_MAX // 2 + 4]


def test_a_broken_connection_is_told_and_its_queue_forgotten() -> None:
    with FakeSocket(3, -1) as sock:
        outgoing = Outgoing(sock)
        outgoing.add((b"more than three",))
        with pytest.raises(BrokenPipeError):
            outgoing.send()
        assert outgoing.queued_bytes == 12
        outgoing.clear()
        assert outgoing.queued_bytes == 0
        assert outgoing.send()
        assert len(sock.calls) == 2
