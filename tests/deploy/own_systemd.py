"""A systemd of a test, as process 1 of namespaces, over this machine's files, of which nothing is changed.

Its root is an overlay whose upper half is in memory; `own_systemd.sh` makes it.  It has a network of nothing
but loopback, devices that do no harm, none of this machine's units but what every service stands on, and a
cgroup of its own in the hierarchy of version 2.  All of it goes with process 1.

Not shown: limits that take controllers of cgroups (there are none in the units), and a boot.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from tests.kube.namespaces import enter_network
from tests.real.volume_process import wait_until

__all__ = ["OwnSystemd", "own_systemd", "why_no_systemd"]

TOP: Final = Path(__file__).parents[2]
SCRIPT: Final = Path(__file__).with_suffix(".sh")
SYSTEMD: Final = Path("/lib/systemd/systemd")
NAMESPACES: Final = ("--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup")
PROGRAMS: Final = {
    **dict.fromkeys(("unshare", "nsenter", "setpriv", "pivot_root"), "util-linux"),
    **dict.fromkeys(("mount", "umount"), "mount"),
    "ip": "iproute2",
    "systemctl": "systemd",
}
TRY: Final = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root" "$1/cgroup"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount -t cgroup2 cgroup2 "$1/cgroup"
mount -t proc proc "$1/root/proc"
mount -t sysfs sysfs "$1/root/sys"
"""
COMMAND_S: Final = 60


def why_no_systemd(folder: Path) -> str:
    """Why there can be none here; empty: there can.  `folder` is empty, and stays so."""
    if os.geteuid() != 0:
        return "only root can make the namespaces of a systemd"
    missing = [f"{package} (for {name})" for name, package in PROGRAMS.items() if not shutil.which(name)]
    if missing or not SYSTEMD.exists():
        return f"Debian package missing: {', '.join(missing) or 'systemd'}"
    if _cgroup() is None:
        return "no hierarchy of cgroups of version 2 is mounted"
    if not Path(sys.executable).resolve().is_relative_to(sys.base_prefix):
        return f"{sys.executable} is not inside {sys.base_prefix}"
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "sh", "-euc", TRY, "sh", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_S,
    )
    return f"no namespaces and mounts as a systemd needs them: {tried.stderr}" if tried.returncode else ""


def _cgroup() -> Path | None:
    """This process' cgroup of version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            within = next(
                each.removeprefix("0::")
                for each in Path("/proc/self/cgroup").read_text().splitlines()
                if each.startswith("0::")
            )
            return Path(before.split()[4]) / within.strip("/")
    return None


@attrs.frozen
class OwnSystemd:
    """It runs."""

    pid: int
    """Of process 1, as it is called outside."""

    def run(self, *command: str, check: bool = True) -> str:
        """What a program says that root starts inside."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid), "--all", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr, self.journal())
        return done.stdout

    def journal(self) -> str:
        """What all units have said."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", check=False)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        file = self._inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _inside(self, path: str) -> Path:
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def show(self, unit: str) -> dict[str, str]:
        """All properties of a unit."""
        lines = self.run("systemctl", "show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def wait_for(self, unit: str, **patterns: str) -> dict[str, str]:
        """Wait until properties of a unit match these; all that it has then."""

        def has() -> dict[str, str] | None:
            found = self.show(unit)
            return (
                found if all(re.fullmatch(p, found.get(name, "")) for name, p in patterns.items()) else None
            )

        try:
            found: dict[str, str] = wait_until(has, f"{unit} to have {patterns}")
        except AssertionError as error:
            raise AssertionError(f"{self.show(unit)}\n{self.journal()}") from error
        return found

    def main_pid(self, unit: str) -> int:
        """Of a unit's main process, as it is called outside."""
        inside = int(self.show(unit)["MainPID"])
        found = {of_it: pid for pid, (of_it, _) in self.processes().items()}
        assert inside in found, f"{unit} has no process {inside}\n{self.journal()}"
        return found[inside]

    def processes(self) -> dict[int, tuple[int, str]]:
        """All inside, by their number outside: the number inside, and the command line."""
        namespace = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is not ours to look at
                if (process / "ns/pid").readlink() == namespace:
                    line = re.search(r"^NSpid:.*\s(\d+)$", (process / "status").read_text(), re.M)
                    assert line is not None
                    command = (process / "cmdline").read_text().replace("\0", " ")
                    found[int(process.name)] = (int(line[1]), command)
        return found

    def in_network(self, work: Callable[[], None]) -> None:
        """Do something in a thread that is in its network."""
        raised: list[BaseException] = []

        def enter_and_work() -> None:
            try:
                enter_network(Path(f"/proc/{self.pid}/ns/net"))
                work()
            except BaseException as error:  # noqa: BLE001  # is raised again below
                raised.append(error)

        thread = threading.Thread(target=enter_and_work, name="in-network")
        thread.start()
        thread.join()
        if raised:
            raise raised[0]


@contextmanager
def own_systemd(folder: Path) -> Iterator[OwnSystemd]:
    """`folder`: empty, where no mount of this machine hides it; stays empty."""
    parent = _cgroup()
    assert parent is not None
    cgroup = parent / f"pyjiva-test-{os.getpid()}"
    cgroup.mkdir()
    interpreter = Path(sys.executable).resolve().relative_to(sys.base_prefix)
    script = ["sh", str(SCRIPT), str(folder), str(TOP), sys.base_prefix, sysconfig.get_path("purelib")]
    enter = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'
    command = [
        *("sh", "-euc", enter, "sh", str(cgroup), "setpriv", "--pdeathsig", "KILL"),
        *("unshare", *NAMESPACES, "--fork", "--kill-child", *script, str(interpreter)),
    ]
    log = folder.with_name(folder.name + ".log")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        own = wait_until(lambda: _started(process, log), "a systemd to start")
        yield own
    finally:
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)  # process 1, and the kernel ends all others with it
        process.wait(COMMAND_S)
        for each in sorted([cgroup, *(path for path in cgroup.rglob("*") if path.is_dir())], reverse=True):
            wait_until(partial(_removed, each), f"{each} to be empty")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def _started(process: "subprocess.Popen[bytes]", log: Path) -> OwnSystemd | None:
    assert process.poll() is None, log.read_text()
    for child in _children(process.pid):
        if Path(f"/proc/{child}/cmdline").read_bytes().startswith(bytes(SYSTEMD)):
            own = OwnSystemd(child)
            return (
                own if own.run("systemctl", "is-system-running", check=False).strip() == "running" else None
            )
    return None


def _removed(cgroup: Path) -> bool:
    with contextlib.suppress(OSError):  # a process in it has been killed, and is not gone yet
        cgroup.rmdir()
    return not cgroup.exists()
