"""`pyjiva-maya`: the programs of the Kubernetes side, as commands of one."""

import importlib
import sys
from typing import Final

import click

from pyjiva import __version__

__all__ = ["main"]

#: Command → module; loaded when it is used, so that no command waits for the libraries of another.
COMMANDS: Final[dict[str, str]] = {
    "apiserver": "pyjiva.cli.maya_apiserver",
    "provisioner": "pyjiva.cli.maya_provisioner",
    "exporter": "pyjiva.cli.maya_exporter",
    "witness": "pyjiva.cli.maya_witness",
    "crds": "pyjiva.cli.maya_crds",
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


@click.group(cls=_Commands, invoke_without_command=True)
@click.version_option(__version__, prog_name="pyjiva-maya")
@click.pass_context
def commands(context: click.Context) -> None:
    """pyjiva on Kubernetes."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """Run one command; a wrong command line is one line on standard error and exit code 2."""
    try:
        sys.exit(commands.main(prog_name="pyjiva-maya", standalone_mode=False))
    except click.ClickException as error:
        print(f"pyjiva-maya: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
