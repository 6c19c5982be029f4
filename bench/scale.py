"""`python -m bench.scale`: many volumes on one machine, a very large one, many sessions on one target.

Volumes are what `pyjiva up` starts, all at once.  Of each number of them: how long until each takes I/O, what
each process has in memory and takes of the processor while nobody asks anything, and what they do together
under a small load, one driver that writes and one that reads and compares for each volume.
"""

import contextlib
import json
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs
import click

from bench.command import Output, bench_options, evolved, hash_of, measure_and_publish
from bench.driver_sys import Driver, build_driver
from bench.errors import BenchError
from bench.huge_volume_io import Huge, measure_huge
from bench.machine_sys import require_space
from bench.process_sys import cpu_s, memory_of
from bench.report import origin, table
from bench.targets_sys import RunningTarget, begun_volume, volume_when_ready
from pyjiva.units import GIB, MIB, TIB, format_size, parse_size

__all__ = ["REAL", "SMOKE", "Parameters", "Results", "Role", "Sample", "Sessions", "markdown", "run"]

MADE_BY: Final = "make bench-scale"
MEMORY_NOTE: Final = (
    "Resident memory in MiB of one idle process: PSS, in which a page that N processes share counts an Nth,"
    " and RSS; medians. Processor time while idle, in per cent of a core for one volume."
)
ROLES: Final = ("controller", "replica", "supervisor")
GOALS_BYTES: Final = {"controller": 60 * MIB, "replica": 40 * MIB}  # of an idle volume, each process
READY_TIME_S: Final = 60.0
READY_TIME_EACH_S: Final = 10.0  # more for each volume: every process imports for seconds of a core
SETTLE_S: Final = 1.0  # after ready: what a process does once
LOOK_S: Final = 0.05
SESSIONS_TIME_S: Final = 30.0


@attrs.frozen
class Parameters:
    """What a run depends on, beside the machine and the commit."""

    counts: tuple[int, ...]
    """Of volumes."""
    replicas: int
    """Of each."""
    size_bytes: int
    """Nominal, of each."""
    range_bytes: int
    """Of each under load, from its start."""
    idle_s: float
    """How long nothing is asked."""
    load_s: float
    depth: int
    """Commands outstanding of each driver."""
    huge_bytes: int
    """Nominal, of the very large volume."""
    sessions: int
    """On one target."""
    seed: int


REAL: Final = Parameters(
    (1, 4, 16, 64),
    replicas=1,
    size_bytes=10 * GIB,
    range_bytes=32 * MIB,
    idle_s=20.0,
    load_s=10.0,
    depth=2,
    huge_bytes=16 * TIB,
    sessions=32,
    seed=20160901,
)
SMOKE: Final = Parameters(
    (1, 2),
    replicas=1,
    size_bytes=64 * MIB,
    range_bytes=1 * MIB,
    idle_s=0.5,
    load_s=1.5,  # the sessions must all be there at the same time
    depth=2,
    huge_bytes=1 * TIB,
    sessions=3,
    seed=20160901,
)


@attrs.frozen
class Role:
    """Processes of one kind, of volumes that nobody asks anything."""

    processes: int
    pss_bytes: int
    """Median of the processes, as are the next two."""
    rss_bytes: int
    pss_most_bytes: int
    idle_share: float
    """Of one core, all such processes of one volume together; mean of the volumes."""


@attrs.frozen
class Sample:
    """So many volumes."""

    volumes: int
    ready_s: Sequence[float]
    """From the start of the first until each took I/O, the fastest first."""
    roles: Mapping[str, Role]
    iops: Sequence[float]
    """Of each volume, reads and writes, the slowest first."""
    p99_s: float
    """The longest of the drivers'."""


@attrs.frozen
class Sessions:
    """So many sessions on one target, each with one driver, half of which write."""

    sessions: int
    iops: Sequence[float]
    """Of each, the slowest first."""
    p99_s: float


@attrs.frozen
class Results:
    """All that a run found out."""

    samples: Sequence[Sample]
    huge: Huge
    sessions: Sequence[Sessions]


