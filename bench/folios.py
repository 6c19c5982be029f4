"""What small writes cost in a file that came to the page cache in pieces: `python -m bench.folios`.

On some file systems a large piece makes later small writes to its place dear (`sparse/large_folios_sys.py`).
For each size a file is written anew in calls of that size; another one is dropped from the page cache and
read back by calls of 1 MiB, so its pieces are what the kernel's read-ahead makes them.

Prints JSON: the machine, the commit, the parameters, and by file the median processor time of a call in us.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import click

from bench.command import print_figures
from bench.machine_sys import commit, describe_machine
from pyjiva.sparse import SparseFile
from pyjiva.sparse.large_folios_sys import CALL_BYTES_MAX, call_bytes_max
from pyjiva.units import KIB, MIB, format_size

SMALL_BYTES: Final = 4 * KIB
LARGE_BYTES: Final = MIB


@attrs.frozen
class FolioParameters:
    """What the figures depend on, beside the machine and the commit."""

    file_bytes: int
    calls_bytes: tuple[int, ...]
    """How much one call brings; the last one is also that of the file which is read back."""
    writes: int
    """Small ones, at random places, in a round."""
    rounds: int
    seed: int = 20160901


REAL: Final = FolioParameters(
    512 * MIB, (4 * KIB, 16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, MIB), 20_000, 5
)
SMOKE: Final = FolioParameters(4 * MIB, (4 * KIB, MIB), 50, 2)


@contextmanager
def _filled(path: Path, size_bytes: int, call_bytes: int, content: bytes) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
        for start in range(0, size_bytes, call_bytes):
            os.pwrite(fd, content[:call_bytes], start)
        yield fd
    finally:
        os.close(fd)
        path.unlink()


def _cpu_us(call: Callable[[int], object], places: range | list[int]) -> float:
    began = time.process_time()
    for place in places:
        call(place)
    return (time.process_time() - began) / len(places) * 1e6


def _measure(fd: int, parameters: FolioParameters, content: bytes) -> dict[str, float]:
    random, small, into = Random(parameters.seed), (content[:SMALL_BYTES],), (bytearray(LARGE_BYTES),)
    places = [
        random.randrange(parameters.file_bytes // SMALL_BYTES) * SMALL_BYTES for _ in range(parameters.writes)
    ]
    large = range(0, parameters.file_bytes, LARGE_BYTES)
    whole, cut = SparseFile(fd, "file"), SparseFile(fd, "file", CALL_BYTES_MAX)
    calls: dict[str, tuple[Callable[[int], object], range | list[int]]] = {
        "write_4k": (lambda place: os.pwritev(fd, small, place), places),
        "write_1m": (lambda place: whole.write(place, (content,)), large),
        "write_1m_cut": (lambda place: cut.write(place, (content,)), large),
        "read_1m": (lambda place: os.preadv(fd, into, place), large),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(parameters.rounds):
        for name, (call, where) in calls.items():
            times[name].append(_cpu_us(call, where))
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def run(parameters: FolioParameters, work: Path) -> dict[str, Any]:
    """All figures."""
    content = Random(parameters.seed).randbytes(LARGE_BYTES)
    figures = {}
    path = work / "file"
    for call_bytes in parameters.calls_bytes:
        with _filled(path, parameters.file_bytes, call_bytes, content) as fd:
            figures[f"written by {format_size(call_bytes)}"] = _measure(fd, parameters, content)
    with _filled(path, parameters.file_bytes, parameters.calls_bytes[-1], content) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for start in range(0, parameters.file_bytes, LARGE_BYTES):
            os.pread(fd, LARGE_BYTES, start)
        figures["read back"] = _measure(fd, parameters, content)
        limit = call_bytes_max(fd)
    return {
        "machine": describe_machine(work),
        "commit": commit(),
        "parameters": attrs.asdict(parameters),
        "call_bytes_max": limit,
        "cpu_us": figures,
    }


@click.command()
@click.option("--smoke", is_flag=True, help="Tiny values: does it work at all?")
@click.option("--work-dir", type=click.Path(path_type=Path, exists=True), help="For the data.")
def main(smoke: bool, work_dir: Path | None) -> None:
    """Measure what small writes cost in files that were written in pieces of several sizes."""
    print_figures(partial(run, SMOKE if smoke else REAL), work_dir)


if __name__ == "__main__":
    main()
