"""Classes of `attrs.define` written out: what mypyc makes native classes of.  Pure.

mypyc turns a plain class with annotated attributes into a C struct, whose attributes are read and methods called
without a look-up.  `attrs.define` makes a second class for the slots, which it cannot follow.  So before compiling,
and only then, each such class at the top of a module gets the `__init__` (and `__eq__`, `__repr__`) that attrs would
have made, as text.  All else stays as it is, to the letter.

What is understood is what the hot modules use: fields with a default or a factory, `init`, `repr`, `kw_only`, `eq`,
and `__attrs_post_init__`.  Anything else is refused by name, so that nothing is dropped in silence.
"""

import ast
import builtins
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

import attrs

__all__ = ["NotPlain", "written_out"]

_INDENT: Final = "    "
_CLASS_OPTIONS: Final = frozenset({"eq", "kw_only"})
_FIELD_OPTIONS: Final = frozenset({"default", "factory", "init", "repr", "eq", "kw_only"})


class NotPlain(Exception):
    """A class does what is not understood; says which and what."""


@attrs.frozen
class _Edit:
    """What is to stand in the place of some lines."""

    first: int
    """The index of the first of them."""
    end: int
    """The index of the first one that stays."""
    lines: list[str]


@attrs.frozen
class _Field:
    name: str
    annotation: ast.expr
    default: ast.expr | None
    factory: ast.expr | None
    """Makes the value when it is evaluated."""
    init: bool
    repr: bool
    eq: bool
    kw_only: bool
    statement: ast.AnnAssign

    @property
    def argument(self) -> str:
        """What `__init__` calls it (attrs strips underscores)."""
        return self.name.lstrip("_")

    def parameter(self) -> str:
        """Of `__init__`."""
        annotation = ast.unparse(self.annotation)
        if self.factory is not None:
            return f"{self.argument}: {annotation} | None = None"
        return f"{self.argument}: {annotation}" + ("" if self.default is None else f" = {ast.unparse(self.default)}")

    def value(self) -> str | None:
        """What `__init__` sets it to; None: nothing."""
        made = self.default if self.factory is None else self.factory
        if not self.init:
            return None if made is None else ast.unparse(made)
        if self.factory is not None:
            return f"{ast.unparse(self.factory)} if {self.argument} is None else {self.argument}"
        return self.argument

    def seen_from_elsewhere(self, module: str) -> "_Field":
        """With the names of the module where it stands as attributes of `module`."""

        def moved(value: ast.expr | None) -> ast.expr | None:
            return None if value is None else _Moved(module).visit(copy.deepcopy(value))

        annotation = moved(_without_quotes(self.annotation))
        assert annotation is not None
        return attrs.evolve(self, annotation=annotation, default=moved(self.default), factory=moved(self.factory))


@attrs.frozen
class _Plain:
    """A class that was written out."""

    module: str
    fields: list[_Field]
    """Also those that it inherits."""


class _Moved(ast.NodeTransformer):
    """Makes names attributes of a module, but for those of Python."""

    def __init__(self, module: str) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if hasattr(builtins, node.id):
            return node
        return ast.Attribute(ast.Name(self.module, ast.Load()), node.id, ast.Load())


