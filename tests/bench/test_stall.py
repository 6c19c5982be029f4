"""`python -m bench.stall`: tiny, and what its table says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.driver_sys import Driver
from bench.report import MARKER, replace_block
from bench.stall import MADE_BY, REAL, Failure, Load, Sample, losses, markdown, seen

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/explanation/performance.md"


def samples(stopped_s: float) -> list[Sample]:
    """Two rounds of all failures; a stopped replica is felt for so long."""
    made = []
    for round_number in (0, 1):
        for failure in Failure:
            gap_s = stopped_s + round_number / 10 if failure is Failure.STOPPED else 0.01
            made.append(
                Sample(
                    failure.value,
                    round_number,
                    1,
                    Load(gap_s, 0.002, gap_s, 1000.0),
                    Load(gap_s / 2, 0.001, gap_s, 500.0),
                    failure in (Failure.KILLED, Failure.STOPPED),
                    1000,
                )
            )
    return made


def table(stopped_s: float) -> str:
    """As the page has it."""
    return markdown(samples(stopped_s), REAL, at="2026-01-02 03:04 UTC", of="abc123", machine={})


def test_the_table_has_every_failure_and_the_verdict() -> None:
    text = table(4.1)
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in text.splitlines()}
    stopped = rows[Failure.STOPPED.value]
    assert stopped[:4] == ["4.150 (4.100–4.200)", "2.075 (2.050–2.100)", "2.0 (2.0–2.0)", "1.0 (1.0–1.0)"]
    assert set(rows) >= {failure.value for failure in Failure}
    assert "when one of three died was 4.20 s: the goal of at most 5 s is kept" in text


def test_a_goal_that_is_missed_is_said() -> None:
    assert "was 5.10 s: the goal of at most 5 s is **not kept**" in table(5.0)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"number": 8, "kind": "replica", "replica": 2, "text": "in-sync → out: no answer"}, {2}),
        ({"number": 7, "kind": "replica", "replica": 2, "text": "in-sync → out: no answer"}, set()),
        ({"number": 8, "kind": "replica", "replica": 2, "text": "out → rebuilding"}, set()),
        ({"number": 8, "kind": "rebuild", "replica": 2, "text": "in-sync → out"}, set()),
    ],
)
def test_who_was_lost_is_read_off_the_events(event: dict[str, Any], expected: set[int]) -> None:
    assert losses([event], after=7) == expected


def test_what_a_driver_says_is_taken_over_in_seconds() -> None:
    answer = {"ops": 9, "gap_max_us": 2e6, "latency_us": {"p99.9": 3000.0, "max": 4e6}, "iops": 5.0}
    assert seen(answer) == Load(2.0, 0.003, 4.0, 5.0)


def test_the_page_has_room_for_the_table() -> None:
    assert "new" in replace_block(PAGE.read_text(), "new", MADE_BY)


@pytest.mark.real
def test_a_smoke_run_feels_each_failure_and_goes_on(driver: Driver, tmp_path: Path) -> None:
    """A stopped replica is felt for as long as a member may be silent, and no longer than the goal allows."""
    page, results, work = tmp_path / "page.md", tmp_path / "samples.json", tmp_path / "work"
    page.write_text(f"above\n{MARKER.format(MADE_BY, 'begin')}\n{MARKER.format(MADE_BY, 'end')}\nbelow\n")
    command = [sys.executable, "-m", "bench.stall", "--smoke", "--json", str(results)]
    command += ["--markdown", str(page), "--work-dir", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = {sample["failure"]: sample for sample in json.loads(results.read_text())["samples"]}
    assert set(found) == {failure.value for failure in Failure}
    assert found[Failure.STOPPED.value]["write"]["gap_s"] > 2 * found[Failure.SLOW.value]["write"]["gap_s"]
    assert found[Failure.SLOW.value]["write"]["gap_s"] > 0.09
    assert {name for name, sample in found.items() if sample["lost"]} == {
        Failure.KILLED.value,
        Failure.STOPPED.value,
    }
    assert Failure.SLOW.value in page.read_text()
    assert list(work.iterdir()) == []
