"""What the controller's API offers, as its OpenAPI document.  Pure.

The routes themselves are in `api_io` and `snapshot_api_io`; a test compares both, and what is answered with
what is said here.
"""

from typing import Any, Final

from pyjiva.block import Limits
from pyjiva.controller.api_parameters import (
    ADDRESS,
    ADDRESS_CHARACTERS_MAX,
    COUNT_MAX,
    LABEL_CHARACTERS_MAX,
    LABELS_MAX,
    LENGTH_BYTES_MAX,
    NONE,
    SIZE,
)
from pyjiva.controller.history import HistoryEvent
from pyjiva.controller.operations import Operation as LongOperation
from pyjiva.controller.stats import STATS_SCHEMA
from pyjiva.controller.status import VolumeStatus
from pyjiva.lineage import SNAPSHOT_NAME, Snapshot
from pyjiva.transport.openapi import Answer, Operation, Parameter, Schema, document, object_schema, schema_of

__all__ = ["OPERATIONS", "controller_document"]

_NOTHING: Final = object_schema({})
_BYTES: Final[Schema] = {"type": "integer", "minimum": 0}
_SIZE: Final[Schema] = {
    "type": "string",
    "pattern": f"^{SIZE.pattern}$",
    "examples": ["20GiB", "50MiB", "1048576"],
}
_FLAG: Final[Schema] = {"enum": ["0", "1"], "default": "0"}
_NAME_OF_NEW: Final[Schema] = {"type": "string", "pattern": f"^{SNAPSHOT_NAME.pattern}$"}

_SESSION: Final = object_schema(
    {
        "initiator": {"type": "string"},
        "address": {"type": "string"},
        "isid": {"type": "string"},
        "tsih": {"type": "integer"},
        "connected_s": {"type": "number"},
    }
)
_LIMITS: Final = object_schema(
    schema_of(Limits)["properties"] | {"waiting": {"type": "integer"}, "delayed": {"type": "integer"}}
)
_VOLUME: Final = object_schema(
    schema_of(VolumeStatus)["properties"]
    | {
        "iqn": {"type": "string"},
        "portals": {"type": "array", "items": {"type": "string"}},
        "sessions": {"type": "array", "items": _SESSION},
        "filled": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "limits": _LIMITS,
    }
)
_SNAPSHOT_FIELDS: Final = {
    name: schema for name, schema in schema_of(Snapshot)["properties"].items() if name != "whole"
} | {"parent": {"type": "string"}}
_SNAPSHOTS: Final = object_schema(
    {
        "generation": {"type": "integer"},
        "size_bytes": _BYTES,
        "stands_on": {"type": "string"},
        "live_bytes": _BYTES,
        "removed_bytes": _BYTES,
        "snapshots": {
            "type": "array",
            "items": object_schema(_SNAPSHOT_FIELDS | {"bytes": {"anyOf": [_BYTES, {"type": "null"}]}}),
        },
    }
)
_EXTENTS: Final = object_schema(
    {"extents": {"type": "array", "items": {"type": "array", "items": _BYTES, "minItems": 2, "maxItems": 2}}}
)

_REPLICA: Final = Parameter("id", "its number", {"type": "integer", "minimum": 1, "maximum": COUNT_MAX})
_SNAPSHOT: Final = Parameter("name", "the snapshot", {"type": "string", "minLength": 1})
_OPERATION: Final = Parameter("id", "its id", {"type": "string", "pattern": "^[0-9]+$"})
_BEGUN: Final = Answer(202, "It is begun; /v1/volume shows how it goes.", _NOTHING,
    headers={"Location": "the operation: how it goes, and how it ended"})  # fmt: skip
_DONE: Final = Answer(200, "It is done, on all replicas in sync.", _NOTHING)

