"""An API whose requests are spans: an ASGI application around another, where traces are wanted."""

import json
from typing import Final

import attrs
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from starlette.applications import Starlette
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyjiva.transport.problem import PROBLEM_TYPE

__all__ = ["TracedHttp"]

#: What is asked every few seconds by programs, or lasts until its client goes: no operation.
NOT_TRACED: Final = frozenset({"/metrics", "/v1/health", "/v1/events/stream"})
PARENT: Final = ("traceparent", "tracestate")  # W3C Trace Context
PROBLEM_BYTES_MAX: Final = 64 * 1024
UNKNOWN: Final = "unknown path"  # not the path itself: anybody may ask for any


@attrs.frozen(eq=False)
class TracedHttp:
    """`served` offers the routes of `routes`."""

    routes: Starlette
    served: ASGIApp
    tracer: Tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Part of ASGI."""
        if scope["type"] != "http" or scope["path"] in NOT_TRACED:
            await self.served(scope, receive, send)
            return
        route, method = self._route(scope), scope["method"]
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = extract({name: given[name] for name in PARENT if name in given})
        attributes = {"http.request.method": method, "http.route": route}
        with self.tracer.start_as_current_span(
            f"{method} {route}", parent, SpanKind.SERVER, attributes, record_exception=False
        ) as span:
            answer = _Answer(send)
            await self.served(scope, receive, answer.send)
            span.set_attribute("http.response.status_code", answer.status)
            if answer.reason:
                span.set_attribute("pyjiva.reason", answer.reason)
            if answer.status >= 400:
                span.set_status(Status(StatusCode.ERROR, answer.reason or None))

    def _route(self, scope: Scope) -> str:
        """The path with names in place of what it names."""
        matches = [(route, route.matches(scope)[0]) for route in self.routes.routes]
        for wanted in (Match.FULL, Match.PARTIAL):
            for route, match in matches:
                if match is wanted and isinstance(route, Route):
                    return route.path
        return UNKNOWN


@attrs.define(eq=False)
class _Answer:
    """What goes out, and what of it is to be known."""

    to: Send
    status: int = 0
    _problem: bytearray | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            types = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
            if types and types[0].startswith(PROBLEM_TYPE.encode()):
                self._problem = bytearray()
        elif self._problem is not None and len(self._problem) < PROBLEM_BYTES_MAX:
            self._problem += message.get("body", b"")
        await self.to(message)

    @property
    def reason(self) -> str:
        """Why not, by its code; empty: it was done."""
        if not self._problem:
            return ""
        try:
            return str(json.loads(self._problem)["reason"])
        except (ValueError, KeyError, TypeError):
            return ""
