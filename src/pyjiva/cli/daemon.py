"""What the two daemons share: types of options, logs, signals, and how they end.

Exit codes: 0 after a clean stop, 2 when the configuration is impossible (one line on standard error), 3
when another controller has taken the volume over, 1 for anything unexpected.
"""

import enum
import logging
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog
import trio

from pyjiva.errors import ConfigError, StorageError
from pyjiva.units import parse_size

__all__ = [
    "ADDRESS",
    "SIZE",
    "Address",
    "StopCause",
    "read_key",
    "run_daemon",
    "wait_for_end_of_stdin",
    "wait_for_stop",
]

KEY_BYTES_MIN: Final = 16


@attrs.frozen
class Address:
    """HOST:PORT, with IPv6 hosts in brackets; port 0 asks for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Raises ConfigError: not HOST:PORT."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if bracketed:
            host = host[1:-1]
        if not colon or not host or (":" in host) != bracketed or not port.isascii() or not port.isdigit():
            raise ConfigError(f"address {text!r}: write HOST:PORT, an IPv6 host as in [::1]:3260")
        if int(port) > 65535:
            raise ConfigError(f"address {text!r}: ports end at 65535")
        try:
            host.encode("idna")  # as the socket module does
        except UnicodeError as error:
            raise ConfigError(f"address {text!r}: no host can be called so") from error
        return cls(host, int(port))


class _AddressType(click.ParamType[Address]):
    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        if isinstance(value, Address):
            return value
        try:
            return Address.parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class _SizeType(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


ADDRESS: Final = _AddressType()
SIZE: Final = _SizeType()


def read_key(path: Path, *, warn: bool = False) -> bytes:
    """A key from a file of hexadecimal digits.  `warn`: log one that others may read.

    Raises ConfigError: no such file, or not a key.
    """
    try:
        with path.open(encoding="ascii") as file:
            readable = os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH)
            key = bytes.fromhex(file.read().strip())
    except OSError as error:
        raise ConfigError(f"key file {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"key file {path}: not hexadecimal digits") from error
    if len(key) < KEY_BYTES_MIN:
        raise ConfigError(f"key file {path}: at least {2 * KEY_BYTES_MIN} hexadecimal digits are needed")
    if readable and warn:  # not refused: Kubernetes mounts secrets so unless it is told otherwise
        structlog.get_logger(__name__).warning(
            "key-readable-by-others", file=str(path), advice=f"chmod 600 {path}"
        )
    return key


def run_daemon(program: str, main: Callable[[], Awaitable[int]], **context: Any) -> int:
    """Run `main` under trio with logs on standard error, each with `context`; the exit code."""
    _set_up_logs(program, context)
    try:
        return trio.run(main)
    except (ConfigError, StorageError) as error:
        reason: BaseException = error
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as group:
        reason = _only(group)
        if not isinstance(reason, ConfigError | StorageError):
            raise
    print(f"{program}: {reason}", file=sys.stderr, flush=True)
    return 2


def _only(group: BaseExceptionGroup[Any]) -> BaseException:
    """What a nursery wrapped, when it is one thing; else the group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _set_up_logs(program: str, context: dict[str, Any]) -> None:
    """One event per line on standard error: JSON when PYJIVA_LOG=json, else for people."""
    renderer: Any
    formatters: list[Any] = []
    if os.environ.get("PYJIVA_LOG") == "json":
        renderer = structlog.processors.JSONRenderer()
        formatters = [structlog.processors.format_exc_info]
    else:
        # Not rich's tracebacks, the default: they show local variables, which may be secrets.
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *formatters,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(program=program, **context)


class StopCause(enum.Enum):
    """Why a daemon is to stop."""

    SIGNAL = "signal"
    ORPHANED = "orphaned"  # standard input ended: whoever started us is gone


async def wait_for_stop(*, stop_with_stdin: bool) -> StopCause:
    """Wait for SIGINT or SIGTERM, or for the end of standard input if whoever started us holds it."""
    cause = StopCause.ORPHANED
    async with trio.open_nursery() as nursery:
        if stop_with_stdin:
            nursery.start_soon(_cancel_at_end_of_stdin, nursery.cancel_scope)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                cause = StopCause.SIGNAL
                nursery.cancel_scope.cancel()
                break
    return cause


async def _cancel_at_end_of_stdin(scope: trio.CancelScope) -> None:
    await wait_for_end_of_stdin()
    scope.cancel()


async def wait_for_end_of_stdin() -> None:
    """Whoever started us holds its other end, and is gone when it ends."""
    stdin = trio.lowlevel.FdStream(os.dup(sys.stdin.fileno()))
    async with stdin:
        while await stdin.receive_some():
            pass
