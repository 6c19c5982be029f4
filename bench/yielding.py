"""`python -m bench.yielding`: how much background work delays hosts, and how fast it goes beside them.

A volume of three replicas.  First it is found how much two drivers get done, one of 4 KiB random writes and
one of random reads that are compared; from then on each sends half of that, evenly spaced, and a command's
time counts from the moment at which it was to be sent, so that no standstill is hidden.  In each round that
is done once in quiet, once above a new snapshot, and once beside each kind of background work, which then
goes on alone.  What counts is the 99th percentile beside a rebuild, divided by that in quiet, in the same
round.
"""

import contextlib
import enum
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

import attrs
import click

from bench.command import Output, bench_options, evolved, hash_of, measure_and_publish
from bench.driver_sys import Driver, build_driver
from bench.errors import BenchError
from bench.machine_sys import require_space
from bench.report import format_spread, origin, table
from bench.summary import spread
from bench.volume_sys import REPLICAS, BenchVolume, running_volume
from pyjiva.units import GIB, KIB, MIB, format_size, parse_size

__all__ = ["REAL", "SMOKE", "Latency", "Parameters", "Sample", "Work", "markdown", "run"]

MADE_BY: Final = "make bench-yielding"
GOAL: Final = 3.0
CHUNK_BYTES: Final = 64 * KIB  # what a dirty map tells apart
WRITE_DEPTH: Final = 8
RATED_DEPTH: Final = 128  # outstanding at most while commands are sent by the clock: more than there ever are
WATCH_S: Final = 0.25  # between two looks at how far the work is, also where there is none
END_S: Final = 1800.0  # by then all work has ended, with no host beside it
READERS: Final = 8  # as `backup.store_io.WORKERS`
READ_BYTES: Final = 1 * MIB  # a backup's chunk
SNAPSHOT: Final = "bench-yielding"


class Work(enum.Enum):
    """What goes on in the background."""

    NONE = "nothing"
    SNAPSHOT = "nothing, but a snapshot was just made"
    REBUILD = "a rebuild of one of three replicas"
    SCRUB = "a scrub"
    DELETION = "merging a deleted snapshot"
    BACKUP = "reading a snapshot as a backup does"


WITHOUT_WORK: Final = frozenset({Work.NONE, Work.SNAPSHOT})


@attrs.frozen
class Parameters:
    """What a run depends on, beside the machine and the commit."""

    range_bytes: int
    """What the volume holds; all of it is under load."""
    missed_bytes: int
    """Overwritten, in chunks, while a replica is away, and on a snapshot before it is deleted."""
    seconds: float
    """That the drivers run, and the work alone at most."""
    depth: int
    """Commands outstanding of each driver where it is found how much they get done."""
    rounds: int
    seed: int


REAL: Final = Parameters(2 * GIB, 1 * GIB, seconds=20.0, depth=4, rounds=3, seed=20160901)
SMOKE: Final = Parameters(32 * MIB, 16 * MIB, seconds=0.6, depth=4, rounds=1, seed=20160901)


@attrs.frozen
class Latency:
    """What one driver saw, in seconds."""

    p50_s: float
    p99_s: float
    p999_s: float
    iops: float


@attrs.frozen
class Sample:
    """One kind of work beside the drivers."""

    work: str
    round: int
    write: Latency
    read: Latency
    share: float
    """Of the drivers' time in which it was under way."""
    beside_bytes_per_s: float
    """Of the work, beside the drivers."""
    alone_bytes_per_s: float
    """Afterwards; 0 if it had ended before."""
    asked_iops: float
    """Of both drivers together."""


@attrs.frozen
class Task:
    """Work that is under way."""

    done_bytes: Callable[[], int]
    is_over: Callable[[], bool]


def run(parameters: Parameters, directory: Path, tell: Callable[[str], None]) -> list[Sample]:
    """Measure in the empty `directory`.  Raises BenchError."""
    driver = build_driver()
    require_space(directory, 2 * REPLICAS * parameters.range_bytes)
    samples: list[Sample] = []
    with running_volume(directory, parameters.range_bytes) as volume:
        tell(f"filling {format_size(parameters.range_bytes)}")
        driver.run(volume.url, "--fill", "--seconds", "0", "--seed", str(parameters.seed))
        rates = find_half(volume, driver, parameters)
        tell(f"half load: {rates['write']} writes and {rates['read']} reads per second")
        for round_number in range(parameters.rounds):
            for work in Work:
                sample = measure(volume, driver, work, round_number, rates, parameters)
                samples.append(sample)
                tell(line_of(sample))
        tell("comparing all replicas, byte by byte")
        volume.check_identical()
    return samples


