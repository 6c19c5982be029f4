"""A second door to who listens on a TCP port, for callers on the same machine: a Unix socket.

Theory.  What is sent through TCP becomes packets, is acknowledged and goes through a softirq, on loopback
too; a Unix socket has none of that (decision 25).  What is said is the same through both, so neither side
need know which it is.

The name is made of the port, and lies in the abstract namespace: nothing has to be configured or told, a
process that ends by `kill -9` leaves nothing behind, and each network namespace has names of its own, as it
has ports.  Anybody may take a name that nobody has, also that of a port on which somebody else will listen.
So the caller looks at who listens (SO_PEERCRED of unix(7)), and only its own user or root counts; that it is
who was meant, both sides prove afterwards, as over TCP.  Where nobody has the name, or somebody else, or the
host is another machine, it is TCP.
"""

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio

from pyjiva.transport.batch import EndOfBatch
from pyjiva.transport.stream_io import BatchedStream, open_stream, own_stream

__all__ = ["near_listener", "open_nearest"]

BACKLOG: Final = 128
_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred of unix(7): process, user, group
_log = structlog.get_logger(__name__)


def _name(port: int) -> str:
    return f"\0pyjiva/{port}"


def near_listener(port: int) -> trio.SocketListener | None:
    """The second door of who listens on TCP port `port`; None: it cannot be had, and the log has why."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_name(port))
        sock.listen(BACKLOG)
    except OSError as error:  # one with that port of another address has it, or something forbids it
        sock.close()
        _log.info("no Unix socket beside the port", port=port, reason=error.strerror or str(error))
        return None
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


@asynccontextmanager
async def open_nearest(
    host: str, port: int, batch: EndOfBatch, timeout_s: float, *, by_tcp: bool = False
) -> AsyncIterator[BatchedStream]:
    """Connect to `host`:`port`, by its second door if that is on this machine and not `by_tcp`.

    To look for the door may take `timeout_s`, and TCP as long again.  Raises the errors of `open_stream`.
    """
    sock = None
    if not by_tcp:
        with trio.move_on_after(timeout_s):
            sock = await _connected(host, port)
    if sock is None:
        async with open_stream(host, port, batch, timeout_s) as stream:
            yield stream
    else:
        near = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        async with own_stream(near, batch) as stream:
            yield stream


async def _connected(host: str, port: int) -> socket.socket | None:
    """A Unix socket to the second door; None: there is none that counts."""
    if not await _is_here(host, port):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(_name(port))  # at once or not at all
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        sock.close()
        return None
    _, user, _ = _CREDENTIALS.unpack(credentials)
    if user not in {0, os.geteuid()}:
        sock.close()
        _log.warning("the Unix socket beside a port is another user's: over TCP", port=port, user=user)
        return None
    return sock


async def _is_here(host: str, port: int) -> bool:
    """Whether all that `host` stands for are addresses of this machine, and its network namespace."""
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        for family, type_, protocol, _, address in found:
            # To connect a datagram socket sends nothing; it asks with which address one would go there.
            with trio.socket.socket(family, type_, protocol) as probe:
                await probe.connect(address)
                if probe.getsockname()[0] != address[0]:
                    return False
    except (OSError, UnicodeError):  # TCP says it better
        return False
    return True
