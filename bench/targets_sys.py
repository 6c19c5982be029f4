"""What is measured: each target behind one interface, started in a directory of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from bench.driver_sys import build_limit_target
from bench.errors import BenchError
from bench.process_sys import Process, command_line, family, free_port, running
from pyjiva.units import KIB, MIB

__all__ = [
    "BASELINE",
    "LIMIT",
    "LIMITS",
    "LIMIT_EACH",
    "TARGETS",
    "RunningTarget",
    "TargetKind",
    "begun_volume",
    "pyjiva_role",
    "volume_when_ready",
]

BASELINE: Final = "tgtd"
LIMIT: Final = "limit"
LIMIT_EACH: Final = "limit-each"
LIMITS: Final = (LIMIT, LIMIT_EACH)
"""What a target costs that does nothing but move the data: asked with as few calls as there can be, and as
libiscsi asks.
"""
READY_TIME_S: Final = 60.0

TGTD_IQN: Final = "iqn.2001-04.org.example:bench"
# tgtd's own 8 KiB for a data segment halves the speed of large writes.  The rest is what pyjiva offers too.
TGTD_PARAMETERS: Final = {
    "MaxRecvDataSegmentLength": str(256 * KIB),
    "MaxXmitDataSegmentLength": str(256 * KIB),
    "FirstBurstLength": str(256 * KIB),
    "MaxBurstLength": str(1 * MIB),
    "MaxOutstandingR2T": "8",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
}


@attrs.frozen
class RunningTarget:
    """A target that takes I/O."""

    url: str
    """As the driver takes it: `iscsi://` with the LUN, as libiscsi writes it, or `raw://`."""
    data: Path
    """All files that hold its data."""
    process: Process
    role_of: Callable[[list[str]], str]
    """The role of a process by its command line."""
    api: str = ""
    """URL of its API, if it has one."""

    def roles(self) -> dict[int, str]:
        """Its processes by number.  Raises BenchError: there are none."""
        found = {pid: self.role_of(command_line(pid)) for pid in family(self.process.pid)}
        if not found:
            raise BenchError(f"{self.process.popen.args!r} has ended:\n{self.process.log_tail()}")
        return found


@attrs.frozen
class TargetKind:
    """How to have one."""

    name: str
    title: str
    copies: int
    """Of the data, on this machine."""
    start: Callable[[Path, int], contextlib.AbstractContextManager[RunningTarget]]
    """In an empty directory, with a size in bytes."""
    programs: Mapping[str, str] = attrs.field(factory=dict)
    """What it runs, and the Debian package that has it."""

    def missing_packages(self) -> list[str]:
        """What to install first."""
        path = _system_path()
        return sorted({p for program, p in self.programs.items() if shutil.which(program, path=path) is None})


def _system_path() -> str:
    """Debian has tgtd in /usr/sbin, which is not on every user's PATH."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _program(name: str) -> str:
    return shutil.which(name, path=_system_path()) or name


