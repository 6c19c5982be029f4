"""`python -m tests.instructions`: how many instructions a command takes, beside what is recorded.

python -m tests.instructions             count and compare; exits with 1 if something is off by 10 %
python -m tests.instructions --record    count, and record it for this interpreter and machine
python -m tests.instructions --time      processor time in place of instructions
"""

import argparse
import sys
from collections.abc import Mapping

from pyjiva.cli.main import how_it_runs
from tests.instructions.baseline import RECORD, RECORD_COMPILED, Baseline, complaint, find, load, save
from tests.instructions.counting import CountingError, Counts, count, environment, missing_packages, packages
from tests.instructions.timing import table
from tests.instructions.workloads import WORKLOADS

__all__: list[str] = []


def main() -> int:
    """The exit code: 0 if nothing is off, or it was recorded."""
    parser = argparse.ArgumentParser(prog="tests.instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="make what is counted now the baseline")
    parser.add_argument(
        "--time", action="store_true", help="measure the time of a command, and compare nothing"
    )
    options = parser.parse_args()
    if options.time:
        print(how_it_runs(), table(WORKLOADS), sep="\n")
        return 0
    if missing := missing_packages():
        print(f"instructions: install {' '.join(missing)}", file=sys.stderr)
        return 2
    is_compiled = how_it_runs().startswith("hot modules compiled")
    baselines, here = load(), environment(compiled=is_compiled)
    baseline = find(baselines, here)
    try:
        counts = count()
    except CountingError as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 2
    recorded = {} if baseline is None else baseline.instructions
    print(", ".join(f"{name} {value}" for name, value in here.items()))
    _print_counts(counts, recorded)
    if options.record:
        wanted = {w.name: counts.instructions[w.name] for w in WORKLOADS if w.name in counts.instructions}
        save(baselines, Baseline(here, packages(), wanted))
        return 0
    record = RECORD_COMPILED if is_compiled else RECORD
    complaints = [
        said
        for workload in WORKLOADS
        if (now := counts.instructions.get(workload.name)) is not None
        and (said := complaint(workload.name, recorded.get(workload.name), now, record=record))
    ]
    print("\n".join(complaints))
    return 1 if complaints else 0


def _print_counts(counts: Counts, recorded: Mapping[str, int]) -> None:
    for workload in WORKLOADS:
        name = workload.name
        if name in counts.unfit:
            print(f"{name:26} {counts.unfit[name]}")
            continue
        now, before = counts.instructions[name], recorded.get(name)
        change = "new" if before is None else f"{now / before - 1:+.2%}"
        print(f"{name:26}{now:12,}  {change}")


if __name__ == "__main__":
    sys.exit(main())
