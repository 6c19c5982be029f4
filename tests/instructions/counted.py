"""What runs under callgrind: every workload, with marks before and behind the rounds that count.

`python -m tests.instructions.counted MARKS DIRECTORY`: MARKS is the library that `counting` has built,
DIRECTORY is empty.  Prints, as JSON, which workloads this machine cannot do, and why.
"""

import ctypes
import gc
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.instructions.workloads import COUNTED_ROUNDS, PLANTED, WARM_ROUNDS, WORKLOADS, Round, UnfitError

__all__: list[str] = []


def main(library: str, directory: Path) -> None:
    """Prepare all, then start counting: only from there on does callgrind cost more than valgrind alone."""
    marks: Final = ctypes.CDLL(library)
    unfit: dict[str, str] = {}
    rounds: dict[str, Round] = {}
    with ExitStack() as stack:
        for workload in (*WORKLOADS, PLANTED):
            own = directory / workload.name
            own.mkdir()
            try:
                rounds[workload.name] = stack.enter_context(workload.prepare(own))
            except UnfitError as error:
                unfit[workload.name] = str(error)
        gc.collect()
        gc.disable()  # when it would run depends on all that was allocated before
        marks.start_counting()
        for name, play in rounds.items():
            for _ in range(WARM_ROUNDS):
                play()
            marks.count_from_here()
            for _ in range(COUNTED_ROUNDS):
                play()
            marks.count_to_here(name.encode())
    json.dump(unfit, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
