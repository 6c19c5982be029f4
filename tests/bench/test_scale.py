"""`python -m bench.scale`: tiny, and what its tables say."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from bench.driver_sys import Driver
from bench.errors import BenchError
from bench.huge_volume_io import Huge, largest_file, places
from bench.process_sys import Process, family
from bench.report import MARKER, replace_block
from bench.scale import MADE_BY, REAL, SMOKE, Results, Role, Sample, Sessions, markdown, started_volumes
from bench.targets_sys import RunningTarget, volume_when_ready
from pyjiva.units import GIB, MIB, TIB
from tests.bench.waiting import is_gone, wait_for

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/explanation/performance.md"


def sample(volumes: int, replica_mib: float) -> Sample:
    """Volumes whose replicas have so much."""
    roles = {
        name: Role(volumes, round(mib * MIB), round(mib * MIB) + 9 * MIB, round(mib * MIB) + MIB, 0.0042)
        for name, mib in (("controller", 50), ("replica", replica_mib), ("supervisor", 30))
    }
    return Sample(volumes, [1.5, 2.5], roles, [100.0, 140.0], 0.0123)


def table(*replica_mib: float) -> str:
    """As the page has it."""
    huge = Huge(16 * TIB - MIB, "a reason", 3.0, 2.0, {"controller": 45 * MIB}, 3 * MIB)
    samples = [sample(4**number, mib) for number, mib in enumerate(replica_mib)]
    results = Results(samples, huge, [Sessions(32, [10.0, 12.0, 11.0], 0.02)])
    return markdown(results, REAL, at="2026-01-02 03:04 UTC", of="abc123", machine={"kernel": "6.1"})


def test_the_real_run_is_the_promised_one() -> None:
    assert (REAL.counts, REAL.huge_bytes, REAL.sessions) == ((1, 4, 16, 64), 16 * TIB, 32)


def test_the_tables_have_every_number_and_the_verdicts() -> None:
    text = table(39.2, 38.0)
    for part in (
        "| 1 | 1.5 | 2.5 | 240 | 100–140 | 12.3 |",
        "| 4 | 50 / 59 | 38 / 47 | 30 / 39 | 0.42 | 0.42 | 0.42 |",
        "idle controller is 50.0 MiB at most: the goal of 60 is kept",
        "idle replica is 39.2 MiB at most: the goal of 40 is kept",
        "A volume of 16 TiB (a reason): ready after 3.0 s",
        "| 32 | 33 | 10–11 | 20.0 |",
        "abc123",
        "kernel 6.1",
    ):
        assert part in text


def test_a_goal_that_is_missed_is_said() -> None:
    assert "idle replica is 40.1 MiB at most: the goal of 40 is **not kept**" in table(39.0, 40.1)


def test_a_large_volume_is_written_at_both_ends_and_in_the_middle() -> None:
    assert places(16 * TIB - MIB) == [0, 8 * TIB - MIB, 16 * TIB - 2 * MIB]


def test_what_the_file_system_has_in_one_file_is_taken_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def up_to(most: int) -> Callable[[int, int], None]:
        def ftruncate(_: int, size_bytes: int) -> None:
            if size_bytes > most:
                raise OSError(27, "File too large")

        return ftruncate

    monkeypatch.setattr("os.ftruncate", up_to(GIB))
    assert largest_file(tmp_path, GIB) == (GIB, "")
    assert largest_file(tmp_path, GIB + 1) == (
        GIB + 1 - MIB,
        "1 MiB less than asked for: the file system has no larger file",
    )
    with pytest.raises(BenchError, match="no file can have"):
        largest_file(tmp_path, 2 * GIB)


def test_the_page_has_room_for_the_table() -> None:
    assert "new" in replace_block(PAGE.read_text(), "new", MADE_BY)


@pytest.mark.real
def test_all_volumes_end_when_one_does_not_become_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def second_fails(process: Process, directory: Path, timeout_s: float) -> RunningTarget:
        target = volume_when_ready(process, directory, timeout_s)
        begun.extend(family(target.process.pid))
        if directory.name == "001":
            raise BenchError("not ready")
        return target

    monkeypatch.setattr("bench.scale.volume_when_ready", second_fails)
    parameters = attrs.evolve(SMOKE, replicas=1)
    with pytest.raises(BenchError, match="not ready"), started_volumes(tmp_path, 2, parameters):
        pass
    assert len(begun) >= 3  # a supervisor, a controller, a replica
    wait_for(lambda: all(map(is_gone, begun)))


@pytest.mark.real
def test_a_smoke_run_measures_all_of_it(driver: Driver, tmp_path: Path) -> None:
    page, found, work = tmp_path / "page.md", tmp_path / "samples.json", tmp_path / "work"
    page.write_text(f"above\n{MARKER.format(MADE_BY, 'begin')}\n{MARKER.format(MADE_BY, 'end')}\nbelow\n")
    command = [sys.executable, "-m", "bench.scale", "--smoke", "--json", str(found)]
    command += ["--markdown", str(page), "--work-dir", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    (results,) = json.loads(found.read_text())["samples"]
    assert [one["volumes"] for one in results["samples"]] == [1, 2]
    for one in results["samples"]:
        assert len(one["ready_s"]) == len(one["iops"]) == one["volumes"]
        assert set(one["roles"]) == {"controller", "replica", "supervisor"}
        for role in one["roles"].values():
            assert role["processes"] == one["volumes"]
            assert 10 * MIB < role["pss_bytes"] <= role["rss_bytes"] < 100 * MIB
            assert role["idle_share"] < 0.5
    assert [len(one["iops"]) for one in results["sessions"]] == [2, 3]
    assert results["huge"]["taken_bytes"] < 64 * MIB
    assert "A volume of 1 TiB" in page.read_text()
    assert list(work.iterdir()) == []
