"""The fields of an attrs class as its text has them, and which of them are understood.  Pure."""

import ast
import keyword
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

import attrs

from compiling.names import (
    Module,
    Moved,
    bound_by,
    bound_inside,
    called,
    free_names,
    is_steady,
    last_name,
    may_be_none,
    without_quotes,
)

__all__ = [
    "OTHER_FIELDS",
    "Field",
    "NotPlain",
    "check_fields",
    "read_fields",
    "read_flag",
    "read_options",
    "refuse",
]

_FIELD_OPTIONS: Final = frozenset({"default", "factory", "init", "repr", "eq", "kw_only"})
OTHER_FIELDS: Final = frozenset({"field", "attr.field", "attr.ib", "attr.attrib"})
_FACTORIES: Final = frozenset({"attrs.Factory", "attr.Factory", "Factory"})
_NOTHINGS: Final = frozenset({"attrs.NOTHING", "attr.NOTHING", "NOTHING"})


class NotPlain(Exception):
    """A class does what is not understood; says which and what."""


@attrs.frozen
class Field:
    name: str
    annotation: ast.expr
    default: ast.expr | None
    factory: ast.expr | None
    """Makes the value when it is evaluated."""
    init: bool
    repr: bool
    eq: bool
    kw_only: bool
    home: Module
    """Where the names that it is made of are known."""
    type_modules: tuple[str, ...] = ()
    """What must be imported for the annotation."""
    value_modules: tuple[str, ...] = ()
    """What must be imported for the default or the factory."""

    @property
    def argument(self) -> str:
        """What `__init__` calls it (attrs strips underscores)."""
        return self.name.lstrip("_")

    def parameter(self) -> str:
        """Of `__init__`."""
        annotation = ast.unparse(self.annotation)
        if self.factory is not None:
            return f"{self.argument}: {annotation} | None = None"
        return f"{self.argument}: {annotation}" + (
            "" if self.default is None else f" = {ast.unparse(self.default)}"
        )

    @property
    def made(self) -> ast.expr | None:
        """What is evaluated inside of `__init__`."""
        return self.factory if self.init or self.factory is not None else self.default

    def value(self) -> str | None:
        """What `__init__` sets it to; None: nothing."""
        if not self.init:
            return None if self.made is None else ast.unparse(self.made)
        if self.factory is None:
            return self.argument
        argument = ast.Name(self.argument, ast.Load())
        missing = ast.Compare(argument, [ast.Is()], [ast.Constant(None)])
        return ast.unparse(ast.IfExp(missing, self.factory, argument))

    def shown(self) -> str:
        """As `__repr__` shows it; who is not an argument need not be there."""
        value = f"self.{self.name}" if self.init else f'getattr(self, "{self.name}", attrs.NOTHING)'
        return f"{self.name}={{{value}!r}}"

    def seen_from(self, module: Module) -> "Field":
        """With the names of the module where it stands as attributes of it, if `module` is another."""
        home = self.home
        if home.name == module.name:
            return self

        types, values = Moved(home, bound_inside(self.annotation)), Moved(home, self._bound_in_values())
        return attrs.evolve(
            self,
            annotation=types.expression(self.annotation),
            default=None if self.default is None else values.expression(self.default),
            factory=None if self.factory is None else values.expression(self.factory),
            type_modules=tuple(types.modules),
            value_modules=tuple(values.modules),
        )

    def _bound_in_values(self) -> frozenset[str]:
        return frozenset[str]().union(*(bound_inside(each) for each in (self.default, self.factory) if each))


