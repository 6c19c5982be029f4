"""What the commands that work on a directory share: a bar while they work, one line when they cannot."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pyjiva.errors import ConfigError, StorageError

__all__ = ["progress_bar", "refusals"]


@contextmanager
def progress_bar(what: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal; what it gives is told of bytes as they are done."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total_bytes)
        yield lambda count: progress.advance(task, count)


@contextmanager
def refusals() -> Iterator[None]:
    """What cannot be done ends the process with one line on standard error and exit code 2."""
    try:
        yield
    except (ConfigError, StorageError) as error:
        print(f"pyjiva: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
