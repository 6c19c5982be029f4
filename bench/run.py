"""The rounds: every target gets every load, in turn, and nothing else runs meanwhile."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from bench.command import finished_at, hash_of
from bench.driver_sys import Driver, build_driver
from bench.errors import BenchError
from bench.machine_sys import Processors, commit, describe_machine, require_space, warm_page_cache
from bench.process_sys import cpu_s
from bench.report import Heading
from bench.summary import Cell, Sample, summarize
from bench.targets_sys import BASELINE, LIMITS, RunningTarget, TargetKind
from bench.workload import Parameters, Workload

__all__ = ["Result", "measure", "quietest", "run_bench", "started"]

STOLEN_SHARE_MAX: Final = 0.05
RUNS_MAX: Final = 4

Say = Callable[[str], None]


@attrs.frozen
class Result:
    """Everything that a run of the bench found out."""

    heading: Heading
    cells: list[Cell]
    samples: list[Sample]

    def as_json(self) -> str:
        """For programs."""
        document = {
            **attrs.asdict(self.heading),
            "baseline": BASELINE,
            "limits": list(LIMITS),
            "summary": [attrs.asdict(cell) for cell in self.cells],
            "samples": [attrs.asdict(sample) for sample in self.samples],
        }
        return json.dumps(document, indent=1) + "\n"


def run_bench(
    kinds: Sequence[TargetKind],
    workloads: Sequence[Workload],
    parameters: Parameters,
    directory: Path,
    say: Say,
) -> Result:
    """Measure `kinds` under `workloads` in the empty `directory`.  Raises BenchError."""
    driver = build_driver()
    samples: list[Sample] = []
    with contextlib.ExitStack() as stack:
        targets = {
            kind.name: stack.enter_context(started(kind, parameters, directory, driver, say))
            for kind in kinds
        }
        for round_number in range(parameters.rounds):
            for place, workload in enumerate(workloads):
                # Another target goes first each time: the first may pay for what the last left behind.
                first = (round_number + place) % len(kinds)
                for kind in [*kinds[first:], *kinds[:first]]:
                    run = partial(measure, driver, targets, kind.name, workload, parameters, round_number)
                    sample = quietest(run)
                    samples.append(sample)
                    say(_line(sample))
    return Result(_heading(samples, parameters, directory), summarize(samples, BASELINE, LIMITS), samples)


@contextlib.contextmanager
def started(
    kind: TargetKind, parameters: Parameters, directory: Path, driver: Driver, say: Say
) -> Iterator[RunningTarget]:
    """A target of this kind with its range filled."""
    if missing := kind.missing_packages():
        raise BenchError(f"{kind.title}: install {' and '.join(missing)}")
    own = directory / kind.name
    own.mkdir(parents=True)
    require_space(own, kind.copies * parameters.range_bytes)
    say(f"starting and filling: {kind.title}")
    with kind.start(own, parameters.range_bytes) as target:
        driver.fill(target.url, parameters)
        yield target


def measure(
    driver: Driver,
    targets: dict[str, RunningTarget],
    name: str,
    workload: Workload,
    parameters: Parameters,
    round_number: int,
) -> Sample:
    """One run on one target; the others should be idle, and it is noted whether they are."""
    target = targets[name]
    if parameters.settle:
        os.sync()
    warm_page_cache(target.data)
    roles = target.roles()
    idle = [pid for other in targets if other != name for pid in targets[other].roles()]
    began_at, idle_began_s, before = time.monotonic(), cpu_s(idle), Processors.now()
    answer = driver.load(target.url, workload, parameters, list(roles))
    idle_cpu_share = max(0.0, cpu_s(idle) - idle_began_s) / (time.monotonic() - began_at)
    stolen_share = Processors.now().stolen_share(before)
    return sample_of(answer, roles, name, workload.name, round_number, idle_cpu_share, stolen_share)


def quietest(run: Callable[[], Sample]) -> Sample:
    """What `run` measured while the machine's own host left it the processors.

    A run that loses more than STOLEN_SHARE_MAX of them says little of the target: it is done again, up to
    RUNS_MAX times in all, and the one counts that lost least.
    """
    best = run()
    for _ in range(RUNS_MAX - 1):
        if best.stolen_share <= STOLEN_SHARE_MAX:
            break
        best = min(best, run(), key=lambda sample: sample.stolen_share)
    return best


def sample_of(
    answer: dict[str, Any],
    roles: dict[int, str],
    target: str,
    workload: str,
    round_number: int,
    idle_cpu_share: float,
    stolen_share: float,
) -> Sample:
    """What the driver said, with processes as roles.  Raises BenchError: it measured nothing."""
    ops, seconds = answer["ops"], answer["seconds"]
    if not ops or not seconds:
        raise BenchError(f"{target} answered nothing under {workload}")
    cpu: dict[str, float] = {}
    rss: dict[str, int] = {}
    count: dict[str, int] = {}
    for pid, role in roles.items():
        watched = answer["watched"][str(pid)]
        cpu[role] = cpu.get(role, 0.0) + (watched["user_s"] + watched["system_s"]) * 1e6 / ops
        rss[role] = rss.get(role, 0) + watched["rss_bytes"]
        count[role] = count.get(role, 0) + 1
    driver_s = answer["driver"]["user_s"] + answer["driver"]["system_s"]
    cpu["driver"] = driver_s * 1e6 / ops
    return Sample(
        target=target,
        workload=workload,
        round=round_number,
        ops=ops,
        seconds=seconds,
        iops=answer["iops"],
        mb_s=answer["mb_s"],
        latency_us=answer["latency_us"],
        cpu_us_per_io=cpu,
        rss_bytes=rss,
        process_count=count,
        driver_cpu_share=driver_s / seconds,
        idle_cpu_share=idle_cpu_share,
        stolen_share=stolen_share,
    )


def _line(sample: Sample) -> str:
    return (
        f"round {sample.round + 1}  {sample.workload:18} {sample.target:9} {sample.iops:9.0f} IOPS"
        f" {sample.mb_s:8.1f} MB/s  p99 {sample.latency_us['p99']:8.0f} µs"
    )


def _heading(samples: list[Sample], parameters: Parameters, directory: Path) -> Heading:
    return Heading(
        machine=describe_machine(directory),
        commit=commit(),
        finished_at=finished_at(),
        parameters=parameters,
        result_hash=hash_of(samples),
    )