def find_half(volume: BenchVolume, driver: Driver, parameters: Parameters) -> dict[str, int]:
    """Half of what each driver gets done while both run, in commands per second."""
    with contextlib.ExitStack() as stack:
        answers = {
            verb: stack.enter_context(
                driver.running(volume.url, *load_of(verb, parameters), "--depth", str(parameters.depth))
            )
            for verb in ("write", "read")
        }
        return {verb: max(1, int(answer()["iops"] / 2)) for verb, answer in answers.items()}


def load_of(verb: str, parameters: Parameters) -> list[str]:
    """The driver's arguments, but for how many commands."""
    return [
        "--verb", verb,
        "--range", str(parameters.range_bytes),
        "--seed", str(parameters.seed),
        "--seconds", str(parameters.seconds),
    ]  # fmt: skip


def measure(
    volume: BenchVolume,
    driver: Driver,
    work: Work,
    round_number: int,
    rates: Mapping[str, int],
    parameters: Parameters,
) -> Sample:
    """One kind of work, beside the drivers and then alone; afterwards the volume is as before."""
    replica = 1 + round_number % REPLICAS
    with task_of(work, volume, driver, replica, parameters) as task, contextlib.ExitStack() as stack:
        answers = [
            stack.enter_context(
                driver.running(
                    volume.url,
                    *load_of(verb, parameters),
                    "--depth", str(RATED_DEPTH),
                    "--rate", str(rate),
                )
            )
            for verb, rate in rates.items()
        ]  # fmt: skip
        beside_bytes, beside_s = watch(task, parameters.seconds)
        write, read = (seen(answer()) for answer in answers)
        alone_bytes, alone_s = watch(task, parameters.seconds)
        volume.wait("the work has ended", task.is_over, END_S)
    volume.wait("merged", volume.is_merged, END_S)
    return Sample(
        work=work.value,
        round=round_number,
        write=write,
        read=read,
        share=0.0 if work in WITHOUT_WORK else min(1.0, beside_s / parameters.seconds),
        beside_bytes_per_s=beside_bytes / beside_s if beside_s else 0.0,
        alone_bytes_per_s=alone_bytes / alone_s if alone_s else 0.0,
        asked_iops=sum(rates.values()),
    )


def watch(task: Task, seconds: float) -> tuple[int, float]:
    """Look for so long: how much was done, and for how long it was under way.

    Where it is over before, that is known to WATCH_S only.
    """
    began_at, before = time.monotonic(), task.done_bytes()
    over_after_s = 0.0 if task.is_over() else None
    while (passed_s := time.monotonic() - began_at) < seconds:
        if over_after_s is None and task.is_over():
            over_after_s = passed_s
        time.sleep(min(WATCH_S, seconds - passed_s))
    return task.done_bytes() - before, seconds if over_after_s is None else over_after_s


def seen(answer: Mapping[str, Any]) -> Latency:
    """What the driver says, in seconds.  Raises BenchError: it got no answer."""
    if not answer["ops"]:
        raise BenchError("a driver got no answer")
    latency = answer["latency_us"]
    return Latency(latency["p50"] / 1e6, latency["p99"] / 1e6, latency["p99.9"] / 1e6, answer["iops"])


# --- the work


