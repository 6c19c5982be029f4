"""The Unix socket beside a port: who finds it, who is not trusted, and that what is said arrives."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from pyjiva.transport import EndOfBatch
from pyjiva.transport.near_io import near_listener, open_nearest
from pyjiva.transport.stream_io import UNIX_HOST, own_stream
from pyjiva.units import MIB

PATIENCE_S = 10
HERE = "127.0.0.1"
NOBODY = 65534  # a user that Debian and most others have, and that we are not
#: Becomes another user, listens as `near_listener` does, says so, and ends when its standard input does.
STRANGER = """
import os, socket, sys
user = int(sys.argv[2])
os.setgroups([])
os.setgid(user)
os.setuid(user)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.bind("\\0" + sys.argv[1])
sock.listen()
print("ready", flush=True)
sys.stdin.read()
"""


async def echo(batch: EndOfBatch, accepted: trio.SocketStream) -> None:
    """Until the peer has gone."""
    async with own_stream(accepted, batch) as stream:
        while await stream.fill():
            stream.send(stream.buffer.take(len(stream.buffer)))
            await stream.wait_sent()


@asynccontextmanager
async def served(*, near: bool = True, host: str = HERE) -> AsyncIterator[tuple[int, EndOfBatch]]:
    """A port of this machine that is served, with its second door or without."""
    batch = EndOfBatch()
    listeners = await trio.open_tcp_listeners(0, host=host)
    port = int(listeners[0].socket.getsockname()[1])
    if near:
        door = near_listener(port)
        assert door is not None
        listeners.append(door)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, lambda accepted: echo(batch, accepted), listeners)
            yield port, batch
            nursery.cancel_scope.cancel()


async def reached(port: int, batch: EndOfBatch, *, by_tcp: bool = False, host: str = HERE) -> str:
    """The host of the peer, that has answered."""
    async with open_nearest(host, port, batch, 5, by_tcp=by_tcp) as stream:
        assert stream.is_local
        stream.send(b"echo")
        await stream.wait_sent()
        assert await stream.fill()
        assert bytes(stream.buffer.take(4)) == b"echo"
        return stream.peer_address[0]


@pytest.mark.parametrize("host", [HERE, "localhost"])
async def test_who_is_on_the_same_machine_comes_by_the_second_door(host: str) -> None:
    async with served() as (port, batch):
        assert await reached(port, batch, host=host) == UNIX_HOST


async def test_who_wants_tcp_gets_it() -> None:
    async with served() as (port, batch):
        assert await reached(port, batch, by_tcp=True) == HERE


async def test_without_a_second_door_it_is_tcp() -> None:
    async with served(near=False) as (port, batch):
        assert await reached(port, batch) == HERE


async def test_the_second_door_is_gone_with_who_listened() -> None:
    """Nothing stays behind that the next one would find taken."""
    async with served() as (port, _):
        pass
    door = near_listener(port)
    assert door is not None
    await door.aclose()


async def test_who_comes_second_has_none() -> None:
    """Two with the same port of different addresses: one of them is reached by TCP alone."""
    async with served() as (port, batch):
        assert near_listener(port) is None
        assert await reached(port, batch) == UNIX_HOST


async def test_another_address_is_not_looked_for_here() -> None:
    """Whoever has the name of its port here is somebody else.  127.0.0.2 is called from 127.0.0.1, so it
    looks like another machine.
    """
    host = "127.0.0.2"
    async with served(host=host) as (port, batch), open_nearest(host, port, batch, 5) as stream:
        assert stream.peer_address == (host, port)


async def test_a_name_that_no_host_can_have_is_an_error_of_the_system() -> None:
    async with served() as (port, batch):
        with pytest.raises(OSError, match="no host can be called"):
            async with open_nearest("a..b", port, batch, 5):
                pass


async def test_nobody_there_is_an_error_of_the_system() -> None:
    with socket.socket() as sock:
        sock.bind((HERE, 0))  # bound and not listening: nobody else gets the port
        with pytest.raises(OSError, match="all attempts to connect"):
            async with open_nearest(HERE, sock.getsockname()[1], EndOfBatch(), 5):
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a process of another user")
async def test_the_door_of_another_user_is_passed_by() -> None:
    """He may have been there first: a name in the abstract namespace is anybody's."""
    async with served(near=False) as (port, batch):
        command = [sys.executable, "-S", "-c", STRANGER, f"pyjiva/{port}", str(NOBODY)]
        async with trio.open_nursery() as nursery:
            stranger = await nursery.start(
                partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert await stranger.stdout.receive_some(1) == b"r"  # it comes in pieces
            assert near_listener(port) is None
            assert await reached(port, batch) == HERE
            await stranger.stdin.aclose()


async def test_more_than_the_socket_holds_arrives_in_order() -> None:
    """Both ends get full, and go on when the other has made room."""
    data = os.urandom(MIB) * 8
    async with served() as (port, batch), open_nearest(HERE, port, batch, 5) as stream:
        assert stream.peer_address == (UNIX_HOST, 0)
        for start in range(0, len(data), MIB):
            stream.send(data[start : start + MIB])
        batch.end()
        assert stream.queued_bytes
        came = bytearray()
        while len(came) < len(data):
            assert await stream.fill()
            came += stream.buffer.take(len(stream.buffer))
        assert came == data


async def test_the_end_of_one_side_is_seen_by_the_other() -> None:
    batch = EndOfBatch()
    async with served() as (port, _), open_nearest(HERE, port, batch, 5) as stream:
        stream.shut_down()
        assert not await stream.fill()
        stream.send(b"too late")
        batch.end()
        assert not stream.queued_bytes
