"""Ports that stay ours while the process that listens on them is being started again.  Blocking calls only.

A child that dies leaves its port free for a moment; whoever takes it in that moment keeps the child out for
good.  So each port is held twice:

- by a TCP socket that is bound to it and never listens.  With SO_REUSEADDR on both sides Linux lets a child
  bind and listen beside it (socket(7)), but gives the port to no outgoing connection and to nobody who asks
  for any port;
- by an abstract UNIX socket (unix(7)) of the port's name, since two such TCP sockets do not exclude each
  other.  It belongs to the network namespace, as ports do, and is gone with the process that has it.

Not kept out: a foreign program that asks for just this port, with SO_REUSEADDR, in just that moment.
"""

import os
import socket
from typing import Final, Self

import attrs

from pyjiva.errors import ConfigError

__all__ = ["HeldPorts"]

NAME_PREFIX: Final = "\0pyjiva/port/"


@attrs.define(eq=False)
class HeldPorts:
    """The ports that this process holds; a context manager that lets them go."""

    _sockets: list[socket.socket] = attrs.field(factory=list, init=False)

    def hold(self, host: str, port: int) -> int:
        """Hold a port of `host`, any free one for 0; the port.

        Raises ConfigError: somebody has it, or `host` is not of this machine.
        """
        opened: list[socket.socket] = []
        try:
            # A name may stand for several addresses (localhost: two): a daemon listens on all of them.
            for family, _, _, _, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                opened.append(socket.socket(family, socket.SOCK_STREAM))
                port = _bind(opened[-1], (address[0], port, *address[2:]))
            opened.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            opened[-1].bind(f"{NAME_PREFIX}{host}:{port}")
        except (OSError, UnicodeError) as error:
            for each in opened:
                each.close()
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise ConfigError(f"cannot listen on {shown}: {_reason(error)}") from error
        self._sockets += opened
        return port

    def hold_first_free(self, host: str, ports: range) -> int:
        """Hold the first of `ports` that nobody has; the port.  Raises ConfigError: all are taken."""
        for port in ports:
            if self.try_hold(host, port):
                return port
        raise ConfigError(f"no free port from {ports.start} to {ports.stop - 1} on {host}")

    def try_hold(self, host: str, port: int) -> bool:
        """Hold this port of `host` if nobody has it; whether it is held now."""
        try:
            self.hold(host, port)
        except ConfigError:
            return False
        return True

    def close(self) -> None:
        """Let all of them go."""
        while self._sockets:
            self._sockets.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bind(held: socket.socket, address: tuple[object, ...]) -> int:
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if held.family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as trio's listeners: :: is not 0.0.0.0
    held.bind(address)
    return int(held.getsockname()[1])


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and error.strerror:  # getaddrinfo has error numbers of its own
        return error.strerror
    return "not a name of a host"
