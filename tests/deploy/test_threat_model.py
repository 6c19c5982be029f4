"""docs/explanation/threat-model.md names tests that are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/threat-model.md"
NAMED = re.findall(r"`(tests/[a-z_0-9/]+\.py)(?:::(\w+))?`", PAGE.read_text())


def test_every_test_that_the_page_names_is_there() -> None:
    missing = []
    for path, name in NAMED:
        file = ROOT / path
        nodes = ast.walk(ast.parse(file.read_text())) if file.exists() else ()
        names = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        if not names or (name and name not in names):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_the_page_names_every_test_in_a_form_that_is_checked() -> None:
    assert len(NAMED) == PAGE.read_text().count("tests/") > 20