@contextlib.contextmanager
def task_of(
    work: Work, volume: BenchVolume, driver: Driver, replica: int, parameters: Parameters
) -> Iterator[Task]:
    """`work`, begun; made ready before that, and tidied up after the body."""
    match work:
        case Work.NONE:
            yield no_task(volume)
        case Work.SNAPSHOT:
            volume.ask("POST", f"/v1/snapshots/{SNAPSHOT}")
            yield no_task(volume)
            volume.ask("DELETE", f"/v1/snapshots/{SNAPSHOT}")
        case Work.REBUILD:
            yield rebuild(volume, driver, replica, parameters)
        case Work.SCRUB:
            volume.ask("POST", "/v1/scrub")
            yield Task(
                lambda: int(volume.status()["scrub"]["position_bytes"]),
                lambda: not volume.status()["scrub"]["running"],
            )
        case Work.DELETION:
            volume.ask("POST", f"/v1/snapshots/{SNAPSHOT}")
            overwrite(volume, driver, parameters)
            volume.ask("DELETE", f"/v1/snapshots/{SNAPSHOT}")
            yield Task(lambda: volume.counter(replica, "pyjiva_replica_merged_bytes_total"), volume.is_merged)
        case Work.BACKUP:
            volume.ask("POST", f"/v1/snapshots/{SNAPSHOT}")
            with reading(volume, parameters.range_bytes) as task:
                yield task
            volume.ask("DELETE", f"/v1/snapshots/{SNAPSHOT}")
        case _:
            assert_never(work)


def no_task(volume: BenchVolume) -> Task:
    """Nothing, which is looked at as often as the others."""
    return Task(lambda: 0, lambda: bool(volume.status()))


