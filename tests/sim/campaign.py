"""`make sim`: many simulated worlds from stated seeds, on all cores; and whether planted bugs are found.

    python -m tests.sim.campaign --worlds 1000 --first-seed 0    worlds that must all hold
    python -m tests.sim.campaign --planted                       every bug of `planted_bugs`, until found
    python -m tests.sim.campaign --scenario                      the `scenarios`, which must all hold

A seed stands for one world: how many replicas it has and which faults come follow from it (`world_of`).  One
world again, with what happened in it: `python -m tests.sim.campaign --first-seed 1234 --worlds 1 --trace`.
"""

import argparse
import collections
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from pyjiva.testing.faults import ROT, Faults
from pyjiva.testing.world import World
from tests.sim.planted_bugs import PLANTED_BUGS, PlantedBug
from tests.sim.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
SECONDS = 40.0
SCENARIO_SECONDS_MAX = 300.0
SNAPSHOT_STRIDE, SNAPSHOT_SEEDS = 13, (3, 7, 10)
WINDOW_STRIDE, WINDOW_SEEDS = 23, (0, 2, 5, 9, 12, 15, 18, 21)
PLANTED_WORLDS_MAX = 300  # the budget in which each planted bug is to be found


def world_of(seed: int, *, windows: bool | None = None) -> World:
    """The world of a seed; `windows`: whether controllers read replicas' files, if the seed is not to say."""
    world = _world_of(seed)
    world.windows = seed % WINDOW_STRIDE in WINDOW_SEEDS if windows is None else windows
    return world


def _world_of(seed: int) -> World:
    if seed % SNAPSHOT_STRIDE in SNAPSHOT_SEEDS:
        return world_with_snapshots(seed)
    match seed % 10:
        case 6:
            return World(seed, replicas=1, faults=Faults(cuts=0.2))
        case 3:
            return World(seed, faults=Faults(broken_connections=3, deaths_after_answers=1))
        case 4 if seed // 10 % 3 == 2:
            return World(seed, replicas=2, shared_vote=True, faults=Faults(register_cuts=0.5))
        case 4:
            return World(seed, replicas=2, witnesses=1)
        case 5:
            return World(seed, replicas=2, witnesses=1, spares=2, faults=Faults(changes=1))
        case 7:
            return World(seed, replicas=2, spares=1, faults=Faults(changes=0.5))
        case 8:
            return World(seed, replicas=5)
        case 9:
            return World(seed, faults=ROT)
        case _:
            return World(seed)


def world_with_snapshots(seed: int) -> World:
    """A world whose volume has a past."""
    match seed // SNAPSHOT_STRIDE % 5:
        case 1:
            return World(seed, replicas=1, faults=Faults(cuts=0.2, snapshots=20))
        case 2:
            return World(seed, replicas=2, witnesses=1, faults=Faults(snapshots=20))
        case 3:
            return World(seed, spares=2, faults=Faults(changes=1, snapshots=20))
        case _:
            return World(seed, faults=Faults(snapshots=20))


def play(seed: int, seconds: float, *, windows: bool | None = None) -> tuple[World, BaseException | None]:
    """Run one world to its end; and what was wrong with it."""
    return play_world(world_of(seed, windows=windows), seconds)


