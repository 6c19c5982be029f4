"""`python -m bench.yielding`: tiny, and what its table says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.driver_sys import Driver
from bench.report import MARKER, replace_block
from bench.yielding import MADE_BY, REAL, Latency, Sample, Task, Work, markdown, seen, watch

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/explanation/performance.md"


def samples(rebuild_p99_s: float) -> list[Sample]:
    """Two rounds of all kinds of work; the second is slower by half, in quiet too."""
    made = []
    for round_number, slower in ((0, 1.0), (1, 1.5)):
        for work in Work:
            p99_s = slower * (rebuild_p99_s if work is Work.REBUILD else 0.004)
            made.append(
                Sample(
                    work.value,
                    round_number,
                    Latency(0.001, p99_s, 0.02, 400.0),
                    Latency(0.001, slower * 0.004, 0.01, 600.0),
                    0.0 if work is Work.NONE else 0.9,
                    5 * 2**20,
                    20 * 2**20,
                    1000.0,
                )
            )
    return made


def table(rebuild_p99_s: float) -> str:
    """As the page has it."""
    return markdown(samples(rebuild_p99_s), REAL, at="2026-01-02 03:04 UTC", of="abc123", machine={})


def test_the_table_has_every_kind_of_work_and_ratios_within_a_round() -> None:
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in table(0.01).splitlines()}
    assert set(rows) >= {work.value for work in Work}
    assert rows[Work.REBUILD.value] == [
        "1.0 / 12.5 / 20.0",
        "1.0 / 5.0 / 10.0",
        "2.50 (2.50–2.50)",
        "1.00 (1.00–1.00)",
        "5.0 (5.0–5.0)",
        "20.0 (20.0–20.0)",
        "90% |",
    ]
    assert [cell.strip(" |") for cell in rows[Work.NONE.value][2:]] == ["1", "1", "", "", ""]
    assert [cell.strip(" |") for cell in rows[Work.SNAPSHOT.value][2:]] == ["1.00 (1.00–1.00)"] * 2 + [""] * 3


@pytest.mark.parametrize(("p99_s", "verdict"), [(0.012, "is kept"), (0.013, "is **not kept**")])
def test_the_verdict_is_about_rebuilds(p99_s: float, verdict: str) -> None:
    assert f"the goal of at most 3 {verdict}" in table(p99_s)


def test_what_a_driver_says_is_taken_over_in_seconds() -> None:
    answer = {"ops": 9, "iops": 5.0, "latency_us": {"p50": 1000.0, "p99": 2000.0, "p99.9": 3000.0}}
    assert seen(answer) == Latency(0.001, 0.002, 0.003, 5.0)


def test_work_that_ends_early_is_not_counted_as_slow() -> None:
    looks = iter(range(100))
    done_bytes, seconds = watch(Task(lambda: 7, lambda: next(looks) >= 1), 0.3)
    assert (done_bytes, seconds < 0.25) == (0, True)
    assert watch(Task(lambda: 7, lambda: False), 0.05) == (0, 0.05)


def test_the_page_has_room_for_the_table() -> None:
    assert "new" in replace_block(PAGE.read_text(), "new", MADE_BY)


@pytest.mark.real
def test_a_smoke_run_does_all_work_beside_hosts(driver: Driver, tmp_path: Path) -> None:
    page, results, work = tmp_path / "page.md", tmp_path / "samples.json", tmp_path / "work"
    page.write_text(f"above\n{MARKER.format(MADE_BY, 'begin')}\n{MARKER.format(MADE_BY, 'end')}\nbelow\n")
    command = [sys.executable, "-m", "bench.yielding", "--smoke", "--json", str(results)]
    command += ["--markdown", str(page), "--work-dir", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = {sample["work"]: sample for sample in json.loads(results.read_text())["samples"]}
    assert set(found) == {work.value for work in Work}
    for kind in (Work.REBUILD, Work.SCRUB, Work.BACKUP):
        sample = found[kind.value]
        assert sample["share"] > 0
        assert sample["beside_bytes_per_s"] + sample["alone_bytes_per_s"] > 0
        assert sample["write"]["iops"] + sample["read"]["iops"] > 0.5 * sample["asked_iops"]
    assert Work.REBUILD.value in page.read_text()
    assert list(work.iterdir()) == []
