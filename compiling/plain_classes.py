"""Classes of `attrs.define` written out: what mypyc makes native classes of.  Pure.

mypyc turns a plain class with annotated attributes into a C struct, whose attributes are read and methods
called without a look-up.  `attrs.define` makes a second class for the slots, which it cannot follow.  So
before compiling, and only then, each such class at the top of a module gets the `__init__` (and `__eq__`,
`__repr__`) that attrs would have made, as text.  All else stays as it is, to the letter; comments behind a
field or a decorator stay on its line.

What is understood is what the hot modules use: fields with a default or a factory, `init`, `repr`, `kw_only`,
`eq`, one base, and `__attrs_post_init__`.  Anything else is refused by name, so that nothing is dropped in
silence.

What differs from attrs:

- None for an argument that has a factory stands for "not given" (attrs: None).  A field whose annotation says
  that it may be None cannot have a factory.
- A default of a field without `init` is evaluated for each instance, and an inherited one once more for each
  class (attrs: once).  Only what is the same each time may stand there.
- `attrs.fields`, `attrs.evolve` and the like do not know the class, and it has no `__match_args__`.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from compiling.fields import (
    OTHER_FIELDS,
    Field,
    NotPlain,
    check_fields,
    read_fields,
    read_flag,
    read_options,
    refuse,
)
from compiling.names import (
    Module,
    alias,
    bound_by,
    called,
    first_line,
    is_text,
    without_quotes,
)

__all__ = ["NotPlain", "written_out"]

_INDENT: Final = "    "
_CLASS_OPTIONS: Final = frozenset({"eq", "kw_only"})
_OTHER_DECORATORS: Final = frozenset(
    (
        *("define", "mutable", "attrs.mutable", "attr.define", "attr.mutable"),
        *("attr.s", "attr.attrs", "attr.attributes", "attr.dataclass"),
    )
)
"""What makes such classes too; whoever reads them would have to read all of attrs."""
_POST_INIT: Final = "__attrs_post_init__"
_NOT_BY_HAND: Final = ("__init__", "__attrs_init__", "__attrs_pre_init__", "__setattr__", "__slots__")
_BY_HAND: Final = frozenset({"__repr__", "__eq__", "__ne__", "__hash__"})
_SHOWN: Final = "_plain_shown"
_THREAD: Final = "_plain_get_ident"
_REPR_NEEDS: Final = (
    f"from threading import get_ident as {_THREAD}",
    f"{_SHOWN}: set[tuple[int, int]] = set()",
)
"""attrs shows an object inside itself as "...", in each thread for itself."""


def written_out(sources: Mapping[str, str]) -> dict[str, str]:
    """The texts of modules, by their names, with their `attrs.define` classes written out.  Raises NotPlain.

    A class and what it inherits from must be among them, a base's module before that of the class.  A module
    without such classes comes back as it is.
    """
    known: dict[tuple[str, str], _Plain] = {}
    return {name: _module_written_out(Module.of(name, source), known) for name, source in sources.items()}


@attrs.frozen
class _Edit:
    """What is to stand in the place of some lines."""

    first: int
    """The index of the first of them."""
    end: int
    """The index of the first one that stays."""
    lines: list[str]


@attrs.frozen
class _Plain:
    """A class that was written out."""

    module: Module
    fields: list[Field]
    """Also those that it inherits."""
    eq: bool
    """attrs would have made its `__eq__`."""
    post_init: bool
    by_hand: frozenset[str]
    """What of `_BY_HAND` it has."""


@attrs.frozen
class _Needs:
    """What a module has to have in front of all else: lines, each once."""

    values: dict[str, None] = attrs.field(factory=dict)
    types: dict[str, None] = attrs.field(factory=dict)
    """Imports for annotations alone: at run time they might lead back to this module."""

    def lines(self) -> list[str]:
        types = [_INDENT + each for each in self.types if each not in self.values]
        head = ["import typing as _plain_typing", "if _plain_typing.TYPE_CHECKING:"] if types else []
        return [*self.values, *head, *types]


def _module_written_out(module: Module, known: dict[tuple[str, str], _Plain]) -> str:
    edits: list[_Edit] = []
    needs = _Needs()
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef):
            if (decorator := _decorator(node)) is not None:
                edits += _edits(module, node, decorator, known, needs)
            else:
                _check_left_alone(module, node, known)
    if not edits:
        return module.source
    # Annotations need not be names that are there when the module runs, those of a base least of all.
    edits.append(_head(module.tree, needs))
    lines = list(module.lines)
    # From below, and what replaces a line before what is put in front of it.
    for edit in sorted(edits, key=lambda edit: (edit.first, edit.end), reverse=True):
        lines[edit.first : edit.end] = edit.lines
    return "\n".join(lines)


def _head(tree: ast.Module, needs: _Needs) -> _Edit:
    """What a module needs in front of its first statement, behind its docstring and its future statements."""
    body = tree.body[1:] if is_text(tree.body[0]) else tree.body
    future = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    place = (future[-1].end_lineno or 0) if future else first_line(body[0]) - 1
    has_annotations = any(each.name == "annotations" for node in future for each in node.names)
    first = [] if has_annotations else ["from __future__ import annotations"]
    return _Edit(place, place, [*first, *needs.lines()])


def _decorator(node: ast.ClassDef) -> ast.expr | None:
    return next((each for each in node.decorator_list if called(each) == "attrs.define"), None)


def _check_left_alone(module: Module, node: ast.ClassDef, known: Mapping[tuple[str, str], _Plain]) -> None:
    """A class that is not written out must not need attrs to know one that is."""
    where = f"{module.name}: {node.name}"
    for decorator in node.decorator_list:
        if called(decorator) in _OTHER_DECORATORS:
            refuse(where, f"{called(decorator)} is not attrs.define")
        if called(decorator).partition(".")[0] in ("attrs", "attr"):
            for base in node.bases:
                if len(_candidates(known, module, base)) > 0:
                    refuse(where, f"attrs cannot see the fields of its base {ast.unparse(base)}")


def _edits(
    module: Module,
    node: ast.ClassDef,
    decorator: ast.expr,
    known: dict[tuple[str, str], _Plain],
    needs: _Needs,
) -> Iterator[_Edit]:
    where = f"{module.name}: {node.name}"
    options = read_options(decorator, _CLASS_OPTIONS, where)
    bound = bound_by(node.body)
    _check_body(module, node, bound, where)
    own = dict(read_fields(module, node, read_flag(options, "kw_only", where, default=False), where))
    base = _base(known, module, node, where)
    inherited = [] if base is None else [each for each in base.fields if each.name not in own]
    by_hand = bound & _BY_HAND
    eq = read_flag(options, "eq", where, default=not by_hand & {"__eq__", "__ne__"})
    if eq and by_hand & {"__eq__", "__ne__"}:
        refuse(where, "has eq=True and an __eq__ or __ne__ of its own")
    post_init = _POST_INIT in bound or (base is not None and base.post_init)
    known[module.name, node.name] = _Plain(module, [*inherited, *own.values()], eq, post_init, by_hand)
    yield _Edit(decorator.lineno - 1, decorator.end_lineno or 0, _in_place(module, decorator, ""))
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign):
            annotation = ast.unparse(without_quotes(statement.annotation))
            text = f"{_INDENT}{ast.unparse(statement.target)}: {annotation}"
            yield _Edit(statement.lineno - 1, statement.end_lineno or 0, _in_place(module, statement, text))
    if base is not None and not own and not base.by_hand and eq <= base.eq and post_init == base.post_init:
        return  # it is made as its base is
    fields = [each.seen_from(module) for each in [*inherited, *own.values()]]
    check_fields(fields, own, bound, where)
    for each in fields:
        needs.values.update((f"import {name} as {alias(name)}", None) for name in each.value_modules)
        needs.types.update((f"import {name} as {alias(name)}", None) for name in each.type_modules)
    made = _init(fields, post_init=post_init)
    if "__repr__" not in by_hand:
        needs.values.update(dict.fromkeys(_REPR_NEEDS))
        made += _repr(fields)
    if eq:
        made += _eq(fields, node)
    place = _place(node)
    yield _Edit(place, place, ["", *made])


def _in_place(module: Module, node: ast.expr | ast.stmt, text: str) -> list[str]:
    """`text` and the comments of `node`, on as many lines as it had."""
    comments = module.comments_behind(node)
    whole = f"{text}  {comments}" if text and comments else text + comments
    return [whole, *[""] * ((node.end_lineno or node.lineno) - node.lineno)]


def _base(
    known: Mapping[tuple[str, str], _Plain], module: Module, node: ast.ClassDef, where: str
) -> _Plain | None:
    if node.keywords or getattr(node, "type_params", []):
        refuse(where, "has keywords or type parameters behind its name")
    if not node.bases:
        return None
    if len(node.bases) > 1:
        refuse(where, "has more than one base")
    name = ast.unparse(node.bases[0])
    found = _candidates(known, module, node.bases[0])
    if len(found) != 1:
        refuse(where, f"there is more than one {name}" if found else f"its base {name} is not written out")
    return found[0]


def _candidates(known: Mapping[tuple[str, str], _Plain], module: Module, base: ast.expr) -> list[_Plain]:
    """The written out classes that `base` can be: one of this module, or one that it imports."""
    name = ast.unparse(base)
    if (module.name, name) in known:
        return [known[module.name, name]]
    origin, original = module.imported.get(name, ("", ""))
    return [
        plain
        for (home, each), plain in known.items()
        if each == original and (home == origin or home.startswith(f"{origin}."))
    ]


def _check_body(module: Module, node: ast.ClassDef, bound: frozenset[str], where: str) -> None:
    for name in _NOT_BY_HAND:
        if name in bound:
            refuse(where, f"has {name} of its own")
    for statement in node.body:
        first, end = first_line(statement), statement.end_lineno or statement.lineno
        before = module.lines[first - 1].encode()[: statement.col_offset].decode()
        behind = module.lines[end - 1].encode()[statement.end_col_offset :].decode().strip()
        if before.strip(" \t@") or (behind and not behind.startswith("#")):
            refuse(where, f"line {first} holds more than one statement")
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                for decorator in statement.decorator_list:
                    if isinstance(decorator, ast.Attribute) and decorator.attr in ("default", "validator"):
                        refuse(where, f"{ast.unparse(decorator)} is not understood")
            case ast.Assign(value=value):
                if called(value) in {"attrs.field", *OTHER_FIELDS}:
                    refuse(where, f"{ast.unparse(statement.targets[0])} has no annotation")
            case ast.AnnAssign() | ast.ClassDef() | ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case _:
                refuse(where, f"line {first} is neither a field nor a method")


def _init(fields: Sequence[Field], *, post_init: bool) -> list[str]:
    positional = [field.parameter() for field in fields if field.init and not field.kw_only]
    named = [field.parameter() for field in fields if field.init and field.kw_only]
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    body = [f"self.{field.name} = {value}" for field in fields if (value := field.value()) is not None]
    if post_init:
        body.append(f"self.{_POST_INIT}()")
    return [
        f"{_INDENT}def __init__({parameters}) -> None:",
        *(_INDENT * 2 + line for line in body or ["pass"]),
        "",
    ]


def _repr(fields: Sequence[Field]) -> list[str]:
    shown = ", ".join(field.shown() for field in fields if field.repr)
    name = """{self.__class__.__qualname__.rsplit(">.", 1)[-1]}"""
    return [
        f"{_INDENT}def __repr__(self) -> str:",
        f"{_INDENT * 2}key = (id(self), {_THREAD}())",
        f"{_INDENT * 2}if key in {_SHOWN}:",
        f'{_INDENT * 3}return "..."',
        f"{_INDENT * 2}{_SHOWN}.add(key)",
        f"{_INDENT * 2}try:",
        f"{_INDENT * 3}return f'{name}({shown})'",
        f"{_INDENT * 2}finally:",
        f"{_INDENT * 3}{_SHOWN}.remove(key)",
        "",
    ]


def _eq(fields: Sequence[Field], node: ast.ClassDef) -> list[str]:
    same = " and ".join(f"self.{field.name} == other.{field.name}" for field in fields if field.eq) or "True"
    return [
        f"{_INDENT}def __eq__(self, other: object) -> bool:",
        f"{_INDENT * 2}if not isinstance(other, {node.name}) or other.__class__ is not self.__class__:",
        f"{_INDENT * 3}return NotImplemented",
        f"{_INDENT * 2}return bool({same})",
        "",
    ]


def _place(node: ast.ClassDef) -> int:
    """The number of the line behind the last field and what is said of it, or behind the docstring."""
    place = first_line(node.body[0]) - 1
    for i, statement in enumerate(node.body):
        if isinstance(statement, ast.AnnAssign) or (i == 0 and is_text(statement)):
            following = node.body[i + 1 : i + 2]
            last = following[0] if following and is_text(following[0]) else statement
            place = last.end_lineno or last.lineno
    return place
