"""Ways to read that the path does not take, beside the one that it takes: `python -m bench.ways`.

*From the page cache*, a MiB at a time, and out of a TCP socket to a process that throws it away:

- `copied`: read into a buffer that is used again, checksums compared, sent; what a target does;
- `mapped`: the same from the file's mapping, without the first copy;
- `sendfile`: by sendfile(2), so that nobody here sees the data, and no checksum can be compared.

*From the disk*, in order, at two depths: with the kernel's read-ahead alone, or with POSIX_FADV_WILLNEED for
what comes next.  As it is set on this machine; where that may be changed, also with the kernel's default of
128 KiB.

Prints JSON: the machine, the commit, the parameters, and for each way the medians of the rounds and all of
them.
"""

import mmap
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import click

from bench.command import print_figures
from bench.machine_sys import commit, describe_machine
from pyjiva.block_sums import sums_of
from pyjiva.units import KIB, MIB

LARGE_BYTES: Final = MIB
KERNEL_DEFAULT_KIB: Final = 128
SINK: Final = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    while peer.recv(1 << 20, socket.MSG_TRUNC):
        pass
"""


@attrs.frozen
class WaysParameters:
    """What the figures depend on, beside the machine and the commit."""

    file_bytes: int
    rounds: int
    read_bytes: int
    """What one read from the disk takes."""
    depths: tuple[int, ...]
    ahead_bytes: int
    """How much is asked for ahead."""
    sets_read_ahead: bool
    """Whether the machine's setting may be changed meanwhile."""
    seed: int = 20160901


REAL: Final = WaysParameters(512 * MIB, 7, 128 * KIB, (1, 8), 4 * MIB, True)
SMOKE: Final = WaysParameters(8 * MIB, 2, 128 * KIB, (1, 2), MIB, False)
Way = Callable[[int], object]
"""Sends, or reads, what begins at this place."""


