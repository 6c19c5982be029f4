"""What requests to the controller's API say, as values.  Pure.

Everything raises ProblemError, INVALID_PARAMETER: the text is not one of these.
"""

from collections.abc import Mapping
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.lineage import SNAPSHOT_NAME
from pyjiva.transport.problem import ProblemError, Reason
from pyjiva.units import MIB, parse_size

__all__ = [
    "LENGTH_BYTES_MAX",
    "NONE",
    "count",
    "flag",
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
        raise _wrong(name, text, f"{least} to {most}")
    if not least <= int(text) <= most:
        raise _wrong(name, text, f"{least} to {most}")
    return int(text)


def flag(given: Given, name: str) -> bool:
    """0, which is also when it is not given, or 1."""
    text = given.get(name, "0")
    if text not in ("0", "1"):
        raise _wrong(name, text, "0 or 1")
    return bool(text == "1")


def size(given: Given, name: str) -> int:
    """Bytes, such as 20GiB."""
    text = str(given.get(name, ""))
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise _wrong(name, text, "such as 20GiB")
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
        raise _wrong(name, text, "a number") from error


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
        raise _wrong("label", text, "KEY=VALUE")
    return key, value


def snapshot_name(text: str) -> str:
    """A name that a snapshot can be given."""
    if not SNAPSHOT_NAME.fullmatch(text):
        raise _wrong("name", text, "up to 128 letters, digits and ._- that begin with a letter or a digit")
    return text


def _wrong(name: str, text: str, right: str) -> ProblemError:
    shown = text if len(text) <= NUMBER_CHARACTERS_MAX else f"{text[:NUMBER_CHARACTERS_MAX]}…"
    return ProblemError(Reason.INVALID_PARAMETER, f"{name} {shown!r}: {right}")
