"""Building what is in C, bench/driver, and running the load driver, iscsi_load."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from bench.errors import BenchError
from bench.workload import Parameters, Workload

__all__ = ["BUILD_DIRECTORY", "Driver", "build_driver", "build_limit_target", "missing_packages"]

SOURCES: Final = Path(__file__).parent / "driver"
BUILD_DIRECTORY: Final = Path(__file__).parent / "build"
COMPILER: Final = ("gcc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wshadow", "-Wconversion")
HEADERS: Final = {"stdio.h": "libc6-dev", "iscsi/iscsi.h": "libiscsi-dev"}
RUN_TIME_S: Final = 600.0  # beyond any run; a target that hangs is noticed by the driver itself


def missing_packages() -> list[str]:
    """The Debian packages that building needs and this machine does not have."""
    if shutil.which(COMPILER[0]) is None:
        return ["gcc"]
    return [package for header, package in HEADERS.items() if _preprocess(f"#include <{header}>\n") != 0]


def _preprocess(text: str) -> int:
    command = [COMPILER[0], "-E", "-x", "c", "-", "-o", os.devnull]
    return subprocess.run(command, input=text, text=True, stderr=subprocess.DEVNULL, check=False).returncode


def build_driver(directory: Path = BUILD_DIRECTORY) -> "Driver":
    """The driver, compiled again if a source is newer.  Raises BenchError."""
    sources = ("iscsi_load.c", "libiscsi_transport.c", "raw_transport.c")
    return Driver(_build("iscsi_load", sources, ["-liscsi"], directory))


def build_limit_target(directory: Path = BUILD_DIRECTORY) -> Path:
    """The program limit_target, compiled again if a source is newer.  Raises BenchError."""
    return _build("limit_target", ["limit_target.c"], [], directory)


def _build(name: str, sources: Sequence[str], libraries: Sequence[str], directory: Path) -> Path:
    program = directory / name
    needed = [*(SOURCES / source for source in sources), *SOURCES.glob("*.h")]
    if program.exists() and program.stat().st_mtime >= max(path.stat().st_mtime for path in needed):
        return program
    if missing := missing_packages():
        raise BenchError(f"{name} cannot be built: install {' and '.join(missing)}")
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"{name}.{os.getpid()}"
    paths = [str(SOURCES / source) for source in sources]
    built = subprocess.run(
        [*COMPILER, "-o", str(fresh), *paths, *libraries], capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise BenchError(f"{name} cannot be built:\n{built.stderr}")
    fresh.replace(program)  # whole or not at all, also when two benches build at once
    return program


@attrs.frozen
class Driver:
    """The built program."""

    program: Path

    def run(self, url: str, *arguments: str, watch: Sequence[int] = ()) -> dict[str, Any]:
        """What the driver says.  Raises BenchError: it failed, or data that was read is wrong."""
        with self.running(url, *arguments, watch=watch) as answer:
            return answer()

    @contextlib.contextmanager
    def running(
        self, url: str, *arguments: str, watch: Sequence[int] = ()
    ) -> Iterator[Callable[[], dict[str, Any]]]:
        """The driver while the body runs; what it gives waits for its end, and is as `run`."""
        command = [str(self.program), url, *arguments]
        for pid in watch:
            command += ["--watch", str(pid)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def answer() -> dict[str, Any]:
            output, errors = process.communicate(timeout=RUN_TIME_S)
            if process.returncode != 0:
                raise BenchError(f"{' '.join(command)}: exit code {process.returncode}: {errors.strip()}")
            said: dict[str, Any] = json.loads(output)
            return said

        try:
            yield answer
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def fill(self, url: str, parameters: Parameters) -> None:
        """Write the whole range and flush it, then read all of it and compare."""
        self.run(url, *_place(parameters), "--fill", "--read-through", "--seconds", "0")

    def load(
        self, url: str, workload: Workload, parameters: Parameters, watch: Sequence[int]
    ) -> dict[str, Any]:
        """Run `workload` on a range that was filled with the same seed."""
        return self.run(
            url,
            *_place(parameters),
            "--pattern", workload.pattern,
            "--verb", workload.verb,
            "--block", str(workload.block_bytes),
            "--depth", str(workload.depth),
            "--seconds", str(parameters.seconds),
            "--warmup", str(parameters.warmup_s),
            watch=watch,
        )  # fmt: skip


def _place(parameters: Parameters) -> list[str]:
    return ["--range", str(parameters.range_bytes), "--seed", str(parameters.seed)]
