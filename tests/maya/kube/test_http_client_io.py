"""`maya.kube.http_client_io`: requests that are broken off leave nothing open."""

import gc
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import trio

from pyjiva.maya.kube import Access, open_cluster
from pyjiva.maya.kube.cluster_io import KubeCluster
from pyjiva.maya.kube.http_client_io import exhaust, leave_nothing
from pyjiva.maya.kube.resource import CONFIG_MAPS
from pyjiva.testing.certificates import Authority

WATCHES = 12  # as many as Maya's programs have, or more
LINES = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nb\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def client_of(
    authority: Authority, serve: Callable[[trio.SocketStream], Awaitable[None]]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that treats each connection so."""
    context = ssl.create_default_context(cafile=str(authority.file))
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with httpx.AsyncClient(
            base_url=f"https://{host}:{port}", verify=context, event_hooks={"request": [leave_nothing]}
        ) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_a_connection_is_closed_whose_handshake_is_cancelled(authority: Authority) -> None:
    greeted, closed = trio.Event(), trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        """Never answer a greeting."""
        async for _ in stream:
            greeted.set()
        closed.set()

    async with client_of(authority, serve) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.get, "/")
        await greeted.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True), trio.fail_after(30):
            await closed.wait()


@pytest.fixture
def context(authority: Authority) -> ssl.SSLContext:
    """A server's."""
    certificate = authority.sign("server", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@contextmanager
def nothing_to_collect() -> Iterator[None]:
    """Whatever is left lying within fails the test."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(each.message) for each in warned] == []


async def test_a_handshake_that_succeeds_is_left_alone(authority: Authority, context: ssl.SSLContext) -> None:
    ended = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        """Two lines, and more that never comes."""
        async with trio.SSLStream(stream, context, server_side=True, https_compatible=True) as tls:
            await tls.receive_some(65536)
            await tls.send_all(LINES)
            await ended.wait()

    with nothing_to_collect():
        async with client_of(authority, serve) as client:
            async with client.stream("GET", "/") as answer:
                lines = answer.aiter_lines()
                assert await anext(lines) == "a"
                await answer.aclose()
                await exhaust(lines)
            del lines
            ended.set()


async def test_a_body_may_be_cut_while_it_is_sent(authority: Authority, context: ssl.SSLContext) -> None:
    began = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        """Take the beginning of the body, and no more."""
        async with trio.SSLStream(stream, context, server_side=True, https_compatible=True) as tls:
            await tls.receive_some(65536)
            began.set()
            await trio.sleep_forever()

    async def ask(client: httpx.AsyncClient) -> None:
        await client.post("/", content=b"x" * (64 << 20))

    with nothing_to_collect():
        async with client_of(authority, serve) as client, trio.open_nursery() as nursery:
            nursery.start_soon(ask, client)
            await began.wait()
            nursery.cancel_scope.cancel()


async def test_a_body_arrives_whole_also_where_it_is_sent_twice() -> None:
    """As after an answer that asks for another token, or a redirection."""
    bodies: list[tuple[bytes, str]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append((await request.aread(), request.headers["content-length"]))
        there = {"location": "/there"} if len(bodies) == 1 else {}
        return httpx.Response(307 if there else 200, headers=there)

    hooks = {"request": [leave_nothing]}
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://x", event_hooks=hooks, follow_redirects=True
    ) as client:
        await client.post("/", content=b"all of it")
    assert bodies == [(b"all of it", "9")] * 2


async def test_requests_share_a_connection_however_many_watches_are_open() -> None:
    """httpcore counts connections that are in use as idle ones when it looks for what is too many."""
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        """Answer each request that asks for one object; leave those open that watch."""
        nonlocal connections
        connections += 1
        async for asked in stream:
            if b"watch=1" in asked:
                await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            else:
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def watch(cluster: KubeCluster, task_status: trio.TaskStatus[None]) -> None:
        async with cluster.watch(CONFIG_MAPS, since="1"):
            task_status.started()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        host, port = listeners[0].socket.getsockname()
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        async with open_cluster(Access(f"http://{host}:{port}")) as cluster, trio.open_nursery() as watches:
            for _ in range(WATCHES):
                await watches.start(watch, cluster)
            for _ in range(5):
                await cluster.get(CONFIG_MAPS, "ns", "m")
            watches.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    assert connections == WATCHES + 1
