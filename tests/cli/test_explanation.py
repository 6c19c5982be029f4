"""What is said of every state and every cause stands in explanations.txt, to be read by people."""

import pytest

from pyjiva.controller.causes import CAUSES, UNKNOWN
from tests.cli.explanations import CASES, FILE, written


@pytest.mark.parametrize("name", CASES)
def test_it_says_what_the_file_has(name: str) -> None:
    """`python -m tests.cli.explanations` writes the file; read what has changed."""
    section = written(name)
    assert section in FILE.read_text(), section


def test_the_file_has_nothing_else() -> None:
    assert FILE.read_text() == "\n".join(map(written, CASES))


def test_every_cause_is_there() -> None:
    text = FILE.read_text()
    assert [cause.name for cause in (*CAUSES, UNKNOWN) if f"({cause.name})" not in text] == []
