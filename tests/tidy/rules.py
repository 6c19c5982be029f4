"""The rules of the sources that a program can judge, as functions from a tree of files to violations.  Pure
but for reading the files.

The rules stand in docs/ARCHITECTURE.md; `ROWS`, `COLOURS` and `SIZE_EXCEPTIONS` below are their one
machine-readable place, and `test_tidy.py` checks that the document agrees.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = [
    "PRODUCT_RULES",
    "ROWS",
    "SIZE_EXCEPTIONS",
    "TEXT_RULES",
    "Module",
    "Violation",
    "check",
    "rows_of",
]

PACKAGE: Final = "pyjiva"
PRODUCT: Final = f"src/{PACKAGE}"

#: Import rows, the highest first.  A package imports from lower rows only, never from one beside it.
ROWS: Final[tuple[tuple[str, ...], ...]] = (
    ("cli",),
    ("maya",),
    ("iscsi", "controller", "replica", "supervisor", "checkup", "migration", "backup"),
    ("scsi", "replication", "snapshot"),
    ("sparse", "block", "transport", "vote"),
    ("block_sums", "extent", "membership", "lineage", "recycled"),
    ("units", "buffers"),
    ("compiled",),
    ("errors",),
)
TESTING: Final = "testing"  # may import any row; imported by tests and bench only
OPTIONAL: Final = (
    "backup",
    "maya",
    "trace",
)  # the extras of pyproject.toml that are the product's, not the tests'
#: A distribution → the name that it is imported by, where they differ in more than dashes; what comes in one
#: namespace is one.
IMPORT_NAMES: Final = {
    "PyYAML": "yaml",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
}
COLOURLESS: Final = ("cli", TESTING)  # wire whole processes and worlds together

_BLOCKING: Final = (
    *("fcntl", "os", "select", "selectors", "socket", "subprocess", "signal", "threading", "multiprocessing"),
    *("random", "secrets", "time", "logging", "structlog"),
)
_WAITING: Final = ("trio", "anyio", "asyncio", "httpx", "hypercorn", "starlette")
#: Colour → what a module of that colour must not import.
COLOURS: Final[dict[str, tuple[str, ...]]] = {
    "pure": (*_BLOCKING, *_WAITING),
    "sys": _WAITING,
    "io": (),
}
#: Colour → the colours of our own modules that it may import.
MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "pure": ("pure",),
    "sys": ("pure", "sys"),
    "io": ("pure", "sys", "io"),
}

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 60
#: path or path::function → why it is longer than the others.
SIZE_EXCEPTIONS: Final[dict[str, str]] = {
    "src/pyjiva/controller/data_path.py": "one hot machine: its maps of pending requests are one invariant",
    "src/pyjiva/controller/volume_io.py": "one shell: a volume's links, timers and effects share its state",
    "src/pyjiva/controller/roster.py": "one decider: every transition of membership in one sitting",
}
# Written so that this file does not hold them.
FORBIDDEN_WORDS: Final = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b")


@attrs.frozen(order=True)
class Violation:
    """One place that breaks one rule."""

    path: str
    line: int
    rule: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.detail}"


@attrs.frozen
class Module:
    """One Python file."""

    path: str
    """Relative to the top of the tree, with slashes."""
    text: str
    tree: ast.Module

    @property
    def dotted(self) -> str:
        """Its name for `import`; empty outside the product."""
        if not self.path.startswith("src/"):
            return ""
        return self.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def part(self) -> str:
        """The first name below the package: the one that has a row.  Empty for the package itself."""
        return _part_of(self.dotted)

    @property
    def is_package(self) -> bool:
        """Whether it is an `__init__.py`."""
        return self.path.endswith("/__init__.py")

    @property
    def colour(self) -> str:
        """pure, sys or io, by its name."""
        return _colour_of(self.dotted)


@attrs.frozen
class Import:
    """One imported name, with where it is really defined as far as our own packages re-export it."""

    line: int
    module: str
    """The dotted module that is named, or a submodule if the name is one."""
    origin: str
    """The dotted module that defines the name."""
    level: int


@attrs.frozen
class Tree:
    """All files of a checkout that the rules look at."""

    modules: Sequence[Module]
    by_name: dict[str, Module]
    texts: dict[str, str]
    """Every text file, Python or not."""
    packages: Sequence[str]
    """Folders of the product that hold Python files."""
    named: frozenset[str]
    """Modules that pyproject.toml names as programs, or a string of the product does."""
    dependencies: tuple[str, ...]
    """Import names of what pyproject.toml says that the product needs."""
    _imports: dict[str, tuple[Import, ...]] = attrs.field(factory=dict, init=False)

    def imports(self, module: Module) -> Sequence[Import]:
        """Every import, wherever in the file."""
        if module.path not in self._imports:
            self._imports[module.path] = tuple(self._read_imports(module))
        return self._imports[module.path]

    def _read_imports(self, module: Module) -> Iterator[Import]:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name, alias.name, 0)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    name = whole if whole in self.by_name else base
                    yield Import(node.lineno, name, self._origin(name, alias.name), node.level)

    def _origin(self, dotted: str, name: str) -> str:
        """Where `name`, imported from `dotted`, is defined: a package's `__init__` only passes it on."""
        package = self.by_name.get(dotted)
        if package is None or not package.is_package:
            return dotted
        for node in package.tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self._origin(node.module, alias.name)
        return dotted


