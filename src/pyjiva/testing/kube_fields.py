"""Who owns which field of an object in memory: server-side apply and merge patches, for `testing.kube`.

The rules are those of structured-merge-diff v4, as far as the objects that we write need them.  A field is a
path of steps: a map's key, the key of an item in a keyed list, or a value in a set.

Not done: conflicts (every apply is forced); schemas: shapes are known by the names below, and custom
resources are taken to have lists that are one value and maps that are merged; the loss of what others wrote
into a map that no schema names, when we give up the map; keys with defaults other than `protocol`; the
order in which items of two managers mix (what was there comes first).
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

__all__ = [
    "Fields",
    "Path",
    "Shapes",
    "fields_of",
    "merge_fields",
    "merge_patch",
    "owned",
    "value_at",
    "without_fields",
]

Step = str | tuple[tuple[str, Any], ...]
Path = tuple[Step, ...]
Fields = frozenset[Path]

_SET: Final = ("",)  # the value itself is the key
_LIST_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_ATOMIC_MAPS: Final = frozenset(
    {
        *("configMapKeyRef", "fieldRef", "labelSelector", "nodeSelector", "resourceFieldRef", "secretKeyRef"),
        *("required", "requiredDuringSchedulingIgnoredDuringExecution", "selector"),
    }
)
_NOT_OWNED: Final = frozenset(
    {
        *("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"),
        *("deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "managedFields"),
    }
)


@attrs.frozen
class Shapes:
    """What the lists and maps of one kind are."""

    builtin: bool
    """Whether the kind is Kubernetes' own."""

    def list_keys(self, path: Path) -> tuple[str, ...]:
        """By what items of the list at `path` are told apart; (): it is one value."""
        name = path[-1] if path else ""
        if path[:1] == ("metadata",):
            return {"ownerReferences": ("uid",), "finalizers": _SET}.get(str(name), ())
        if not self.builtin:
            return ()
        if name == "ports":
            return ("port", "protocol") if path == ("spec", "ports") else ("containerPort", "protocol")
        return _LIST_KEYS.get(str(name), ())

    def is_atomic_map(self, path: Path) -> bool:
        """Whether the map at `path` is one value."""
        return self.builtin and bool(path) and path[-1] in _ATOMIC_MAPS and path[0] != "metadata"


def _item_step(item: Any, keys: tuple[str, ...]) -> Step:
    if keys == _SET:
        return (("", item),)
    defaults = {"protocol": "TCP"}
    return tuple((key, item.get(key, defaults.get(key))) for key in keys)


def fields_of(value: Any, shapes: Shapes, path: Path = ()) -> Fields:
    """Every field that `value` sets."""
    if isinstance(value, dict) and value and not shapes.is_atomic_map(path):
        found: Fields = frozenset()
        for key, inner in value.items():
            found |= fields_of(inner, shapes, (*path, key))
        return found
    keys = shapes.list_keys(path) if isinstance(value, list) else ()
    if not keys or not value:
        return frozenset({path})
    made = set()
    for item in value:
        step = (*path, _item_step(item, keys))
        made.add(step)
        if isinstance(item, dict):
            made |= fields_of(item, shapes, step)
    return frozenset(made)


def owned(fields: Fields) -> Fields:
    """Those that somebody can own: not what identifies an object, nor what the server writes."""
    return frozenset(
        path
        for path in fields
        if path[0] not in ("apiVersion", "kind")
        and not (path[0] == "metadata" and (len(path) == 1 or path[1] in _NOT_OWNED))
    )


def merge_fields(old: Any, new: Any, shapes: Shapes, path: Path = ()) -> Any:
    """`old` with what `new` says."""
    if isinstance(old, dict) and isinstance(new, dict) and not shapes.is_atomic_map(path):
        merged = dict(old)
        for key, inner in new.items():
            merged[key] = merge_fields(old[key], inner, shapes, (*path, key)) if key in old else inner
        return merged
    keys = shapes.list_keys(path) if isinstance(old, list) and isinstance(new, list) else ()
    if not keys:
        return copy.deepcopy(new)
    items = {_item_step(item, keys): item for item in old}
    for item in new:
        step = _item_step(item, keys)
        items[step] = merge_fields(items[step], item, shapes, (*path, step)) if step in items else item
    return list(items.values())


def without_fields(value: Any, removed: Iterable[Path], kept: Fields, shapes: Shapes) -> Any:
    """`value` without the fields `removed`, but for those that are in `kept` or hold something of it."""
    value = copy.deepcopy(value)
    holders = {path[:length] for path in kept for length in range(len(path) + 1)}
    done: set[Path] = set()
    for path in sorted(removed, key=len):  # a whole item before what is in it
        is_key = len(path) > 1 and isinstance(path[-2], tuple) and path[-1] in dict(path[-2])
        if (
            path not in holders
            and not is_key
            and not any(path[:length] in done for length in range(len(path)))
        ):
            _remove(value, path, shapes, ())
            done.add(path)
    return value


def _remove(value: Any, path: Path, shapes: Shapes, above: Path) -> None:
    """Remove one field, and the maps and lists that are empty without it."""
    step, *rest = path
    here = (*above, step)
    if isinstance(value, list):
        keys = shapes.list_keys(above)
        for number, item in enumerate(value):
            if _item_step(item, keys) == step:
                if rest:
                    _remove(item, tuple(rest), shapes, here)
                else:
                    del value[number]
                return
    elif isinstance(value, dict) and step in value:
        if rest:
            _remove(value[step], tuple(rest), shapes, here)
        if not rest or value[step] in ({}, []):
            del value[step]


def merge_patch(value: Any, change: Any) -> Any:
    """RFC 7396."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    made = dict(value) if isinstance(value, dict) else {}
    for key, inner in change.items():
        if inner is None:
            made.pop(key, None)
        else:
            made[key] = merge_patch(made.get(key), inner)
    return made


def value_at(value: Any, path: Path) -> Any:
    """What lies at `path`; None: nothing."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif not isinstance(value, list):
            return None
        elif step[0][0] == "":
            return step[0][1] if step[0][1] in value else None
        else:
            found = [
                i for i in value if all(i.get(k, "TCP" if k == "protocol" else None) == v for k, v in step)
            ]
            value = found[0] if found else None
    return value
