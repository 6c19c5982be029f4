"""`python -m bench.rebuild`: tiny, and what its table says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from bench.driver_sys import Driver
from bench.errors import BenchError
from bench.rebuild import MADE_BY, REAL, SMOKE, Sample, cases, markdown
from bench.report import MARKER, replace_block
from pyjiva.units import GIB, KIB, MIB

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/explanation/performance.md"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command."""
    command = [sys.executable, "-m", "bench.rebuild", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def sample(case: str, round_number: int, *, moved: float, copy_s: float) -> Sample:
    """Of a case that touched 64 MiB of chunks."""
    return Sample(
        case=case,
        round=round_number,
        replica=1,
        written_bytes=64 * MIB,
        chunks_bytes=64 * MIB,
        away_s=60.0,
        copied_bytes=64 * MIB,
        received_bytes=round(64 * MIB * moved),
        copy_s=copy_s,
        back_s=copy_s + 1,
    )


def table(samples: list[Sample]) -> str:
    """As the page has it."""
    return markdown(samples, REAL, at="2026-01-02 03:04 UTC", of="abc123", machine={"kernel": "6.1"})


def test_the_real_cases_are_the_promised_ones() -> None:
    assert (REAL.held_bytes, REAL.absence_s) == (8 * GIB, 60)
    assert [case.chunks_bytes for case in cases(REAL)] == [64 * MIB, 256 * MIB, 1 * GIB, 256 * MIB]
    assert [case.block_bytes for case in cases(REAL)] == [64 * KIB, 64 * KIB, 64 * KIB, 4 * KIB]


@pytest.mark.parametrize(
    "change", [{"missed_bytes": (1 * MIB, 128 * MIB)}, {"missed_bytes": (0,)}, {"scattered": 1025}]
)
def test_more_than_the_volume_holds_cannot_be_missed(change: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="has no room"):
        cases(attrs.evolve(SMOKE, **change))


def test_the_table_has_medians_spreads_and_the_verdict() -> None:
    rounds = [sample("64 in chunks", n, moved=1.01 + n / 100, copy_s=2.0 + n) for n in range(3)]
    text = table([*rounds, sample("scattered", 0, moved=1.0, copy_s=1.0)])
    assert (
        "| 64 in chunks | 64 | 64.0 (64.0–64.0) | 1.020 (1.010–1.030) | 3.00 (2.00–4.00) | 21 (16–32) |"
        in text
    )
    assert "At most 1.030 bytes" in text
    assert "the goal of 1.1 is kept" in text
    for part in ("abc123", "kernel 6.1", "8GiB", "3 rounds", "60 s", "seed 20160901"):
        assert part in text


def test_a_goal_that_is_missed_is_said() -> None:
    assert "the goal of 1.1 is **not kept**" in table([sample("c", 0, moved=1.2, copy_s=1.0)])


def test_the_page_has_room_for_the_table() -> None:
    assert "new" in replace_block(PAGE.read_text(), "new", MADE_BY)


@pytest.mark.real
def test_a_smoke_run_moves_what_was_missed(driver: Driver, tmp_path: Path) -> None:
    page, samples, work = tmp_path / "page.md", tmp_path / "samples.json", tmp_path / "work"
    page.write_text(f"above\n{MARKER.format(MADE_BY, 'begin')}\n{MARKER.format(MADE_BY, 'end')}\nbelow\n")
    arguments = ["--json", str(samples), "--markdown", str(page), "--work-dir", str(work)]
    done = bench("--smoke", "--held", "16MiB", "--missed", "1MiB,2MiB", "--scattered", "8", *arguments)
    assert done.returncode == 0, done.stderr
    found = [Sample(**fields) for fields in json.loads(samples.read_text())["samples"]]
    assert [s.chunks_bytes for s in found] == [1 * MIB, 2 * MIB, 512 * KIB]
    for one in found:
        assert one.copied_bytes == one.chunks_bytes
        assert one.chunks_bytes < one.received_bytes < 1.1 * one.chunks_bytes
        assert 0 < one.copy_s < one.back_s
    assert "1MiB in whole chunks" in page.read_text()
    assert list(work.iterdir()) == []


@pytest.mark.real
def test_a_page_without_markers_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers\n")
    done = bench("--smoke", "--markdown", str(page), "--work-dir", str(tmp_path / "work"))
    assert done.returncode == 1
    assert "each once" in done.stderr
    assert not (tmp_path / "work").exists()
