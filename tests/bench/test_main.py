"""The whole bench with tiny values."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.driver_sys import Driver, missing_packages
from bench.process_sys import command_line, family
from bench.report import BLOCK_BEGIN, BLOCK_END
from bench.targets_sys import TARGETS
from bench.workload import WORKLOADS
from pyjiva.units import KIB, MIB
from tests.bench.waiting import is_gone, wait_for

ROOT = Path(__file__).parent.parent.parent


def test_the_loads_are_the_ones_that_are_promised() -> None:
    kinds = {(w.block_bytes, w.pattern, w.verb, w.depth) for w in WORKLOADS.values()}
    expected = {(4 * KIB, "random", verb, depth) for verb in ("read", "write") for depth in (1, 32)}
    expected |= {(4 * KIB, "sequential", "write", 32)}
    expected |= {(size, "sequential", verb, 8) for verb in ("read", "write") for size in (128 * KIB, 1 * MIB)}
    assert kinds == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--targets", "tgtd,lio"], "'lio' is none of tgtd, limit, limit-each, local, pyjiva-1, pyjiva-3"),
        (["--rounds", "0"], "--rounds"),
        (["--range", "1Q"], "size '1Q'"),
        (["--profile", "local", "nothing"], "'nothing' is not one of"),
    ],
)
def test_impossible_options_are_refused(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = bench(*arguments, "--work-dir", str(tmp_path))
    assert done.returncode in (1, 2)
    assert reason in done.stderr


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m bench`."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


def needs_all() -> list[str]:
    """The Debian packages that a run over all targets needs and that are missing."""
    return sorted({*missing_packages(), *(p for kind in TARGETS.values() for p in kind.missing_packages())})


@pytest.mark.real
def test_a_smoke_run_measures_every_target_under_every_load(tmp_path: Path) -> None:
    if missing := needs_all():
        pytest.skip(f"Debian package missing: {', '.join(missing)}")
    pytest.importorskip("matplotlib")
    page = tmp_path / "performance.md"
    page.write_text(f"above\n{BLOCK_BEGIN}\n{BLOCK_END}\nbelow\n")
    samples = tmp_path / "samples.json"
    work = tmp_path / "work"
    done = bench(
        "--smoke", "--rounds", "1", "--json", str(samples), "--markdown", str(page), "--work-dir", str(work)
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(samples.read_text())
    pairs = {(cell["target"], cell["workload"]) for cell in result["summary"]}
    assert pairs == {(target, workload) for target in TARGETS for workload in WORKLOADS}
    assert all(cell["rounds"] == 1 and cell["iops"]["least"] > 0 for cell in result["summary"])
    volume = next(cell for cell in result["summary"] if cell["target"] == "pyjiva-3")
    assert volume["process_count"] == {"supervisor": 1, "controller": 1, "replica": 3}
    assert page.read_text().startswith(f"above\n{BLOCK_BEGIN}\n")
    assert page.read_text().endswith(f"{BLOCK_END}\nbelow\n")
    assert "pyjiva, 3 replicas" in page.read_text()
    assert "**Share of the limit**" in page.read_text()
    for name in ("performance-throughput.svg", "performance-latency.svg"):
        assert f"]({name})" in page.read_text()
        assert "the kernel alone" in (tmp_path / name).read_text()
    assert list(work.iterdir()) == []


@pytest.mark.real
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_behind(
    driver: Driver, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    command = [sys.executable, "-m", "bench", "--smoke", "--targets", "local", "--seconds", "60"]
    with subprocess.Popen(
        [*command, "--work-dir", str(tmp_path)], stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        assert "starting and filling" in process.stderr.readline()
        wait_for(lambda: any("iscsi_load" in "".join(command_line(pid)[:1]) for pid in family(process.pid)))
        members = family(process.pid)
        os.kill(process.pid, stop_signal)
        assert process.wait(60) == 130
        assert "everything that it started is stopped" in process.stderr.read()
    assert len(members) == 3
    assert all(is_gone(pid) for pid in members)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_a_page_without_markers_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("no markers\n")
    done = bench("--smoke", "--markdown", str(page), "--work-dir", str(tmp_path / "work"))
    assert done.returncode == 1
    assert "each once" in done.stderr
    assert page.read_text() == "no markers\n"


@pytest.mark.real
def test_a_profile_names_functions_of_the_target(driver: Driver, tmp_path: Path) -> None:
    if shutil.which("py-spy") is None and not (Path(sys.executable).parent / "py-spy").exists():
        pytest.skip("Python package missing: py-spy")
    done = bench(
        "--smoke", "--seconds", "1", "--profile", "local", "rand-read-4k-qd32", "--work-dir", str(tmp_path)
    )
    if "Permission" in done.stderr or "permission" in done.stderr:
        pytest.skip("this user may not trace processes")
    assert done.returncode == 0, done.stderr
    assert "**target**" in done.stdout
    assert "pyjiva/" in done.stdout
