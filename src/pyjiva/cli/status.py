"""`pyjiva status`: how a volume is, for people or as JSON, once or as it changes."""

import json
import sys
from typing import Final

import click

from pyjiva.cli.api import Api, ApiAddress, api_option
from pyjiva.cli.render import open_console, render
from pyjiva.cli.watch import watch

__all__ = ["EXIT_CODES", "command"]

#: State of the volume → exit code.
EXIT_CODES: Final[dict[str, int]] = {"healthy": 0, "degraded": 3, "parked": 4}


@click.command("status")
@api_option
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@click.option("--watch", "watching", is_flag=True, help="Show it as it changes, until Ctrl-C.")
@click.option("--until-healthy", is_flag=True, help="As --watch, and end when the volume is healthy.")
def command(api: ApiAddress, as_json: bool, watching: bool, until_healthy: bool) -> None:
    """Show a volume, its replicas and its sessions.

    Exit code: 0 healthy, 3 degraded, 4 parked, 1 the controller cannot be reached.
    """
    if as_json and (watching or until_healthy):
        raise click.UsageError("--json prints one answer: it cannot be watched")
    client = Api(api)
    try:
        if watching or until_healthy:
            sys.exit(EXIT_CODES[watch(client, until_healthy=until_healthy)["state"]])
        status = client.get("/v1/volume")
        code = EXIT_CODES[status["state"]]
        console = open_console()
        with console.capture() as capture:
            render(status, console)
    except (ValueError, KeyError, TypeError):
        client.not_understood()
    print(json.dumps(status, indent=2) if as_json else capture.get(), end="\n" if as_json else "")
    sys.exit(code)
