"""Volumes by name: a file that says where the API of each is, so that no command line has to.

default = "demo"

[contexts.demo]
api = "http://10.0.0.1:9501"
api_token_file = "demo.token"          # beside this file, unless it begins with / or ~
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import click
from click.shell_completion import CompletionItem
from rich.table import Table
from rich.text import Text

from pyjiva.cli.render import open_console
from pyjiva.cli.toml_file import read_toml
from pyjiva.errors import ConfigError

__all__ = ["CONTEXT_VARIABLE", "Context", "Contexts", "command", "complete_context", "read_contexts"]

CONTEXT_VARIABLE: Final = "PYJIVA_CONTEXT"
FILE_VARIABLE: Final = "PYJIVA_CONFIG"


@attrs.frozen
class Context:
    """Where one volume's API is."""

    api: str
    api_token_file: Path | None = None
    tls_ca: Path | None = None
    """Whose certificate the controller must have."""
    tls_cert: Path | None = None
    """Ours, with `tls_key`."""
    tls_key: Path | None = None


_FILES: Final = ("api_token_file", "tls_ca", "tls_cert", "tls_key")


@attrs.frozen
class Contexts:
    """What the file says."""

    file: Path
    default: str | None = None
    of: Mapping[str, Context] = attrs.field(factory=dict)

    def choose(self, name: str | None) -> Context | None:
        """The one asked for, else the default; None: neither.  Raises ConfigError: there is no such."""
        name = name or self.default
        if name is None:
            return None
        if name not in self.of:
            known = ", ".join(self.of) or "none"
            raise ConfigError(f"context {name}: {self.file} has {known}")
        return self.of[name]


def read_contexts(environment: Mapping[str, str] = os.environ) -> Contexts:
    """The file that `PYJIVA_CONFIG` names, else `pyjiva/config.toml` in XDG's place, if it is there.

    Raises ConfigError: it cannot be read, or something of it cannot be.
    """
    given = environment.get(FILE_VARIABLE)
    home = environment.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    file = Path(given) if given else Path(home) / "pyjiva" / "config.toml"
    if not given and not file.exists():
        return Contexts(file)
    content = read_toml(file)
    return _decode(file, content)


def _decode(file: Path, content: dict[str, Any]) -> Contexts:
    _only(file, "", content, {"default": str, "contexts": dict})
    contexts = {}
    for name, fields in content.get("contexts", {}).items():
        where = f"contexts.{name}"
        if not isinstance(fields, dict) or "api" not in fields:
            raise ConfigError(f"{file}: {where} has no api")
        _only(file, f"{where}.", fields, dict.fromkeys(("api", *_FILES), str))
        files = {key: file.parent / Path(fields[key]).expanduser() for key in _FILES if key in fields}
        contexts[name] = Context(fields["api"], **files)
    found = Contexts(file, content.get("default"), contexts)
    found.choose(None)
    return found


def _only(file: Path, where: str, content: dict[str, Any], known: Mapping[str, type]) -> None:
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f"{file}: {where}{key} is none of {', '.join(known)}")
        if not isinstance(value, known[key]):
            raise ConfigError(f"{file}: {where}{key}: {value!r} is no {known[key].__name__}")


def complete_context(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """For shells: the names that begin so."""
    try:
        contexts = read_contexts()
    except ConfigError:  # a completion has nobody to tell; the command itself does
        return []
    return [
        CompletionItem(name, help=each.api) for name, each in contexts.of.items() if name.startswith(begun)
    ]


@click.command("contexts")
def command() -> None:
    """List the volumes that the configuration file names."""
    try:
        contexts = read_contexts()
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if not contexts.of:
        print(f"no contexts: {contexts.file} has none")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("context", "", "api", "token"):
        table.add_column(column, no_wrap=True)
    for name, each in contexts.of.items():
        mark = "default" if name == contexts.default else ""
        table.add_row(*map(Text, (name, mark, each.api, str(each.api_token_file or ""))))
    open_console().print(table)
