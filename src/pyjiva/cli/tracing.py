"""Spans to OpenTelemetry, and from there by OTLP to whoever collects them; only loaded where that is wanted.

Theory.  The spans of hosts' commands are records of our own (`block.trace`) until the command is over; then
they are made OpenTelemetry's at one go, with the times that they had.  A span that is given to the SDK goes
into a queue of bounded length (OTEL_BSP_MAX_QUEUE_SIZE), and a thread of the SDK sends it; the loop never
waits.  What the queue has no room for is lost, and so is what the receiver does not take.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import attrs
import structlog
import trio
from opentelemetry import context as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from starlette.applications import Starlette
from starlette.types import ASGIApp

from pyjiva import __version__
from pyjiva.block import Sampler, Span
from pyjiva.cli.trace_options import TraceOptions
from pyjiva.cli.traced_http import TracedHttp
from pyjiva.controller.operations import FAILED, Operation
from pyjiva.controller.outages import Outage

__all__ = ["Tracing"]

STOP_S: Final = 2.0  # for what is left when the process stops: a supervisor waits longer than that
QUIET_S: Final = 60.0  # between two lines about a receiver that is away
ROOT: Final = Context()  # of nothing that is under way


@attrs.frozen(eq=False)
class Tracing:
    """Of one process."""

    provider: TracerProvider
    tracer: Tracer
    sampler: Sampler

    @classmethod
    def open(cls, options: TraceOptions, of: Mapping[str, str]) -> Self:
        """Raises ConfigError: where the spans are to go is no URL."""
        # What it has to say about failures is said by _Quiet, and not once for each try.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        logging.getLogger("opentelemetry").propagate = False
        own = {"service.name": "pyjiva-controller", "service.version": __version__, **of}
        resource = Resource(own).merge(OTELResourceDetector().detect())  # what operators say goes first
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=None if options.endpoint is None else options.url())
        provider.add_span_processor(BatchSpanProcessor(Quiet(exporter)))
        tracer = provider.get_tracer("pyjiva", __version__)
        return cls.over(provider, tracer, options.sample)

    @classmethod
    def over(cls, provider: TracerProvider, tracer: Tracer, share: float) -> Self:
        """With an OpenTelemetry that is set up."""
        sampler = Sampler(
            time.perf_counter_ns, share, random.random, lambda span, within: _take(tracer, span, within)
        )
        return cls(provider, tracer, sampler)

    def around(self, routes: Starlette, served: ASGIApp) -> ASGIApp:
        """An API whose requests are traced."""
        return TracedHttp(routes, served, self.tracer)

    def context(self) -> object:
        """What is under way in this task."""
        return otel.get_current()

    def outage(self, outage: Outage) -> None:
        """The volume takes I/O."""
        attributes: dict[str, Any] = {
            "pyjiva.reason": outage.reason,
            "pyjiva.epoch": outage.epoch,
            "pyjiva.replicas_in_sync": outage.replicas_in_sync,
        }
        name = "activation" if outage.is_activation else "parked"
        self._past(name, outage.begun_at_s, outage.ended_at_s, attributes)

    def operation(self, ended: Operation) -> None:
        """Something that took a while is over."""
        attributes: dict[str, Any] = {
            "pyjiva.operation": ended.id,
            "pyjiva.state": ended.state,
            "pyjiva.done_bytes": ended.done_bytes,
        }
        if ended.replica is not None:
            attributes["pyjiva.replica"] = ended.replica
        if ended.reason:
            attributes["pyjiva.reason"] = ended.reason
        error = ended.reason or FAILED if ended.state == FAILED else ""
        self._past(ended.kind, ended.begun_at_s, ended.ended_at_s or ended.begun_at_s, attributes, error)

    def _past(
        self, name: str, begun_at_s: float, ended_at_s: float, attributes: Mapping[str, Any], error: str = ""
    ) -> None:
        span = self.tracer.start_span(
            name, ROOT, SpanKind.INTERNAL, attributes, start_time=int(begun_at_s * 1e9)
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(int(ended_at_s * 1e9))

    async def close(self) -> None:
        """Send what is left, if that goes quickly."""
        with trio.move_on_after(STOP_S, shield=True):
            await trio.to_thread.run_sync(self.provider.shutdown, abandon_on_cancel=True)


def _take(tracer: Tracer, root: Span, within: object) -> None:
    ahead_ns = time.time_ns() - time.perf_counter_ns()
    context = within if isinstance(within, Context) else ROOT
    _make(tracer, root, context, ahead_ns, SpanKind.SERVER if context is ROOT else SpanKind.INTERNAL)


def _make(tracer: Tracer, span: Span, context: Context, ahead_ns: int, kind: SpanKind) -> None:
    made = tracer.start_span(span.name, context, kind, span.attributes, start_time=span.begin_ns + ahead_ns)
    if span.error:
        made.set_status(Status(StatusCode.ERROR, span.error))
    below = set_span_in_context(made, context)
    for child in span.children:
        _make(tracer, child, below, ahead_ns, SpanKind.INTERNAL)
    made.end((span.end_ns or span.begin_ns) + ahead_ns)


class Quiet(SpanExporter):
    """`exporter`, with one line now and then about what it could not send."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._next_line_s = 0.0
        # The thread that exports has no context of its own: what each line says is taken along.
        self._log = structlog.get_logger(__name__).bind(**structlog.contextvars.get_contextvars())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter."""
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost += len(spans)
            if time.monotonic() >= self._next_line_s:
                self._next_line_s = time.monotonic() + QUIET_S
                self._log.warning(
                    "traces-not-sent",
                    spans_lost=self._lost,
                    advice="look at the receiver of --trace-endpoint",
                )
                self._lost = 0
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See SpanExporter."""
        return self._exporter.force_flush(timeout_millis)
