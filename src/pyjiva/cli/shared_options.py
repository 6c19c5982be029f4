"""What groups of options have in common that `pyjiva up` takes and hands on to the controller."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

__all__ = ["add_options", "arguments_of"]


def add_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """`command` with `options`, which its help lists in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def arguments_of(values: attrs.AttrsInstance, fields: Mapping[str, str]) -> list[str]:
    """A command line that says what the record does; `fields` by option.  One that is None is left out."""
    return [
        part
        for option, field in fields.items()
        if (value := getattr(values, field)) is not None
        for part in (option, str(value))
    ]
