"""`python -m bench.stall`: how long a host waits when one of three replicas fails, or a snapshot is made.

Two drivers keep a volume busy, one with 4 KiB random writes and one with reads that are compared, each with
the same number of commands outstanding.  Amid that one replica is killed, or stopped (SIGSTOP: to the
controller the same as a network that is cut, or a machine that has died: connections stay open and nothing
comes), or stopped again and again for less than the time that a member may be silent.  What counts is the
longest time in which a driver got no answer at all.
"""

import contextlib
import enum
import time
from collections.abc import Callable, Mapping, Sequence
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
from pyjiva.units import GIB, MIB, format_size, parse_size

__all__ = ["REAL", "SMOKE", "Failure", "Parameters", "Sample", "losses", "markdown", "run"]

MADE_BY: Final = "make bench-stall"
GOAL_S: Final = 5.0
SNAPSHOT_GOAL_S: Final = 0.05  # of a volume that is idle otherwise


class Failure(enum.Enum):
    """What happens to one of three replicas."""

    NONE = "nothing"
    KILLED = "its process is killed"
    STOPPED = "its process is stopped, as when its network is cut"
    SLOW = "it stands still again and again, within its window"
    SNAPSHOTS = "none fails; a snapshot of the volume is made every second"


@attrs.frozen
class Parameters:
    """What a run depends on, beside the machine and the commit."""

    range_bytes: int
    """Under load."""
    seconds: float
    """That the drivers run at least; the failure comes after a third of it."""
    depth: int
    """Commands outstanding of each driver."""
    pause_s: float
    """How long a slow replica stands still."""
    every_s: float
    """From the begin of such a pause to that of the next."""
    snapshot_every_s: float
    """From one snapshot to the next."""
    rounds: int
    seed: int


REAL: Final = Parameters(
    1 * GIB,
    seconds=20.0,
    depth=4,
    pause_s=1.0,
    every_s=4.0,
    snapshot_every_s=1.0,
    rounds=5,
    seed=20160901,
)
SMOKE: Final = Parameters(
    8 * MIB,
    seconds=0.9,
    depth=4,
    pause_s=0.1,
    every_s=0.3,
    snapshot_every_s=0.1,
    rounds=1,
    seed=20160901,
)


@attrs.frozen
class Load:
    """What one driver saw."""

    gap_s: float
    """The longest time without an answer."""
    p999_s: float
    latency_max_s: float
    iops: float


@attrs.frozen
class Sample:
    """One failure."""

    failure: str
    round: int
    replica: int
    write: Load
    read: Load
    lost: bool
    """Whether the controller went on without the replica."""
    ops: int


def run(parameters: Parameters, directory: Path, tell: Callable[[str], None]) -> list[Sample]:
    """Measure in the empty `directory`.  Raises BenchError."""
    driver = build_driver()
    require_space(directory, REPLICAS * parameters.range_bytes)
    samples: list[Sample] = []
    with running_volume(directory, parameters.range_bytes) as volume:
        tell(f"filling {format_size(parameters.range_bytes)}")
        driver.run(volume.url, "--fill", "--seconds", "0", "--seed", str(parameters.seed))
        for round_number in range(parameters.rounds):
            for failure in Failure:
                replica = 1 + round_number % REPLICAS
                sample = measure(volume, driver, failure, replica, round_number, parameters)
                samples.append(sample)
                tell(line_of(sample))
        tell("comparing all replicas, byte by byte")
        volume.check_identical()
    return samples


def measure(
    volume: BenchVolume,
    driver: Driver,
    failure: Failure,
    replica: int,
    round_number: int,
    parameters: Parameters,
) -> Sample:
    """One failure amid the load; afterwards the volume is healthy again."""
    last_event = max((event["number"] for event in volume.events()), default=0)
    with contextlib.ExitStack() as stack:
        answers = [
            stack.enter_context(driver.running(volume.url, "--verb", verb, *load_of(parameters)))
            for verb in ("write", "read")
        ]
        time.sleep(parameters.seconds / 3)
        fail(volume, replica, failure, parameters)
        write, read = (answer() for answer in answers)
    if failure is Failure.KILLED:
        volume.start_replica(replica)
    if failure is Failure.STOPPED:
        volume.go_on(replica)
    volume.wait_healthy()
    lost = replica in losses(volume.events(), after=last_event)
    if lost != (failure in (Failure.KILLED, Failure.STOPPED)):
        raise BenchError(f"{failure.value}: replica {replica} was {'' if lost else 'not '}given up")
    return Sample(
        failure.value, round_number, replica, seen(write), seen(read), lost, write["ops"] + read["ops"]
    )


def load_of(parameters: Parameters) -> list[str]:
    """The driver's arguments, but for the verb."""
    return [
        "--pattern", "random",
        "--depth", str(parameters.depth),
        "--range", str(parameters.range_bytes),
        "--seed", str(parameters.seed),
        "--seconds", str(parameters.seconds),
    ]  # fmt: skip


