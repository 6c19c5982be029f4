"""Describing an HTTP API in OpenAPI 3.1: records of its operations, and the document made of them.  Pure."""

import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.transport.idempotency import KEY_CHARACTERS_MAX
from pyjiva.transport.problem import PROBLEM_SCHEMA, PROBLEM_TYPE

__all__ = ["Answer", "Operation", "Parameter", "Schema", "document", "object_schema", "schema_of"]

Schema = dict[str, Any]
"""JSON Schema 2020-12."""

_PLAIN: Final[dict[object, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
_PROBLEM: Final = "Problem"
_TOKEN: Final = "token"
BODY_TYPES: Final = ("application/json", "application/yaml")


@attrs.frozen
class Parameter:
    """In the path if the path names it, else in the query, unless it is a header."""

    name: str
    description: str
    schema: Schema
    required: bool = False
    """One in the path always is."""
    header: bool = False


@attrs.frozen
class Answer:
    """When it did what was asked."""

    status: int
    description: str
    schema: Schema
    media_type: str = "application/json"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Name to meaning."""


@attrs.frozen
class Operation:
    """One method of one path."""

    method: str
    path: str
    id: str
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    """Statuses that it may refuse with, but for those that every operation has."""
    open: bool = False
    """Whether it is answered without a token."""
    body: Schema | None = None
    """Of what is sent with it, as JSON or YAML."""


def schema_of(kind: object) -> Schema:
    """What a value of this type is in JSON; of a record: all its fields, and no other."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [schema_of(each) for each in arguments]}
    if origin is tuple:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    assert isinstance(kind, type), kind
    if issubclass(kind, enum.Enum):
        return {"enum": [each.value for each in kind]}
    assert attrs.has(kind), kind
    hints = typing.get_type_hints(kind)
    return object_schema({field.name: schema_of(hints[field.name]) for field in attrs.fields(kind)})


def object_schema(properties: Mapping[str, Schema]) -> Schema:
    """An object that has all of these, and nothing else."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def document(
    title: str,
    version: str,
    description: str,
    operations: Sequence[Operation],
    meanings: Mapping[int, str] | None = None,
) -> dict[str, Any]:
    """The OpenAPI document of these.  `meanings`: of statuses, where they are not a volume's."""
    paths: dict[str, dict[str, Any]] = {}
    said = _MEANING | dict(meanings or {})
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, said)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {
            "schemas": {_PROBLEM: PROBLEM_SCHEMA},
            "securitySchemes": {_TOKEN: {"type": "http", "scheme": "bearer"}},
        },
        # Either: none is needed where the daemon was given none.
        "security": [{}, {_TOKEN: []}],
    }


def _operation(operation: Operation, meanings: Mapping[int, str]) -> dict[str, Any]:
    always = {500} if operation.open else {401, 500}
    if operation.method != "GET":
        always |= {400, 409, 422}
    responses = {str(answer.status): _answer(answer) for answer in operation.answers}
    for status in sorted({*operation.problems, *always}):
        responses.setdefault(
            str(status),
            {
                "description": meanings[status],
                "content": {PROBLEM_TYPE: {"schema": {"$ref": f"#/components/schemas/{_PROBLEM}"}}},
            },
        )
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [
            *(_parameter(operation.path, each) for each in operation.parameters),
            *([] if operation.method == "GET" else [_KEY]),
        ],
        "responses": responses,
    }
    if operation.body is not None:
        content = {media_type: {"schema": operation.body} for media_type in BODY_TYPES}
        described["requestBody"] = {"required": True, "content": content}
    return described | ({"security": []} if operation.open else {})


_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "a request that is sent again with the same key within an hour is not carried out again",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS_MAX},
}
_MEANING: Final = {
    400: "A parameter makes no sense.",
    401: "There is no token, or it is not the right one.",
    404: "There is no such snapshot.",
    409: "It cannot be as the volume is now; nothing has changed.",
    422: "The Idempotency-Key was used for another request.",
    500: "A bug; the log has more.",
    503: "The volume is parked, or no replica could do it.",
}


def _parameter(path: str, parameter: Parameter) -> dict[str, Any]:
    in_path = f"{{{parameter.name}}}" in path
    return {
        "name": parameter.name,
        "in": "path" if in_path else "header" if parameter.header else "query",
        "required": in_path or parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    headers = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
    }
    return {
        "description": answer.description,
        "content": {answer.media_type: {"schema": answer.schema}},
        **({"headers": headers} if headers else {}),
    }
