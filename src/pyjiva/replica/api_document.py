"""What a replica's health port offers, as its OpenAPI document.  Pure."""

from typing import Any, Final

from pyjiva.transport.openapi import Answer, Operation, Parameter, document, object_schema

__all__ = ["OPERATIONS", "replica_document"]

_HEALTH: Final = object_schema(
    {
        "attached": {"type": "boolean", "description": "whether a controller is connected"},
        "in_sync": {"type": "boolean", "description": "whether the last membership record names it"},
        "promised_epoch": {"type": "integer"},
        "oldest_disk_operation_s": {"type": "number"},
    }
)

_FLAG: Final = {"enum": ["0", "1"]}

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("GET", "/v1/health", "health", "How it is.",
        (Answer(200, "It runs; with `in-sync=1`: and has everything.", _HEALTH),
         Answer(503, "With `in-sync=1`: no controller is connected, or it has not everything.", _HEALTH)),
        (Parameter("in-sync", "whether to say 503 of one that has not everything", _FLAG),), (400,),
        open=True),
    Operation("GET", "/metrics", "metrics", "For Prometheus.",
        (Answer(200, "In Prometheus' text format.", {"type": "string"}, "text/plain"),)),
    Operation("GET", "/v1/openapi.json", "openapi", "This document.",
        (Answer(200, "OpenAPI 3.1.", {"type": "object"}),)),
)  # fmt: skip


def replica_document(version: str) -> dict[str, Any]:
    """Of the program of that version."""
    return document("pyjiva-replica", version, "One copy of a replicated volume.", OPERATIONS)
