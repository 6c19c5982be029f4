"""What requests to the controller's API say, as values.  Pure.

Everything raises ProblemError, INVALID_PARAMETER: the text is not one of these.

What is allowed is what the OpenAPI document says (`api_document`), no less and no more: a client that is made
of the document, or tested with it, meets no other rule.  So the patterns stand here, and there.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyjiva.controller.options import HOST_CHARACTERS_MAX, ReplicaAddress
from pyjiva.lineage import SNAPSHOT_NAME
from pyjiva.transport.query import wrong
from pyjiva.units import MIB, parse_size

__all__ = [
    "ADDRESS",
    "ADDRESS_CHARACTERS_MAX",
    "COUNT_MAX",
    "LABELS_MAX",
    "LABEL_CHARACTERS_MAX",
    "LENGTH_BYTES_MAX",
    "NONE",
    "NUMBER_CHARACTERS_MAX",
    "SIZE",
    "address",
    "count",
    "label",
    "labels",
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
COUNT_MAX: Final = 2**63 - 1
NUMBER_CHARACTERS_MAX: Final = 32  # 2**64 has 20; what is longer takes time, and no float holds it
SIZE: Final = re.compile(r"[1-9][0-9]{0,18} ?([kKmMgGtT][iI]?)?[bB]?")
"""A whole number: which fractions are whole bytes no pattern can say, and programs have no need of them."""
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)  # RFC 8259 §6
_PORT: Final = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_LABEL: Final = "[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"  # RFC 1035 §2.3.4 has the length
ADDRESS: Final = re.compile(rf"({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\]):{_PORT}")
"""A name or an IPv4 address, or an IPv6 address in brackets; and a port."""
ADDRESS_CHARACTERS_MAX: Final = HOST_CHARACTERS_MAX + len(":1")
LABELS_MAX: Final = 64
LABEL_CHARACTERS_MAX: Final = 256
"""Of its key and its value together."""

Given = Mapping[str, Any]


def count(given: Given, name: str, *, least: int = 0, most: int = COUNT_MAX) -> int:
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
    if not SIZE.fullmatch(text):
        raise wrong(name, text, "a whole number above 0, such as 20GiB")
    return parse_size(text)


def optional_size(given: Given, name: str) -> int | None:
    """As `size`; None: it was not given."""
    return size(given, name) if name in given else None


def number(given: Given, name: str) -> float:
    """Any number that is one."""
    text = str(given.get(name, ""))
    if not _NUMBER.fullmatch(text):
        raise wrong(name, text, "a number")
    return float(text)


def limit_number(given: Given, name: str) -> float | None:
    """A number, or NONE."""
    return None if given.get(name) == NONE else number(given, name)


def limit_size(given: Given, name: str) -> int | None:
    """A size, or NONE."""
    return None if given.get(name) == NONE else size(given, name)


def address(given: Given, name: str, replica_id: int, *, witness: bool) -> ReplicaAddress:
    """Where a replica serves data."""
    text = str(given.get(name, ""))
    parsed = ReplicaAddress.parse(replica_id, text, witness=witness)
    if parsed is None or len(text) > ADDRESS_CHARACTERS_MAX or not ADDRESS.fullmatch(text):
        raise wrong(name, text, "write HOST:PORT, an IPv6 address in brackets")
    return parsed


def labels(texts: Sequence[str]) -> dict[str, str]:
    """So many at most, also if one is said again."""
    if len(texts) > LABELS_MAX:
        raise wrong("label", f"given {len(texts)} times", f"at most {LABELS_MAX}")
    return dict(map(label, texts))


def label(text: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise wrong("label", text, "KEY=VALUE")
    if len(key) + len(value) > LABEL_CHARACTERS_MAX:
        raise wrong("label", text, f"at most {LABEL_CHARACTERS_MAX} characters")
    return key, value


def snapshot_name(text: str) -> str:
    """A name that a snapshot can be given."""
    if not SNAPSHOT_NAME.fullmatch(text):
        raise wrong("name", text, "up to 128 letters, digits and ._- that begin with a letter or a digit")
    return text