def fail(volume: BenchVolume, replica: int, failure: Failure, parameters: Parameters) -> None:
    """Do it to `replica`; a slow one is left as it was before the drivers end."""
    match failure:
        case Failure.NONE:
            pass
        case Failure.KILLED:
            volume.kill(replica)
        case Failure.STOPPED:
            volume.stand(replica)
        case Failure.SLOW:
            ends_at = time.monotonic() + 2 / 3 * parameters.seconds - parameters.every_s
            while True:
                volume.stand(replica)
                time.sleep(parameters.pause_s)
                volume.go_on(replica)
                if time.monotonic() > ends_at:
                    break
                time.sleep(parameters.every_s - parameters.pause_s)
        case Failure.SNAPSHOTS:
            made: list[str] = []
            ends_at = time.monotonic() + 2 / 3 * parameters.seconds - parameters.snapshot_every_s
            while time.monotonic() < ends_at:
                made.append(f"bench-{len(made)}")
                volume.ask("POST", f"/v1/snapshots/{made[-1]}")
                time.sleep(parameters.snapshot_every_s)
            for name in made:
                volume.ask("DELETE", f"/v1/snapshots/{name}")
        case _:
            assert_never(failure)


def losses(events: Sequence[Mapping[str, Any]], *, after: int) -> set[int]:
    """Replicas that were in sync and then were not, by the events behind number `after`."""
    return {
        event["replica"]
        for event in events
        if event["number"] > after and event["kind"] == "replica" and event["text"].startswith("in-sync → ")
    }


def seen(answer: Mapping[str, Any]) -> Load:
    """What the driver says, in seconds.  Raises BenchError: it got no answer."""
    if not answer["ops"]:
        raise BenchError("a driver got no answer")
    latency = answer["latency_us"]
    return Load(answer["gap_max_us"] / 1e6, latency["p99.9"] / 1e6, latency["max"] / 1e6, answer["iops"])


def line_of(sample: Sample) -> str:
    """One sample while it goes on."""
    return (
        f"round {sample.round + 1}  replica {sample.replica}: {sample.failure}: longest wait of writes"
        f" {sample.write.gap_s:.3f} s, of reads {sample.read.gap_s:.3f} s"
    )


def markdown(
    samples: Sequence[Sample], parameters: Parameters, *, at: str, of: str, machine: Mapping[str, str]
) -> str:
    """The section for people; `of` is the commit."""
    how = (
        f"{parameters.rounds} round{'s' if parameters.rounds > 1 else ''}, {REPLICAS} replicas, 4 KiB random"
        f" writes and reads over {format_size(parameters.range_bytes)}, {parameters.depth} outstanding of"
        f" each, {parameters.seconds:g} s, a slow one stands still for {parameters.pause_s:g} s every"
        f" {parameters.every_s:g} s, seed {parameters.seed}"
    )
    rows = [
        [
            "what happens to one of three",
            "writes: longest wait, s",
            "reads: longest wait, s",
            "writes: p99.9, ms",
            "reads: p99.9, ms",
            "commands/s",
        ]
    ]
    for failure in Failure:
        rows.append(_row(failure.value, [s for s in samples if s.failure == failure.value]))
    deaths = [s for s in samples if s.lost]
    most = max(max(s.write.gap_s, s.read.gap_s) for s in deaths)
    verdict = (
        f"The longest wait when one of three died was {most:.2f} s: the goal of at most {GOAL_S:g} s is"
        f" {'kept' if most <= GOAL_S else '**not kept**'}. A slow one was never given up. Median (least–most)"
        " of the rounds; every byte that was read was compared, and afterwards the replicas are identical."
    )
    return "\n".join([*origin(at, of, how, hash_of(samples), machine), "", *table(rows), "", verdict]) + "\n"


def _row(title: str, samples: Sequence[Sample]) -> list[str]:
    def cell(value: Callable[[Sample], float], digits: int) -> str:
        return format_spread(spread(map(value, samples)), lambda number: f"{number:.{digits}f}")

    return [
        title,
        cell(lambda s: s.write.gap_s, 3),
        cell(lambda s: s.read.gap_s, 3),
        cell(lambda s: s.write.p999_s * 1e3, 1),
        cell(lambda s: s.read.p999_s * 1e3, 1),
        cell(lambda s: s.write.iops + s.read.iops, 0),
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--range", "range_text", metavar="SIZE", help="Bytes under load; 1GiB unless --smoke.")
@click.option("--seconds", type=click.FloatRange(0.1), help="Of each run; 20 unless --smoke.")
@click.option("--depth", type=click.IntRange(1), help="Commands outstanding of each driver; 4.")
@click.option("--rounds", type=click.IntRange(1), help="5 unless --smoke.")
@bench_options
def main(smoke: bool, range_text: str | None, output: Output, **given: Any) -> None:
    """Measure how long a host gets no answer when one of three replicas fails."""
    given["range_bytes"] = None if range_text is None else parse_size(range_text)
    parameters = evolved(SMOKE if smoke else REAL, given)
    measure_and_publish(run, markdown, parameters, output, name="stall", made_by=MADE_BY, samples_of=list)


if __name__ == "__main__":
    main()
