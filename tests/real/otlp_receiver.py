"""A receiver of traces by OTLP/HTTP on loopback, such as Jaeger has on port 4318, for tests."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.real.volume_process import wait_until

__all__ = ["OtlpReceiver", "ReceivedSpan", "otlp_receiver"]


@attrs.frozen
class ReceivedSpan:
    """One span as it came."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """Empty: a root."""
    begin_ns: int
    end_ns: int
    attributes: dict[str, Any]
    failed: bool
    reason: str
    """Of its failure."""
    resource: dict[str, Any]

    @property
    def took_s(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9


@attrs.define(eq=False)
class OtlpReceiver:
    """What came so far."""

    endpoint: str
    spans: list[ReceivedSpan] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)

    def children(self, of: ReceivedSpan) -> list[ReceivedSpan]:
        return [s for s in self.spans if s.parent_id == of.span_id and s.trace_id == of.trace_id]

    def below(self, of: ReceivedSpan) -> list[ReceivedSpan]:
        found = self.children(of)
        return found + [below for child in found for below in self.below(child)]

    def wait_for(self, name: str, fits: Callable[[ReceivedSpan], bool] = lambda _: True) -> ReceivedSpan:
        """The first span of that name that fits, once it is there."""

        def find() -> ReceivedSpan | None:
            return next((s for s in list(self.spans) if s.name == name and fits(s)), None)

        found: ReceivedSpan = wait_until(find, f"a span {name}; there are {[s.name for s in self.spans]}")
        return found

    def take(self, body: bytes) -> None:
        """One request's."""
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                self.spans += [_received(span, resource) for span in of_scope.spans]


def _received(span: SpanMessage, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.trace_id,
        span.span_id,
        span.parent_span_id,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _values(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    def value(of: KeyValue) -> Any:
        return getattr(of.value, of.value.WhichOneof("value") or "")

    return {each.key: value(each) for each in attributes}


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver on a port of its own; fails at the end if it was sent what it does not understand."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            kind = self.headers["content-type"]
            if self.path != "/v1/traces" or kind != "application/x-protobuf":
                receiver.problems.append(f"{self.path} {kind}")
            receiver.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the test says what it sees."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = OtlpReceiver(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not receiver.problems
