"""Where a new volume has its content from: options that `pyjiva up` and the controller share."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import click

from pyjiva.cli.daemon import SIZE
from pyjiva.cli.shared_options import add_options
from pyjiva.errors import ConfigError
from pyjiva.transport.bearer import Token
from pyjiva.transport.tls_sys import client_context
from pyjiva.transport.token_file_sys import read_token

__all__ = ["FillFrom", "fill_arguments", "fill_options", "take_fill"]

#: Option → help.
TLS: Final = {
    "--fill-tls-ca": "The authority (PEM) whose certificate the API of --fill-from must have.",
    "--fill-tls-cert": "Our certificate (PEM), if it asks for one.",
    "--fill-tls-key": "The certificate's key (PEM).",
}


@attrs.frozen
class FillFrom:
    """A snapshot of another volume, or a backup."""

    url: str
    rate: int | None
    """Bytes per second that are fetched unasked; None: no limit."""
    token_file: Path | None = None
    """The token of the other volume's API."""
    tls_files: tuple[Path | None, ...] = (None, None, None)
    """In the order of TLS."""

    def token(self) -> Token | None:
        """Raises ConfigError: its file holds none, or cannot be read."""
        return None if self.token_file is None else read_token(self.token_file)

    def tls(self) -> ssl.SSLContext | None:
        """None: as the system has it.  Raises ConfigError: a file cannot be read, or is missing."""
        try:
            return client_context(*self.tls_files)
        except ConfigError as error:
            raise ConfigError(f"{', '.join(TLS)}: {error}") from error


def fill_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets what `take_fill` takes out again."""
    options = [
        click.option(
            "--fill-from",
            metavar="URL",
            help="What a new volume holds: http(s)://HOST:PORT/v1/snapshots/NAME, or backup:STORE#BACKUP.",
        ),
        click.option(
            "--fill-token-file",
            type=click.Path(path_type=Path),
            help="The token that the API of --fill-from asks for.",
        ),
        *(click.option(option, type=click.Path(path_type=Path), help=text) for option, text in TLS.items()),
        click.option("--fill-rate", type=SIZE, help="Bytes per second that are fetched unasked; no limit."),
    ]
    return add_options(command, options)


def take_fill(given: dict[str, Any]) -> FillFrom | None:
    """Take the values out of what a command was given; None: the volume begins empty."""
    url, rate, token_file = given.pop("fill_from"), given.pop("fill_rate"), given.pop("fill_token_file")
    tls = {option: given.pop(option.removeprefix("--").replace("-", "_")) for option in TLS}
    if url is None:
        for option, value in {"--fill-rate": rate, "--fill-token-file": token_file, **tls}.items():
            if value is not None:
                raise click.UsageError(f"{option} needs --fill-from")
        return None
    for option, value in tls.items():
        if value is not None and not url.startswith("https://"):
            raise click.UsageError(f"{option} needs --fill-from https://…, not {url}")
    return FillFrom(url, rate, token_file, tuple(tls.values()))


def fill_arguments(fill: FillFrom | None) -> list[str]:
    """The same for another command's line."""
    if fill is None:
        return []
    rate = [] if fill.rate is None else ["--fill-rate", str(fill.rate)]
    token = [] if fill.token_file is None else ["--fill-token-file", str(fill.token_file.absolute())]
    files = zip(TLS, fill.tls_files, strict=True)
    tls = [word for option, path in files if path is not None for word in (option, str(path.absolute()))]
    return ["--fill-from", fill.url, *rate, *token, *tls]
