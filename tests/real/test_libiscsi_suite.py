"""libiscsi's suite comes out as docs/reference/libiscsi.md says."""

from pathlib import Path

import pytest

from tests.real.libiscsi_suite import PROGRAM, WRONG_TESTS, documented, open_suite
from tests.real.volume_process import needs

pytestmark = pytest.mark.real


@needs((PROGRAM, "libiscsi-bin"))
def test_every_test_has_the_result_of_the_table(tmp_path: Path) -> None:
    expected = documented()
    with open_suite(tmp_path) as suite:
        found = {outcome.name: outcome for outcome in suite.run_all()}
    assert set(found) == set(expected)
    others = [found[name] for name in sorted(found) if found[name].result != expected[name].result]
    assert not others, f"`make suite` writes the table anew: {others}"


def test_nothing_fails_but_what_is_wrong_in_the_suite() -> None:
    failed = {name for name, outcome in documented().items() if outcome.result == "fail"}
    assert failed == set(WRONG_TESTS)
