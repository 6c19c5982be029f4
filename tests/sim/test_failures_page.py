"""The table of failures in docs/reference/failures.md names tests and causes that are there."""

import ast
import re
from pathlib import Path

import pytest

from pyjiva.controller.causes import CAUSES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/failures.md"
HEAD = "| what fails | what follows | cause that is shown | host I/O stalls for | test |"


def rows() -> list[list[str]]:
    """The cells of each failure."""
    _, _, rest = PAGE.read_text().partition(f"{HEAD}\n|---|---|---|---|---|\n")
    table, _, _ = rest.partition("\n\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


ROWS = rows()


def functions_of(path: Path) -> set[str]:
    """Every function in a file, also those of classes."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_each_failure_has_an_outcome_and_tests_that_are_there(row: list[str]) -> None:
    what, follows, causes, _, tests = row
    assert what
    assert follows
    assert set(re.findall("`([a-z-]+)`", causes)) <= {cause.name for cause in CAUSES}
    named = re.findall(r"`(tests/[a-z_/]+\.py)::(test_\w+)`", tests)
    assert len(named) == tests.count("`") / 2 >= 1
    for path, test in named:
        assert test in functions_of(ROOT / path), f"{path} has no {test}"


def test_every_played_failure_is_in_the_table() -> None:
    played = {name for name in functions_of(ROOT / "tests/sim/test_failures.py") if name.startswith("test_")}
    named = set(re.findall(r"tests/sim/test_failures\.py::(test_\w+)`", PAGE.read_text()))
    assert named == played


@pytest.mark.parametrize(
    "kind",
    [
        *("process of a replica", "reboots", "stuck", "slow", "network", "one way", "partition"),
        *("its disk is full", "all replicas are full", "fails to write", "bit rot", "another volume"),
        *("older time", "blank", "two controllers", "clock", "stands still", "operator"),
    ],
)
def test_no_kind_of_failure_is_forgotten(kind: str) -> None:
    assert any(kind in row[0] for row in ROWS)
