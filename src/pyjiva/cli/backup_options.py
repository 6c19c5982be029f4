"""What the commands of `pyjiva backup` share: the store and its key, how they end, how they show progress."""

import functools
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Self

import attrs
import click
import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pyjiva.backup import Progress as Done
from pyjiva.backup import check_id
from pyjiva.backup.configuration import CHUNK_BYTES
from pyjiva.backup.directory_objects_sys import DirectoryObjects
from pyjiva.backup.objects import Objects
from pyjiva.backup.store_io import BackupStore, open_store
from pyjiva.cli.daemon import SIZE, read_key
from pyjiva.errors import ConfigError, PyjivaError
from pyjiva.units import format_size

__all__ = ["BACKUP", "Reporter", "StoreAddress", "rate_option", "run_backup", "store_options", "warn"]

S3_SCHEME: Final = "s3://"
LINE_S: Final = 10.0  # between two lines of progress where there is no terminal
EXIT_FAILED: Final = 1
EXIT_IMPOSSIBLE: Final = 2
EXIT_INTERRUPTED: Final = 130


@attrs.frozen
class StoreAddress:
    """Where the store is, and where its key."""

    address: str
    key_file: Path | None
    s3_endpoint: str | None

    async def open(self, *, create: bool = False, chunk_bytes: int = CHUNK_BYTES) -> BackupStore:
        """The store.  Raises ConfigError: it is none, it has another key, or a library is missing."""
        secret = read_key(self.key_file) if self.key_file is not None else None
        return await open_store(self._objects(), secret, create=create, chunk_bytes=chunk_bytes)

    def _objects(self) -> Objects:
        if not self.address.startswith(S3_SCHEME):
            if self.s3_endpoint is not None:
                raise ConfigError(f"--s3-endpoint is of use with s3://BUCKET, not with {self.address}")
            return DirectoryObjects(Path(self.address))
        try:
            from pyjiva.backup.s3_objects_sys import S3Objects
        except ImportError as error:
            raise ConfigError(f"S3 needs more libraries: pip install 'pyjiva[backup]' ({error})") from error
        return S3Objects.open(self.address, self.s3_endpoint)


class _BackupIdType(click.ParamType[str]):
    name = "backup"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_id(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


BACKUP: Final = _BackupIdType()


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add STORE and the options that go with it; the command gets `store`, a StoreAddress."""

    @functools.wraps(command)
    def with_store(
        *arguments: Any, store: str, key_file: Path | None, s3_endpoint: str | None, **options: Any
    ) -> Any:
        return command(*arguments, store=StoreAddress(store, key_file, s3_endpoint), **options)

    decorated: Callable[..., Any] = with_store
    for option in (
        click.option(
            "--s3-endpoint",
            envvar="PYJIVA_S3_ENDPOINT",
            show_envvar=True,
            help="URL of a server that speaks S3; without it, AWS.",
        ),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path),
            envvar="PYJIVA_BACKUP_KEY_FILE",
            show_envvar=True,
            help="Encrypt with this key: a file of hexadecimal digits.",
        ),
        click.argument("store"),
    ):
        decorated = option(decorated)
    return decorated


def _positive(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    if value == 0:
        raise click.BadParameter("at least 1 byte per second", ctx, param)
    return value


rate_option: Final = click.option(
    "--rate", type=SIZE, callback=_positive, help="At most so many bytes per second, such as 50MiB."
)


def run_backup(main: Callable[[], Awaitable[int]]) -> None:
    """Run `main` and end the process with what it gives, or with one line about what went wrong."""
    try:
        sys.exit(trio.run(main))
    except ConfigError as error:
        code, reason = EXIT_IMPOSSIBLE, str(error)
    except PyjivaError as error:
        code, reason = EXIT_FAILED, str(error)
    except KeyboardInterrupt:
        code, reason = EXIT_INTERRUPTED, "interrupted; the same command goes on from here"
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[0] is None:
            raise
        code, reason = EXIT_INTERRUPTED, "interrupted; the same command goes on from here"
    warn(reason)
    sys.exit(code)


def warn(text: str) -> None:
    """One line on standard error."""
    print(f"pyjiva: {' '.join(text.split())}", file=sys.stderr, flush=True)


class Reporter:
    """Shows on standard error how far it is: a bar on a terminal, else a line now and then."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._began_s = self._said_s = clock()
        self._bars: Progress | None = None
        self._task = TaskID(0)
        if sys.stderr.isatty():
            self._bars = Progress(
                TextColumn(what),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bars.add_task(what, total=None)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, done: Done) -> None:
        """Take over how far it is."""
        if self._bars is not None:
            self._bars.update(self._task, completed=done.done_bytes, total=done.total_bytes)
            return
        now_s = self._clock()
        if now_s - self._said_s >= LINE_S:
            self._said_s = now_s
            print(f"{self._what}: {_line(done, now_s - self._began_s)}", file=sys.stderr, flush=True)

    def wait(self, reason: str) -> None:
        """Say why nothing happens yet."""
        warn(reason)


def _line(done: Done, passed_s: float) -> str:
    """`40 %, 1.2GiB of 3GiB, 50MiB/s, 35 s to go`."""
    speed = done.done_bytes / passed_s if passed_s > 0 else 0.0
    percent = 100 * done.done_bytes // done.total_bytes if done.total_bytes else 100
    parts = [f"{percent} %", f"{format_size(done.done_bytes)} of {format_size(done.total_bytes)}"]
    if speed:
        left_s = (done.total_bytes - done.done_bytes) / speed
        parts += [f"{format_size(round(speed))}/s", f"{left_s:.0f} s to go"]
    return ", ".join(parts)