def read_fields(module: Module, node: ast.ClassDef, kw_only: bool, where: str) -> Iterator[tuple[str, Field]]:
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign):
            continue
        name, value = ast.unparse(statement.target), statement.value
        if not statement.simple or (name.startswith("__") and not name.endswith("__")):
            refuse(where, f"{name} is not a name that stays as it is")
        annotation = without_quotes(statement.annotation)
        outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
        if last_name(outer) in ("ClassVar", "Final"):
            refuse(where, f"{name} belongs to the class")
        options: dict[str, ast.expr] = {}
        if value is not None and called(value) == "attrs.field" and isinstance(value, ast.Call):
            options = read_options(value, _FIELD_OPTIONS, f"{where}.{name}")
        elif value is not None:
            options = {"default": value}
        field = Field(
            name=name,
            annotation=annotation,
            default=options.get("default"),
            factory=_call_of(options["factory"], f"{where}.{name}") if "factory" in options else None,
            init=read_flag(options, "init", f"{where}.{name}", default=True),
            repr=read_flag(options, "repr", f"{where}.{name}", default=True),
            eq=read_flag(options, "eq", f"{where}.{name}", default=True),
            kw_only=read_flag(options, "kw_only", f"{where}.{name}", default=kw_only),
            home=module,
        )
        _check_made(field, options, bound_by(node.body), f"{where}.{name}")
        yield name, field


def _check_made(field: Field, options: Mapping[str, ast.expr], bound: frozenset[str], where: str) -> None:
    """What a field is made of means the same in `__init__` as in the class."""
    if field.default is not None:
        if field.factory is not None:
            refuse(where, "has a default and a factory")
        what = called(field.default)
        if what in _FACTORIES or what in _NOTHINGS or what in OTHER_FIELDS:
            refuse(where, f"the default {what} is not understood")
    if field.init and field.factory is not None and may_be_none(field.annotation):
        refuse(where, "may be None and has a factory: None cannot stand for what is not given")
    for name in ("default", "factory"):
        if name in options and (seen := free_names(options[name], in_lambdas=False) & bound):
            refuse(where, f"its {name} names what the class holds: {', '.join(sorted(seen))}")


def check_fields(
    fields: Sequence[Field], own: Mapping[str, Field], bound: frozenset[str], where: str
) -> None:
    """All of a class together."""
    arguments = [each.argument for each in fields if each.init]
    for argument in arguments:
        if not argument.isidentifier() or keyword.iskeyword(argument) or argument == "self":
            refuse(where, f"{argument!r} is no name for an argument")
        if arguments.count(argument) > 1:
            refuse(where, f"has two arguments {argument}")
    optional = ""
    for each in fields:
        if each.default is not None and not (each.init and each.name in own) and not is_steady(each.default):
            refuse(f"{where}.{each.name}", f"{ast.unparse(each.default)} would be evaluated more than once")
        made = frozenset[str]() if each.made is None else free_names(each.made)
        if seen := made & {"self", *arguments}:
            refuse(f"{where}.{each.name}", f"is made of {', '.join(sorted(seen))}, which is also an argument")
        if each.default is not None and (seen := free_names(each.default, in_lambdas=False) & bound):
            refuse(
                f"{where}.{each.name}", f"its default names what the class holds: {', '.join(sorted(seen))}"
            )
        if each.init and not each.kw_only:
            if each.default is not None or each.factory is not None:
                optional = each.name
            elif optional:
                refuse(f"{where}.{each.name}", f"has no default and is behind {optional}, which has one")


def _call_of(factory: ast.expr, where: str) -> ast.expr:
    if isinstance(factory, ast.Lambda) and not ast.unparse(factory.args):
        return factory.body
    if not isinstance(factory, ast.Name | ast.Attribute) or not is_steady(factory):
        refuse(where, f"its factory {ast.unparse(factory)} is neither a name nor a lambda without arguments")
    return ast.Call(factory, [], [])


def read_options(call: ast.expr, known: frozenset[str], where: str) -> dict[str, ast.expr]:
    if not isinstance(call, ast.Call):
        return {}
    if call.args:
        refuse(where, "has arguments without a name")
    options = {}
    for each in call.keywords:
        if each.arg is None or each.arg not in known:
            refuse(where, f"the option {each.arg or '**'} is not understood")
        options[each.arg] = each.value
    return options


def read_flag(options: Mapping[str, ast.expr], name: str, where: str, *, default: bool) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, ast.Constant) or not isinstance(value.value, bool):
        refuse(where, f"{name} is {ast.unparse(value)}, neither True nor False")
    return value.value


def refuse(where: str, what: str) -> NoReturn:
    raise NotPlain(f"{where}: {what}")
