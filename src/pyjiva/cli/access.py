"""Who may use the volume: the options that say it, and reading the secrets that they name.

`pyjiva up` hands file names on to the controller; a secret is never on a command line.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog

from pyjiva.cli.daemon import ADDRESS, Address
from pyjiva.cli.shared_options import add_options
from pyjiva.errors import ConfigError
from pyjiva.iscsi import ChapSecrets, InitiatorRules, OwnSecret, check_separate, parse_secrets

__all__ = ["Access", "AccessOptions", "access_options", "read_access"]

log = structlog.get_logger(__name__)

SECRETS_FILE_BYTES_MAX: Final = 1 << 20

#: Field of AccessOptions → option, environment variable with the same content, help.
FILES: Final[dict[str, tuple[str, str, str]]] = {
    "chap": ("--chap-file", "PYJIVA_CHAP", "Names and secrets of initiators."),
    "mutual_chap": ("--mutual-chap-file", "PYJIVA_MUTUAL_CHAP", "The target's own name and secret."),
    "discovery_chap": ("--discovery-chap-file", "PYJIVA_DISCOVERY_CHAP", "As --chap-file, for discovery."),
    "discovery_mutual_chap": (
        "--discovery-mutual-chap-file",
        "PYJIVA_DISCOVERY_MUTUAL_CHAP",
        "As --mutual-chap-file, for discovery.",
    ),
}
_GROUP_OR_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH


@attrs.frozen
class AccessOptions:
    """What the operator asked for."""

    chap: Path | None = None
    mutual_chap: Path | None = None
    discovery_chap: Path | None = None
    discovery_mutual_chap: Path | None = None
    initiators: tuple[str, ...] = ()
    advertise: tuple[Address, ...] = ()
    read_only: bool = False

    def arguments(self) -> list[str]:
        """The same for another command's line; what the environment says, it says to a child too."""
        files = [(option, getattr(self, field)) for field, (option, _, _) in FILES.items()]
        return [
            *(part for option, path in files if path for part in (option, str(path.absolute()))),
            *(part for text in self.initiators for part in ("--initiator", text)),
            *(part for address in self.advertise for part in ("--advertise", str(address))),
            *(["--read-only"] if self.read_only else []),
        ]


@attrs.frozen
class Access:
    """What was read."""

    chap: ChapSecrets | None
    discovery_chap: ChapSecrets | None
    initiators: InitiatorRules
    advertised: tuple[str, ...]
    read_only: bool


def access_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets the fields of AccessOptions."""
    options = [
        click.option(option, field, type=click.Path(path_type=Path), help=text)
        for field, (option, _, text) in FILES.items()
    ]
    options += [
        click.option(
            "--initiator",
            "initiators",
            help="Who may log in: name, with *, or network; repeat.",
            multiple=True,
        ),
        click.option(
            "--advertise",
            type=ADDRESS,
            help="Address that discovery tells; repeat for several.",
            multiple=True,
        ),
        click.option("--read-only", is_flag=True, help="Offer the volume for reading alone."),
    ]
    return add_options(command, options)


def read_access(
    options: AccessOptions, environment: Mapping[str, str] = os.environ, *, warn: bool = False
) -> Access:
    """`warn`: log files that others may read.  Raises ConfigError: something of it cannot be."""
    found = {field: _read(getattr(options, field), field, environment, warn) for field in FILES}
    chap = _secrets(found["chap"], found["mutual_chap"], "chap")
    discovery = _secrets(found["discovery_chap"], found["discovery_mutual_chap"], "discovery_chap")
    check_separate(filter(None, (chap, discovery)))
    for address in options.advertise:
        if not address.port:
            raise ConfigError(f"--advertise {address}: initiators need a port")
    return Access(
        chap,
        discovery,
        InitiatorRules.parse(options.initiators),
        tuple(str(address) for address in options.advertise),
        options.read_only,
    )


def _read(path: Path | None, field: str, environment: Mapping[str, str], warn: bool) -> dict[str, bytes]:
    option, variable, _ = FILES[field]
    text = environment.get(variable)
    if path is None:
        return {} if text is None else parse_secrets(text, variable)
    if text is not None:
        raise ConfigError(f"{option} and {variable}: give one of them")
    try:
        with path.open("rb") as file:
            readable = os.fstat(file.fileno()).st_mode & _GROUP_OR_OTHERS
            data = file.read(SECRETS_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror or error}") from error
    if len(data) > SECRETS_FILE_BYTES_MAX:
        raise ConfigError(f"{option} {path}: larger than {SECRETS_FILE_BYTES_MAX} bytes")
    if readable and warn:  # not refused: Kubernetes mounts secrets so unless it is told otherwise
        log.warning("secrets-readable-by-others", file=str(path), advice=f"chmod 600 {path}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        # Without the cause: it holds the content.
        raise ConfigError(f"{option} {path}: not UTF-8 text") from None
    return parse_secrets(text, f"{option} {path}")


def _secrets(incoming: dict[str, bytes], own: dict[str, bytes], field: str) -> ChapSecrets | None:
    if len(own) > 1:
        raise ConfigError(f"{FILES[_mutual(field)][0]}: the target has one name and one secret")
    if own and not incoming:
        raise ConfigError(f"{FILES[_mutual(field)][0]}: mutual CHAP needs {FILES[field][0]} too")
    if not incoming:
        return None
    return ChapSecrets(incoming, OwnSecret(*next(iter(own.items()))) if own else None)


def _mutual(field: str) -> str:
    return field.replace("chap", "mutual_chap")
