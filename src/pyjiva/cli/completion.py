"""`pyjiva completion SHELL`: what to put into a shell's start file."""

import click
from click.shell_completion import get_completion_class

from pyjiva.errors import LocalProtocolError

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and contexts: eval "$(pyjiva completion bash)"."""
    root = context.find_root()
    found = get_completion_class(shell)
    if found is None:
        raise LocalProtocolError(f"no completion for {shell}")
    print(found(root.command, {}, "pyjiva", "_PYJIVA_COMPLETE").source())
