"""Where the time goes: py-spy beside a load, and which functions its samples ended in."""

import collections
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import attrs

from bench.driver_sys import build_driver
from bench.errors import BenchError
from bench.machine_sys import warm_page_cache
from bench.run import Say, started
from bench.targets_sys import TargetKind
from bench.workload import Parameters, Workload

__all__ = ["Profile", "markdown", "profile_target", "self_times"]

SAMPLES_PER_S: Final = 200
FUNCTIONS_SHOWN: Final = 15
IDLE_THREAD: Final = "WorkerThread._work "
BUSY_THREAD: Final = "WorkerThread._handle_job "
NOT_PROFILED: Final = frozenset({"tgtd", "limit", "supervisor"})  # C, or idle


@attrs.frozen
class Profile:
    """The samples of all processes of one role."""

    role: str
    samples: int
    functions: list[tuple[str, float]]
    """Share of the samples that ended in each function, largest first."""


def profile_target(
    kind: TargetKind, workload: Workload, parameters: Parameters, directory: Path, *, native: bool, say: Say
) -> list[Profile]:
    """Sample every Python process of a target while it is under load.  Raises BenchError."""
    driver = build_driver()
    with started(kind, parameters, directory, driver, say) as target:
        warm_page_cache(target.data)
        roles = {pid: role for pid, role in target.roles().items() if role not in NOT_PROFILED}
        if not roles:
            raise BenchError(f"{kind.title}: has no process in Python")
        outputs = {pid: directory / f"{role}-{pid}.stacks" for pid, role in roles.items()}
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(driver.load, target.url, workload, parameters, [])
            said = _sample(outputs, max(1, int(parameters.seconds)), native=native)
            loading.result()
        lines: dict[str, list[str]] = {}
        for pid, output in outputs.items():
            if not output.exists():
                raise BenchError(f"py-spy could not sample {roles[pid]}: {said[pid].strip()}")
            lines.setdefault(roles[pid], []).extend(output.read_text().splitlines())
    return [self_times(role, lines[role]) for role in sorted(lines)]


def _sample(outputs: Mapping[int, Path], seconds: int, *, native: bool) -> dict[int, str]:
    """Sample processes into files, all at once; what py-spy said about each."""
    options = ["--duration", str(seconds), "--rate", str(SAMPLES_PER_S), "--format", "raw", "--function"]
    if native:
        options.append("--native")
    samplers: dict[int, subprocess.Popen[str]] = {}
    try:
        for pid, output in outputs.items():
            samplers[pid] = subprocess.Popen(
                [_py_spy(), "record", "--pid", str(pid), "--output", str(output), *options],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return {pid: sampler.communicate()[0] for pid, sampler in samplers.items()}
    finally:
        for sampler in samplers.values():
            sampler.kill()
            sampler.wait()


def _py_spy() -> str:
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchError("py-spy is missing: pip install 'pyjiva[bench]'")
    return found


def self_times(role: str, lines: Iterable[str]) -> Profile:
    """Functions by how many samples ended in them, from folded stacks (`outer;inner 42`).

    py-spy takes a thread of trio's pool that waits for work for a busy one: such stacks are left out.
    """
    counts: collections.Counter[str] = collections.Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if stack and not (IDLE_THREAD in stack and BUSY_THREAD not in stack):
            counts[stack.rpartition(";")[2]] += int(count)
    total = counts.total()
    return Profile(
        role, total, [(name, count / total) for name, count in counts.most_common(FUNCTIONS_SHOWN)]
    )


def markdown(profiles: Iterable[Profile]) -> str:
    """A table for each role."""
    lines = []
    for profile in profiles:
        lines += [
            f"**{profile.role}** ({profile.samples} samples)",
            "",
            "| self | function |",
            "| ---: | --- |",
        ]
        lines += [f"| {100 * share:.1f} % | `{name}` |" for name, share in profile.functions]
        lines.append("")
    return "\n".join(lines)
