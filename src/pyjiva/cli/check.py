"""`pyjiva check`: what a replica's directory is, and what is wrong with it."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from pyjiva.checkup import Report, check
from pyjiva.cli.checkup_render import render_report
from pyjiva.cli.render import open_console
from pyjiva.errors import ConfigError, StorageError
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.sparse import open_read_only

__all__ = ["EXIT_DAMAGED", "EXIT_IMPOSSIBLE", "command", "refuse"]

EXIT_DAMAGED: Final = 1
EXIT_IMPOSSIBLE: Final = 2


@click.command("check")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Look at all but the data.")
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def command(directory: Path, quick: bool, as_json: bool) -> None:
    """Look at the replica in DIRECTORY, which must not be running, and change nothing.

    Exit code: 0 sound, 1 damaged, 2 it cannot be checked.
    """
    try:
        with contextlib.closing(open_read_only(directory)) as opened, _progress() as begin:
            report = check(opened, boot_id=read_boot_id(), quick=quick, begin=begin)
    except (ConfigError, StorageError) as error:
        refuse(error)
    _print(report, as_json=as_json)
    sys.exit(0 if report.is_sound else EXIT_DAMAGED)


def _print(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
        return
    console = open_console()
    with console.capture() as capture:
        render_report(report, console)
    print(_printable(capture.get()), end="")


def refuse(error: Exception) -> NoReturn:
    """End with one line on standard error."""
    print(_printable(f"pyjiva: {' '.join(str(error).split())}"), file=sys.stderr)
    sys.exit(EXIT_IMPOSSIBLE)


def _printable(text: str) -> str:
    """`text`, with bytes of file names that are no text as what they are."""
    return text.encode(errors="backslashreplace").decode()


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Show how far it is, where standard error is a terminal."""
    columns = (TextColumn("check"), BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:

        def begin(total_bytes: int) -> Callable[[int], None]:
            task = progress.add_task("check", total=total_bytes)
            return lambda done_bytes: progress.advance(task, done_bytes)

        yield begin
