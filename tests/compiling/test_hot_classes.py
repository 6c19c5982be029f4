"""Classes that are written out are what attrs makes of them: in every hot module."""

import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest.mock import MagicMock

import attrs
import pytest

from compiling.modules import COMPILED
from compiling.plain_classes import written_out
from tests.compiling.comparing import (
    check_same,
    check_signature,
    equality,
    imported,
    is_hashable,
    parameters,
)


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text()


def _defined(source: str) -> list[str]:
    return re.findall(r"^@attrs\.define\b.*\n(?:@.*\n)*class (\w+)", source, re.MULTILINE)


SOURCES: Final = {module: _source(module) for module in COMPILED}
CLASSES: Final = [(module, name) for module, source in SOURCES.items() for name in _defined(source)]


@pytest.fixture(scope="module")
def hot() -> dict[str, ModuleType]:
    return imported(written_out(SOURCES), "pyjiva")


#: What stands for an argument whose annotation begins so; a mock for anything else.
DUMMIES: Final[Mapping[str, object]] = {
    "bool": True,
    "bytes": b"\x12" * 16,
    "float": 1.5,
    "int": 4096,
    "str": "name",
    "tuple": (1, 2),
    "list": [],
    "dict": {},
    "Mapping": {},
    "Sequence": (),
}


#: Arguments that have to be more than that, by the classes that look at them.
DUMMIES_OF: Final[Mapping[str, Mapping[str, object]]] = {
    "LogicalUnit": {
        "device": MagicMock(size_bytes=1 << 20, write_atomicity=None),
        "store": MagicMock(parameters=b""),
    },
    "Connection": {"parameters": MagicMock(max_recv_data_segment_length=8192, max_burst_length=65536)},
    "LayerStack": {"layers": [MagicMock()]},
    "ReadyCalls": {"trios_fd": os.eventfd(0)},
}


def _dummies(kind: type) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for parameter in parameters(kind):
        annotation = parameter.annotation
        name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        begins = re.match(r"\w*", name)
        assert begins is not None
        dummy = DUMMIES_OF.get(kind.__name__, {}).get(parameter.name, DUMMIES.get(begins[0]))
        arguments[parameter.name] = MagicMock(name=parameter.name) if dummy is None else dummy
    return arguments


def test_every_module_has_its_classes() -> None:
    assert len(CLASSES) == sum(source.count("\n@attrs.define") for source in SOURCES.values()) > 40


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_a_hot_class_is_the_same(module: str, name: str, hot: dict[str, ModuleType]) -> None:
    made: Any = getattr(importlib.import_module(module), name)
    plain: Any = getattr(hot[module], name)
    assert attrs.has(made) and not attrs.has(plain)
    check_signature(made, plain)
    arguments = _dummies(made)
    needed = {
        each.name: arguments[each.name]
        for each in parameters(made)
        if each.default is inspect.Parameter.empty
    }
    for given_ in (needed, arguments):
        ours, theirs = plain(**given_), made(**given_)
        check_same(theirs, ours)
        assert equality(ours, plain(**given_)) == equality(theirs, made(**given_))
        assert equality(ours, ours) == equality(theirs, theirs)
        assert is_hashable(ours) == is_hashable(theirs)
        assert (ours == theirs, theirs == ours) == (False, False)


@pytest.mark.parametrize("module", COMPILED)
def test_all_else_stays(module: str) -> None:
    """Every line of a hot module is there again, in its order, but for those of decorators and fields."""
    rest = iter(written_out(SOURCES)[module].splitlines())
    for line in SOURCES[module].splitlines():
        if "attrs." not in line and not re.match(r"    (\w+: |\)| +\w+=)", line):
            assert line in rest