def play_world(world: World, seconds: float) -> tuple[World, BaseException | None]:
    """The same, of any world."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    failures: list[BaseException] = []

    # Hypothesis puts trio's scheduler into a state that follows from the seed; the world draws nothing else.
    @settings(deadline=None, max_examples=1, database=None, suppress_health_check=list(HealthCheck))
    @given(st.just(world.seed))
    def run(_seed: int) -> None:
        try:
            trio.run(world.play, seconds, clock=MockClock(autojump_threshold=0))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to this seed
            failures.append(error)

    run()
    return world, failures[0] if failures else None


def _job(arguments: tuple[int, float, bool | None]) -> tuple[int, dict[str, int], str]:
    seed, seconds, windows = arguments
    world, failure = play(seed, seconds, windows=windows)
    return seed, world.counts, "" if failure is None else describe(failure)


def describe(error: BaseException) -> str:
    """The first thing that went wrong, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def play_many(
    seeds: range, seconds: float, *, here: bool, processes: int | None = None, windows: bool | None = None
) -> Iterator[tuple[int, dict[str, int], str]]:
    """All worlds, in any order: on all cores, or in this process."""
    jobs = ((seed, seconds, windows) for seed in seeds)
    if here:
        yield from map(_job, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(_job, jobs)


def hold(
    seeds: range,
    seconds: float,
    *,
    here: bool = False,
    processes: int | None = None,
    windows: bool | None = None,
) -> int:
    """Whether all worlds hold; the exit code."""
    print(f"{len(seeds)} worlds of {seconds:g} s with faults, seeds {seeds[0]} to {seeds[-1]}", flush=True)
    counts: collections.Counter[str] = collections.Counter()
    failed: list[int] = []
    began_s = told_s = time.monotonic()
    for done, (seed, counted, failure) in enumerate(
        play_many(seeds, seconds, here=here, processes=processes, windows=windows), 1
    ):
        counts.update(counted)
        if failure:
            failed.append(seed)
            print(f"seed {seed}: {failure}", flush=True)
        if time.monotonic() > told_s + 60:
            told_s = time.monotonic()
            print(f"{done} worlds, {told_s - began_s:.0f} s, {len(failed)} failed", flush=True)
    hours = len(seeds) * seconds / 3600
    print(f"{len(seeds)} worlds, {hours:.1f} virtual hours with faults, {len(failed)} failed: {failed}")
    for kind, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{count:10} {kind}")
    return 1 if failed else 0


def trace(world: World, seconds: float) -> int:
    """One world with all that happened; the exit code."""
    _, failure = play_world(world, seconds)
    print("\n".join(world.trace))
    print(describe(failure) if failure is not None else "it holds")
    return 0 if failure is None else 1


def play_scenarios(names: list[str]) -> int:
    """Whether the scenarios hold; the exit code."""
    failed = 0
    for name in names or SCENARIOS:
        _, failure = play_world(SCENARIOS[name].world(), SCENARIO_SECONDS_MAX)
        if failure is not None:
            failed += 1
            print(f"scenario {name!r}: {describe(failure)}", flush=True)
    return 1 if failed else 0


def find(bug: PlantedBug, first_seed: int, worlds: int) -> str:
    """Plant `bug` in a copy of the sources, and play until its scenario or a world finds it; what it looked
    like, or ''.
    """
    with tempfile.TemporaryDirectory(prefix="pyjiva-planted-") as directory:
        source = Path(directory) / "src"
        shutil.copytree(ROOT / "src", source)
        bug.plant(source / "pyjiva")
        ways = [["--scenario", bug.scenario]] if bug.scenario else []
        ways += [["--until-failure", "--first-seed", str(first_seed), "--worlds", str(worlds)]]
        ways[-1] += ["--snapshots"] if bug.in_past else []
        ways[-1] += ["--windows"] if bug.in_windows else []
        for way in ways:
            command = [sys.executable, "-m", "tests.sim.campaign", *way]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), str(ROOT)])}
            ended = subprocess.run(
                command, env=environment, cwd=directory, capture_output=True, text=True, check=False
            )
            if ended.returncode != 0:
                lines = (ended.stdout + ended.stderr).strip().splitlines()
                found = [line for line in lines if line.startswith(("seed ", "scenario "))]
                return (found or lines[-1:] or ["no output"])[0]
    return ""


def _find(arguments: tuple[str, int, int]) -> tuple[str, str]:
    name, first_seed, worlds = arguments
    return name, find(PLANTED_BUGS[name], first_seed, worlds)


def until_failure(seeds: range, seconds: float, *, windows: bool | None = None) -> int:
    """Play one after the other until one fails; the exit code: 1 when one did."""
    for number, seed in enumerate(seeds, 1):
        _, failure = play(seed, seconds, windows=windows)
        if failure is not None:
            print(f"seed {seed} (world {number}): {describe(failure)}")
            return 1
    return 0


def find_all(names: list[str], first_seed: int, worlds: int, processes: int | None) -> int:
    """Whether every planted bug is found; the exit code."""
    missed = []
    jobs = [(name, first_seed, worlds) for name in names or PLANTED_BUGS]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for name, found in pool.imap_unordered(_find, jobs):
            masked_by = PLANTED_BUGS[name].masked_by
            not_found = f"not found, masked by {masked_by}" if masked_by else "NOT FOUND"
            print(f"{name}: {found or not_found}"[:160], flush=True)
            if not found and not masked_by:
                missed.append(name)
    within = f"within {worlds} worlds each"
    print(f"{len(missed)} of {len(jobs)} planted bugs ought to have been found {within}: {missed}")
    return 1 if missed else 0


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="make sim", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="virtual time with faults in each world"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="print what happens in the first world")
    parser.add_argument(
        "--until-failure", action="store_true", help="in one process, up to the first failure"
    )
    parser.add_argument("--snapshots", action="store_true", help="every world is one with snapshots")
    parser.add_argument("--windows", action="store_true", help="in every world replicas' files are read")
    parser.add_argument("--planted", nargs="*", metavar="NAME", help="find planted bugs: these, or all")
    parser.add_argument("--planted-worlds", type=int, default=PLANTED_WORLDS_MAX, help="for each of them")
    parser.add_argument("--scenario", nargs="*", metavar="NAME", help="play scenarios: these, or all")
    parser.add_argument("--processes", type=int, help="at once; else as many as there are cores")
    options = parser.parse_args()
    windows = True if options.windows else None
    step = SNAPSHOT_STRIDE if options.snapshots else 1
    first = options.first_seed - options.first_seed % step + SNAPSHOT_SEEDS[0] * (step > 1)
    seeds = range(first, first + step * options.worlds, step)
    if options.planted is not None:
        return find_all(options.planted, options.first_seed, options.planted_worlds, options.processes)
    if options.trace:
        scenario = SCENARIOS[options.scenario[0]].world() if options.scenario else None
        return trace(scenario or world_of(options.first_seed, windows=windows), options.seconds)
    if options.scenario is not None:
        return play_scenarios(options.scenario)
    if options.until_failure:
        return until_failure(seeds, options.seconds, windows=windows)
    return hold(seeds, options.seconds, processes=options.processes, windows=windows)


if __name__ == "__main__":
    sys.exit(main())