def run(parameters: Parameters, directory: Path, tell: Callable[[str], None]) -> Results:
    """Measure in the empty `directory`.  Raises BenchError."""
    driver = build_driver()
    most = max(parameters.counts)
    require_space(directory, 2 * most * parameters.replicas * parameters.range_bytes)
    samples, sessions = [], []
    for count in parameters.counts:
        own = directory / f"volumes-{count}"
        own.mkdir()
        samples.append(measure(own, count, driver, parameters))
        tell(line_of(samples[-1]))
    own = directory / "sessions"
    own.mkdir()
    with started_volumes(own, 1, parameters) as (volumes, _):
        fill(driver, volumes, parameters)
        for count in sorted({2, parameters.sessions}):
            sessions.append(measure_sessions(volumes[0], count, driver, parameters))
            tell(f"{count} sessions on one target: {sum(sessions[-1].iops):.0f} commands/s")
    own = directory / "huge"
    own.mkdir()
    huge = measure_huge(own, parameters.huge_bytes, parameters.replicas, parameters.seed)
    tell(
        f"{huge.size_bytes / TIB:.6g} TiB: ready after {huge.ready_s:.2f} s, again after {huge.again_s:.2f} s"
    )
    return Results(samples, huge, sessions)


@contextlib.contextmanager
def started_volumes(
    directory: Path, count: int, parameters: Parameters
) -> Iterator[tuple[list[RunningTarget], list[float]]]:
    """New volumes, all started at once, and when each was ready; all their processes end with the body."""
    places = [directory / f"{number:03}" for number in range(count)]
    timeout_s = READY_TIME_S + READY_TIME_EACH_S * count * parameters.replicas
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        processes = []
        for place in places:
            place.mkdir()
            volume = begun_volume(place, parameters.size_bytes, parameters.replicas)
            processes.append(stack.enter_context(volume))

        def wait(number: int) -> tuple[RunningTarget, float]:
            ready = volume_when_ready(processes[number], places[number], timeout_s)
            return ready, time.monotonic() - began

        threads = ThreadPoolExecutor(count)
        try:
            waited = list(threads.map(wait, range(count)))
        finally:  # interrupted: they end when the processes that they wait for have been ended
            threads.shutdown(wait=False, cancel_futures=True)
        yield [target for target, _ in waited], sorted(seconds for _, seconds in waited)


def measure(directory: Path, count: int, driver: Driver, parameters: Parameters) -> Sample:
    """So many volumes: started, idle, under load."""
    with started_volumes(directory, count, parameters) as (volumes, ready_s):
        time.sleep(SETTLE_S)
        roles = idle_roles(volumes, parameters.idle_s)
        fill(driver, volumes, parameters)
        answers = load(driver, [(v.url, verb) for v in volumes for verb in ("write", "read")], parameters)
    pairs = zip(answers[::2], answers[1::2], strict=True)
    iops = sorted(write["iops"] + read["iops"] for write, read in pairs)
    return Sample(count, ready_s, roles, iops, longest_p99_s(answers))


def idle_roles(volumes: Sequence[RunningTarget], idle_s: float) -> dict[str, Role]:
    """What the processes have and take while nothing is asked of them."""
    pids: dict[str, list[int]] = {}
    for volume in volumes:
        for pid, role in volume.roles().items():
            pids.setdefault(role, []).append(pid)
    before = {role: cpu_s(members) for role, members in pids.items()}
    began = time.monotonic()
    time.sleep(idle_s)
    took_s = time.monotonic() - began
    found = {}
    for role, members in pids.items():
        share = (cpu_s(members) - before[role]) / took_s / len(volumes)
        memory = [memory_of(pid) for pid in members]
        pss = [one.pss_bytes for one in memory]
        rss = statistics.median_low(one.rss_bytes for one in memory)
        found[role] = Role(len(members), statistics.median_low(pss), rss, max(pss), share)
    return found


def place_of(parameters: Parameters) -> list[str]:
    """Where drivers work, and with which data."""
    return ["--range", str(parameters.range_bytes), "--seed", str(parameters.seed)]


