"""`pyjiva scrub`: have all of a volume read on all its replicas, and what has rotted repaired."""

import sys
import time
from typing import Any, Final

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.render import open_console, render_scrub
from pyjiva.errors import ConfigError
from pyjiva.units import parse_size

__all__ = ["command"]

POLL_S: Final = 0.5
EXIT_HOPELESS: Final = 5


@click.command("scrub")
@api_option
@click.option("--rate", help="At most so many bytes per second on each replica, such as 50MiB.")
@click.option("--wait", is_flag=True, help="Wait for the end, and for the repairs.")
def command(api: ApiAddress, rate: str | None, wait: bool) -> None:
    """Read all of the volume on all replicas in sync; repair what is not what was written.

    Exit code: 0 done (without --wait: begun), 1 it cannot be, 5 some blocks have no good copy.
    """
    try:
        given = {} if rate is None else {"rate": str(parse_size(rate))}
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    client = Api(api)
    client.post("/v1/scrub", **given)
    if wait:
        _wait(client)


def _wait(client: Api) -> None:
    columns = (TextColumn("scrub"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=open_console(), transient=True) as progress:
            task = progress.add_task("scrub")
            while _is_busy(status := client.get("/v1/volume")):
                done = status["scrub"]["position_bytes"]
                progress.update(task, completed=done, total=status["size_bytes"])
                time.sleep(POLL_S)
        print(render_scrub(status["scrub"], status["size_bytes"]))
        hopeless = [r["id"] for r in status["replicas"] if r["rot"]["hopeless"]]
    except (ValueError, KeyError, TypeError):
        client.not_understood()
    if hopeless:
        names = ", ".join(map(str, hopeless))
        print(f"pyjiva: blocks without a good copy on replica {names}: see pyjiva explain", file=sys.stderr)
        sys.exit(EXIT_HOPELESS)


def _is_busy(status: dict[str, Any]) -> bool:
    return bool(status["scrub"]["running"]) or any(r["rot"]["repairing"] for r in status["replicas"])
