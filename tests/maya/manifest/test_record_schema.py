"""Schemas of records."""

import enum
from collections.abc import Mapping

import attrs
import pytest

from pyjiva.maya.manifest.record_schema import record_schema


class Colour(enum.Enum):
    """A few."""

    RED = "Red"
    BLUE = "Blue"


@attrs.frozen
class Inner:
    """What is inside."""

    key: str
    """Its
    name."""


@attrs.frozen
class Outer:
    """One of
    each."""

    text: str
    colour: Colour = Colour.RED
    """Which."""
    number: int = 0
    share: float | None = None
    """None: unknown."""
    on: bool = False
    many: tuple[Inner, ...] = ()
    by_name: Mapping[str, str] = attrs.field(factory=dict)
    one: Inner | None = None


def test_a_record_of_each_kind_of_field() -> None:
    made = record_schema(Outer, name_of=str.upper, extra={})
    inner = {
        "type": "object",
        "properties": {"KEY": {"description": "Its name.", "type": "string"}},
        "required": ["KEY"],
    }
    assert made == {
        "description": "One of each.",
        "type": "object",
        "properties": {
            "TEXT": {"type": "string"},
            "COLOUR": {"description": "Which.", "type": "string", "enum": ["Red", "Blue"]},
            "NUMBER": {"type": "integer", "format": "int64"},
            "SHARE": {"description": "None: unknown.", "type": "number"},
            "ON": {"type": "boolean"},
            "MANY": {"type": "array", "items": {"description": "What is inside.", **inner}},
            "BY_NAME": {"type": "object", "additionalProperties": {"type": "string"}},
            "ONE": {"description": "What is inside.", **inner},
        },
        "required": ["TEXT"],
    }


def test_what_a_type_cannot_say_is_added_and_another_type_takes_its_place() -> None:
    extra: dict[str, dict[str, object]] = {
        "Outer.text": {"maxLength": 3},
        "Outer.number": {"type": "string"},
        "Outer": {"x-more": 1},
        "Inner.key": {"enum": ["a"]},
    }
    made = record_schema(Outer, name_of=str, extra=extra)
    assert made["properties"]["text"] == {"type": "string", "maxLength": 3}
    assert made["properties"]["number"] == {"type": "string"}
    assert made["properties"]["one"]["properties"]["key"]["enum"] == ["a"]
    assert made["x-more"] == 1


def test_a_type_that_is_none_of_these_is_a_mistake() -> None:
    @attrs.frozen
    class Odd:
        """Has what JSON has not."""

        raw: bytes

    with pytest.raises(TypeError, match="no schema for"):
        record_schema(Odd, name_of=str, extra={})
