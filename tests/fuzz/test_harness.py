"""The fuzzers' targets in the fast suite: a few hundred inputs each, and what fuzzing has found before."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=600))
def test_any_input_gives_an_answer_or_an_error_of_the_protocol(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_that_were_kept_give_no_other_answer(target: str) -> None:
    """The corpus: each file reached code that the others do not, or once found a bug."""
    files = sorted((CORPUS / target).iterdir())
    assert files
    for file in files:
        TARGETS[target](file.read_bytes())
