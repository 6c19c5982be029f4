"""The sources keep the rules of docs/ARCHITECTURE.md, and the rules would notice if they did not."""

import itertools
import tomllib
from pathlib import Path

import pytest

from tests.tidy.rules import ROWS, SIZE_EXCEPTIONS, check, rows_of

TOP = Path(__file__).parents[2]

CLEAN = '"""Says what it is for."""\n'
#: rule → (file, its text): one violation of each kind, and nothing else.
PLANTED: list[tuple[str, str, str]] = [
    ("colour", "src/pyjiva/block/rules.py", CLEAN + "import trio\n"),
    ("colour", "src/pyjiva/block/rules.py", CLEAN + "from time import monotonic\n"),
    ("colour", "src/pyjiva/block/rules.py", CLEAN + "def f():\n    import os.path\n"),
    ("colour", "src/pyjiva/block/disk_sys.py", CLEAN + "import trio\n"),
    ("colour", "src/pyjiva/scsi/plans.py", CLEAN + "from pyjiva.sparse import Shell\n"),
    ("colour", "src/pyjiva/block/rules.py", CLEAN + "from pyjiva.block.device_sys import Disk\n"),
    ("colour", "src/pyjiva/block/disk_sys.py", CLEAN + "from pyjiva.block.device_io import Device\n"),
    ("row", "src/pyjiva/block/rules.py", CLEAN + "from pyjiva.scsi import Sense\n"),
    ("row", "src/pyjiva/block/rules.py", CLEAN + "from pyjiva.transport import Stream\n"),
    ("row", "src/pyjiva/errors.py", CLEAN + "import pyjiva.units\n"),
    ("row", "src/pyjiva/blocks/__init__.py", CLEAN + "__all__ = []\n"),
    ("testing", "src/pyjiva/cli/main.py", CLEAN + "from pyjiva.testing import World\n"),
    ("testing", "src/pyjiva/cli/main.py", CLEAN + "from pyjiva import testing\n"),
    ("all", "src/pyjiva/cli/__init__.py", CLEAN),
    ("all", "src/pyjiva/maya/apiserver.py", CLEAN),
    ("size", "src/pyjiva/block/rules.py", CLEAN + "A = 1\n" * 500),
    ("size", "bench/rules.py", CLEAN + "def f():\n" + "    a = 1\n" * 60),
    ("size", "compiling/rules.py", CLEAN + "A = 1\n" * 500),
    ("relative", "src/pyjiva/block/rules.py", CLEAN + "from .interval_lock import Lock\n"),
    ("relative", "tests/block/test_rules.py", CLEAN + "from . import suites\n"),
    ("docstring", "src/pyjiva/block/rules.py", "A = 1\n"),
    ("dropped", "src/pyjiva/block/rules.py", CLEAN + "try:\n    A = 1\nexcept OSError:\n    pass\n"),
    ("dropped", "bench/rules.py", CLEAN + "try:\n    A = 1\nexcept Exception:\n    ...\n"),
    ("dependency", "src/pyjiva/block/rules.py", CLEAN + "import numpy\n"),
    ("dead", "src/pyjiva/block/forgotten.py", CLEAN),
    ("word", "src/pyjiva/block/rules.py", CLEAN + "# T" + "ODO: more\n"),
    ("word", "docs/contributing.md", "FIX" + "ME: more\n"),
    ("word", "Makefile", "all: # XX" + "X\n"),
]  # fmt: skip


#: What the tree's one program imports: nothing in it is dead but what is planted as dead.
IMPORTED = (
    *("errors", "units", "scsi.plans", "cli.main", "maya.apiserver"),
    *("block.rules", "block.disk_sys", "block.device_io"),
    *(name.removeprefix("src/pyjiva/").removesuffix(".py").replace("/", ".") for name in SIZE_EXCEPTIONS),
)

