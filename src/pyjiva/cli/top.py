"""`pyjiva top`: what a volume does at this moment: IOPS, bytes, latency, queues, replicas."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.rates import Look, Rate, rates_of_hosts, rates_of_replicas
from pyjiva.cli.render import open_console
from pyjiva.units import format_size

__all__ = ["command"]

Show = Callable[[str], None]


@click.command("top")
@api_option
@click.option(
    "--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--count", type=click.IntRange(1), default=None, help="End after so many tables.")
def command(api: ApiAddress, interval: float, count: int | None) -> None:
    """Show what a volume does: until Ctrl-C, each second.

    Exit code: 0, or 1 when the controller cannot be reached.
    """
    client = Api(api)
    shown = 0
    with _on_terminal() if sys.stdout.isatty() else _one_after_the_other() as show:
        try:
            before = _look(client)
            while count is None or shown < count:
                sleep(interval)
                after, status = _look(client), client.get("/v1/volume")
                show(_page(status, before, after))
                before, shown = after, shown + 1
        except KeyboardInterrupt:
            sys.exit(0)
        except (KeyError, TypeError, ValueError):
            client.not_understood()


def _look(client: Api) -> Look:
    return Look.of(client.text("/metrics"), monotonic())


@contextmanager
def _on_terminal() -> Iterator[Show]:
    with Live(console=open_console(), auto_refresh=False) as live:
        yield lambda page: live.update(Text.from_ansi(page), refresh=True)


@contextmanager
def _one_after_the_other() -> Iterator[Show]:
    yield lambda page: print(page, end="", flush=True)


def _page(status: dict[str, Any], before: Look, after: Look) -> str:
    console = Console(
        file=io.StringIO(),
        width=open_console().width,
        highlight=False,
        force_terminal=sys.stdout.isatty(),
    )
    with console.capture() as capture:
        sessions = len(status["sessions"])
        head = (
            f"{status['name']}  {status['state']}  {format_size(status['size_bytes'])}, {sessions} sessions"
        )
        console.print(Text(head, style="bold"), soft_wrap=True)
        if status["reason"]:
            console.print(Text(f"  {status['reason']}"), soft_wrap=True)
        hosts = _table("hosts", "per s", "bytes per s", "queue", "mean", "median", "p99")
        for operation, rate in rates_of_hosts(before, after).items():
            _add(hosts, operation, format_size(int(rate.bytes_per_s)), rate)
        console.print(hosts)
        replicas = _table("replica", "per s", "mode", "queue", "mean", "median", "p99")
        rates = rates_of_replicas(before, after)
        for replica in status["replicas"]:
            if replica["id"] in rates:  # one that was added or removed just now is there next time
                _add(replicas, str(replica["id"]), replica["mode"], rates[replica["id"]])
        console.print(replicas)
    return capture.get()


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n == 0 else "right", no_wrap=True)
    return table


def _add(table: Table, what: str, detail: str, rate: Rate) -> None:
    row = (
        what,
        f"{rate.per_s:.0f}",
        detail,
        str(rate.in_flight),
        _seconds(rate.mean_s),
        _seconds(rate.median_s, "<"),
        _seconds(rate.p99_s, "<"),
    )
    table.add_row(*map(Text, row))


def _seconds(seconds: float | None, sign: str = "") -> str:
    if seconds is None:
        return ""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{sign}{seconds * factor:.3g} {unit}"
    return f"{sign}{seconds * 1e6:.0f} µs"
