"""Configuration files and environment variables for a command's options, whatever the options are.

A file is TOML; its keys are the long options without dashes: `--block-size 4096` is `block-size = 4096`.
What stands in it is checked as a command line is and becomes click's `default_map`; so the command line wins
over the environment, that over the file, and the file over what an option is by itself.  An option that is
given several times is a list, and whoever wins gives all of it.
"""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, Final

import attrs
import click

from pyjiva.cli.toml_file import read_toml
from pyjiva.errors import ConfigError

__all__ = ["EXIT_CONFIG", "PROGRAMS", "configurable", "is_of_a_daemon", "variable_of"]

EXIT_CONFIG: Final = 2
CONFIG: Final = "config"
ON_COMMAND_LINE: Final = "can be given on the command line alone"
FOR_ONE_START: Final = "is for one start: can be given on the command line or in the environment"


@attrs.frozen
class _Kind:
    """What a value may be in TOML, and how that is called."""

    types: tuple[type, ...]
    words: str


FLAG: Final = _Kind((bool,), "true or false")
TEXT: Final = _Kind((str,), "a string")
#: Name of a click type → what it is in a file; all others are strings.
KINDS: Final[dict[str, _Kind]] = {
    "integer": _Kind((int,), "a whole number"),
    "integer range": _Kind((int,), "a whole number"),
    "float": _Kind((int, float), "a number"),
    "size": _Kind((int, str), 'a string such as "10GiB" or a whole number'),
}


#: The programs that have files and variables.
PROGRAMS: Final = ("pyjiva-controller", "pyjiva-replica")


class _BadConfiguration(click.ClickException):
    """One line on standard error, without the usage, as the daemons say what is wrong with their options."""

    exit_code = EXIT_CONFIG

    def __init__(self, program: str, message: str) -> None:
        super().__init__(message)
        self.program = program

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        click.echo(f"{self.program}: {self.message}", file=file, err=True)


def variable_of(program: str, option: str) -> str:
    """The environment variable that says what an option does: `PYJIVA_REPLICA_BLOCK_SIZE`."""
    return f"{program}_{option}".upper().replace("-", "_")


def is_of_a_daemon(variable: str) -> bool:
    """Whether an environment variable says what an option of a daemon does."""
    return variable.startswith(tuple(variable_of(program, "") for program in PROGRAMS))


def configurable(
    program: str,
    *,
    command_line_only: Collection[str] = (),
    not_in_files: Collection[str] = (),
    same: Mapping[str, str] | None = None,
) -> Callable[[click.Command], click.Command]:
    """Let a command read its options from a file, `--config`, and from variables named after `program`.

    `command_line_only` names long options that neither may set, `not_in_files` those that a variable may set
    and a file may not.  `same` has, by long option, another
    environment variable that says the same, which the command reads itself: where it is set, it wins over
    the file.
    """
    same = same or {}

    def extend(command: click.Command) -> click.Command:
        options = {_long_name(p): p for p in command.params if isinstance(p, click.Option)}
        allowed = {name: option for name, option in options.items() if name not in command_line_only}
        in_files = {name: option for name, option in allowed.items() if name not in not_in_files}
        refused = {
            CONFIG: ON_COMMAND_LINE,
            **dict.fromkeys(command_line_only, ON_COMMAND_LINE),
            **dict.fromkeys(not_in_files, FOR_ONE_START),
        }

        def load(context: click.Context, _: click.Parameter, path: Path | None) -> None:
            if path is None:
                return
            try:
                found = _read(path, in_files, context, refused)
            except ConfigError as error:
                raise _BadConfiguration(program, str(error)) from error
            values = {options[n].name: v for n, v in found.items() if same.get(n, "") not in os.environ}
            context.default_map = {**(context.default_map or {}), **values}

        for name, option in allowed.items():
            option.envvar = option.envvar or variable_of(program, name)
        config = click.Option(
            [f"--{CONFIG}"],
            type=click.Path(path_type=Path),
            is_eager=True,  # before the options that it has values for
            expose_value=False,
            callback=load,
            envvar=variable_of(program, CONFIG),
            help="A file in TOML with these options.",
        )
        command.params.insert(0, config)
        return command

    return extend


def _long_name(option: click.Option) -> str:
    return option.opts[0].removeprefix("--")


def _read(
    path: Path,
    options: Mapping[str, click.Option],
    context: click.Context,
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """Values by key, converted as the options convert them.  Raises ConfigError: names file and key."""
    found = {}
    for key, value in read_toml(path).items():
        if key in refused:
            raise ConfigError(f"{path}: {key}: {refused[key]}")
        option = options.get(key)
        if option is None:
            meant = key.replace("_", "-")
            advice = f", write {meant}" if meant in options else ""
            raise ConfigError(f"{path}: {key}: no such key{advice}")
        try:
            found[key] = _convert(value, option, context, path.absolute().parent)
        except ConfigError as error:
            raise ConfigError(f"{path}: {key}: {error}") from error
    return found


def _convert(value: Any, option: click.Option, context: click.Context, folder: Path) -> Any:
    """The value as the option has it; paths begin at the file's folder.  Raises ConfigError: it is none."""
    kind = FLAG if option.is_flag else KINDS.get(option.type.name, TEXT)
    if option.multiple:
        if type(value) is not list:
            raise ConfigError(f"a list is needed, each {kind.words}, not {_words(value)}")
        return tuple(_convert_one(each, kind, option, context, folder) for each in value)
    return _convert_one(value, kind, option, context, folder)


def _convert_one(value: Any, kind: _Kind, option: click.Option, context: click.Context, folder: Path) -> Any:
    if type(value) not in kind.types:  # not isinstance: true is an int
        raise ConfigError(f"{kind.words} is needed, not {_words(value)}")
    if isinstance(option.type, click.Path):
        value = str(folder / value)
    if str in kind.types:
        value = str(value)  # 4096 is checked as "4096" is
    try:
        return option.type.convert(value, option, context)
    except click.BadParameter as error:
        raise ConfigError(error.message.rstrip(".")) from error


def _words(value: object) -> str:
    words = {bool: f"{value}".lower(), dict: "a table", list: "a list", str: f'"{value}"'}
    return words.get(type(value), f"{value}")
