"""docs/reference/iscsi.md names every key of the table, and only tests that exist."""

import re
from pathlib import Path

from pyjiva.iscsi.parameters import KEYS

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/reference/iscsi.md").read_text()


def test_every_key_is_in_the_table() -> None:
    _, _, rest = PAGE.partition("\n## Keys\n")
    rows = [line.split("|")[1] for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    shown = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    assert shown - {"X-…", "X#…"} == set(KEYS)


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = [path.read_text() for path in (TOP / "tests/iscsi").glob("test_*.py")]
    there = {
        name for text in sources for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)
    }
    assert len(named) > 50
    assert named <= there, named - there
