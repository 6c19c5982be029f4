"""`python -m bench.rebuild`: what it costs to bring a replica back that was away.

A volume holds data that cannot be compressed.  One replica is killed; while it is away a known number of its
64 KiB chunks is overwritten; it is started again, and what the rebuild moves is counted on both sides: by the
controller (`rebuilds.copied_bytes`) and by the replica, whose new process counts what its data connections
receive.  Nothing else writes meanwhile.  At the end all replicas are compared byte by byte.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

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

__all__ = ["REAL", "SMOKE", "Case", "Parameters", "Sample", "cases", "markdown", "run"]

MADE_BY: Final = "make bench-rebuild"
CHUNK_BYTES: Final = 64 * KIB  # what a dirty map tells apart
SCATTERED_BYTES: Final = 4 * KIB
DEPTH: Final = 8
REBUILD_TIME_S: Final = 3600.0
GOAL: Final = 1.1


@attrs.frozen
class Parameters:
    """What a run depends on, beside the machine and the commit."""

    held_bytes: int
    """What the volume holds: all of it is written once."""
    missed_bytes: tuple[int, ...]
    """Overwritten in whole chunks while a replica is away, one case each."""
    scattered: int
    """In one more case: so many writes of 4 KiB, each in a chunk of its own."""
    absence_s: float
    """How long the replica is away at least; the writes take their time too."""
    rounds: int
    seed: int


REAL: Final = Parameters(
    8 * GIB, (64 * MIB, 256 * MIB, 1 * GIB), scattered=4096, absence_s=60.0, rounds=3, seed=20160901
)
SMOKE: Final = Parameters(64 * MIB, (1 * MIB, 8 * MIB), scattered=32, absence_s=0.5, rounds=1, seed=20160901)


@attrs.frozen
class Case:
    """What is overwritten while a replica is away."""

    title: str
    block_bytes: int
    count: int

    @property
    def chunks_bytes(self) -> int:
        """All chunks that are touched: what a rebuild has to move."""
        return self.count * CHUNK_BYTES


def cases(parameters: Parameters) -> list[Case]:
    """Raises BenchError: the volume has not so many chunks."""
    made = [
        Case(f"{format_size(missed)} in whole chunks", CHUNK_BYTES, missed // CHUNK_BYTES)
        for missed in parameters.missed_bytes
    ]
    if parameters.scattered:
        title = f"{parameters.scattered} × 4 KiB, each in a chunk of its own"
        made.append(Case(title, SCATTERED_BYTES, parameters.scattered))
    for case in made:
        if not 0 < case.chunks_bytes <= parameters.held_bytes:
            raise BenchError(f"{case.title}: a volume of {format_size(parameters.held_bytes)} has no room")
    return made


@attrs.frozen
class Sample:
    """One absence."""

    case: str
    round: int
    replica: int
    written_bytes: int
    chunks_bytes: int
    away_s: float
    copied_bytes: int
    """By the controller's count."""
    received_bytes: int
    """By the replica's own, what it took out of shared memory with it: headers, and the pings of the time."""
    copy_s: float
    """While the copy was under way."""
    back_s: float
    """From the start of its process until it was in sync: with Python's start and the next try to connect."""


def run(parameters: Parameters, directory: Path, tell: Callable[[str], None]) -> list[Sample]:
    """Measure in the empty `directory`.  Raises BenchError."""
    driver = build_driver()
    todo = cases(parameters)
    require_space(directory, REPLICAS * parameters.held_bytes)
    samples: list[Sample] = []
    with running_volume(directory, parameters.held_bytes) as volume:
        tell(f"filling {format_size(parameters.held_bytes)}")
        driver.run(volume.url, "--fill", "--seconds", "0", "--seed", str(parameters.seed))
        for round_number in range(parameters.rounds):
            for place, case in enumerate(todo):
                seed = parameters.seed + 1 + round_number * len(todo) + place
                replica = 1 + (round_number + place) % REPLICAS
                sample = measure(volume, driver, case, replica, round_number, seed, parameters.absence_s)
                samples.append(sample)
                tell(line_of(sample))
        tell("comparing all replicas, byte by byte")
        volume.check_identical()
    return samples