def fill(driver: Driver, volumes: Sequence[RunningTarget], parameters: Parameters) -> None:
    """Write what is read later, one volume after the other."""
    for volume in volumes:
        driver.run(volume.url, *place_of(parameters), "--fill", "--seconds", "0")


def load(
    driver: Driver,
    of: Sequence[tuple[str, str]],
    parameters: Parameters,
    amid: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """One driver for each URL and verb, all at once; `amid` is called while they run.

    Raises BenchError: one got no answer, or one that is wrong.
    """
    options = ["--pattern", "random", "--depth", str(parameters.depth), "--seconds", str(parameters.load_s)]
    with contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(driver.running(url, "--verb", verb, *place_of(parameters), *options))
            for url, verb in of
        ]
        amid()
        answers = [answer() for answer in running]
    if not all(answer["ops"] for answer in answers):
        raise BenchError("a driver got no answer")
    return answers


def longest_p99_s(answers: Sequence[Mapping[str, Any]]) -> float:
    """Of all drivers."""
    return max(float(answer["latency_us"]["p99"]) for answer in answers) / 1e6


def measure_sessions(volume: RunningTarget, count: int, driver: Driver, parameters: Parameters) -> Sessions:
    """So many sessions on one target.  Raises BenchError: they were not there at the same time."""

    def wait_for_all() -> None:
        deadline = time.monotonic() + SESSIONS_TIME_S
        while (seen := sessions_of(volume)) < count:
            if time.monotonic() > deadline:
                raise BenchError(f"{seen} of {count} sessions were there at the same time")
            time.sleep(LOOK_S)

    of = [(volume.url, "read" if number % 2 else "write") for number in range(count)]
    answers = load(driver, of, parameters, wait_for_all)
    return Sessions(count, sorted(float(answer["iops"]) for answer in answers), longest_p99_s(answers))


def sessions_of(volume: RunningTarget) -> int:
    """How many it has now.  Raises BenchError: it does not say."""
    try:
        with urllib.request.urlopen(f"{volume.api}/v1/volume", timeout=READY_TIME_S) as answer:
            return len(json.loads(answer.read())["sessions"])
    except OSError as error:
        raise BenchError(f"{volume.api}: {error}") from error


def line_of(sample: Sample) -> str:
    """One sample while it goes on."""
    memory = ", ".join(f"{name} {_mib(role.pss_bytes)} MiB" for name, role in sample.roles.items())
    return (
        f"{sample.volumes} volumes: ready after {sample.ready_s[0]:.1f} to {sample.ready_s[-1]:.1f} s;"
        f" {memory}; {sum(sample.iops):.0f} commands/s together"
    )


def markdown(
    results: Results, parameters: Parameters, *, at: str, of: str, machine: Mapping[str, str]
) -> str:
    """The section for people; `of` is the commit."""
    copies = f"{parameters.replicas} replica{'s' if parameters.replicas > 1 else ''}"
    how = (
        f"volumes of {format_size(parameters.size_bytes)} with {copies} each, idle for"
        f" {parameters.idle_s:g} s; then for {parameters.load_s:g} s 4 KiB random writes and reads over"
        f" {format_size(parameters.range_bytes)} of each, {parameters.depth} outstanding of each kind,"
        f" seed {parameters.seed}"
    )
    parts = [
        *origin(at, of, how, hash_of([results]), machine),
        "",
        *table(_ready_rows(results.samples)),
        "",
        MEMORY_NOTE,
        "",
        *table(_idle_rows(results.samples)),
        "",
        *map(_verdict, GOALS_BYTES, [results.samples] * len(GOALS_BYTES)),
        "",
        _huge_text(results.huge),
        "",
        *table(_session_rows(results.sessions)),
        "",
        "Every command of every session was answered, and every byte that was read was compared.",
    ]
    return "\n".join(parts) + "\n"


def _ready_rows(samples: Sequence[Sample]) -> list[list[str]]:
    head = ["volumes, started at once", "first ready, s", "last ready, s", "commands/s together"]
    rows = [[*head, "slowest–fastest volume", "longest p99, ms"]]
    for sample in samples:
        rows.append(
            [
                str(sample.volumes),
                f"{sample.ready_s[0]:.1f}",
                f"{sample.ready_s[-1]:.1f}",
                f"{sum(sample.iops):.0f}",
                f"{sample.iops[0]:.0f}–{sample.iops[-1]:.0f}",
                f"{sample.p99_s * 1e3:.1f}",
            ]
        )
    return rows


