"""`pyjiva`: the table of commands."""

import importlib
import sys
from typing import Final

import click

from pyjiva import __version__

__all__ = ["main"]

#: Command → module; loaded when it is used, so that no command waits for the libraries of another.
COMMANDS: Final[dict[str, str]] = {
    "up": "pyjiva.cli.up",
    "status": "pyjiva.cli.status",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = importlib.import_module(module).command
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="pyjiva")
def main() -> None:
    """Replicated block storage over iSCSI."""


if __name__ == "__main__":
    sys.exit(main())
