"""CASSnapshot, CASSnapshotList and the pools, as OpenEBS' clients read and ask for them.  Pure.

`status` is ours: OpenEBS' had none.
"""

from collections.abc import Sequence
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.lineage import SNAPSHOT_NAME
from pyjiva.maya.apiserver.backend import PoolView, SnapshotView, VolumeName
from pyjiva.maya.apiserver.body import Fields
from pyjiva.maya.apiserver.cas_volume import (
    API_VERSION,
    JIVA,
    NAME,
    NAMESPACE_SCHEMA,
    NEW_VOLUME_SCHEMA,
    take_type,
)
from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.transport.openapi import Schema, object_schema

__all__ = [
    "CAS_SNAPSHOT_LIST_SCHEMA",
    "CAS_SNAPSHOT_SCHEMA",
    "NEW_SNAPSHOT_SCHEMA",
    "POOLS_SCHEMA",
    "POOL_SCHEMA",
    "new_snapshot",
    "pool_json",
    "pools_json",
    "snapshot_json",
    "snapshot_list_json",
    "snapshot_name",
]


def new_snapshot(body: Fields, namespace: str) -> tuple[VolumeName, str]:
    """Of which volume, and its name.  Raises ConfigError: the body is no CASSnapshot."""
    take_type(body, "CASSnapshot")
    metadata, spec = body.fields("metadata"), body.fields("spec")
    body.empty("status")
    spaces = {each for each in (namespace, metadata.text("namespace")) if each}
    if len(spaces) > 1:
        raise ConfigError(f"namespace: the request names several, {' and '.join(sorted(spaces))}")
    volume, name = spec.text("volumeName"), snapshot_name(metadata.text("name"))
    if NAME.fullmatch(volume) is None:
        raise ConfigError(f"spec.volumeName {volume!r}: the name of a volume is expected")
    spec.only("casType", JIVA)
    metadata.empty("creationTimestamp", "labels", "annotations")
    for fields in (body, metadata, spec):
        fields.end()
    return VolumeName(volume, next(iter(spaces), "")), name


def snapshot_name(text: str) -> str:
    """Raises ConfigError: no snapshot can be called so."""
    if SNAPSHOT_NAME.fullmatch(text) is None:
        expected = "1 to 128 letters, digits, dots, dashes and underscores, a letter or digit first"
        raise ConfigError(f"snapshot {text[:80]!r}: {expected}")
    return text


def snapshot_json(view: SnapshotView) -> dict[str, Any]:
    """One CASSnapshot."""
    return {
        "kind": "CASSnapshot",
        "apiVersion": API_VERSION,
        "metadata": {
            "name": view.name,
            "namespace": view.namespace,
            "creationTimestamp": view.created or None,
        },
        "spec": {"casType": JIVA, "volumeName": view.volume},
        "status": {
            "readyToUse": view.ready,
            "restoreSize": format_quantity(view.size_bytes),
            "message": view.message,
        },
    }


def snapshot_list_json(views: Sequence[SnapshotView]) -> dict[str, Any]:
    """A CASSnapshotList."""
    return {
        "kind": "CASSnapshotList",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": [snapshot_json(view) for view in views],
    }


def pool_json(view: PoolView) -> dict[str, Any]:
    """A StoragePool: where it is, and what is left there as far as is known."""
    return {
        "kind": "StoragePool",
        "apiVersion": API_VERSION,
        "metadata": {"name": view.name},
        "spec": {"path": view.path, "nodeName": view.node, "poolType": "hostdir"},
        "status": {"sizeBytes": view.size_bytes, "freeBytes": view.free_bytes},
    }


def pools_json(views: Sequence[PoolView]) -> dict[str, Any]:
    """All of them."""
    return {
        "kind": "StoragePoolList",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": [pool_json(view) for view in views],
    }


_TEXT: Final[Schema] = {"type": "string"}
_NULL: Final[Schema] = {"type": "null"}
_BYTES: Final[Schema] = {"anyOf": [{"type": "integer", "minimum": 0}, _NULL]}
CAS_SNAPSHOT_SCHEMA: Final = object_schema(
    {
        "kind": {"const": "CASSnapshot"},
        "apiVersion": {"const": API_VERSION},
        "metadata": object_schema(
            {"name": _TEXT, "namespace": _TEXT, "creationTimestamp": {"anyOf": [_TEXT, _NULL]}}
        ),
        "spec": object_schema({"casType": {"const": JIVA}, "volumeName": _TEXT}),
        "status": object_schema({"readyToUse": {"type": "boolean"}, "restoreSize": _TEXT, "message": _TEXT}),
    }
)
POOL_SCHEMA: Final = object_schema(
    {
        "kind": {"const": "StoragePool"},
        "apiVersion": {"const": API_VERSION},
        "metadata": object_schema({"name": _TEXT}),
        "spec": object_schema({"path": _TEXT, "nodeName": _TEXT, "poolType": {"const": "hostdir"}}),
        "status": object_schema({"sizeBytes": _BYTES, "freeBytes": _BYTES}),
    }
)


def _list_schema(kind: str, items: Schema) -> Schema:
    return object_schema(
        {
            "kind": {"const": kind},
            "apiVersion": {"const": API_VERSION},
            "metadata": object_schema({}),
            "items": {"type": "array", "items": items},
        }
    )


CAS_SNAPSHOT_LIST_SCHEMA: Final = _list_schema("CASSnapshotList", CAS_SNAPSHOT_SCHEMA)
POOLS_SCHEMA: Final = _list_schema("StoragePoolList", POOL_SCHEMA)
_TYPES: Final = {name: NEW_VOLUME_SCHEMA["properties"][name] for name in ("apiVersion",)}
NEW_SNAPSHOT_SCHEMA: Final[Schema] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["CASSnapshot", ""]},
        **_TYPES,
        "metadata": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": f"^{SNAPSHOT_NAME.pattern}$"},
                "namespace": NAMESPACE_SCHEMA,
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        "spec": {
            "type": "object",
            "properties": {
                "casType": {"enum": [JIVA, ""]},
                "volumeName": NEW_VOLUME_SCHEMA["properties"]["metadata"]["properties"]["name"],
            },
            "required": ["volumeName"],
            "additionalProperties": False,
        },
    },
    "required": ["metadata", "spec"],
    "additionalProperties": False,
}
