"""`pyjiva explain`: why a volume is as it is, what to do, and what happened last."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.explanation import explain, tell
from pyjiva.cli.render import open_console
from pyjiva.cli.status import EXIT_CODES
from pyjiva.transport.event_stream import decode_events

__all__ = ["command"]


@click.command("explain")
@api_option
@click.option("--events", "count", type=click.IntRange(0), default=20, show_default=True, help="How many.")
@click.option("--follow", is_flag=True, help="Go on with what happens, as it happens, until Ctrl-C.")
def command(api: ApiAddress, count: int, follow: bool) -> None:
    """Say why the volume is as it is, what to do about it, and what happened last.

    Exit code as of `pyjiva status`; with --follow 1 when the controller has ended, and 0 for Ctrl-C.
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
    print(capture.get(), end="", flush=True)
    if follow:
        _follow(client, events[-1]["number"] if events else 0)
    sys.exit(code)


def _follow(client: Api, told: int) -> None:
    console = open_console()
    try:
        for sent in decode_events(client.lines("/v1/events/stream")):
            event = json.loads(sent.data)
            if event["number"] > told:
                _render_event(event, console)
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(0)
    except (ValueError, KeyError, TypeError):
        client.not_understood()
    client.give_up("it has ended")


def _render_events(events: list[dict[str, Any]], console: Console) -> None:
    if events:
        _line(console, "What happened, the newest last:", style="bold")
    for event in events:
        _render_event(event, console)


def _render_event(event: dict[str, Any], console: Console) -> None:
    who = "" if event["replica"] is None else f" {event['replica']}"
    _line(console, f"  {tell(event['at_s'])}  {event['kind']}{who}: {event['text']}")


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
