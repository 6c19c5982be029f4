"""Small parts of objects in memory, for `testing.kube`: copies, labels, times, names."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pyjiva.maya.kube import Object, Resource

__all__ = ["clean", "matches", "named", "suffix", "timestamp"]


def clean(value: Object) -> Object:
    """Through JSON; what is null is not there."""
    made: Object = _without_nulls(json.loads(json.dumps(value)))
    return made


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def matches(value: Object, labels: Mapping[str, str] | None) -> bool:
    """Whether it has all of `labels`."""
    have = value["metadata"].get("labels") or {}
    return all(have.get(key) == text for key, text in (labels or {}).items())


def timestamp(moment: datetime) -> str:
    """As metav1.Time: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def named(resource: Resource, name: str) -> str:
    plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    return f'{plural} "{name}"'


def suffix(number: int) -> str:
    """Five characters, in order of time."""
    letters = "bcdfghjklmnpqrstvwxz2456789"
    made = ""
    for _ in range(5):
        number, digit = divmod(number, len(letters))
        made = letters[digit] + made
    return made
