"""What Maya's API offers, as its OpenAPI document.  Pure.

Paths, verbs and bodies of volumes and snapshots are m-apiserver's (`maya-apiserver app/server/http.go`),
and so is 200 for what was made: its clients take no other status for success.  `size`, `clones` and the
document are ours.
"""

from typing import Any, Final

from pyjiva.lineage import SNAPSHOT_NAME
from pyjiva.maya.apiserver.cas_snapshot import (
    CAS_SNAPSHOT_LIST_SCHEMA,
    CAS_SNAPSHOT_SCHEMA,
    NEW_SNAPSHOT_SCHEMA,
    POOL_SCHEMA,
    POOLS_SCHEMA,
)
from pyjiva.maya.apiserver.cas_volume import (
    CAS_VOLUME_LIST_SCHEMA,
    CAS_VOLUME_SCHEMA,
    DELETED_SCHEMA,
    NAMESPACE_SCHEMA,
    NEW_VOLUME_SCHEMA,
)
from pyjiva.transport.openapi import Answer, Operation, Parameter, Schema, document, object_schema

__all__ = ["DOCUMENT_PATH", "HEALTH_PATH", "OPERATIONS", "maya_document"]

DOCUMENT_PATH: Final = "/latest/openapi.json"
HEALTH_PATH: Final = "/healthz"

_PROPERTIES: Final = NEW_VOLUME_SCHEMA["properties"]
_CAPACITY: Final[Schema] = _PROPERTIES["spec"]["properties"]["capacity"]
_NAME: Final[Schema] = _PROPERTIES["metadata"]["properties"]["name"]
_VOLUME: Final = Parameter("name", "the volume", {"type": "string", "minLength": 1})
_POOL: Final = Parameter("name", "the pool", {"type": "string", "minLength": 1})
_SNAPSHOT: Final = Parameter("name", "the snapshot", {"type": "string", "minLength": 1})
_NAMESPACE: Final = (
    Parameter("namespace", "of the claim; without it, whichever it is", NAMESPACE_SCHEMA),
    Parameter("namespace", "the same", NAMESPACE_SCHEMA, header=True),
)
_OF_VOLUME: Final = Parameter("volume", "whose it is", _NAME, required=True)
_CAS_TYPE: Final = Parameter("casType", "for clients that send it", {"enum": ["jiva", ""]})
_SIZE_BODY: Final = object_schema({"capacity": _CAPACITY})
_CLONE_BODY: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": _NAME,
        "snapshotName": {"type": "string", "pattern": f"^{SNAPSHOT_NAME.pattern}$"},
        "capacity": _CAPACITY,
        "annotations": _PROPERTIES["metadata"]["properties"]["annotations"],
    },
    "required": ["name", "snapshotName"],
    "additionalProperties": False,
}
_LABEL: Final = object_schema({"name": {"type": "string"}, "value": {"type": "string"}})
_VALUE: Final = object_schema({"value": {"type": "number"}})
_FAMILIES: Final[Schema] = {
    "type": "array",
    "items": object_schema(
        {
            "name": {"type": "string"},
            "help": {"type": "string"},
            "type": {"type": "integer"},
            "metric": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "label": {"type": "array", "items": _LABEL},
                        **dict.fromkeys(("gauge", "counter", "untyped"), _VALUE),
                    },
                    "additionalProperties": False,
                },
            },
        }
    ),
}
_VOLUME_NOW: Final = Answer(200, "The volume, as it is now.", CAS_VOLUME_SCHEMA)

