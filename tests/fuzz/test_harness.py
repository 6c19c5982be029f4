"""The fuzzers' targets in the fast suite: a few hundred inputs each, and what fuzzing has found before."""

import sys
from pathlib import Path
from types import CodeType, FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyjiva.scsi import extended_copy, mode, persistent_reserve, provisioning, sanitize, transport_id
from pyjiva.scsi.command_table import COMMANDS
from tests.fuzz.harness import TARGETS

CORPUS = Path(__file__).parent / "corpus"
PARSERS = (
    extended_copy.parse_parameter_list,
    mode.parse_mode_select,
    persistent_reserve.parse_event,
    provisioning.unmap,
    sanitize.overwrite,
    transport_id.decode_transport_ids,
)


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


def test_the_corpus_reaches_every_command_and_every_parser_of_a_parameter_list() -> None:
    """A harness or a table that changes can leave what fuzzing starts from at the first check."""
    called: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for file in (CORPUS / "device-server").iterdir():
            TARGETS["device-server"](file.read_bytes())
    finally:
        sys.setprofile(before)
    handlers = {command.name: getattr(command.handler, "__code__", None) for command in COMMANDS}
    assert [name for name, code in handlers.items() if code not in called] == []
    assert [parser.__name__ for parser in PARSERS if parser.__code__ not in called] == []
