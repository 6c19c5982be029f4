"""Traces: the options that `pyjiva up` and the controller share, and when OpenTelemetry is loaded at all.

Nothing here imports it: that would be time and memory at every start, and it need not be installed.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import click
import structlog

from pyjiva.cli.shared_options import add_options, arguments_of
from pyjiva.errors import ConfigError

if TYPE_CHECKING:
    from pyjiva.cli.tracing import Tracing

__all__ = ["TraceOptions", "open_tracing", "take_trace", "trace_arguments", "trace_options"]

SAMPLE: Final = 0.001  # a busy volume of 20,000 commands per second then gives 20 traces in each
TRACES_PATH: Final = "/v1/traces"  # OTLP 1.x, "OTLP/HTTP Request"
#: OpenTelemetry's own variables that say where traces go.
VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_log = structlog.get_logger(__name__)


@attrs.frozen
class TraceOptions:
    """What an operator asked for.  Raises ConfigError: it cannot be."""

    endpoint: str | None = None
    """Of an OTLP/HTTP receiver; None: what OpenTelemetry's variables say, or nothing is traced."""
    sample: float = SAMPLE
    """Which share of hosts' commands."""

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise ConfigError(f"trace sample {self.sample:g}: a share of the commands, 0 to 1")
        if self.endpoint is not None:
            self.url()

    def url(self) -> str:
        """Where spans are sent: the path of a receiver is filled in.

        Raises ConfigError: the endpoint is no URL for that.
        """
        parts = urlsplit(self.endpoint or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("trace endpoint: write a URL such as http://localhost:4318")
        if parts.username is not None or parts.password is not None:  # it is not to be printed
            raise ConfigError(
                "trace endpoint: no secrets in the URL; OTEL_EXPORTER_OTLP_HEADERS may have them"
            )
        return parts._replace(path=TRACES_PATH if parts.path in ("", "/") else parts.path).geturl()

    @property
    def wanted(self) -> bool:
        """Whether anything is to be traced."""
        if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return False
        return self.endpoint is not None or (
            os.environ.get("OTEL_TRACES_EXPORTER") != "none"
            and any(os.environ.get(variable) for variable in VARIABLES)
        )


def trace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what `take_trace` takes out again."""
    options = [
        click.option("--trace-endpoint", help="Send OpenTelemetry traces there by OTLP/HTTP; none are made."),
        click.option(
            "--trace-sample",
            type=float,
            default=SAMPLE,
            show_default=True,
            help="Share of hosts' commands that are traced, 0 to 1.",
        ),
    ]
    return add_options(command, options)


def take_trace(given: dict[str, Any]) -> TraceOptions:
    """Take the values out of what a command was given.  Raises ConfigError: see TraceOptions."""
    return TraceOptions(given.pop("trace_endpoint"), given.pop("trace_sample"))


def trace_arguments(options: TraceOptions) -> list[str]:
    """The same for another command's line."""
    return arguments_of(options, {"--trace-endpoint": "endpoint", "--trace-sample": "sample"})


def open_tracing(options: TraceOptions, **of: str) -> "Tracing | None":
    """What sends traces; None: they are not wanted.  `of`: attributes of this process.

    Raises ConfigError: they are, by an option, and OpenTelemetry is not installed.
    """
    if not options.wanted:
        return None
    try:
        from pyjiva.cli.tracing import Tracing
    except ImportError as error:
        reason = f"traces need OpenTelemetry, pip install 'pyjiva[trace]': no module {error.name}"
        if options.endpoint is not None:
            raise ConfigError(reason) from error
        # The variables may have been meant for others on this machine.
        _log.warning("no-traces", reason=reason)
        return None
    return Tracing.open(options, of)
