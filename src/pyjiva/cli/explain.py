"""`pyjiva explain`: why a volume is as it is, what to do, and what happened last."""

import datetime
import sys
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.render import open_console
from pyjiva.cli.status import EXIT_CODES
from pyjiva.controller.causes import cause_of

__all__ = ["command"]

AS_IT_SHOULD_BE: Final = ("in-sync", "witness")


@click.command("explain")
@api_option
@click.option("--events", "count", type=click.IntRange(0), default=20, show_default=True, help="How many.")
def command(api: ApiAddress, count: int) -> None:
    """Say why the volume is as it is, what to do about it, and what happened last.

    Exit code as of `pyjiva status`.
    """
    client = Api(api)
    status, events = client.get("/v1/volume"), client.get("/v1/events")
    try:
        code = EXIT_CODES[status["state"]]
        console = open_console()
        with console.capture() as capture:
            _explain(status, console)
            _render_events(events[len(events) - count :] if count < len(events) else events, console)
    except (ValueError, KeyError, TypeError):
        client.not_understood()
    print(capture.get(), end="")
    sys.exit(code)


def _explain(status: dict[str, Any], console: Console) -> None:
    _line(console, f"{status['name']} is {status['state']}.", style="bold")
    if status["state"] == "parked":
        _cause(console, status["reason"])
    for replica in status["replicas"]:
        if replica["mode"] not in AS_IT_SHOULD_BE:
            _line(
                console,
                f"Replica {replica['id']} at {replica['address']} is {replica['mode']}.",
                style="bold",
            )
            _cause(console, replica["reason"])
        if hopeless := replica["rot"]["hopeless"]:
            _line(console, f"Replica {replica['id']} has rot in {hopeless} ranges.", style="bold")
            _line(console, "  No other replica has a good copy of them: reads there fail with MEDIUM ERROR.")
            _line(console, "  To do: write these blocks anew from a backup; check the disks (SMART).")


def _cause(console: Console, reason: str) -> None:
    cause = cause_of(reason)
    _line(console, f"  Reason: {reason}  ({cause.name})")
    _line(console, f"  {cause.means}")
    _line(console, f"  To do: {cause.todo}")


def _render_events(events: list[dict[str, Any]], console: Console) -> None:
    if events:
        _line(console, "What happened, the newest last:", style="bold")
    for event in events:
        at = datetime.datetime.fromtimestamp(event["at_s"], datetime.UTC).isoformat(" ", "seconds")
        who = "" if event["replica"] is None else f" {event['replica']}"
        _line(console, f"  {at}  {event['kind']}{who}: {event['text']}")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
