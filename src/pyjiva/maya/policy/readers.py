"""From the text of a policy's value to what it means.  Pure.

A reader is given the text and `wrong`, which it tells everything that it finds wrong: what was found, and
what is expected there.  What it answers counts only if it told nothing.  What names, label keys and
quantities may be is Kubernetes' (`apimachinery pkg/util/validation`): a value that it would refuse later, in
an object that nobody looks at, is refused here.
"""

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.maya.policy.volume_policy import FS_TYPES, LabelRequirement, Toleration
from pyjiva.maya.yaml_text import read_strings

__all__ = [
    "Reader",
    "Wrong",
    "choice",
    "duration",
    "image",
    "label_key",
    "label_value",
    "named",
    "object_name",
    "quantity",
    "read_duration_s",
    "read_fs_type",
    "requirements",
    "resources",
    "selector",
    "tolerations",
    "whole_number",
]

Wrong = Callable[[str, str], None]
"""Told what was found, and what is expected."""
Reader = Callable[[str, Wrong], Any]

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", re.ASCII)
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_SUBDOMAIN_CHARACTERS_MAX: Final = 253
_IMAGE: Final = re.compile(
    r"([A-Za-z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_IMAGE_CHARACTERS_MAX: Final = 512
_QUANTITY: Final = re.compile(
    r"([0-9]{1,40}(?:\.[0-9]{0,40})?)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][-+]?[0-9]{1,2})?", re.ASCII
)
_PARTS: Final = {"n": 10**9, "u": 10**6, "m": 10**3}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?[smhd])+|[0-9]{1,9}(?:\.[0-9]{1,3})?", re.ASCII)
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", re.ASCII)
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


# Single values


def choice(*allowed: str) -> Reader:
    """One of these, as it is written."""

    def read(text: str, wrong: Wrong) -> str:
        if text not in allowed:
            wrong(text, " or ".join(allowed) if len(allowed) < 3 else f"one of {', '.join(allowed)}")
        return text

    return read


read_fs_type: Final = choice(*FS_TYPES)


def whole_number(least: int, most: int) -> Reader:
    """Between them, both included."""

    def read(text: str, wrong: Wrong) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            wrong(text, f"a whole number from {least} to {most}")
            return least
        return int(text)

    return read


def duration(text: str, wrong: Wrong) -> float:
    """Seconds, or numbers with units."""
    try:
        return read_duration_s(text)
    except ConfigError:
        wrong(text, "a number of seconds, or such as 90s, 5m, 1h30m, 2d")
        return 0.0


