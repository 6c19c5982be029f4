"""`pyjiva status`: how a volume is, for people or as JSON."""

import json
import sys
from typing import Any, Final, NoReturn

import click
import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyjiva.units import format_size

__all__ = ["command", "render"]

TIMEOUT_S: Final = 5.0
EXIT_UNREACHABLE: Final = 1
PIPE_COLUMNS: Final = 1000  # a pipe has no width: every cell gets the room that it needs
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
        # No proxy of the environment: it stands between here and the world, not before a controller.
        answer = httpx.get(f"{api.rstrip('/')}/v1/volume", timeout=TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
        status = answer.json()
        code = EXIT_CODES[status["state"]]
        # The width is that of the terminal, unless there is none.
        console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
        with console.capture() as capture:
            render(status, console)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _give_up(api, str(error) or type(error).__name__)
    except (ValueError, KeyError, TypeError):
        _give_up(api, "the answer is not a volume's status")
    print(json.dumps(status, indent=2) if as_json else capture.get(), end="\n" if as_json else "")
    sys.exit(code)


def _give_up(api: str, reason: str) -> NoReturn:
    print(f"pyjiva: no volume answers at {api}: {' '.join(reason.split())}", file=sys.stderr)
    sys.exit(EXIT_UNREACHABLE)


def render(status: dict[str, Any], console: Console) -> None:
    """Print `status` (the API's answer) as tables.  Raises KeyError, TypeError, ValueError: it is not one."""
    size = f"{format_size(status['size_bytes'])} in blocks of {status['block_size_bytes']} bytes"
    _print_line(console, f"{status['name']}  {size}  {status['state']}", style="bold")
    if status["reason"]:
        _print_line(console, f"  {status['reason']}")
    _print_line(console, f"  {status['iqn']} at {', '.join(status['portals'])}")
    replicas = _table("replica", "mode", "address", "directory")
    for replica in status["replicas"]:
        mode = replica["mode"]
        if replica["progress"] is not None:
            mode += f" {100 * replica['progress']:.0f} %"
        replicas.add_row(*map(Text, (str(replica["id"]), mode, replica["address"], replica["directory"])))
    console.print(replicas)
    for replica in status["replicas"]:
        if replica["reason"] not in status["reason"]:  # the volume's reason names the first of them
            _print_line(console, f"  replica {replica['id']}: {replica['reason']}")
    sessions = _table("initiator", "from", "for")
    for session in status["sessions"]:
        connected = f"{session['connected_s']:.0f} s"
        sessions.add_row(*map(Text, (session["initiator"], session["address"], connected)))
    if status["sessions"]:
        console.print(sessions)
    else:
        _print_line(console, "no initiator is logged in")


def _print_line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)  # the terminal breaks it: it can be copied whole


def _table(*names: str) -> Table:
    """Cells that do not fit go on in the next line: an end that is cut off is what tells replicas apart."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=False)
    return table
