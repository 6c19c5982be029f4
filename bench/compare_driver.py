"""Is the driver what is measured?  iscsi_load and libiscsi's own iscsi-perf in turn, against tgtd."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

import attrs

from bench.driver_sys import build_driver
from bench.errors import BenchError
from bench.machine_sys import warm_page_cache
from bench.run import Say, started
from bench.summary import Spread, spread
from bench.targets_sys import BASELINE, TARGETS
from bench.workload import WORKLOADS, Parameters

__all__ = ["compare_driver"]

PROGRAM: Final = "iscsi-perf"
COMPARED: Final = ("rand-read-4k-qd1", "rand-read-4k-qd32")
LOGICAL_BLOCK_BYTES: Final = 512
AVERAGE: Final = re.compile(r"iops average (\d+)")


@attrs.frozen
class Load:
    """What one of the two reached."""

    iops: float
    cpu_us_per_io: float


def compare_driver(parameters: Parameters, directory: Path, say: Say) -> str:
    """A table.  Raises BenchError."""
    if shutil.which(PROGRAM) is None:
        raise BenchError(f"{PROGRAM} is missing: install libiscsi-bin")
    driver = build_driver()
    rows = [
        "| | iscsi_load IOPS | iscsi-perf IOPS | iscsi_load µs CPU | iscsi-perf µs CPU |",
        "| --- |" + " ---: |" * 4,
    ]
    with started(TARGETS[BASELINE], parameters, directory, driver, say) as target:
        for name in COMPARED:
            workload = WORKLOADS[name]
            ours, theirs = [], []
            for _ in range(parameters.rounds):
                warm_page_cache(target.data)
                answer = driver.load(target.url, workload, parameters, [])
                cpu_s = answer["driver"]["user_s"] + answer["driver"]["system_s"]
                ours.append(Load(answer["iops"], cpu_s * 1e6 / answer["ops"]))
                blocks = workload.block_bytes // LOGICAL_BLOCK_BYTES
                theirs.append(
                    _iscsi_perf(target.url, workload.depth, blocks, max(1, round(parameters.seconds)))
                )
            columns = [[load.iops for load in ours], [load.iops for load in theirs]]
            columns += [[load.cpu_us_per_io for load in ours], [load.cpu_us_per_io for load in theirs]]
            rows.append(
                f"| {workload.title} | " + " | ".join(_format(spread(column)) for column in columns) + " |"
            )
    return "\n".join(rows)


def _iscsi_perf(url: str, depth: int, blocks: int, seconds: int) -> Load:
    command = [PROGRAM, "-r", "-m", str(depth), "-b", str(blocks), "-t", str(seconds), url]
    began = os.times()
    began_at = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed_s = time.monotonic() - began_at
    ended = os.times()
    averages = AVERAGE.findall(done.stdout)
    if done.returncode != 0 or not averages:
        raise BenchError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    iops = float(averages[-1])
    cpu_s = ended.children_user + ended.children_system - began.children_user - began.children_system
    return Load(iops, cpu_s * 1e6 / (iops * elapsed_s))


def _format(value: Spread) -> str:
    return f"{value.median:.0f} ({value.least:.0f}–{value.most:.0f})"
