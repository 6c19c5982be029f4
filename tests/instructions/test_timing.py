"""Timing plays each workload, and says what it cannot."""

import pytest

from tests.instructions import timing
from tests.instructions.workloads import WORKLOADS


def test_each_workload_of_commands_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TIMES", 1)
    lines = timing.table(WORKLOADS).splitlines()
    assert [line.split()[0] for line in lines] == [each.name for each in WORKLOADS if each.commands > 1]
    assert all(line.endswith(" µs") or "cannot" in line for line in lines)
