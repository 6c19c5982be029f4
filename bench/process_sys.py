"""Processes: starting them so that they end with us, finding their children, their cost, stopping them."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from bench.errors import BenchError

__all__ = [
    "Memory",
    "Process",
    "command_line",
    "cpu_s",
    "family",
    "free_port",
    "memory_of",
    "ports_of_programs",
    "running",
]

STOP_TIME_S: Final = 20.0  # a controller that flushes a dirty gigabyte per replica
PR_SET_PDEATHSIG: Final = 1
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
LOG_TAIL_CHARS: Final = 2000
FIRST_PORT: Final = 12000
PORTS_TRIED: Final = 100

_libc: Final = ctypes.CDLL(None)


@attrs.frozen
class Identity:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start_ticks: int


@attrs.frozen
class Memory:
    """What a process has in memory, in bytes (proc_pid_smaps_rollup)."""

    rss_bytes: int
    """All of it."""
    pss_bytes: int
    """A page that N processes share counts an Nth."""


@attrs.define(eq=False)
class Process:
    """A process of ours."""

    popen: subprocess.Popen[str]
    log_path: Path

    @property
    def pid(self) -> int:
        """Its number."""
        return self.popen.pid

    def log_tail(self) -> str:
        """The end of what it wrote on standard error."""
        return self.log_path.read_text(errors="replace")[-LOG_TAIL_CHARS:]

    def read_line(self, beginning: str, timeout_s: float) -> str:
        """The first line on its standard output that starts with `beginning`.

        Raises BenchError: it ended, or said nothing of the kind in time.
        """
        assert self.popen.stdout is not None
        descriptor = self.popen.stdout.fileno()
        deadline, text = time.monotonic() + timeout_s, ""
        os.set_blocking(descriptor, False)
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                text += os.read(descriptor, 65536).decode(errors="replace")
            for line in text.splitlines(keepends=True):
                if line.startswith(beginning) and line.endswith("\n"):
                    return line.rstrip("\n")
            if self.popen.poll() is not None:
                break
            time.sleep(0.01)
        raise BenchError(f"{self.popen.args!r} did not say {beginning!r}:\n{text}{self.log_tail()}")


@contextlib.contextmanager
def running(
    arguments: Sequence[str],
    log_path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    last_resort: signal.Signals = signal.SIGTERM,
) -> Iterator[Process]:
    """Run a program until the end of the body, then stop it and its children, by their numbers.

    Its standard input ends when we do, and if we are killed the kernel sends it `last_resort`.  A session of
    its own keeps Ctrl-C from it: the order of stopping is ours.
    """

    def before_exec() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, int(last_resort), 0, 0, 0)

    with log_path.open("w") as log:
        popen = subprocess.Popen(
            list(arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=before_exec,
        )
    try:
        yield Process(popen, log_path)
    finally:
        stop(popen)


def stop(popen: subprocess.Popen[str]) -> None:
    """SIGTERM, a while of patience, SIGKILL for whatever of the family is left."""
    members = [identity for pid in family(popen.pid) if (identity := _identify(pid)) is not None]
    try:
        if popen.poll() is None:
            popen.terminate()
        popen.wait(STOP_TIME_S)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    finally:
        for stream in (popen.stdin, popen.stdout):
            if stream is not None:
                stream.close()
        for member in members:
            if _identify(member.pid) == member:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)


def family(pid: int) -> list[int]:
    """`pid` and all its descendants (proc_pid_task_children(5)); empty when it has ended."""
    found, pending = [], [pid]
    while pending:
        member = pending.pop()
        try:
            children = [path.read_text().split() for path in Path(f"/proc/{member}/task").glob("*/children")]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if not children:
            continue
        found.append(member)
        pending += [int(child) for listed in children for child in listed]
    return found


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time that these processes have taken so far; ended ones count nothing."""
    return sum(sum(map(int, _stat(pid)[11:13])) for pid in pids if _stat(pid)) / CLOCK_TICKS


def memory_of(pid: int) -> Memory:
    """What it has now.  Raises BenchError: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise BenchError(f"process {pid} has ended") from error
    found = {
        name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines[1:])
    }
    return Memory(found["Rss"], found["Pss"])


def _stat(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from the third on; empty when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _identify(pid: int) -> Identity | None:
    fields = _stat(pid)
    return Identity(pid, int(fields[19])) if fields else None


def free_port() -> int:
    """A port on loopback that is free now: for programs that cannot say which one the kernel gave them.

    Not one of those that the kernel gives to connections (ip(7), ip_local_port_range): until the program has
    it, any other program's connection might get it.  Raises BenchError: none was found.
    """
    ports = ports_of_programs(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text())
    for _ in range(PORTS_TRIED):
        port = secrets.choice(ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchError(f"none of {PORTS_TRIED} ports from {ports[0]} to {ports[-1]} is free")


def ports_of_programs(range_of_connections: str) -> range:
    """From FIRST_PORT to the first that connections get; all, where they get even that one."""
    first = int(range_of_connections.split()[0])
    return range(FIRST_PORT, first if first > FIRST_PORT else 1 << 16)
