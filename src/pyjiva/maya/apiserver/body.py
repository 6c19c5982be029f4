"""Reading the bodies of requests: what is not understood is refused by its name.  Pure.

A body is JSON, or YAML where Content-Type says so.  A field that we do not know may be meant: it is
refused, and not passed over; one that only answers have may be there as long as it is empty, as Go's
clients send it so.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import parse_quantity
from pyjiva.maya.policy.fault import suggestion
from pyjiva.maya.yaml_text import BYTES_MAX, read_json_like
from pyjiva.units import STORED_BLOCK_BYTES, align_up

__all__ = [
    "BODY_BYTES_MAX",
    "CAPACITY_BYTES_MAX",
    "CAPACITY_CHARACTERS_MAX",
    "Fields",
    "capacity",
    "read_body",
]

BODY_BYTES_MAX: Final = BYTES_MAX
CAPACITY_BYTES_MAX: Final = 1 << 60
CAPACITY_CHARACTERS_MAX: Final = 64
_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")


def read_body(data: bytes, content_type: str) -> "Fields":
    """Raises ConfigError: it is no object in JSON or YAML."""
    if len(data) > BODY_BYTES_MAX:
        raise ConfigError(f"body of {len(data)} bytes: at most {BODY_BYTES_MAX}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("body: not UTF-8") from error
    if "yaml" in content_type.lower():
        value = read_json_like(text)
    else:
        try:
            value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"body: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError("body: not an object")
    return Fields(value)


def capacity(text: str, where: str) -> int:
    """Bytes, in whole blocks: what is not one is rounded up.  Raises ConfigError."""
    if len(text) > CAPACITY_CHARACTERS_MAX:
        raise ConfigError(f"{where}: at most {CAPACITY_CHARACTERS_MAX} characters")
    try:
        size_bytes = parse_quantity(text)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not 0 < size_bytes <= CAPACITY_BYTES_MAX:
        raise ConfigError(f"{where}: {text!r}: more than 0, at most 1Ei")
    return align_up(size_bytes, STORED_BLOCK_BYTES)


@attrs.define(eq=False)
class Fields:
    """An object, of which each field is taken once; `end` refuses what nobody took."""

    _value: Mapping[str, Any]
    _where: str = ""
    _taken: set[str] = attrs.field(factory=set, init=False)

    def text(self, name: str, default: str = "") -> str:
        """A string.  Raises ConfigError: something else."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, str) or _HALF_CHARACTER.search(value) or "\0" in value:
            raise ConfigError(f"{self.path(name)}: a text is expected")
        return value

    def flag(self, name: str) -> bool:
        """Raises ConfigError: neither true nor false."""
        value = self._take(name)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{self.path(name)}: true or false is expected")
        return bool(value)

    def texts(self, name: str) -> dict[str, str]:
        """An object of strings."""
        inner = self.fields(name)
        return {key: inner.text(key) for key in inner._value}

    def fields(self, name: str) -> "Fields":
        """An object in it; an empty one where there is none."""
        value = self._take(name)
        if value is not None and not isinstance(value, dict):
            raise ConfigError(f"{self.path(name)}: an object is expected")
        return Fields(value or {}, self.path(name))

    def only(self, name: str, *allowed: str) -> None:
        """A string that may be nothing else.  Raises ConfigError."""
        value = self.text(name)
        if value and value not in allowed:
            raise ConfigError(f"{self.path(name)} {value!r}: expected {' or '.join(allowed)}")

    def empty(self, *names: str) -> None:
        """What answers have, and a request cannot say.  Raises ConfigError: something stands there."""
        for name in names:
            if not _says_nothing(self._take(name)):
                raise ConfigError(f"{self.path(name)}: Maya decides it; leave it out")

    def end(self) -> None:
        """Raises ConfigError: there is a field that is not known."""
        for name in self._value:
            if name not in self._taken:
                shown = name if name.isprintable() else repr(name)
                raise ConfigError(f"{self.path(shown[:80])}: not known{suggestion(name, self._taken)}")

    def path(self, name: str) -> str:
        """As messages name it."""
        return f"{self._where}.{name}" if self._where else name

    def _take(self, name: str) -> Any:
        self._taken.add(name)
        return self._value.get(name)


def _says_nothing(value: object) -> bool:
    if isinstance(value, dict):
        return all(_says_nothing(each) for each in value.values())
    return value in (None, "", 0, [])


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ConfigError("body: a key stands there twice")
    return made


def _no_constant(name: str) -> Any:
    raise ConfigError(f"body: {name} is no number in JSON")