_OF_VOLUMES: Final = (
    Operation("POST", "/latest/volumes/", "createVolume", "Make a volume; one that is there already as it is "
        "asked for is answered as it is.", (_VOLUME_NOW,), _NAMESPACE, (404, 503), body=NEW_VOLUME_SCHEMA),
    Operation("GET", "/latest/volumes/", "volumes", "All volumes, or those of a namespace.",
        (Answer(200, "By name.", CAS_VOLUME_LIST_SCHEMA),), _NAMESPACE, (400, 503)),
    Operation("GET", "/latest/volumes/stats/{name}", "stats", "What its exporter says.",
        (Answer(200, "Families of metrics, as OpenEBS' exporter had them.", _FAMILIES),),
        (_VOLUME, *_NAMESPACE), (400, 404, 503)),
    Operation("GET", "/latest/volumes/{name}", "volume", "A volume.",
        (_VOLUME_NOW,), (_VOLUME, *_NAMESPACE), (400, 404, 503)),
    Operation("DELETE", "/latest/volumes/{name}", "deleteVolume",
        "Let a volume go, and its data unless its policy keeps that.",
        (Answer(200, "It goes; it is listed until it is gone.", DELETED_SCHEMA),),
        (_VOLUME, *_NAMESPACE), (404, 503)),
    Operation("PUT", "/latest/volumes/{name}/size", "expandVolume", "Make a volume larger, while it is used.",
        (_VOLUME_NOW,), (_VOLUME, *_NAMESPACE), (404, 503), body=_SIZE_BODY),
    Operation("POST", "/latest/volumes/{name}/clones", "cloneVolume", "Make a volume that begins with what a "
        "snapshot of this one holds; without `capacity` as large as that.", (_VOLUME_NOW,),
        (_VOLUME, *_NAMESPACE), (404, 503), body=_CLONE_BODY),
)  # fmt: skip

_OF_SNAPSHOTS: Final = (
    Operation("POST", "/latest/snapshots/", "createSnapshot", "Keep what a volume holds now; a snapshot "
        "that is there already is answered as it is.",
        (Answer(200, "The snapshot.", CAS_SNAPSHOT_SCHEMA),), _NAMESPACE, (404, 503),
        body=NEW_SNAPSHOT_SCHEMA),
    Operation("GET", "/latest/snapshots/", "snapshots", "All snapshots of a volume, or of a namespace.",
        (Answer(200, "In the order of their making.", CAS_SNAPSHOT_LIST_SCHEMA),),
        (Parameter("volume", "whose they are; without it: all", NAMESPACE_SCHEMA), *_NAMESPACE, _CAS_TYPE),
        (400, 404, 503)),
    Operation("GET", "/latest/snapshots/{name}", "snapshot", "A snapshot.",
        (Answer(200, "As it is now.", CAS_SNAPSHOT_SCHEMA),),
        (_SNAPSHOT, _OF_VOLUME, *_NAMESPACE, _CAS_TYPE), (400, 404, 503)),
    Operation("DELETE", "/latest/snapshots/{name}", "deleteSnapshot", "Let a snapshot go.",
        (Answer(200, "It goes, or is gone.", CAS_SNAPSHOT_SCHEMA),),
        (_SNAPSHOT, _OF_VOLUME, *_NAMESPACE, _CAS_TYPE), (404, 503)),
)  # fmt: skip

_REST: Final = (
    Operation("GET", "/latest/pools/", "pools", "The folders that replicas may keep their data in.",
        (Answer(200, "By name.", POOLS_SCHEMA),), (), (503,)),
    Operation("GET", "/latest/pools/{name}", "pool", "One of them.",
        (Answer(200, "What is left there is told where it is known.", POOL_SCHEMA),), (_POOL,), (404, 503)),
    Operation("GET", "/metrics", "metrics", "Of this API, for Prometheus.",
        (Answer(200, "In Prometheus' text format.", {"type": "string"}, "text/plain"),)),
    Operation("GET", HEALTH_PATH, "health", "Whether it can do anything.",
        (Answer(200, "It can.", object_schema({"ready": {"const": True}, "reason": {"const": ""}})),
         Answer(503, "It cannot now; why.",
             object_schema({"ready": {"const": False}, "reason": {"type": "string"}}))), open=True),
    Operation("GET", DOCUMENT_PATH, "openapi", "This document.",
        (Answer(200, "OpenAPI 3.1.", {"type": "object"}),)),
)  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = (*_OF_VOLUMES, *_OF_SNAPSHOTS, *_REST)
_MEANINGS: Final = {
    400: "The request, or a policy, makes no sense.",
    404: "There is no such volume, snapshot or pool.",
    409: "It cannot be as things are; nothing has changed.",
    503: "It cannot be done now; ask again.",
}


def maya_document(version: str) -> dict[str, Any]:
    """Of the program of that version."""
    return document("pyjiva-maya", version, "Volumes, snapshots and pools.", OPERATIONS, _MEANINGS)