_OF_VOLUME: Final = (
    Operation("GET", "/v1/volume", "volume", "The volume, its replicas, its sessions.",
        (Answer(200, "As it is at this moment.", _VOLUME),)),
    Operation("GET", "/v1/health", "health", "Whether it takes I/O.",
        (Answer(200, "Host I/O is answered; with `live=1`: the controller runs.",
            object_schema({"ready": {"type": "boolean"}})),
         Answer(503, "Host I/O waits.", object_schema({"ready": {"const": False}}))),
        (Parameter("live", "whether to say 200 also while host I/O waits", _FLAG),), (400,), open=True),
    Operation("GET", "/v1/events", "events", "What happened, the newest last.",
        (Answer(200, "At most 1000.", {"type": "array", "items": schema_of(HistoryEvent)}),)),
    Operation("GET", "/v1/events/stream", "eventStream", "What happens, as it happens.",
        (Answer(200, "Server-sent events: `event` is the kind, `data` one of what /v1/events has, `id` what "
            "to send as Last-Event-ID to go on after it.", {"type": "string"}, "text/event-stream"),),
        (Parameter("Last-Event-ID", "go on after this event, as far as the history reaches",
            {"type": "string"}, header=True),)),
    Operation("GET", "/metrics", "metrics", "For Prometheus.",
        (Answer(200, "In Prometheus' text format.", {"type": "string"}, "text/plain"),)),
    Operation("GET", "/v1/stats", "stats", "As Jiva's controller answered, for exporters that read that.",
        (Answer(200, "At this moment.", STATS_SCHEMA),)),
    Operation("GET", "/v1/openapi.json", "openapi", "This document.",
        (Answer(200, "OpenAPI 3.1.", {"type": "object"}),)),
    Operation("GET", "/v1/operations", "operations", "What takes a while: under way, or ended lately.",
        (Answer(200, "At most 100 that have ended.", {"type": "array", "items": schema_of(LongOperation)}),)),
    Operation("GET", "/v1/operations/{id}", "operation", "How one is.",
        (Answer(200, "Now.", schema_of(LongOperation)),), (_OPERATION,), (404,)),
    Operation("DELETE", "/v1/operations/{id}", "cancel", "Give one up: a scrub, or the adding of a replica.",
        (Answer(200, "As it ended.", schema_of(LongOperation)),), (_OPERATION,), (404, 409)),
    Operation("POST", "/v1/scrub", "scrub", "Read all of the volume on all replicas in sync.", (_BEGUN,),
        (Parameter("rate", "bytes per second on each replica, above 0", _SIZE),), (400, 409)),
    Operation("POST", "/v1/replicas/{id}", "addReplica", "Add a replica.", (_BEGUN,),
        (_REPLICA,
         Parameter("address", "HOST:PORT of its data port, an IPv6 address in brackets",
            {"type": "string", "pattern": f"^{ADDRESS.pattern}$",
             "maxLength": ADDRESS_CHARACTERS_MAX, "examples": ["10.0.0.21:9502"]},
            required=True),
         Parameter("witness", "whether it holds no data", _FLAG)), (400, 409)),
    Operation("DELETE", "/v1/replicas/{id}", "removeReplica", "Remove a replica.", (_BEGUN,),
        (_REPLICA,), (400, 409)),
    Operation("POST", "/v1/limits", "limit", "Change what hosts may ask; what is not given stays.",
        (Answer(200, "What holds now.", object_schema({"limits": _LIMITS})),),
        (Parameter("iops", "commands per second, at least 1",
            {"anyOf": [{"type": "number", "minimum": 1}, {"const": NONE}]}),
         Parameter("rate", "bytes per second, at least 1", {"anyOf": [_SIZE, {"const": NONE}]}),
         Parameter("burst", "seconds' worth that may come at once after rest",
            {"type": "number", "exclusiveMinimum": 0})), (400,)),
    Operation("POST", "/v1/size", "grow", "Make the volume larger.",
        (Answer(200, "It is so large now.", object_schema({"size_bytes": _BYTES})),),
        (Parameter("size", "what it is to have", _SIZE, required=True),), (400, 409, 503)),
)  # fmt: skip

_OF_SNAPSHOTS: Final = (
    Operation("GET", "/v1/snapshots", "snapshots", "All snapshots.",
        (Answer(200, "By number.", _SNAPSHOTS),), (), (503,)),
    Operation("POST", "/v1/snapshots/{name}", "createSnapshot", "Keep what the volume holds now.",
        (Answer(201, "It is made.", object_schema(_SNAPSHOT_FIELDS)),),
        (Parameter("name", "what to call it", _NAME_OF_NEW),
         Parameter("label", "KEY=VALUE; may be given several times",
            {"type": "array", "maxItems": LABELS_MAX,
             "items": {"type": "string", "pattern": "^[^=]+=", "maxLength": LABEL_CHARACTERS_MAX + 1}})),
        (400, 409, 503)),
    Operation("DELETE", "/v1/snapshots/{name}", "deleteSnapshot", "Let it go.", (_DONE,),
        (_SNAPSHOT,), (404, 409, 503)),
    Operation("POST", "/v1/snapshots/{name}/revert", "revert", "Let the volume hold what it held then.",
        (_DONE,), (_SNAPSHOT, Parameter("keep_newer", "keep the snapshots made since", _FLAG)),
        (400, 404, 409, 503)),
    Operation("GET", "/v1/snapshots/{name}/changed", "changed", "Where it differs from an older one.",
        (Answer(200, "Ranges: offset and length in bytes.", _EXTENTS),),
        (_SNAPSHOT, Parameter("since", "the older one; without it: zeros", {"type": "string"})),
        (404, 409, 503)),
    Operation("GET", "/v1/snapshots/{name}/data", "data", "What it holds.",
        (Answer(200, "The bytes.", {}, "application/octet-stream",
            {"X-Content-XXH3": "their xxh3-64, 16 hexadecimal digits"}),),
        (_SNAPSHOT,
         Parameter("offset", "in bytes", _BYTES | {"maximum": COUNT_MAX}, required=True),
         Parameter("length", "in bytes",
            {"type": "integer", "minimum": 1, "maximum": LENGTH_BYTES_MAX}, required=True)),
        (400, 404, 409, 503)),
)  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = (*_OF_VOLUME, *_OF_SNAPSHOTS)


def controller_document(version: str) -> dict[str, Any]:
    """Of the program of that version."""
    return document("pyjiva-controller", version, "One replicated volume.", OPERATIONS)
