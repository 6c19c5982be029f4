"""How many instructions a command of each workload takes, by callgrind, and what these counts depend on.

Instructions, not time: the same code gives the same count, mostly to the last instruction, whatever else the
machine does; another place of an object in memory moves it by up to a hundredth.  Valgrind presents a
processor of its own, so only the interpreter, the C library, valgrind itself, whether there is AVX2, and
whether the hot modules are compiled and by what (`environment`), choose other instructions for the same work.

Callgrind starts to count when all is imported and prepared, and `count_to_here` in `marks.c` makes it write
down one workload: neither the start of the process nor its warming up is in a count, and all of it takes one
process and some fifteen seconds.

Not seen: the kernel, waiting, caches, wrong guesses of branches.  The garbage collector is off.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs

from tests.instructions.workloads import COUNTED_ROUNDS, PLANTED, WORKLOADS

__all__ = ["TOP", "CountingError", "Counts", "count", "environment", "missing_packages", "packages"]

TOP: Final = Path(__file__).parents[2]
MARKS: Final = Path(__file__).parent / "marks.c"
COUNT_TIME_S: Final = 300.0  # twenty times what it takes: it hangs
#: Packages that do work in C for a command: other versions of them may explain another count.
_C_PACKAGES: Final = ("attrs", "google-crc32c", "xxhash")
_MARK: Final = re.compile(r"^desc: Trigger: Client Request: (.+)$", re.MULTILINE)
_SUM: Final = re.compile(r"^(?:summary|totals): (\d+)$", re.MULTILINE)


class CountingError(Exception):
    """It could not be counted."""


@attrs.frozen
class Counts:
    """Of one run."""

    instructions: dict[str, int]
    """For one command of each workload."""
    unfit: dict[str, str]
    """Workloads that this machine cannot do, and why."""


def missing_packages() -> list[str]:
    """The Debian packages that counting needs and this machine does not have."""
    wanted = {"valgrind": shutil.which("valgrind"), "gcc": shutil.which("gcc")}
    missing = [package for package, program in wanted.items() if program is None]
    if not missing and not _compiles("#include <stdlib.h>\n"):
        missing.append("libc6-dev")
    return missing


def _compiles(text: str) -> bool:
    command = ["gcc", "-E", "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=text, text=True, capture_output=True, check=False).returncode == 0


def environment(*, compiled: bool = False) -> dict[str, str]:
    """What chooses the instructions for the same work: counts compare only where it is the same.

    `compiled`: the hot modules are.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    options = [
        word for word in ("--enable-optimizations", "--with-lto", "--enable-shared") if word in arguments
    ]
    told = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    flags = Path("/proc/cpuinfo").read_text()
    here = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": " ".join((platform.python_compiler(), *options)),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine() + (" with AVX2" if re.search(r"\bavx2\b", flags) else ""),
        "valgrind": told.strip().removeprefix("valgrind-"),
    }
    if compiled:
        told = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout
        here["hot modules"] = f"compiled by {told.splitlines()[0]}"
    return here


def packages() -> dict[str, str]:
    """Versions of what may be another one tomorrow, and is not the project's."""
    return {name: version(name) for name in _C_PACKAGES}


def count(compiled: Path | None = None) -> Counts:
    """Count all workloads, those of the package in `compiled` in place of ours.  Raises CountingError."""
    kept = TOP / ".cache"  # with the sources: /tmp is often in memory, where reads take another path
    kept.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="instructions-", dir=kept) as name:
        directory = Path(name)
        (directory / "data").mkdir()
        _run(["gcc", "-shared", "-fPIC", "-O2", "-o", "marks.so", str(MARKS)], directory)
        # -P: else the name of the directory, which is another one each time, is in sys.path.
        command = [sys.executable, "-P", "-m", "tests.instructions.counted", "./marks.so", "data"]
        options = ["-q", "--tool=callgrind", "--instr-atstart=no", "--callgrind-out-file=counts"]
        told = _run(["valgrind", *options, *command], directory, *([] if compiled is None else [compiled]))
        sums = dict(_read(path) for path in directory.glob("counts.*"))
    unfit = json.loads(told)
    commands = {w.name: w.commands * COUNTED_ROUNDS for w in (*WORKLOADS, PLANTED) if w.name not in unfit}
    if sums.keys() != commands.keys():
        raise CountingError(f"callgrind has counted {sorted(sums)}")
    return Counts({name: round(sums[name] / n) for name, n in commands.items()}, unfit)


def _run(command: list[str], directory: Path, *imports: Path) -> str:
    """What it says.  Nothing of our own environment: its length moves the stack, its content may do more."""
    paths = os.pathsep.join(map(str, (*imports, TOP)))
    environ = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONPATH": paths}
    try:
        ended = subprocess.run(
            command,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COUNT_TIME_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CountingError(f"{command[0]} did not end within {COUNT_TIME_S:g} s") from error
    if ended.returncode != 0:
        raise CountingError(f"{command[0]} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return ended.stdout


def _read(path: Path) -> tuple[str, int]:
    """The mark and the sum of one of callgrind's files."""
    text = path.read_text()
    mark, total = _MARK.search(text), _SUM.search(text)
    if mark is None or total is None:
        raise CountingError(f"not understood: {text[:400]}")
    return mark[1], int(total[1])
