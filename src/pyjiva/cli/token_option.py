"""What those who serve an HTTP API ask of who uses it: the option of `pyjiva up` and both daemons."""

from pathlib import Path
from typing import Final

import click

__all__ = ["token_option"]

token_option: Final = click.option(
    "--api-token-file",
    type=click.Path(path_type=Path),
    help="A token: needed to be answered over HTTP, except for health.",
)