def measure(
    volume: BenchVolume,
    driver: Driver,
    case: Case,
    replica: int,
    round_number: int,
    seed: int,
    absence_s: float,
) -> Sample:
    """Take `replica` away, overwrite, bring it back."""
    before = volume.replica_status(replica)["rebuilds"]
    left_at = time.monotonic()
    volume.kill(replica)
    volume.wait("out", lambda: volume.replica_status(replica)["mode"] == "out", 30)
    driver.run(
        volume.url,
        "--verb", "write",
        "--pattern", "shuffled",
        "--block", str(case.block_bytes),
        "--stride", str(CHUNK_BYTES),
        "--count", str(case.count),
        "--depth", str(DEPTH),
        "--seed", str(seed),
    )  # fmt: skip
    time.sleep(max(0.0, left_at + absence_s - time.monotonic()))
    away_s, back_at = time.monotonic() - left_at, time.monotonic()
    volume.start_replica(replica)
    volume.wait_healthy(REBUILD_TIME_S)
    back_s = time.monotonic() - back_at
    after = volume.replica_status(replica)["rebuilds"]
    if after["completed"] != before["completed"] + 1 or after["begun"] != before["begun"] + 1:
        raise BenchError(f"replica {replica} was to be rebuilt once: {before} before, {after} after")
    return Sample(
        case=case.title,
        round=round_number,
        replica=replica,
        written_bytes=case.count * case.block_bytes,
        chunks_bytes=case.chunks_bytes,
        away_s=away_s,
        copied_bytes=after["copied_bytes"] - before["copied_bytes"],
        received_bytes=volume.moved_bytes(replica),
        copy_s=after["seconds"] - before["seconds"],
        back_s=back_s,
    )


def line_of(sample: Sample) -> str:
    """One sample while it goes on."""
    return (
        f"round {sample.round + 1}  {sample.case}: replica {sample.replica} away {sample.away_s:.1f} s,"
        f" copied {format_size(sample.copied_bytes)}, received {format_size(sample.received_bytes)},"
        f" {sample.copy_s:.2f} s"
    )


def markdown(
    samples: Sequence[Sample], parameters: Parameters, *, at: str, of: str, machine: Mapping[str, str]
) -> str:
    """The section for people; `of` is the commit."""
    how = (
        f"{parameters.rounds} round{'s' if parameters.rounds > 1 else ''}, {REPLICAS} replicas, a volume"
        f" that holds {format_size(parameters.held_bytes)}, absences of at least {parameters.absence_s:g} s,"
        f" seed {parameters.seed}"
    )
    head = ["overwritten meanwhile", "in chunks, MiB", "copied, MiB", "received ÷ chunks", "copy, s"]
    rows = [[*head, "MiB/s", "back in sync, s"]]
    for case in dict.fromkeys(sample.case for sample in samples):
        rows.append(_row(case, [sample for sample in samples if sample.case == case]))
    most = max(max(s.received_bytes, s.copied_bytes) / s.chunks_bytes for s in samples)
    kept = "kept" if most <= GOAL else "**not kept**"
    verdict = (
        f"At most {most:.3f} bytes were moved for each byte of a chunk that was written to: the goal of"
        f" {GOAL} is {kept}. Median (least–most) of the rounds. Afterwards the replicas were compared byte by"
        " byte: they are identical."
    )
    return "\n".join([*origin(at, of, how, hash_of(samples), machine), "", *table(rows), "", verdict]) + "\n"


def _row(case: str, samples: Sequence[Sample]) -> list[str]:
    def cell(value: Callable[[Sample], float], digits: int) -> str:
        return format_spread(spread(map(value, samples)), lambda number: f"{number:.{digits}f}")

    return [
        case,
        f"{samples[0].chunks_bytes / MIB:g}",
        cell(lambda s: s.copied_bytes / MIB, 1),
        cell(lambda s: s.received_bytes / s.chunks_bytes, 3),
        cell(lambda s: s.copy_s, 2),
        cell(lambda s: s.chunks_bytes / MIB / s.copy_s, 0),
        cell(lambda s: s.back_s, 1),
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--held", metavar="SIZE", help="What the volume holds; 8GiB unless --smoke.")
@click.option(
    "--missed", metavar="SIZE,SIZE", help="Overwritten in an absence; 64MiB,256MiB,1GiB unless --smoke."
)
@click.option("--scattered", type=click.IntRange(0), help="Writes of 4 KiB; 4096 unless --smoke.")
@click.option("--absence", "absence_s", type=click.FloatRange(0), help="Seconds; 60 unless --smoke.")
@click.option("--rounds", type=click.IntRange(1), help="3 unless --smoke.")
@bench_options
def main(smoke: bool, held: str | None, missed: str | None, output: Output, **given: Any) -> None:
    """Measure what a rebuild after an absence moves, and how long it takes."""
    given["held_bytes"] = None if held is None else parse_size(held)
    given["missed_bytes"] = None if missed is None else tuple(map(parse_size, missed.split(",")))
    parameters = evolved(SMOKE if smoke else REAL, given)
    measure_and_publish(run, markdown, parameters, output, name="rebuild", made_by=MADE_BY, samples_of=list)


if __name__ == "__main__":
    main()