PROJECT = """
[project]
dependencies = ["trio"]
[project.scripts]
pyjiva = "pyjiva.cli.wiring:main"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree that keeps every rule."""
    texts = {
        "src/pyjiva/__init__.py": CLEAN + '__all__ = ["testing"]\n',
        "src/pyjiva/errors.py": CLEAN,
        "src/pyjiva/units.py": CLEAN + "from pyjiva.errors import ConfigError\n",
        "src/pyjiva/block/__init__.py": CLEAN + "__all__ = []\n",
        "src/pyjiva/block/interval_lock.py": CLEAN + "from pyjiva import units\n",
        "src/pyjiva/block/device_sys.py": CLEAN + "import os\nimport pyjiva.block.interval_lock\n",
        "src/pyjiva/block/device_io.py": CLEAN + "import trio\nfrom pyjiva.block.device_sys import Disk\n",
        "src/pyjiva/sparse/__init__.py": CLEAN
        + "from pyjiva.sparse.shell_io import Shell\nfrom pyjiva.sparse.rules import Plan\n__all__ = []\n",
        "src/pyjiva/sparse/shell_io.py": CLEAN + "import trio\n",
        "src/pyjiva/sparse/rules.py": CLEAN,
        # By what is defined where, not by what the package's __init__ imports besides.
        "src/pyjiva/scsi/__init__.py": CLEAN + "__all__ = []\n",
        "src/pyjiva/scsi/plans.py": CLEAN + "from pyjiva.sparse import Plan\n",
        "src/pyjiva/testing/__init__.py": CLEAN + "import trio\nimport pyjiva.scsi\n__all__ = []\n",
        "tests/block/test_interval_lock.py": CLEAN + "import pyjiva.testing\n",
        "pyproject.toml": PROJECT,
        "src/pyjiva/cli/wiring.py": CLEAN + "".join(f"import pyjiva.{name}\n" for name in IMPORTED),
    }
    for path, text in {**texts, **dict.fromkeys(SIZE_EXCEPTIONS, CLEAN + "A = 1\n" * 500)}.items():
        plant(tmp_path, path.partition("::")[0], text)
    for package in ("cli", "controller"):
        plant(tmp_path, f"src/pyjiva/{package}/__init__.py", CLEAN + "__all__ = []\n")
    return tmp_path


def plant(top: Path, path: str, text: str) -> None:
    """Write one file of a tree."""
    file = top / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_sources_keep_every_rule() -> None:
    assert not check(TOP), "\n" + "\n".join(map(str, check(TOP)))


def test_the_document_draws_the_rows_that_are_checked() -> None:
    assert rows_of((TOP / "docs/ARCHITECTURE.md").read_text()) == ROWS


def test_each_exception_has_its_reason() -> None:
    assert all(len(reason.split()) >= 4 for reason in SIZE_EXCEPTIONS.values())


def test_a_tree_that_keeps_the_rules_has_no_violation(tree: Path) -> None:
    assert check(tree) == []


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found_and_nothing_else(tree: Path, rule: str, path: str, text: str) -> None:
    plant(tree, path, text)
    found = check(tree)
    assert {violation.rule for violation in found} == {rule}
    assert {violation.path for violation in found} <= {path, path.rpartition("/")[0]}


def test_every_kind_of_rule_is_planted() -> None:
    assert {rule for rule, _, _ in PLANTED} == {
        *("colour", "row", "testing", "all", "size", "relative", "docstring", "dropped"),
        *("dead", "dependency", "word"),
    }


def test_an_exception_that_is_not_needed_is_found(tree: Path) -> None:
    name = next(iter(SIZE_EXCEPTIONS))
    (tree / name).write_text(CLEAN)
    assert (name, "size") in {(v.path, v.rule) for v in check(tree)}


def test_a_dependency_that_nothing_imports_is_found(tree: Path) -> None:
    plant(tree, "pyproject.toml", PROJECT.replace('"trio"', '"trio", "left-pad"'))
    assert [(v.path, v.detail) for v in check(tree)] == [("pyproject.toml", "nothing imports left_pad")]


def test_every_dependency_has_its_reason() -> None:
    page = (TOP / "docs/decisions/0002-libraries.md").read_text()
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for name in itertools.chain.from_iterable(groups):
        assert f"`{name}`" in page, name


def test_every_program_of_the_project_has_its_function() -> None:
    scripts = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"]
    for target in scripts.values():
        module, _, function = target.partition(":")
        text = (TOP / "src" / Path(*module.split("."))).with_suffix(".py").read_text()
        assert f"\ndef {function}(" in text


def test_the_tests_mirror_the_packages() -> None:
    for package in (TOP / "src/pyjiva").glob("*/__init__.py"):
        name = package.parent.name
        assert list((TOP / "tests" / name).rglob("test_*.py")), f"no tests in tests/{name}"