@contextlib.contextmanager
def start_tgtd(directory: Path, size_bytes: int) -> Iterator[RunningTarget]:
    """tgtd on a control socket and a port of its own, over a sparse file in the page cache."""
    data = directory / "data"
    data.mkdir()
    backing = data / "disk.img"
    with backing.open("wb") as file:
        file.truncate(size_bytes)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as sockets:  # a socket's path has at most 107 bytes
        environment = {"TGT_IPC_SOCKET": f"{sockets}/tgtd"}
        command = [_program("tgtd"), "-f", "-C", "1", "--iscsi", f"portal=127.0.0.1:{port}"]
        # tgtd does not stop for SIGTERM while it has targets.
        with running(
            command, directory / "tgtd.log", environment=environment, last_resort=signal.SIGKILL
        ) as process:

            def admin(*arguments: str) -> bool:
                done = subprocess.run(
                    [_program("tgtadm"), "-C", "1", "--lld", "iscsi", *arguments],
                    env={**os.environ, **environment},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                return done.returncode == 0

            _wait_until_answers(process, lambda: admin("--op", "show", "--mode", "target"))
            _set_up_tgtd(process, admin, backing)
            try:
                yield RunningTarget(
                    f"iscsi://127.0.0.1:{port}/{TGTD_IQN}/1", data, process, lambda arguments: "tgtd"
                )
            finally:
                admin("--op", "delete", "--mode", "target", "--tid", "1", "--force")
                admin("--op", "delete", "--mode", "system")


def _set_up_tgtd(process: Process, admin: Callable[..., bool], backing: Path) -> None:
    steps = [
        ["--op", "new", "--mode", "target", "--tid", "1", "-T", TGTD_IQN],
        [
            "--op",
            "new",
            "--mode",
            "logicalunit",
            "--tid",
            "1",
            "--lun",
            "1",
            "-b",
            str(backing),
            "--bstype",
            "rdwr",
        ],
        ["--op", "bind", "--mode", "target", "--tid", "1", "-I", "127.0.0.1"],
    ]
    for name, value in TGTD_PARAMETERS.items():
        steps.append(["--op", "update", "--mode", "target", "--tid", "1", "--name", name, "--value", value])
    for step in steps:
        if not admin(*step):
            raise BenchError(f"tgtadm {' '.join(step)} failed:\n{process.log_tail()}")


def _wait_until_answers(process: Process, answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_TIME_S
    while not answers():
        if process.popen.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.popen.args!r} did not start:\n{process.log_tail()}")
        time.sleep(0.05)


@contextlib.contextmanager
def start_limit(directory: Path, size_bytes: int, scheme: str = "raw") -> Iterator[RunningTarget]:
    """limit_target over a sparse file in the page cache; `scheme`: how the driver is to ask it, see there."""
    data = directory / "data"
    data.mkdir()
    command = [str(build_limit_target()), str(data / "disk.img"), str(size_bytes)]
    # It has nothing to tidy up: what it acknowledged is in the file.
    with running(command, directory / "limit.log") as process:
        ready = process.read_line("ready ", READY_TIME_S)
        url = _fields(ready)["url"].replace("raw:", f"{scheme}:", 1)
        yield RunningTarget(url, data, process, lambda arguments: LIMIT)


@contextlib.contextmanager
def start_local(directory: Path, size_bytes: int) -> Iterator[RunningTarget]:
    """pyjiva's target over one local sparse chain."""
    data = directory / "data"
    command = [sys.executable, "-m", "bench.local_target", str(data), str(size_bytes)]
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with running(command, directory / "local.log", environment=environment) as process:
        ready = process.read_line("ready ", READY_TIME_S)
        yield RunningTarget(_fields(ready)["url"], data, process, lambda arguments: "target")


@contextlib.contextmanager
def start_pyjiva(directory: Path, size_bytes: int, replicas: int) -> Iterator[RunningTarget]:
    """A whole volume: one controller, `replicas` replicas, and their supervisor."""
    with begun_volume(directory, size_bytes, replicas) as process:
        yield volume_when_ready(process, directory, READY_TIME_S)


def begun_volume(
    directory: Path, size_bytes: int, replicas: int
) -> contextlib.AbstractContextManager[Process]:
    """`pyjiva up` while the body runs; it is not waited for.  Its data is in `directory`/data."""
    command = [
        sys.executable, "-m", "pyjiva.cli.main", "up", "bench",
        "--size", str(size_bytes),
        "--replicas", str(replicas),
        "--data", str(directory / "data"),
        "--portal", "127.0.0.1:0",
        "--api", "127.0.0.1:0",
    ]  # fmt: skip
    return running(command, directory / "up.log")


def volume_when_ready(process: Process, directory: Path, timeout_s: float) -> RunningTarget:
    """What `begun_volume` began, when it takes I/O.  Raises BenchError: it does not in time."""
    ready = _fields(process.read_line("ready ", timeout_s))
    url = f"iscsi://{ready['portal']}/{ready['iqn']}/{ready['lun']}"
    return RunningTarget(url, directory / "data", process, pyjiva_role, ready["api"])


def pyjiva_role(arguments: list[str]) -> str:
    """What a process of `pyjiva up` is for."""
    for role in ("controller", "replica"):
        if any(
            argument == f"pyjiva.cli.{role}" or argument.endswith((f"pyjiva-{role}", f"cli/{role}.py"))
            for argument in arguments
        ):
            return role
    return "supervisor"


def _fields(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def _volume(replicas: int) -> TargetKind:
    return TargetKind(
        name=f"pyjiva-{replicas}",
        title=f"pyjiva, {replicas} replica{'s' if replicas > 1 else ''}",
        copies=replicas,
        start=lambda directory, size_bytes: start_pyjiva(directory, size_bytes, replicas),
    )


TARGETS: Final[dict[str, TargetKind]] = {
    kind.name: kind
    for kind in (
        TargetKind("tgtd", "tgtd", 1, start_tgtd, {"tgtd": "tgt", "tgtadm": "tgt"}),
        TargetKind(LIMIT, "the kernel alone", 1, start_limit, {"gcc": "gcc"}),
        TargetKind(
            LIMIT_EACH,
            "the kernel alone, libiscsi's calls",
            1,
            lambda directory, size_bytes: start_limit(directory, size_bytes, "raw+each"),
            {"gcc": "gcc"},
        ),
        TargetKind("local", "pyjiva's target, one local chain", 1, start_local),
        _volume(1),
        _volume(3),
    )
}