def _part_of(dotted: str) -> str:
    return dotted.split(".")[1] if dotted.startswith(f"{PACKAGE}.") else ""


def _colour_of(dotted: str) -> str:
    last = dotted.rpartition(".")[2]
    return "sys" if last.endswith("_sys") else "io" if last.endswith("_io") else "pure"


def _is_ours(dotted: str) -> bool:
    return dotted == PACKAGE or dotted.startswith(f"{PACKAGE}.")


# --- rules about modules of the product


def colours(tree: Tree, module: Module) -> Iterator[Violation]:
    """A pure module waits for nothing and asks nobody; `_sys` blocks; only `_io` waits."""
    if module.part in COLOURLESS or module.is_package:
        return
    for found in tree.imports(module):
        if _is_ours(found.origin):
            origin = tree.by_name.get(found.origin)
            if origin is None or origin.is_package:
                continue
            if origin.colour not in MAY_IMPORT[module.colour]:
                yield _at(module, found.line, "colour", f"{module.colour} imports {found.origin}")
        elif found.module.split(".")[0] in COLOURS[module.colour]:
            yield _at(module, found.line, "colour", f"{module.colour} imports {found.module}")


def rows(tree: Tree, module: Module) -> Iterator[Violation]:
    """Imports go downwards only."""
    row_of = {part: number for number, row in enumerate(ROWS) for part in row}
    if not module.part or module.part == TESTING:
        return
    if module.part not in row_of:
        yield _at(module, 1, "row", f"{module.part} stands in no row")
        return
    for found in tree.imports(module):
        part = _part_of(found.module)
        if part in ("", module.part, TESTING):  # `pyjiva` itself has the version and nothing else
            continue
        if part not in row_of:
            yield _at(module, found.line, "row", f"{part} stands in no row")
        elif row_of[part] <= row_of[module.part]:
            yield _at(module, found.line, "row", f"{module.part} imports {part}, which is not below it")


def testing_stays_out(tree: Tree, module: Module) -> Iterator[Violation]:
    """The product runs without what its tests need."""
    if module.part == TESTING:
        return
    for found in tree.imports(module):
        if _part_of(found.module) == TESTING:
            yield _at(module, found.line, "testing", f"the product imports {found.module}")


def all_is_declared(_: Tree, module: Module) -> Iterator[Violation]:
    """What a package offers stands in its `__all__`."""
    if not module.is_package:
        return
    for node in module.tree.body:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return
    yield _at(module, 1, "all", "__init__.py without __all__")


def in_use(tree: Tree, module: Module) -> Iterator[Violation]:
    """Code that nobody imports and nobody starts is dead.  A name in a string counts: commands load late."""
    alive = module.is_package or module.part == TESTING or module.dotted in tree.named
    if not alive and not any(
        module.dotted in (found.module, found.origin)
        for other in tree.by_name.values()
        if other is not module
        for found in tree.imports(other)
    ):
        yield _at(module, 1, "dead", "no module of the product imports it")


def declared(tree: Tree, module: Module) -> Iterator[Violation]:
    """What the product imports from outside, pyproject.toml says that it needs."""
    if module.part == TESTING:
        return
    for found in tree.imports(module):
        first = found.module.split(".")[0]
        if not found.level and first not in (PACKAGE, *tree.dependencies, *sys.stdlib_module_names):
            yield _at(module, found.line, "dependency", f"{first} is not among the dependencies")


def _unused_dependencies(tree: Tree) -> Iterator[Violation]:
    used = {
        found.module.split(".")[0]
        for module in tree.by_name.values()
        if module.part != TESTING
        for found in tree.imports(module)
    }
    for name in tree.dependencies:
        if name not in used:
            yield Violation("pyproject.toml", 1, "dependency", f"nothing imports {name}")