def _idle_rows(samples: Sequence[Sample]) -> list[list[str]]:
    rows = [["volumes", *(f"{role}: PSS / RSS" for role in ROLES), *(f"{role}: idle, %" for role in ROLES)]]
    for sample in samples:
        roles = [sample.roles[name] for name in ROLES]
        memory = [f"{_mib(role.pss_bytes)} / {_mib(role.rss_bytes)}" for role in roles]
        rows.append([str(sample.volumes), *memory, *(f"{role.idle_share:.2%}".rstrip("%") for role in roles)])
    return rows


def _verdict(name: str, samples: Sequence[Sample]) -> str:
    """Judged by the PSS, of the number of volumes at which it is largest."""
    most = max(sample.roles[name].pss_bytes for sample in samples)
    goal = GOALS_BYTES[name]
    kept = "kept" if most <= goal else "**not kept**"
    return f"The PSS of an idle {name} is {most / MIB:.1f} MiB at most: the goal of {_mib(goal)} is {kept}."


def _huge_text(huge: Huge) -> str:
    less = f" ({huge.note})" if huge.note else ""
    memory = ", ".join(f"{name} {_mib(pss)}" for name, pss in huge.pss_bytes.items())
    return (
        f"A volume of {huge.size_bytes / TIB:.6g} TiB{less}: ready after {huge.ready_s:.1f} s; written at"
        f" both ends and in the middle, closed, ready again after {huge.again_s:.1f} s, and read back as it"
        f" was written. PSS then, in MiB: {memory}. It takes {_mib(huge.taken_bytes)} MiB of the disk."
    )


def _session_rows(samples: Sequence[Sessions]) -> list[list[str]]:
    rows = [["sessions on one target", "commands/s together", "slowest–fastest session", "longest p99, ms"]]
    for sample in samples:
        span = f"{sample.iops[0]:.0f}–{sample.iops[-1]:.0f}"
        rows.append([str(sample.sessions), f"{sum(sample.iops):.0f}", span, f"{sample.p99_s * 1e3:.1f}"])
    return rows


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f}"


class _Counts(click.ParamType[tuple[int, ...]]):
    name = "n,n…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        numbers = str(value).split(",")
        if not all(number.isascii() and number.isdigit() and int(number) for number in numbers):
            self.fail(f"{value!r}: write numbers from 1, with commas between", param, ctx)
        return tuple(map(int, numbers))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--volumes", "counts", type=_Counts(), help="Numbers of volumes; 1,4,16,64 unless --smoke.")
@click.option("--replicas", type=click.IntRange(1, 7), help="Of each volume; 1.")
@click.option(
    "--range", "range_text", metavar="SIZE", help="Of each volume under load; 32MiB unless --smoke."
)
@click.option("--idle", "idle_s", type=click.FloatRange(0.1), help="Seconds; 20 unless --smoke.")
@click.option("--seconds", "load_s", type=click.FloatRange(0.1), help="Of load; 10 unless --smoke.")
@click.option("--sessions", type=click.IntRange(2, 64), help="On one target; 32 unless --smoke.")
@click.option("--huge", "huge_text", metavar="SIZE", help="Of the large volume; 16TiB unless --smoke.")
@bench_options
def main(smoke: bool, range_text: str | None, huge_text: str | None, output: Output, **given: Any) -> None:
    """Measure many volumes on one machine, one that is very large, and many sessions on one target."""
    given["range_bytes"] = None if range_text is None else parse_size(range_text)
    given["huge_bytes"] = None if huge_text is None else parse_size(huge_text)
    parameters = evolved(SMOKE if smoke else REAL, given)
    measure_and_publish(
        run, markdown, parameters, output, name="scale", made_by=MADE_BY, samples_of=lambda results: [results]
    )


if __name__ == "__main__":
    main()
