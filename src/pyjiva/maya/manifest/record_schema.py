"""The schema of a record: OpenAPI as a CustomResourceDefinition takes it ("structural").  Pure.

Types, enumerations and what is required come from the record's fields, descriptions from the texts below them
in its source; what a type cannot say is given beside it (`Extra`).

Source: Kubernetes' rules for structural schemas, apiextensions `pkg/apiserver/schema`.
"""

import ast
import enum
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

__all__ = ["Extra", "Schema", "record_schema"]

Schema = dict[str, Any]
Extra = Mapping[str, Schema]
"""`RECORD.field` → what its schema has besides, or instead."""

_SCALARS: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number"},
}


def record_schema(record: type, *, name_of: Callable[[str], str], extra: Extra) -> Schema:
    """The object that `record` is as JSON, with its fields named by `name_of`.

    Every field without a default is required.  An enumeration is of its values.
    """
    texts = _texts_below_fields(record)
    types_of = typing.get_type_hints(record)
    properties: dict[str, Schema] = {}
    required = []
    for field in attrs.fields(record):
        schema = _of_type(types_of[field.name], name_of=name_of, extra=extra)
        if text := texts.get(field.name):
            schema = {"description": text, **{k: v for k, v in schema.items() if k != "description"}}
        more = extra.get(f"{record.__name__}.{field.name}", {})
        if "type" in more:  # it is something else as JSON: nothing that belongs to the other type stays
            schema = {k: v for k, v in schema.items() if k == "description"}
        properties[name_of(field.name)] = schema | more
        if field.default is attrs.NOTHING:
            required.append(name_of(field.name))
    made: Schema = {"description": _text(record.__doc__ or ""), "type": "object", "properties": properties}
    if required:
        made["required"] = required
    return made | extra.get(record.__name__, {})


def _of_type(type_: Any, *, name_of: Callable[[str], str], extra: Extra) -> Schema:
    """Of a field.  Raises TypeError: no field of ours has such a type."""
    if type_ in _SCALARS:
        return dict(_SCALARS[type_])
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin in (types.UnionType, typing.Union):
        (inner,) = (each for each in arguments if each is not type(None))
        return _of_type(inner, name_of=name_of, extra=extra)  # null is said by leaving it out
    if origin is tuple:
        return {"type": "array", "items": _of_type(arguments[0], name_of=name_of, extra=extra)}
    if origin in (Mapping, dict):
        values = _of_type(arguments[1], name_of=name_of, extra=extra)
        return {"type": "object", "additionalProperties": values}
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return {"type": "string", "enum": [each.value for each in type_]}
    if isinstance(type_, type) and attrs.has(type_):
        return record_schema(type_, name_of=name_of, extra=extra)
    raise TypeError(f"no schema for {type_}")


def _texts_below_fields(record: type) -> dict[str, str]:
    """Field → the string that stands below it in the source, as documentation tools read it."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[before.target.id] = _text(after.value.value)
    return found


def _text(docstring: str) -> str:
    return " ".join(docstring.split())