def _without_quotes(annotation: ast.expr) -> ast.expr:
    """Of forward references, which are no strings to those who look at names."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return ast.parse(annotation.value, mode="eval").body
    return annotation


def written_out(sources: Mapping[str, str]) -> dict[str, str]:
    """The texts of modules, by their names, with their `attrs.define` classes written out.  Raises NotPlain.

    A class and what it inherits from must be among them, a base's module before that of the class.  A module
    without such classes comes back as it is.
    """
    known: dict[tuple[str, str], _Plain] = {}
    return {module: _module_written_out(module, source, known) for module, source in sources.items()}


def _module_written_out(module: str, source: str, known: dict[tuple[str, str], _Plain]) -> str:
    lines = source.splitlines()
    edits: list[_Edit] = []
    imports: dict[str, None] = {}
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and (decorator := _decorator(node)) is not None:
            edits += _edits(lines, module, node, decorator, known, imports)
    if not edits:
        return source
    # Annotations need not be names that are there when the module runs, those of a base least of all.
    future = "from __future__ import annotations"
    place = next(i for i, node in enumerate(tree.body) if not _is_text(node))
    first = tree.body[place].lineno - 1
    edits.append(_Edit(first, first, [future, *(f"import {each} as {_alias(each)}" for each in imports)]))
    for edit in sorted(edits, key=lambda edit: edit.first, reverse=True):
        lines[edit.first : edit.end] = edit.lines
    return "\n".join(lines) + "\n"


def _decorator(node: ast.ClassDef) -> ast.expr | None:
    for decorator in node.decorator_list:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(function) == "attrs.define":
            return decorator
    return None


def _edits(
    lines: Sequence[str],
    module: str,
    node: ast.ClassDef,
    decorator: ast.expr,
    known: dict[tuple[str, str], _Plain],
    imports: dict[str, None],
) -> Iterator[_Edit]:
    where = f"{module}: {node.name}"
    options = _options(decorator, _CLASS_OPTIONS, where)
    own = list(_fields(node, _flag(options, "kw_only", default=False), where))
    inherited: list[_Field] = []
    for base in node.bases:
        plain = _find(known, module, ast.unparse(base), where)
        if plain.module == module:
            inherited += plain.fields
        elif own:
            imports[plain.module] = None
            inherited += [field.seen_from_elsewhere(_alias(plain.module)) for field in plain.fields]
    known[module, node.name] = _Plain(module, [*inherited, *own])
    yield _Edit(decorator.lineno - 1, decorator.end_lineno or decorator.lineno, [""])
    for field in own:
        statement = field.statement
        end = statement.end_lineno or statement.lineno
        comment = lines[end - 1].encode()[statement.end_col_offset :].decode()
        text = f"{_INDENT}{field.name}: {ast.unparse(field.annotation)}{comment}"
        yield _Edit(statement.lineno - 1, end, [text, *[""] * (end - statement.lineno)])
    if not own:
        return  # it is made as its base is
    fields = [*inherited, *own]
    made = [*_init(fields, node), *_repr(fields, node)]
    if _flag(options, "eq", default=True):
        made += _eq(fields, node)
    place = _after_fields(node)
    yield _Edit(place, place, ["", *made])


def _find(known: dict[tuple[str, str], _Plain], module: str, name: str, where: str) -> _Plain:
    if (module, name) in known:
        return known[module, name]
    found = [plain for (_, each), plain in known.items() if each == name]
    if len(found) != 1:
        _refuse(where, f"its base {name} is not written out" if not found else f"there is more than one {name}")
    return found[0]


def _alias(module: str) -> str:
    return "_" + module.replace(".", "_")


def _after_fields(node: ast.ClassDef) -> int:
    """The number of the line behind the last field and what is said of it."""
    place = 0
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            last = following if following is not None and _is_text(following) else statement
            place = last.end_lineno or last.lineno
    return place


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _fields(node: ast.ClassDef, kw_only: bool, where: str) -> Iterator[_Field]:
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign):
            continue
        assert isinstance(statement.target, ast.Name)
        name, value = statement.target.id, statement.value
        if ast.unparse(statement.annotation).startswith(("ClassVar", "Final")):
            _refuse(where, f"{name} belongs to the class")
        options: dict[str, ast.expr] = {}
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "attrs.field":
            options = _options(value, _FIELD_OPTIONS, f"{where}.{name}")
        elif value is not None:
            options = {"default": value}
        yield _Field(
            name=name,
            annotation=_without_quotes(statement.annotation),
            default=options.get("default"),
            factory=_call_of(options["factory"]) if "factory" in options else None,
            init=_flag(options, "init", default=True),
            repr=_flag(options, "repr", default=True),
            eq=_flag(options, "eq", default=True),
            kw_only=_flag(options, "kw_only", default=kw_only),
            statement=statement,
        )


def _call_of(factory: ast.expr) -> ast.expr:
    if isinstance(factory, ast.Lambda) and not ast.unparse(factory.args):
        return factory.body
    return ast.Call(factory, [], [])


def _options(call: ast.expr, known: frozenset[str], where: str) -> dict[str, ast.expr]:
    if not isinstance(call, ast.Call):
        return {}
    if call.args:
        _refuse(where, "has arguments without a name")
    options = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg not in known:
            _refuse(where, f"the option {keyword.arg} is not understood")
        options[keyword.arg] = keyword.value
    return options


def _flag(options: dict[str, ast.expr], name: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, ast.Constant) or type(value.value) is not bool:
        raise NotPlain(f"{name} is {ast.unparse(value)}, neither True nor False")
    return value.value


def _init(fields: Sequence[_Field], node: ast.ClassDef) -> list[str]:
    positional = [field.parameter() for field in fields if field.init and not field.kw_only]
    named = [field.parameter() for field in fields if field.init and field.kw_only]
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    body = [
        f"self.{field.name} = {value}" for field in fields if (value := field.value()) is not None
    ]
    if any(isinstance(each, ast.FunctionDef) and each.name == "__attrs_post_init__" for each in node.body):
        body.append("self.__attrs_post_init__()")
    return [f"{_INDENT}def __init__({parameters}) -> None:", *(_INDENT * 2 + line for line in body or ["pass"]), ""]


def _repr(fields: Sequence[_Field], node: ast.ClassDef) -> list[str]:
    if any(isinstance(each, ast.FunctionDef) and each.name == "__repr__" for each in node.body):
        return []
    shown = ", ".join(f"{field.name}={{self.{field.name}!r}}" for field in fields if field.repr)
    return [f"{_INDENT}def __repr__(self) -> str:", f'{_INDENT * 2}return f"{node.name}({shown})"', ""]


def _eq(fields: Sequence[_Field], node: ast.ClassDef) -> list[str]:
    same = " and ".join(f"self.{field.name} == other.{field.name}" for field in fields if field.eq) or "True"
    return [
        f"{_INDENT}def __eq__(self, other: object) -> bool:",
        f"{_INDENT * 2}if not isinstance(other, {node.name}) or type(other) is not type(self):",
        f"{_INDENT * 3}return NotImplemented",
        f"{_INDENT * 2}return {same}",
        "",
    ]


def _refuse(where: str, what: str) -> NoReturn:
    raise NotPlain(f"{where}: {what}")
