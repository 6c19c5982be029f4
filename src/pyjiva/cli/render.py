"""A volume's status as tables for people."""

import sys
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyjiva.units import format_size

__all__ = ["open_console", "render", "render_scrub"]

PIPE_COLUMNS: Final = 1000  # a pipe has no width: every cell gets the room that it needs


def open_console() -> Console:
    """As wide as the terminal, unless there is none."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)


def render(status: dict[str, Any], console: Console) -> None:
    """Print `status` (the API's answer) as tables.  Raises KeyError, TypeError, ValueError: it is not one."""
    size = f"{format_size(status['size_bytes'])} in blocks of {status['block_size_bytes']} bytes"
    _print_line(console, f"{status['name']}  {size}  {status['state']}", style="bold")
    if status["reason"]:
        _print_line(console, f"  {status['reason']}")
    _print_line(console, f"  {status['iqn']} at {', '.join(status['portals'])}")
    replicas = _table("replica", "mode", "used", "free", "address", "directory")
    for replica in status["replicas"]:
        mode = replica["mode"] + _render_progress(replica)
        space = (_render_bytes(replica[key]) for key in ("used_bytes", "available_bytes"))
        row = (str(replica["id"]), mode, *space, replica["address"], replica["directory"])
        replicas.add_row(*map(Text, row))
    console.print(replicas)
    for replica in status["replicas"]:
        if replica["reason"] not in status["reason"]:  # the volume's reason names the first of them
            _print_line(console, f"  replica {replica['id']}: {replica['reason']}")
        if any((rot := replica["rot"]).values()):
            _print_line(
                console,
                f"  replica {replica['id']}: rot in {rot['repaired']} ranges repaired, in {rot['repairing']} "
                f"under repair, in {rot['hopeless']} without a good copy",
            )
    if (scrub := status["scrub"]) is not None:
        _print_line(console, f"  {render_scrub(scrub, status['size_bytes'])}")
    sessions = _table("initiator", "from", "for")
    for session in status["sessions"]:
        connected = f"{session['connected_s']:.0f} s"
        sessions.add_row(*map(Text, (session["initiator"], session["address"], connected)))
    if status["sessions"]:
        console.print(sessions)
    else:
        _print_line(console, "no initiator is logged in")


def render_scrub(scrub: dict[str, Any], size_bytes: int) -> str:
    """One line about the scrub under way, or the last one."""
    found = f"{scrub['bad']} chunks with rot, {scrub['different']} that differ"
    if not scrub["running"]:
        return f"last scrub: {found}"
    return f"scrub: {100 * scrub['position_bytes'] / size_bytes:.0f} %, {found}"


def _render_bytes(count: int | None) -> str:
    return "" if count is None else format_size(count)


def _render_progress(replica: dict[str, Any]) -> str:
    """` 42 % from 1, 3.0 GiB to go, 75 s`: how far a rebuild is."""
    if replica["progress"] is None:
        return ""
    text = f" {100 * replica['progress']:.0f} %"
    if (rebuild := replica["rebuild"]) is not None:
        text += f" from {rebuild['source']}, {format_size(rebuild['remaining_bytes'])} to go"
        if rebuild["eta_s"] is not None:
            text += f", {rebuild['eta_s']:.0f} s"
    return text


def _print_line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)  # the terminal breaks it: it can be copied whole


def _table(*names: str) -> Table:
    """Cells that do not fit go on in the next line: an end that is cut off is what tells replicas apart."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=False)
    return table