@contextmanager
def _sink() -> Iterator[socket.socket]:
    """Where data goes to be thrown away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = subprocess.Popen([sys.executable, "-c", SINK, str(server.getsockname()[1])])
        try:
            peer, _ = server.accept()
            with peer:
                yield peer
        finally:
            process.wait()


def _compared(sums: bytes, data: "bytearray | memoryview") -> None:
    if sums_of(data) != sums:
        raise AssertionError("the file is not what was written")


def large_reads(fd: int, parameters: WaysParameters) -> dict[str, Any]:
    """From the page cache to a socket: processor time here in us for a MiB, and MB/s."""
    places = range(0, parameters.file_bytes, LARGE_BYTES)
    into = bytearray(LARGE_BYTES)
    sums: dict[int, bytes] = {}
    for place in places:
        os.preadv(fd, [into], place)
        sums[place] = sums_of(into)
    with _sink() as peer, mmap.mmap(fd, parameters.file_bytes, prot=mmap.PROT_READ) as mapping:
        whole = memoryview(mapping)

        def copied(place: int) -> None:
            os.preadv(fd, [into], place)
            _compared(sums[place], into)
            peer.sendall(into)

        def mapped(place: int) -> None:
            data = whole[place : place + LARGE_BYTES]
            _compared(sums[place], data)
            peer.sendall(data)

        def by_sendfile(place: int) -> None:
            end = place + LARGE_BYTES
            while place < end:
                place += os.sendfile(peer.fileno(), fd, place, end - place)

        ways = {"copied": copied, "mapped": mapped, "sendfile": by_sendfile}
        found = _rounds({name: _timed(way, places) for name, way in ways.items()}, parameters.rounds)
        whole.release()
    return {name: {"cpu_us": _summary(each, 1), "mb_s": _summary(each, 0)} for name, each in found.items()}


def _timed(way: Way, places: range) -> Callable[[], tuple[float, float]]:
    def measure() -> tuple[float, float]:
        began, cpu_began = time.perf_counter(), time.process_time()
        for place in places:
            way(place)
        cpu, took = time.process_time() - cpu_began, time.perf_counter() - began
        return len(places) * LARGE_BYTES / took / 1e6, cpu / len(places) * 1e6

    return measure


def _rounds(
    measures: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Each in turn, so often."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def _summary(samples: list[tuple[float, float]], which: int) -> dict[str, Any]:
    values = [round(sample[which], 1) for sample in samples]
    return {"median": statistics.median(values), "all": values}


def cold_reads(fd: int, parameters: WaysParameters) -> dict[str, Any]:
    """From the disk, in order: MB/s."""
    found: dict[str, Any] = {}
    for kib in _read_aheads(fd) if parameters.sets_read_ahead else [0]:
        with _read_ahead(fd, kib) as is_now:
            measures = {
                f"{name}, {depth} outstanding": _cold(fd, parameters, depth, ahead)
                for depth in parameters.depths
                for name, ahead in (("the kernel's", 0), ("asked for", parameters.ahead_bytes))
            }
            samples = _rounds(measures, parameters.rounds)
            found[f"{is_now} KiB"] = {name: _summary(each, 0) for name, each in samples.items()}
    return found


def _cold(
    fd: int, parameters: WaysParameters, depth: int, ahead_bytes: int
) -> Callable[[], tuple[float, float]]:
    size, end = parameters.read_bytes, parameters.file_bytes

    def read(place: int) -> None:
        if ahead_bytes and not place % (ahead_bytes // 2):
            os.posix_fadvise(fd, place + ahead_bytes // 2, ahead_bytes // 2, os.POSIX_FADV_WILLNEED)
        os.pread(fd, size, place)

    def measure() -> tuple[float, float]:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        began = time.perf_counter()
        with ThreadPoolExecutor(depth) as threads:
            for _ in threads.map(read, range(0, end, size)):
                pass
        return end / (time.perf_counter() - began) / 1e6, 0.0

    return measure


def _setting(fd: int) -> Path:
    device = os.fstat(fd).st_dev
    return Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")


def _read_aheads(fd: int) -> list[int]:
    """What to measure with, in KiB; 0: as it is."""
    path = _setting(fd)
    if not os.access(path, os.W_OK) or int(path.read_text()) == KERNEL_DEFAULT_KIB:
        return [0]
    return [0, KERNEL_DEFAULT_KIB]


@contextmanager
def _read_ahead(fd: int, kib: int) -> Iterator[str]:
    """The machine's setting while the body runs; what it is then."""
    path = _setting(fd)
    before = path.read_text() if path.exists() else "unknown"
    if not kib:
        yield before.strip()
        return
    path.write_text(str(kib))
    try:
        # Who has the file open keeps what was set then.
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(again, fd, inheritable=False)
        os.close(again)
        yield str(kib)
    finally:
        path.write_text(before)


def run(parameters: WaysParameters, work: Path) -> dict[str, Any]:
    """All figures."""
    content = Random(parameters.seed).randbytes(LARGE_BYTES)
    fd = os.open(work / "file", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        for place in range(0, parameters.file_bytes, LARGE_BYTES):
            os.pwrite(fd, content, place)
        os.fsync(fd)
        return {
            "machine": describe_machine(work),
            "commit": commit(),
            "parameters": attrs.asdict(parameters),
            "from the page cache": large_reads(fd, parameters),
            "from the disk, MB/s, by the read-ahead that is set": cold_reads(fd, parameters),
        }
    finally:
        os.close(fd)


@click.command()
@click.option("--smoke", is_flag=True, help="Tiny values: does it work at all?")
@click.option("--work-dir", type=click.Path(path_type=Path, exists=True), help="For the data.")
def main(smoke: bool, work_dir: Path | None) -> None:
    """Measure ways to read that the path does not take, beside the one that it takes."""
    print_figures(partial(run, SMOKE if smoke else REAL), work_dir)


if __name__ == "__main__":
    main()
