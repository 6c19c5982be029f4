"""kube-proxy: connections to the address and port of a service are carried to one of its ready pods.

In user space, over TCP: a listener per address and port, and two tasks per connection.  It needs nothing but
the addresses, which are local in the cluster's namespace; rules of nftables would need one more package, and
conntrack in the kernel.  What differs from life: a pod sees the cluster's address as the client's, and where
no ready pod answers, which in life leaves a client's SYN without an answer, the client's connection stands
already; it is kept until a pod answers or the client ends it, never reset: Linux' initiator (6.1, with
open-iscsi 2.1.8) was seen never to log in again after connections that were accepted and reset at once, and
always after ones that were refused.  Left out: UDP, node ports, affinity.

As with kube-proxy, a service without a ready pod refuses connections; and when a pod dies, its connections
are reset.
"""

import itertools
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Final

import attrs
import trio

from tests.kube.api import ENDPOINT_SLICES, SERVICES, Api, Mirror, Object

__all__ = ["ServiceProxy"]

Target = tuple[str, int]  # address, port
CHUNK_BYTES: Final = 1 << 18
CONNECT_S: Final = 5.0
#: Between two attempts to reach a pod for a client that waits.
AGAIN_S: Final = 0.1
TCP_ESTABLISHED: Final = 1  # include/net/tcp_states.h
#: SO_LINGER that makes close() send a reset.
RESET: Final = struct.pack("ii", 1, 0)


def targets(
    services: Mapping[tuple[str, str], Object], slices: Mapping[tuple[str, str], Object]
) -> dict[Target, list[Target]]:
    """Address and port of every service that has ready pods → theirs."""
    found: dict[Target, list[Target]] = {}
    for service in services.values():
        meta, spec = service["metadata"], service["spec"]
        own = [
            one
            for one in slices.values()
            if one["metadata"]["namespace"] == meta["namespace"]
            and one["metadata"].get("labels", {}).get("kubernetes.io/service-name") == meta["name"]
        ]
        for port in spec.get("ports", []):
            ready = [target for one in own for target in _ready(one, port.get("name", ""))]
            if ready and port.get("protocol", "TCP") == "TCP" and spec.get("clusterIP", "None") != "None":
                found[spec["clusterIP"], port["port"]] = ready
    return found


def _ready(endpoints: Object, port_name: str) -> Iterator[Target]:
    ports = [port["port"] for port in endpoints.get("ports") or [] if port.get("name", "") == port_name]
    for endpoint in endpoints.get("endpoints") or []:
        if endpoint.get("conditions", {}).get("ready", True):
            yield from itertools.product(endpoint["addresses"][:1], ports)


@attrs.define(eq=False)
class Listener:
    """One address and port of a service."""

    targets: list[Target]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    turn: int = 0

    def next_target(self) -> Target:
        """Each in turn."""
        self.turn += 1
        return self.targets[self.turn % len(self.targets)]


@attrs.define(eq=False)
class ServiceProxy:
    """All services of the cluster."""

    _services: Mirror = attrs.field(init=False)
    _slices: Mirror = attrs.field(init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _listeners: dict[Target, Listener] = attrs.field(factory=dict)
    _connections: dict[trio.CancelScope, str] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self._services = Mirror(SERVICES, lambda *_: self._changed.set())
        self._slices = Mirror(ENDPOINT_SLICES, lambda *_: self._changed.set())

    async def run(self, api: Api) -> None:
        """Follow the services for ever."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._services.run, api)
            await nursery.start(self._slices.run, api)
            while True:
                self._changed = trio.Event()
                self._apply(targets(self._services.objects, self._slices.objects), nursery)
                await self._changed.wait()

    def reset(self, address: str) -> None:
        """A pod has died: nobody is to wait for its answers."""
        for scope in [scope for scope, target in self._connections.items() if target == address]:
            scope.cancel()

    def _apply(self, wanted: dict[Target, list[Target]], nursery: trio.Nursery) -> None:
        for place in [place for place in self._listeners if place not in wanted]:
            self._listeners.pop(place).scope.cancel()
        for place, ready in wanted.items():
            if place in self._listeners:
                self._listeners[place].targets = ready
            else:
                self._listeners[place] = Listener(ready)
                nursery.start_soon(self._listen, place, self._listeners[place], nursery)

    async def _listen(self, place: Target, listener: Listener, nursery: trio.Nursery) -> None:
        with trio.socket.socket() as taken, listener.scope:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            await taken.bind(place)
            taken.listen(128)
            while True:
                client, _ = await taken.accept()
                nursery.start_soon(self._serve, client, place)

    async def _serve(self, client: trio.socket.SocketType, place: Target) -> None:
        """One connection to a service, from its being accepted to its end."""
        with client:
            while True:
                listener = self._listeners.get(place)
                if listener is not None and await self._carry(client, listener.next_target()):
                    return
                if client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_ESTABLISHED:
                    return  # the client has ended it
                await trio.sleep(AGAIN_S)

    async def _carry(self, client: trio.socket.SocketType, target: Target) -> bool:
        """Carry one connection to a pod; whether the pod took it.

        One that does not end as TCP's do is reset on both sides.
        """
        with trio.CancelScope() as scope, trio.socket.socket() as server:
            try:
                with trio.fail_after(CONNECT_S):
                    await server.connect(target)
            except (OSError, trio.TooSlowError):
                return False
            self._connections[scope] = target[0]
            try:
                for side in (client, server):
                    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_pump, client, server, scope)
                    nursery.start_soon(_pump, server, client, scope)
            finally:
                del self._connections[scope]
                if scope.cancel_called:
                    for side in (client, server):
                        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return True


async def _pump(
    source: trio.socket.SocketType, target: trio.socket.SocketType, both: trio.CancelScope
) -> None:
    try:
        while data := await source.recv(CHUNK_BYTES):
            rest = memoryview(data)
            while rest:
                rest = rest[await target.send(rest) :]
        target.shutdown(socket.SHUT_WR)
    except OSError:
        both.cancel()
