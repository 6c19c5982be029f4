"""What httpx leaves lying when a request is broken off, and how it is picked up.

- httpcore 1.0.9 closes a connection whose TLS handshake fails, but not one whose handshake is cancelled
  (`_backends/trio.py`, `start_tls`: `except Exception`): its socket stays open until it is collected.
- A request's body comes from a generator (`ByteStream.__aiter__` of httpx 0.28.1), which is amid its only
  `yield` while the body is sent.  Cancelled then, it ends when it is collected, of which trio warns.
- Generators of an answer's body that is not read to its end (`aiter_lines` and four below it) end when they
  are collected, too.  Closing the outermost one leaves the others.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import trio

__all__ = ["exhaust", "leave_nothing"]


async def leave_nothing(request: httpx.Request) -> None:
    """For `event_hooks={"request": [leave_nothing]}` of an httpx.AsyncClient: the first two."""
    request.stream = _Body(await request.aread())
    opened: list[Any] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            opened.append(info["return_value"])
        elif event == "connection.start_tls.failed":
            with trio.CancelScope(shield=True):
                for stream in opened:
                    await stream.aclose()

    request.extensions["trace"] = trace


class _Body(httpx.AsyncByteStream):
    """A request's, without a generator."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once(AsyncIterator[bytes]):
    def __init__(self, content: bytes) -> None:
        self._left = [content]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def exhaust(chunks: AsyncIterator[str]) -> None:
    """Let the generators of an answer that is closed come to their end."""
    with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
        async for _ in chunks:
            continue
