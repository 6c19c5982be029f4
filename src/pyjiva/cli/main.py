"""`pyjiva`: the table of commands, and how a wrong command line ends."""

import importlib
import importlib.util
import platform
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

import click

from pyjiva import __version__

__all__ = ["how_it_runs", "main"]

#: Command → module; loaded when it is used, so that no command waits for the libraries of another.
COMMANDS: Final[dict[str, str]] = {
    "up": "pyjiva.cli.up",
    "status": "pyjiva.cli.status",
    "top": "pyjiva.cli.top",
    "explain": "pyjiva.cli.explain",
    "scrub": "pyjiva.cli.scrub",
    "limit": "pyjiva.cli.limit",
    "replica": "pyjiva.cli.replica_change",
    "snapshot": "pyjiva.cli.snapshot",
    "clone": "pyjiva.cli.clone",
    "expand": "pyjiva.cli.expand",
    "usage": "pyjiva.cli.usage",
    "check": "pyjiva.cli.check",
    "repair": "pyjiva.cli.repair",
    "import": "pyjiva.cli.import_directory",
    "export": "pyjiva.cli.export",
    "backup": "pyjiva.cli.backup",
    "contexts": "pyjiva.cli.contexts",
    "completion": "pyjiva.cli.completion",
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


def how_it_runs() -> str:
    """Whether the hot modules are compiled (docs/decisions/0012-compiled.md), and what runs the others."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    found = importlib.util.find_spec("pyjiva.block_sums")
    is_compiled = found is not None and (found.origin or "").endswith(tuple(EXTENSION_SUFFIXES))
    return (
        f"hot modules compiled, the others interpreted by {python}"
        if is_compiled
        else f"interpreted by {python}"
    )


@click.group(cls=_Commands, invoke_without_command=True)
@click.version_option(
    __version__,
    prog_name="pyjiva",
    message=f"%(prog)s, version %(version)s, {how_it_runs()}",
)
@click.pass_context
def commands(context: click.Context) -> None:
    """Replicated block storage over iSCSI."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> None:
    """Run one command; a wrong command line is one line on standard error and exit code 2."""
    try:
        # The commands exit by themselves; what comes back is the exit code of --help and --version.
        sys.exit(commands.main(prog_name="pyjiva", standalone_mode=False))
    except click.ClickException as error:
        print(f"pyjiva: {' '.join(error.format_message().split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
