"""`pyjiva explain`: why a volume is as it is, what to do, and what happened last."""

import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.explanation import explain, tell
from pyjiva.cli.render import open_console
from pyjiva.cli.status import EXIT_CODES

__all__ = ["command"]


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
            for sentence in explain(status, events):
                _line(console, sentence.text, style="bold" if sentence.heading else "")
            _render_events(events[len(events) - count :] if count < len(events) else events, console)
    except (ValueError, KeyError, TypeError):
        client.not_understood()
    print(capture.get(), end="")
    sys.exit(code)


def _render_events(events: list[dict[str, Any]], console: Console) -> None:
    if events:
        _line(console, "What happened, the newest last:", style="bold")
    for event in events:
        who = "" if event["replica"] is None else f" {event['replica']}"
        _line(console, f"  {tell(event['at_s'])}  {event['kind']}{who}: {event['text']}")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
