"""`pyjiva status`: how a volume is, for people or as JSON."""

import json
import sys
from typing import Any, Final

import click
import httpx
from rich.console import Console
from rich.table import Table

from pyjiva.units import format_size

__all__ = ["command", "render"]

TIMEOUT_S: Final = 5.0
EXIT_UNREACHABLE: Final = 1
PIPE_COLUMNS: Final = 1000
#: State of the volume → exit code.
EXIT_CODES: Final[dict[str, int]] = {"healthy": 0, "degraded": 3, "parked": 4}


@click.command("status")
@click.option(
    "--api",
    default="http://127.0.0.1:9501",
    show_default=True,
    envvar="PYJIVA_API",
    show_envvar=True,
    help="The controller's API.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
def command(api: str, as_json: bool) -> None:
    """Show a volume, its replicas and its sessions.

    Exit code: 0 healthy, 3 degraded, 4 parked, 1 the controller cannot be reached.
    """
    if "://" not in api:
        api = f"http://{api}"
    try:
        answer = httpx.get(f"{api.rstrip('/')}/v1/volume", timeout=TIMEOUT_S)
        answer.raise_for_status()
        status = answer.json()
        code = EXIT_CODES[status["state"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        print(f"pyjiva: no volume answers at {api}: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(EXIT_UNREACHABLE)
    if as_json:
        print(json.dumps(status, indent=2))
    else:
        # A pipe has no width: every cell gets the room that it needs.
        render(status, Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS))
    sys.exit(code)


def render(status: dict[str, Any], console: Console) -> None:
    """Print `status` (the API's answer) as tables."""
    size = f"{format_size(status['size_bytes'])} in blocks of {status['block_size_bytes']}"
    console.print(f"[bold]{status['name']}[/bold]  {size}  [bold]{status['state']}[/bold]", soft_wrap=True)
    if status["reason"]:
        console.print(f"  {status['reason']}", soft_wrap=True, markup=False)
    console.print(f"  {status['iqn']} at {', '.join(status['portals'])}", soft_wrap=True, markup=False)
    replicas = Table("replica", "mode", "address", "directory", "why", box=None, pad_edge=False)
    for replica in status["replicas"]:
        mode = replica["mode"]
        if replica["progress"] is not None:
            mode += f" {100 * replica['progress']:.0f} %"
        replicas.add_row(
            str(replica["id"]), mode, replica["address"], replica["directory"], replica["reason"]
        )
    sessions = Table("initiator", "from", "for", box=None, pad_edge=False)
    for session in status["sessions"]:
        sessions.add_row(session["initiator"], session["address"], f"{session['connected_s']:.0f} s")
    console.print(replicas)
    if status["sessions"]:
        console.print(sessions)
    else:
        console.print("no initiator is logged in")
