"""TLS for the daemons, between them and for who asks their HTTP APIs: three options, all or none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import trio

from pyjiva.cli.shared_options import add_options
from pyjiva.errors import ConfigError
from pyjiva.transport.tls_sys import Tls, TlsFiles

__all__ = ["keep_tls", "take_tls", "tls_options"]

LOOK_S: Final = 60.0  # connections that begin look too; this is for the log to say early what is wrong

#: Option → help.
OPTIONS: Final = {
    "--tls-cert": "TLS 1.3 on the data and HTTP ports: this daemon's certificate (PEM).",
    "--tls-key": "The certificate's key (PEM), for its owner alone.",
    "--tls-ca": "The authority (PEM) whose certificates the other side must have.",
}


def tls_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets `tls_cert`, `tls_key` and `tls_ca`."""
    return add_options(
        command,
        [
            click.option(option, type=click.Path(path_type=Path), help=text)
            for option, text in OPTIONS.items()
        ],
    )


def take_tls(given: dict[str, Any]) -> Tls | None:
    """What the options say, taken out of `given`.  Raises ConfigError: one is missing, or see `Tls.read`."""
    files: dict[str, Path | None] = {
        option: given.pop(option.removeprefix("--").replace("-", "_")) for option in OPTIONS
    }
    found = [path for path in files.values() if path is not None]
    if not found:
        return None
    missing = [option for option, path in files.items() if path is None]
    if missing:
        raise ConfigError(f"TLS needs {', '.join(OPTIONS)}: {', '.join(missing)} is missing")
    return Tls.read(TlsFiles(*found))


async def keep_tls(tls: Tls | None) -> None:
    """Look now and then whether the files were renewed.  Until cancelled."""
    while tls is not None:
        await trio.sleep(LOOK_S)
        tls.look()
