"""What the workloads take in time: to compare two builds of the same sources on one machine, in turn."""

import tempfile
import time
from pathlib import Path
from typing import Final

from tests.instructions.workloads import COUNTED_ROUNDS, WARM_ROUNDS, UnfitError, Workload

__all__ = ["table"]

TIMES: Final = 200  # the least of them counts: what else the machine does only adds


def _cpu_us(workload: Workload) -> float:
    """The least processor time of one command, in microseconds.  Raises UnfitError."""
    least = float("inf")
    for _ in range(TIMES):
        with tempfile.TemporaryDirectory() as directory, workload.prepare(Path(directory)) as play:
            for _ in range(WARM_ROUNDS):
                play()
            began = time.process_time()
            for _ in range(COUNTED_ROUNDS):
                play()
            least = min(least, time.process_time() - began)
    return least / COUNTED_ROUNDS / workload.commands * 1e6


def table(workloads: tuple[Workload, ...]) -> str:
    """A line for each that is about commands."""
    lines = []
    for workload in workloads:
        if workload.commands == 1:
            continue
        try:
            lines.append(f"{workload.name:26}{_cpu_us(workload):8.2f} µs")
        except UnfitError as error:
            lines.append(f"{workload.name:26} {error}")
    return "\n".join(lines)