def sizes(_: Tree, module: Module) -> Iterator[Violation]:
    """What does not fit a sitting usually hides two."""
    lines = len(module.text.splitlines())
    if lines > FILE_LINES_MAX and module.path not in SIZE_EXCEPTIONS:
        yield _at(module, 1, "size", f"file of {lines} lines: at most {FILE_LINES_MAX}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX and f"{module.path}::{node.name}" not in SIZE_EXCEPTIONS:
                detail = f"{node.name} has {length} lines: at most {FUNCTION_LINES_MAX}"
                yield _at(module, node.lineno, "size", detail)


def errors_are_not_dropped(_: Tree, module: Module) -> Iterator[Violation]:
    """Nothing is silent: an error that needs nothing done says so by what is done instead."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and all(_does_nothing(step) for step in node.body):
            yield _at(module, node.lineno, "dropped", "an error is caught and dropped")


def _does_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is ...
    )


# --- rules about every Python file


def no_relative_imports(tree: Tree, module: Module) -> Iterator[Violation]:
    """An import can be read without knowing where the file lies."""
    for found in tree.imports(module):
        if found.level:
            yield _at(module, found.line, "relative", "relative import")


def docstrings(_: Tree, module: Module) -> Iterator[Violation]:
    """A module says what it is for."""
    if module.text.strip() and not ast.get_docstring(module.tree):
        yield _at(module, 1, "docstring", "no module docstring")


# --- rules about every text


def words(path: str, text: str) -> Iterator[Violation]:
    """Work that is left to do is in an issue, not in the sources."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := FORBIDDEN_WORDS.search(line):
            yield Violation(path, number, "word", found[0])


Rule = Callable[[Tree, Module], Iterator[Violation]]
PRODUCT_RULES: Final[tuple[Rule, ...]] = (
    *(colours, rows, testing_stays_out, all_is_declared, in_use, declared, sizes, errors_are_not_dropped),
)
BENCH_RULES: Final[tuple[Rule, ...]] = (sizes, errors_are_not_dropped)
PYTHON_RULES: Final[tuple[Rule, ...]] = (no_relative_imports, docstrings)
TEXT_RULES: Final[tuple[Callable[[str, str], Iterator[Violation]], ...]] = (words,)

_LOOKED_AT: Final = (
    "src",
    "tests",
    "bench",
    "compiling",
    "scripts",
    ".ci",
    "docs",
    "Makefile",
    "README.md",
    "pyproject.toml",
)
_TEXT_SUFFIXES: Final = ("", ".py", ".md", ".toml", ".c", ".h", ".sh", ".json", ".yaml")
_MADE: Final = ("__pycache__", "build", "results")


def check(top: Path) -> list[Violation]:
    """Every violation in the tree at `top`, sorted."""
    tree = _read(top)
    found: list[Violation] = []
    for module in tree.modules:
        beside = module.path.startswith(("bench/", "compiling/"))
        applying = PRODUCT_RULES if module.dotted else BENCH_RULES if beside else ()
        for rule in (*applying, *PYTHON_RULES):
            found += rule(tree, module)
    for package in tree.packages:
        if f"{package}/__init__.py" not in tree.texts:
            found.append(Violation(package, 1, "all", "package without __init__.py"))
    for path, text in tree.texts.items():
        for text_rule in TEXT_RULES:
            found += text_rule(path, text)
    found += [*_unneeded_exceptions(tree), *_unused_dependencies(tree)]
    return sorted(found)


def _unneeded_exceptions(tree: Tree) -> Iterator[Violation]:
    """An exception that is no longer needed would let its file grow again."""
    for name in SIZE_EXCEPTIONS:
        path = name.partition("::")[0]
        if "::" not in name and len(tree.texts.get(path, "").splitlines()) <= FILE_LINES_MAX:
            yield Violation(path, 1, "size", "an exception that is not needed")


def _read(top: Path) -> Tree:
    texts = {}
    for name in _LOOKED_AT:
        start = top / name
        for file in [start] if start.is_file() else sorted(start.rglob("*")):
            inside = file.relative_to(top)
            if file.is_file() and file.suffix in _TEXT_SUFFIXES and not set(_MADE) & set(inside.parts):
                texts[inside.as_posix()] = file.read_text()
    modules = [Module(path, text, ast.parse(text)) for path, text in texts.items() if path.endswith(".py")]
    by_name = {module.dotted: module for module in modules if module.dotted}
    folders = {module.path.rpartition("/")[0] for module in modules if module.dotted}
    project = tomllib.loads(texts.get("pyproject.toml", "")).get("project", {})
    named = {target.partition(":")[0] for target in project.get("scripts", {}).values()}
    for module in by_name.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in by_name:
                named.add(node.value)
    extras = project.get("optional-dependencies", {})
    needed = [
        *project.get("dependencies", []),
        *(name for extra in OPTIONAL for name in extras.get(extra, [])),
    ]
    dependencies = tuple(dict.fromkeys(IMPORT_NAMES.get(name, name.replace("-", "_")) for name in needed))
    return Tree(modules, by_name, texts, sorted(folders), frozenset(named), dependencies)


def _at(module: Module, line: int, rule: str, detail: str) -> Violation:
    return Violation(module.path, line, rule, detail)


def rows_of(document: str) -> tuple[tuple[str, ...], ...]:
    """The import rows as docs/ARCHITECTURE.md draws them: the block after "<!-- rows -->"."""
    _, _, rest = document.partition("<!-- rows -->")
    block = rest.split("```")[1].splitlines()[1:]
    return tuple(tuple(word.strip() for word in line.split("|")) for line in block if line.strip())
