"""An ASGI application that does what is asked with one `Idempotency-Key` once: see `idempotency`.

What no route of the application answers, a path or a method that there is not, is no request that could be
carried out: its key is not looked at, and the answer is the router's, 404 or 405.
"""

import collections
import hashlib
from typing import Final

import attrs
import trio
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyjiva.transport.http_io import problem_response
from pyjiva.transport.idempotency import KEY_CHARACTERS_MAX, KeyTable, StoredAnswer, Verdict
from pyjiva.transport.problem import Problem, Reason

__all__ = ["Idempotent"]

CHANGES = ("POST", "DELETE", "PUT", "PATCH")
BODY_BYTES_MAX: Final = 1 << 20  # no API of ours takes so much: what follows is refused, and not looked at


@attrs.define(eq=False)
class Idempotent:
    """Around the application whose changes it keeps from being made twice."""

    app: ASGIApp
    headers: tuple[bytes, ...] = ()
    """Those, in small letters, that say what is asked, as path, query and body do."""
    keys: KeyTable = attrs.field(factory=KeyTable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        given = [value for name, value in scope.get("headers", ()) if name == b"idempotency-key"]
        if scope["type"] != "http" or scope["method"] not in CHANGES or not given or not _is_routed(scope):
            await self.app(scope, receive, send)
            return
        key = given[0].decode("latin-1")
        if len(given) > 1 or not 1 <= len(key) <= KEY_CHARACTERS_MAX:
            detail = f"Idempotency-Key: one, of 1 to {KEY_CHARACTERS_MAX} characters"
            await _refuse(Reason.INVALID_PARAMETER, detail, scope, receive, send)
            return
        body, receive = await _read_ahead(receive)
        said = [f"{name!r}: {value!r}" for name, value in scope["headers"] if name in self.headers]
        digest = hashlib.sha256(body).hexdigest() if body else ""
        query = scope["query_string"].decode("latin-1")
        request = f"{scope['method']} {scope['path']}?{query} {digest} {said}"
        match self.keys.begin(key, request, trio.current_time()):
            case StoredAnswer() as answer:
                head = {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": list(answer.headers),
                }
                await send(head)
                await send({"type": "http.response.body", "body": answer.body})
            case Verdict.BUSY:
                detail = "the first request with this Idempotency-Key is under way"
                await _refuse(Reason.KEY_BUSY, detail, scope, receive, send)
            case Verdict.ANOTHER:
                detail = "this Idempotency-Key was used for another request"
                await _refuse(Reason.KEY_OF_ANOTHER, detail, scope, receive, send)
            case Verdict.CARRY_OUT:
                await self._carry_out(key, scope, receive, send)

    async def _carry_out(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        status, headers, body = 0, (), b""

        async def take(message: Message) -> None:
            nonlocal status, headers, body
            if message["type"] == "http.response.start":
                status, headers = message["status"], tuple(message.get("headers", ()))
            else:
                body += message.get("body", b"")
            await send(message)

        try:
            await self.app(scope, receive, take)
        finally:  # the one that asked may be gone before it has the answer: that is what the key is for
            if 200 <= status < 300:
                self.keys.done(key, StoredAnswer(status, headers, body))
            else:
                self.keys.failed(key)


def _is_routed(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)


async def _read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """The body, or as much of it as is looked at, and what gives all of it to the application."""
    taken: list[Message] = []
    body, more = b"", True
    while more and len(body) <= BODY_BYTES_MAX:
        taken.append(await receive())
        body += taken[-1].get("body", b"")
        more = taken[-1].get("more_body", False)
    left = collections.deque(taken)

    async def again() -> Message:
        return left.popleft() if left else await receive()

    return body, again


async def _refuse(reason: Reason, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await problem_response(Problem.of(reason, detail))(scope, receive, send)
