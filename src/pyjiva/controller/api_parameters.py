"""What requests to the controller's API say, as values.  Pure.

Everything raises ProblemError, INVALID_PARAMETER: the text is not one of these.
"""

from collections.abc import Mapping
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.lineage import SNAPSHOT_NAME
from pyjiva.transport.problem import ProblemError, Reason
from pyjiva.transport.query import wrong
from pyjiva.units import MIB, parse_size

__all__ = [
    "LENGTH_BYTES_MAX",
    "NONE",
    "count",
    "label",
    "limit_number",
    "limit_size",
    "number",
    "optional_size",
    "size",
    "snapshot_name",
]

LENGTH_BYTES_MAX: Final = 4 * MIB
"""Of one read of a snapshot."""
NONE: Final = "none"
"""A limit that there is not to be."""
NUMBER_CHARACTERS_MAX: Final = 32  # 2**64 has 20; what is longer takes time, and no float holds it

Given = Mapping[str, Any]


def count(given: Given, name: str, *, least: int = 0, most: int = 2**63 - 1) -> int:
    """A whole number."""
    text = str(given.get(name, ""))
    if len(text) > NUMBER_CHARACTERS_MAX or not text.isascii() or not text.isdigit():
        raise wrong(name, text, f"{least} to {most}")
    if not least <= int(text) <= most:
        raise wrong(name, text, f"{least} to {most}")
    return int(text)


def size(given: Given, name: str) -> int:
    """Bytes, such as 20GiB."""
    text = str(given.get(name, ""))
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise wrong(name, text, "such as 20GiB")
    try:
        return parse_size(text)
    except ConfigError as error:
        raise ProblemError(Reason.INVALID_PARAMETER, f"{name}: {error}") from error


def optional_size(given: Given, name: str) -> int | None:
    """As `size`; None: it was not given."""
    return size(given, name) if name in given else None


def number(given: Given, name: str) -> float:
    """Any number that is one."""
    text = str(given.get(name, ""))
    try:
        return float(text)
    except ValueError as error:
        raise wrong(name, text, "a number") from error


def limit_number(given: Given, name: str) -> float | None:
    """A number, or NONE."""
    return None if given.get(name) == NONE else number(given, name)


def limit_size(given: Given, name: str) -> int | None:
    """A size, or NONE."""
    return None if given.get(name) == NONE else size(given, name)


def label(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise wrong("label", text, "KEY=VALUE")
    return key, value


def snapshot_name(text: str) -> str:
    """A name that a snapshot can be given."""
    if not SNAPSHOT_NAME.fullmatch(text):
        raise wrong("name", text, "up to 128 letters, digits and ._- that begin with a letter or a digit")
    return text
