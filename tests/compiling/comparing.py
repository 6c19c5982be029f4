"""Two versions of a class, side by side: that of attrs and that which is written out."""

import importlib
import importlib.abc
import importlib.machinery
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

import attrs


class _Written(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules that it has the texts of."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in self.texts else None

    def exec_module(self, module: ModuleType) -> None:
        text = self.texts[module.__name__]
        exec(compile(text, f"<written {module.__name__}>", "exec", dont_inherit=True), module.__dict__)


def imported(texts: Mapping[str, str], *packages: str) -> dict[str, ModuleType]:
    """The modules of `texts`, in a world where nothing of `packages` was imported before."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in packages]

    before = {name: sys.modules.pop(name) for name in ours()}
    finder = _Written(texts)
    sys.meta_path.insert(0, finder)
    try:
        return {name: importlib.import_module(name) for name in texts}
    finally:
        sys.meta_path.remove(finder)
        for name in ours():
            del sys.modules[name]
        sys.modules.update(before)


def scrubbed(value: object) -> str:
    """Without addresses, and where functions without a name are written."""
    return re.sub(r"0x[0-9a-f]+|id='\d+'|(?<=<function )\S+", "", repr(value))


def alike(made: object, plain: object) -> bool:
    """The same, though the classes that it is made of may be there twice."""
    if made is plain:
        return True
    if isinstance(made, FunctionType) and isinstance(plain, FunctionType):
        return made.__code__.co_code == plain.__code__.co_code
    return type(made).__qualname__ == type(plain).__qualname__ and scrubbed(made) == scrubbed(plain)


def parameters(kind: type) -> list[inspect.Parameter]:
    return list(inspect.signature(kind).parameters.values())


def check_signature(made: type, plain: type) -> None:
    ours, theirs = parameters(plain), parameters(made)
    assert [(each.name, each.kind) for each in ours] == [(each.name, each.kind) for each in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert alike(None if their.default is attrs.NOTHING else their.default, our.default)


def check_same(made: Any, plain: Any) -> None:
    """The attributes of two objects that were made of the same arguments."""
    for field in attrs.fields(type(made)):
        assert hasattr(made, field.name) == hasattr(plain, field.name), field.name
        if hasattr(made, field.name):
            assert alike(getattr(made, field.name), getattr(plain, field.name)), field.name
    assert scrubbed(made) == scrubbed(plain)


def equality(one: Any, other: Any) -> object:
    """Whether they are the same, or what is raised by asking."""
    try:
        return one == other, one != other
    except AttributeError as error:
        return re.sub(r".*attribute ", "", str(error))


def is_hashable(value: object) -> bool:
    try:
        return isinstance(hash(value), int)
    except TypeError:
        return False
