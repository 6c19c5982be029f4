"""`pyjiva status --watch`: a volume as it changes, with a bar for each rebuild; without a terminal, lines."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Final

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from pyjiva.cli.api import Api
from pyjiva.cli.render import open_console, render
from pyjiva.units import format_size

__all__ = ["Speeds", "watch"]

POLL_S: Final = 1.0
LOOKS: Final = 5  # a speed is the mean over so many looks: one alone jumps

Show = Callable[[dict[str, Any], "Speeds"], None]


@attrs.define
class Speeds:
    """How fast data is copied to each replica, from one look to the next."""

    _looks: list[tuple[float, dict[int, int]]] = attrs.field(factory=list, init=False)

    def look(self, at_s: float, status: dict[str, Any]) -> None:
        """Take over what has been copied until now."""
        copied = {r["id"]: int(r["rebuilds"]["copied_bytes"]) for r in status["replicas"]}
        self._looks = [*self._looks[-LOOKS:], (at_s, copied)]

    def of(self, replica: int) -> float | None:
        """Bytes per second; None: it was seen once only, or another controller counts anew."""
        seen = [(at_s, copied[replica]) for at_s, copied in self._looks if replica in copied]
        if len(seen) < 2 or seen[-1][0] <= seen[0][0] or seen[-1][1] < seen[0][1]:
            return None
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def watch(client: Api, *, until_healthy: bool) -> dict[str, Any]:
    """Show the volume until Ctrl-C, or until it is healthy; the last status.

    Raises KeyError, TypeError, ValueError: an answer is not a status.
    """
    speeds = Speeds()
    with _on_terminal(open_console()) if sys.stdout.isatty() else _in_lines() as show:
        status: dict[str, Any] = {}
        try:
            while not (until_healthy and status and status["state"] == "healthy"):
                if status:
                    sleep(POLL_S)
                status = client.get("/v1/volume")
                speeds.look(monotonic(), status)
                show(status, speeds)
        except KeyboardInterrupt:
            if not status:
                raise
    return status


@contextmanager
def _on_terminal(console: Console) -> Iterator[Show]:
    """Draw over what was drawn before."""
    with Live(console=console, auto_refresh=False) as live:

        def show(status: dict[str, Any], speeds: Speeds) -> None:
            # On a console of its own: what is printed on `console` would scroll above the picture.
            page = Console(file=io.StringIO(), width=console.width, highlight=False, force_terminal=True)
            with page.capture() as capture:
                render(status, page)
            live.update(Group(Text.from_ansi(capture.get()), _bars(status, speeds)), refresh=True)

        yield show


def _bars(status: dict[str, Any], speeds: Speeds) -> Progress:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    for replica in status["replicas"]:
        if replica["progress"] is not None:
            detail = _detail(replica, speeds.of(replica["id"]))
            bars.add_task(f"replica {replica['id']}", total=1, completed=replica["progress"], detail=detail)
    if (share := _filled(status)) is not None:
        detail = f"{format_size(round(share * status['size_bytes']))} of {format_size(status['size_bytes'])}"
        bars.add_task("filled", total=100, completed=round(100 * share), detail=detail)
    return bars


def _filled(status: dict[str, Any]) -> float | None:
    """How much is there of a volume that is being filled from elsewhere."""
    share = status.get("filled")
    return None if share is None or share >= 1 else float(share)


@contextmanager
def _in_lines() -> Iterator[Show]:
    """Print what has changed, for a pipe or a log."""
    said: dict[str, str] = {}

    def show(status: dict[str, Any], speeds: Speeds) -> None:
        lines = {"volume": _with_reason(f"{status['name']} is {status['state']}", status["reason"])}
        for replica in status["replicas"]:
            text = f"replica {replica['id']} is {replica['mode']}"
            if replica["progress"] is not None:
                detail = _detail(replica, speeds.of(replica["id"]))
                text += f" {100 * replica['progress']:.0f} %, {detail}"
            lines[f"replica {replica['id']}"] = _with_reason(text, replica["reason"])
        if (share := _filled(status)) is not None:
            lines["filled"] = f"{100 * share:.0f} % of it is filled"
        for what, line in lines.items():
            if said.get(what) != line:
                print(line, flush=True)
        said.clear()
        said.update(lines)

    yield show


def _detail(replica: dict[str, Any], speed: float | None) -> str:
    """`3GiB copied, 50MiB/s, 1GiB to go, 75 s`: what is known of it."""
    rebuild = replica["rebuild"]
    if rebuild is None:
        return "everything is copied"
    parts = [f"{format_size(rebuild['copied_bytes'])} copied"]
    if speed is not None:
        parts.append(f"{format_size(round(speed))}/s")
    parts.append(f"{format_size(rebuild['remaining_bytes'])} to go")
    if rebuild["eta_s"] is not None:
        parts.append(f"{rebuild['eta_s']:.0f} s")
    return ", ".join(parts)


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text