def read_duration_s(text: str) -> float:
    """Raises ConfigError: it is none."""
    if _DURATION.fullmatch(text) is None:
        raise ConfigError(f"duration {text!r}: write a number of seconds, or such as 90s, 5m, 1h30m, 2d")
    return float(sum(Fraction(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def image(text: str, wrong: Wrong) -> str:
    """A container image's reference."""
    if len(text) > _IMAGE_CHARACTERS_MAX or _IMAGE.fullmatch(text) is None:
        wrong(text, "an image such as registry.example/pyjiva:1.0")
    return text


def object_name(text: str, wrong: Wrong) -> str:
    """The name of an object in Kubernetes."""
    if not _is_subdomain(text):
        wrong(text, "a name of lower-case letters, digits, - and .")
    return text


def named(places: Mapping[str, str]) -> Reader:
    """What one of these names stands for; an absolute path stands for itself."""

    def read(text: str, wrong: Wrong) -> str:
        if text in places:
            return places[text]
        parts = text.split("/")
        if text.startswith("/") and len(parts) > 1 and parts[1] and not {".", ".."} & set(parts):
            return text.rstrip("/")
        wrong(text, f"an absolute path, or a pool that Maya was started with ({', '.join(sorted(places))})")
        return text

    return read


def label_key(text: str, wrong: Wrong) -> str:
    """Of a label, on nodes or pods."""
    prefix, slash, name = text.rpartition("/")
    if not _NAME.fullmatch(name) or (bool(slash) and not _is_subdomain(prefix)):
        wrong(text, "a label's key such as kubernetes.io/hostname")
    return text


def label_value(text: str, wrong: Wrong) -> str:
    """Of a label; may be empty."""
    if text and _NAME.fullmatch(text) is None:
        wrong(text, "a label's value: at most 63 letters, digits, -, _ and .")
    return text


def quantity(text: str) -> Fraction | None:
    """Kubernetes' quantity, exactly; None: it is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, unit = Fraction(match[1]), match[2] or ""
    if unit[:1] in ("e", "E") and unit[1:] not in ("", "i"):
        factor: Fraction = Fraction(10) ** int(unit[1:])
        return number * factor
    if unit in _PARTS:
        return number / _PARTS[unit]
    if not unit:
        return number
    multiple: int = (1024 if unit.endswith("i") else 1000) ** ("KMGTPE".index(unit[0].upper()) + 1)
    return number * multiple


# Texts in YAML


def selector(text: str, wrong: Wrong) -> dict[str, str]:
    """Labels that a node has to have."""
    found = _mapping(text, wrong, "lines of KEY: VALUE")
    for key, value in found.items():
        label_key(key, wrong)
        if isinstance(value, str):
            label_value(value, _inside(key, wrong))
        else:
            wrong(f"{key}: {_kind(value)}", "a label's value")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def resources(text: str, wrong: Wrong) -> dict[str, str]:
    """Quantities by resource."""
    found = _mapping(text, wrong, "lines such as memory: 1Gi and cpu: 500m")
    for key, value in found.items():
        if key not in RESOURCES and "/" not in key and not key.startswith("hugepages-"):
            wrong(key, f"one of the resources {', '.join(RESOURCES)}")
        if not isinstance(value, str) or quantity(value) is None:
            shown = value if isinstance(value, str) else _kind(value)
            wrong(f"{key}: {shown}", "a quantity such as 1Gi or 500m")
    return {key: value for key, value in found.items() if isinstance(value, str)}


def tolerations(text: str, wrong: Wrong) -> tuple[Toleration, ...]:
    """Of pods, each under a name that means nothing."""
    fields = ("key", "operator", "value", "effect", "tolerationSeconds")
    made = []
    for name, entry in _entries(text, wrong, fields):
        bad = _inside(name, wrong)
        key, operator = entry.get("key", ""), entry.get("operator", "")
        value, effect = entry.get("value", ""), entry.get("effect", "")
        seconds = entry.get("tolerationSeconds")
        choice("", "Equal", "Exists")(operator, _inside("operator", bad))
        choice("", *EFFECTS)(effect, _inside("effect", bad))
        if key:
            label_key(key, bad)
        elif operator != "Exists":
            bad("no key", "a key, or operator: Exists, which tolerates every taint")
        if operator == "Exists" and value:
            bad(f"value {value}", "no value, where the operator is Exists")
        label_value(value, bad)
        if seconds is not None:
            whole_number(0, 10**9 - 1)(seconds, _inside("tolerationSeconds", bad))
            if effect != "NoExecute":
                bad("tolerationSeconds", "effect: NoExecute with it")
        made.append(Toleration(key, operator, value, effect, _number(seconds)))
    return tuple(made)


def requirements(text: str, wrong: Wrong) -> tuple[LabelRequirement, ...]:
    """On nodes' labels, each under a name that means nothing."""
    made = []
    for name, entry in _entries(text, wrong, ("key", "operator", "values"), lists=("values",)):
        bad = _inside(name, wrong)
        operator, values = entry.get("operator", ""), tuple(entry.get("values", ()))
        label_key(entry.get("key", ""), bad)
        choice(*OPERATORS)(operator, _inside("operator", bad))
        for value in values:
            label_value(value, bad)
        if operator in ("In", "NotIn") and not values:
            bad(f"{operator} without values", "values: and a list")
        if operator in ("Exists", "DoesNotExist") and values:
            bad(f"{operator} with values", "no values")
        if operator in ("Gt", "Lt") and not (len(values) == 1 and _number(values[0]) is not None):
            bad(f"{operator} with {', '.join(values) or 'no value'}", "values: with one whole number")
        made.append(LabelRequirement(entry.get("key", ""), operator, values))
    return tuple(made)


def _entries(
    text: str, wrong: Wrong, fields: tuple[str, ...], lists: tuple[str, ...] = ()
) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a mapping of mappings, with what they may have in them."""
    made = []
    expected = f"entries such as t1:, and under each {', '.join(fields)}"
    for name, entry in _mapping(text, wrong, expected).items():
        if not isinstance(entry, dict):
            wrong(f"{name}: {_kind(entry)}", f"under it {', '.join(fields)}")
            continue
        good = {}
        for field, value in entry.items():
            is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
            if field not in fields:
                wrong(f"{name}: {field}", f"one of {', '.join(fields)}")
            elif field in lists and is_list:
                good[field] = value
            elif field in lists or not isinstance(value, str):
                wrong(f"{name}: {field} is {_kind(value)}", "a list of texts" if field in lists else "a text")
            else:
                good[field] = value
        made.append((name, good))
    return made


def _mapping(text: str, wrong: Wrong, expected: str) -> dict[str, Any]:
    try:
        found = read_strings(text)
    except ConfigError as error:
        wrong(text, f"{expected}; it is {error}")
        return {}
    if not isinstance(found, dict):
        wrong(text, expected)
        return {}
    return found


def _inside(name: str, wrong: Wrong) -> Wrong:
    return lambda found, expected: wrong(f"{name}: {found}", expected)


def _kind(value: object) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a text"


def _is_subdomain(text: str) -> bool:
    return len(text) <= _SUBDOMAIN_CHARACTERS_MAX and _SUBDOMAIN.fullmatch(text) is not None


def _number(text: object) -> int | None:
    return int(text) if isinstance(text, str) and re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else None