def overwrite(volume: BenchVolume, driver: Driver, parameters: Parameters) -> None:
    """Write chunks, each once, with what they hold already."""
    driver.run(
        volume.url,
        "--verb", "write",
        "--pattern", "shuffled",
        "--block", str(CHUNK_BYTES),
        "--range", str(parameters.range_bytes),
        "--count", str(parameters.missed_bytes // CHUNK_BYTES),
        "--depth", str(WRITE_DEPTH),
        "--seed", str(parameters.seed),
    )  # fmt: skip


def rebuild(volume: BenchVolume, driver: Driver, replica: int, parameters: Parameters) -> Task:
    """`replica` was away and has missed something; it is just being rebuilt."""
    before = volume.replica_status(replica)["rebuilds"]
    volume.kill(replica)
    volume.wait("out", lambda: volume.replica_status(replica)["mode"] == "out", 30)
    overwrite(volume, driver, parameters)
    volume.start_replica(replica)

    def begun() -> bool:
        return bool(volume.replica_status(replica)["rebuilds"]["begun"] > before["begun"])

    volume.wait("being rebuilt", begun, 30)
    return Task(
        lambda: int(volume.replica_status(replica)["rebuilds"]["copied_bytes"]),
        lambda: volume.status()["state"] == "healthy",
    )


@contextlib.contextmanager
def reading(volume: BenchVolume, size_bytes: int) -> Iterator[Task]:
    """Threads that read the snapshot whole, as the workers of a backup do; they end with the body."""
    positions = iter(range(0, size_bytes, READ_BYTES))
    lock, stopping = threading.Lock(), threading.Event()
    read_bytes: list[int] = []
    failures: list[OSError] = []

    def read() -> None:
        while not stopping.is_set():
            with lock:
                offset = next(positions, None)
            if offset is None:
                return
            url = f"http://127.0.0.1:{volume.api_port}/v1/snapshots/{SNAPSHOT}/data"
            try:
                with urllib.request.urlopen(
                    f"{url}?offset={offset}&length={min(READ_BYTES, size_bytes - offset)}", timeout=60
                ) as answer:
                    read_bytes.append(len(answer.read()))
            except OSError as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield Task(lambda: sum(read_bytes), lambda: not any(thread.is_alive() for thread in threads))
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    if failures:
        raise BenchError(f"the snapshot could not be read: {failures[0]}")


# --- what it says


def line_of(sample: Sample) -> str:
    """One sample while it goes on."""
    return (
        f"round {sample.round + 1}  {sample.work}: p99 of writes {sample.write.p99_s * 1e3:.1f} ms, of reads"
        f" {sample.read.p99_s * 1e3:.1f} ms; {sample.beside_bytes_per_s / MIB:.1f} MiB/s beside them for"
        f" {sample.share:.0%} of the time, {sample.alone_bytes_per_s / MIB:.1f} MiB/s alone"
    )


def ratio(sample: Sample, samples: Sequence[Sample], latency: Callable[[Sample], Latency]) -> float:
    """The 99th percentile to that of the same round in quiet."""
    quiet = next(s for s in samples if s.work == Work.NONE.value and s.round == sample.round)
    return latency(sample).p99_s / latency(quiet).p99_s


def markdown(
    samples: Sequence[Sample], parameters: Parameters, *, at: str, of: str, machine: Mapping[str, str]
) -> str:
    """The section for people; `of` is the commit."""
    how = (
        f"{parameters.rounds} round{'s' if parameters.rounds > 1 else ''}, {REPLICAS} replicas, 4 KiB random"
        f" writes and reads over {format_size(parameters.range_bytes)}, half of what they get done with"
        f" {parameters.depth} outstanding of each, {samples[0].asked_iops:.0f} commands per second,"
        f" {parameters.seconds:g} s, {format_size(parameters.missed_bytes)} missed or overwritten,"
        f" seed {parameters.seed}"
    )
    head = ["in the background", "writes: p50 / p99 / p99.9, ms", "reads: p50 / p99 / p99.9, ms"]
    head += ["writes: p99 ÷ quiet", "reads: p99 ÷ quiet", "MiB/s beside hosts", "MiB/s alone", "under way"]
    rows = [head]
    for work in Work:
        rows.append(_row(work.value, [s for s in samples if s.work == work.value], samples))
    rebuilds = [s for s in samples if s.work == Work.REBUILD.value]
    most = max(
        spread(ratio(s, samples, latency) for s in rebuilds).median for latency in (_of_writes, _of_reads)
    )
    verdict = (
        f"The 99th percentile during a rebuild was {most:.2f} times that of a quiet volume: the goal of at"
        f" most {GOAL:g} is {'kept' if most <= GOAL else '**not kept**'}. Median (least–most) of the rounds,"
        " of latencies the median. Under way: for how much of the hosts' time the work lasted. Every byte"
        " that was read was compared, and afterwards the replicas are identical."
    )
    return "\n".join([*origin(at, of, how, hash_of(samples), machine), "", *table(rows), "", verdict]) + "\n"


def _of_writes(sample: Sample) -> Latency:
    return sample.write


def _of_reads(sample: Sample) -> Latency:
    return sample.read


def _row(title: str, of_work: Sequence[Sample], samples: Sequence[Sample]) -> list[str]:
    def cell(value: Callable[[Sample], float], digits: int) -> str:
        return format_spread(spread(map(value, of_work)), lambda number: f"{number:.{digits}f}")

    def latencies(latency: Callable[[Sample], Latency]) -> str:
        seen_by = [latency(s) for s in of_work]
        values = ([s.p50_s for s in seen_by], [s.p99_s for s in seen_by], [s.p999_s for s in seen_by])
        return " / ".join(f"{spread(each).median * 1e3:.1f}" for each in values)

    row = [title, latencies(_of_writes), latencies(_of_reads)]
    if title == Work.NONE.value:
        return [*row, "1", "1", "", "", ""]
    row.append(cell(lambda s: ratio(s, samples, _of_writes), 2))
    row.append(cell(lambda s: ratio(s, samples, _of_reads), 2))
    if title == Work.SNAPSHOT.value:
        return [*row, "", "", ""]
    return [
        *row,
        cell(lambda s: s.beside_bytes_per_s / MIB, 1),
        cell(lambda s: s.alone_bytes_per_s / MIB, 1),
        f"{spread(s.share for s in of_work).median:.0%}",
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--range", "range_text", metavar="SIZE", help="Bytes under load; 2GiB unless --smoke.")
@click.option("--missed", "missed_text", metavar="SIZE", help="By a replica that was away; 1GiB.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Of each run; 20 unless --smoke.")
@click.option("--depth", type=click.IntRange(1), help="Of each driver, to find how much it does; 4.")
@click.option("--rounds", type=click.IntRange(1), help="3 unless --smoke.")
@bench_options
def main(smoke: bool, range_text: str | None, missed_text: str | None, output: Output, **given: Any) -> None:
    """Measure how much background work delays hosts."""
    given["range_bytes"] = None if range_text is None else parse_size(range_text)
    given["missed_bytes"] = None if missed_text is None else parse_size(missed_text)
    parameters = evolved(SMOKE if smoke else REAL, given)
    if not CHUNK_BYTES <= parameters.missed_bytes <= parameters.range_bytes:
        raise BenchError(f"--missed {format_size(parameters.missed_bytes)}: 64KiB to the range")
    measure_and_publish(run, markdown, parameters, output, name="yielding", made_by=MADE_BY, samples_of=list)


if __name__ == "__main__":
    main()
