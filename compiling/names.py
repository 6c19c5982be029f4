"""The modules that are rewritten, and what their names and expressions mean.  Pure."""

import ast
import builtins
import copy
import io
import tokenize
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

__all__ = [
    "Module",
    "Moved",
    "alias",
    "bound_by",
    "bound_inside",
    "called",
    "first_line",
    "free_names",
    "is_steady",
    "is_text",
    "last_name",
    "may_be_none",
    "without_quotes",
]

_STEADY_CALLS: Final = frozenset({"bool", "bytes", "complex", "float", "frozenset", "int", "str", "tuple"})
"""What they make is the same each time, and nobody can change it."""


@attrs.frozen
class Module:
    name: str
    source: str
    tree: ast.Module
    lines: list[str]
    comments: dict[int, str]
    """By the numbers of their lines."""
    bound: frozenset[str]
    """The names at its top."""
    imported: dict[str, tuple[str, str]]
    """Those that come from elsewhere: a module or package, and the name there; empty: it is the module."""

    @classmethod
    def of(cls, name: str, source: str) -> "Module":
        tree = ast.parse(source)
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        return cls(
            name=name,
            source=source,
            tree=tree,
            lines=source.split("\n"),  # as Python counts lines: no form feeds
            comments={token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT},
            bound=bound_by(tree.body),
            imported=dict(_imported(tree.body)),
        )

    def comments_behind(self, node: ast.expr | ast.stmt) -> str:
        """Those on the lines of `node`."""
        numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        return "  ".join(self.comments[number] for number in numbers if number in self.comments)


class Moved(ast.NodeTransformer):
    """Makes names attributes of the modules where they come from, but for those of Python."""

    def __init__(self, home: Module, bound: frozenset[str]) -> None:
        self.home = home
        self.bound = bound
        self.modules: dict[str, None] = {}
        """What must be imported for it, each by its `alias`."""

    def expression(self, value: ast.expr) -> ast.expr:
        """`value` as it is to be written elsewhere; it stays as it is itself."""
        moved = self.visit(copy.deepcopy(value))
        assert isinstance(moved, ast.expr)
        return moved

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.bound or (node.id not in self.home.bound and hasattr(builtins, node.id)):
            return node
        # Not by way of `home`: for mypy a module does not hand on what it has imported itself.
        module, name = self.home.imported.get(node.id, (self.home.name, node.id))
        self.modules[module] = None
        found = ast.Name(alias(module), ast.Load())
        return ast.Attribute(found, name, ast.Load()) if name else found


class _Unquoted(ast.NodeTransformer):
    """Makes forward references the names that they are."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str):
            return node
        inner = self.visit(ast.parse(node.value, mode="eval").body)
        assert isinstance(inner, ast.expr)
        return inner

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if last_name(node.value) in ("Literal", "Annotated"):
            return node
        self.generic_visit(node)
        return node


def alias(module: str) -> str:
    """What a module is called where its names are needed."""
    return "_plain_" + module.replace(".", "_")


def _imported(statements: Iterable[ast.stmt]) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in statements:
        match node:
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from ((each.asname or each.name, (module, each.name)) for each in names)
            case ast.Import(names=names):
                for each in names:
                    top = each.name.partition(".")[0]
                    yield each.asname or top, (each.name if each.asname else top, "")
            case ast.If(body=body, orelse=orelse):
                yield from _imported([*body, *orelse])


def first_line(statement: ast.stmt) -> int:
    """Decorators included."""
    decorators = (
        statement.decorator_list
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        else []
    )
    return min([statement.lineno, *(each.lineno for each in decorators)])


def is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def called(value: ast.expr) -> str:
    return ast.unparse(value.func if isinstance(value, ast.Call) else value)


def last_name(value: ast.expr) -> str:
    return ast.unparse(value).rpartition(".")[2]


def without_quotes(annotation: ast.expr) -> ast.expr:
    unquoted = _Unquoted().visit(copy.deepcopy(annotation))
    assert isinstance(unquoted, ast.expr)
    return unquoted


def may_be_none(annotation: ast.expr) -> bool:
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return may_be_none(left) or may_be_none(right)
        case ast.Subscript(value=value, slice=ast.Tuple(elts=parts)) if last_name(value) == "Union":
            return any(map(may_be_none, parts))
        case ast.Subscript(value=value):
            return last_name(value) == "Optional"
    return last_name(annotation) in ("None", "Any", "object")


def is_steady(value: ast.expr) -> bool:
    """It is the same however often it is evaluated."""
    match value:
        case ast.Constant() | ast.Name():
            return True
        case ast.Attribute(value=inner) | ast.UnaryOp(operand=inner):
            return is_steady(inner)
        case ast.BinOp(left=left, right=right):
            return is_steady(left) and is_steady(right)
        case ast.Tuple(elts=parts) | ast.Call(func=ast.Name(), args=parts, keywords=[]):
            named = not isinstance(value, ast.Call) or called(value) in _STEADY_CALLS
            return named and all(map(is_steady, parts))
    return False


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that `node` binds around it: none from inside of functions and classes."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from (each.asname or each.name.partition(".")[0] for each in names)
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            pass
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case _:
            yield from bound_by(ast.iter_child_nodes(node))


def bound_by(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """What all of `nodes` bind."""
    return frozenset(name for node in nodes for name in _bound(node))


def bound_inside(value: ast.AST) -> frozenset[str]:
    """The names that an expression binds: arguments of lambdas, those of comprehensions."""
    return frozenset(
        each.arg if isinstance(each, ast.arg) else each.id
        for each in ast.walk(value)
        if isinstance(each, ast.arg) or (isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
    )


def free_names(value: ast.expr, *, in_lambdas: bool = True) -> frozenset[str]:
    """The names that an expression has from outside; not those of lambdas, if they are not asked for."""
    if isinstance(value, ast.Lambda) and not in_lambdas:
        return frozenset()
    return frozenset(each.id for each in ast.walk(value) if isinstance(each, ast.Name)) - bound_inside(value)
