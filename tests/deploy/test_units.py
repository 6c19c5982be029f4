"""The units of deploy/systemd: systemd understands them, and the daemons run as they have it."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from pyjiva.cli.configuration import EXIT_CONFIG
from pyjiva.cli.controller import EXIT_FENCED, EXIT_UNSURE, IQN_PREFIX
from pyjiva.cli.replica import EXIT_BROKEN, OPEN_FILES
from pyjiva.iscsi.pdu import LoginStatus
from pyjiva.supervisor.ports_sys import HeldPorts
from pyjiva.testing.initiator import open_initiator
from pyjiva.units import MIB
from tests.deploy.units import HEADER, UNITS, Unit, allowed_calls, call_numbers
from tests.real.volume_process import needs, wait_until

PAGE: Final = Path(__file__).parents[2] / "docs/howto/run-under-systemd.md"
NAMES: Final = ("pyjiva-controller@.service", "pyjiva-replica@.service")
UID: Final = 54321  # of nobody: a user needs no name to run something
ANALYZE = needs(("systemd-analyze", "systemd"))
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@ANALYZE
@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    text, count = re.subn(
        r"^ExecStart=/opt/pyjiva/bin/\S+", "ExecStart=/bin/true", (UNITS / name).read_text(), flags=re.M
    )
    assert count == 1
    copy = tmp_path / name
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "--man=no", "verify", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "pyjiva" in line]
    assert (done.returncode, ours) == (0, [])


@ANALYZE
@pytest.mark.parametrize("name", NAMES)
def test_the_exposure_is_no_more_than_the_page_says(name: str) -> None:
    told = re.search(rf"`{re.escape(name)}` \| ([0-9.]+) \|", PAGE.read_text())
    assert told is not None
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "security", "--offline=yes", str(UNITS / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found is not None
    assert float(found[1]) <= float(told[1])


@pytest.mark.parametrize(
    ("name", "never", "again"),
    [
        ("pyjiva-controller@.service", {EXIT_CONFIG, EXIT_FENCED}, {1, EXIT_UNSURE}),
        ("pyjiva-replica@.service", {EXIT_CONFIG}, {1, EXIT_BROKEN}),
    ],
)
def test_only_what_would_fail_or_harm_again_is_not_restarted(
    name: str, never: set[int], again: set[int]
) -> None:
    unit = Unit.read(name)
    prevented = set(map(int, unit.one("RestartPreventExitStatus").split()))
    assert (unit.one("Restart"), prevented, prevented & again) == ("on-failure", never, set())


def test_a_replica_may_open_as_many_files_as_it_asks_for() -> None:
    assert int(Unit.read("pyjiva-replica@.service").one("LimitNOFILE")) == OPEN_FILES


def test_both_units_are_hardened_alike() -> None:
    controller, replica = (Unit.read(name).settings for name in NAMES)
    own = {"Description", "After", "Before", "ExecStart", "RestartPreventExitStatus", "LimitNOFILE"}
    own |= {"TimeoutStartSec", "TimeoutStopSec", "WatchdogSec", "StateDirectory", "StateDirectoryMode"}
    assert {k: v for k, v in controller.items() if k not in own} == {
        k: v for k, v in replica.items() if k not in own
    }
    for unit in (controller, replica):  # what would keep replicas from the controller's memory
        assert not unit.keys() & {"PrivateUsers", "PrivatePIDs", "DynamicUser"}
        assert "memfd_create" not in " ".join(unit["SystemCallFilter"])


@ROOT_ONLY
@needs(("systemd-sysusers", "systemd"), ("systemd-tmpfiles", "systemd"))
def test_user_and_folders_are_made_as_the_units_need_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    at = f"--root={root}"
    subprocess.run(
        ["systemd-sysusers", at, str(UNITS / "pyjiva.sysusers.conf")], check=True, capture_output=True
    )
    tmpfiles = ["systemd-tmpfiles", at, "--create", str(UNITS / "pyjiva.tmpfiles.conf")]
    subprocess.run(tmpfiles, check=True, capture_output=True)
    line = next(each for each in (root / "etc/passwd").read_text().splitlines() if each.startswith("pyjiva:"))
    uid, gid = map(int, line.split(":")[2:4])
    assert line.endswith("/nologin")
    found = {}
    for path in ("etc/pyjiva", "var/lib/pyjiva"):
        status = (root / path).stat()
        found[path] = (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    assert found == {"etc/pyjiva": (0, gid, 0o750), "var/lib/pyjiva": (uid, gid, 0o700)}


# --- the daemons, with the system calls, user and privileges of the units

PRIVILEGES: Final = ("--reuid", str(UID), "--regid", str(UID), "--clear-groups", "--bounding-set=-all")
#: In mounts of its own, with other users' processes hidden: ProtectProc=invisible.
HIDDEN: Final = 'mount -t proc -o hidepid=invisible,nosuid,nodev,noexec proc /proc && exec "$@"'
PREFIX: Final = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c", HIDDEN, "sh"),
    *("setpriv", "--no-new-privs", "--inh-caps=-all", *PRIVILEGES),
)


def why_not() -> str:
    """Why the daemons cannot be run so here; empty: they can."""
    if os.uname().machine != "x86_64" or not HEADER.exists():
        return f"numbers of system calls are read from {HEADER} (Debian package libc6-dev)"
    missing = [name for name in ("setpriv", "unshare", "systemd-analyze") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        return f"needs root, setpriv and unshare (util-linux), systemd-analyze (systemd); missing: {missing}"
    tried = [*PREFIX, sys.executable, "-c", "import pyjiva.cli.controller, tests.deploy.confined"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False, cwd=UNITS.parents[1])
    return f"another user cannot run {sys.executable} here: {done.stderr[-200:]}" if done.returncode else ""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of that user's; pytest's own are root's alone."""
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="pyjiva-unit-"))
    os.chown(folder, UID, UID)
    yield folder
    shutil.rmtree(folder)


def numbers_for(unit: str) -> str:
    """The system calls of a unit as `tests.deploy.confined` wants them."""
    numbers = call_numbers()
    return ",".join(str(numbers[name]) for name in allowed_calls(Unit.read(unit)) if name in numbers)


@contextmanager
def confined(unit: str, module: str, config: Path) -> Iterator["subprocess.Popen[str]"]:
    """The daemon as its unit would have it; ended by SIGTERM, as systemd does."""
    confining = (sys.executable, "-m", "tests.deploy.confined", numbers_for(unit))
    daemon = (f"pyjiva.cli.{module}", "--config", str(config))
    with (
        config.with_suffix(".log").open("w") as log,
        subprocess.Popen(
            [*PREFIX, *confining, *daemon, *(("--new-volume",) if module == "controller" else ())],
            cwd=UNITS.parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def write_private(file: Path, text: str) -> Path:
    """A file of that user's with mode 0600."""
    file.write_text(text)
    file.chmod(0o600)
    os.chown(file, UID, UID)
    return file


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(map(str.strip, line.split(":", 1)) for line in lines)  # type: ignore[misc]


def metric(health: str, name: str) -> float:
    """Of a replica, as its health port says."""
    with urllib.request.urlopen(f"http://{health}/metrics", timeout=5) as answer:
        found = re.search(rf"^{name} ([0-9.e+]+)$", answer.read().decode(), re.M)
    return float(found[1]) if found is not None else 0.0


async def write_and_compare(portal: str) -> None:
    """What an initiator wants: a MiB that goes through the shared memory, flushed and read back."""
    host, _, port = portal.partition(":")
    data = os.urandom(MIB)
    async with open_initiator(host, int(port)) as initiator:
        assert (await initiator.login(f"{IQN_PREFIX}demo")).status == LoginStatus.SUCCESS
        blocks = (MIB // 512).to_bytes(2, "big")
        assert (await initiator.command(b"\x00")).status in (0, 2)  # a unit attention comes first
        assert (await initiator.command(b"\x2a" + bytes(6) + blocks + b"\0", data=data)).status == 0
        assert (await initiator.command(b"\x35" + bytes(9))).status == 0
        read = await initiator.command(b"\x28" + bytes(6) + blocks + b"\0", read_bytes=MIB)
        assert (read.status, bytes(read.data)) == (0, data)
        await initiator.logout()


def pyjiva(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pyjiva.cli.main", *arguments], check=True, timeout=60)


def test_what_the_units_forbid_fails_there(place: Path) -> None:
    """Else the next test would show nothing."""
    confining = (*PREFIX, sys.executable, "-m", "tests.deploy.confined", numbers_for(NAMES[1]))
    done = subprocess.run(
        [*confining, "tests.deploy.forbidden"],
        cwd=UNITS.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "chroot": "EPERM",
        "netlink": "EAFNOSUPPORT",
        "write-and-run": "EPERM",
        "other-process": "ENOENT",
        "write": "0",
    }


@pytest.mark.real
def test_both_daemons_run_without_privileges_and_share_memory(place: Path) -> None:
    """As another user without any capability, with the units' system calls and their W^X memory."""
    write_private(place / "key", "ab" * 32)
    with HeldPorts() as ports:
        portal, api, data, health = (f"127.0.0.1:{ports.hold('127.0.0.1', 0)}" for _ in range(4))
    common = f'volume = "demo"\nvolume-id = "{"7a" * 16}"\nsize = "16MiB"\nkey-file = "key"\n'
    replica_file = write_private(
        place / "replica.toml",
        f'{common}replica-id = 1\ndirectory = "replica-1"\ndata = "{data}"\nhealth = "{health}"\n',
    )
    controller_file = write_private(
        place / "controller.toml", f'{common}replica = ["1={data}"]\nportal = ["{portal}"]\napi = "{api}"\n'
    )
    with ExitStack() as stack:
        replica = stack.enter_context(confined("pyjiva-replica@.service", "replica", replica_file))
        controller = stack.enter_context(
            confined("pyjiva-controller@.service", "controller", controller_file)
        )
        assert controller.stdout is not None
        ready = controller.stdout.readline()
        assert ready.startswith("ready "), controller_file.with_suffix(".log").read_text()
        for process in (replica, controller):
            said: dict[str, Any] = status_of(process.pid)
            assert said["Uid"].split() == [str(UID)] * 4
            assert {said[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
            assert (said["NoNewPrivs"], said["Seccomp"], said["Groups"]) == ("1", "2", "")
        trio.run(write_and_compare, portal)
        wait_until(lambda: metric(health, "pyjiva_replica_shared_bytes_total") >= MIB, "memory to be shared")
        pyjiva("snapshot", "create", "one", "--api", f"http://{api}")
        trio.run(write_and_compare, portal)
        pyjiva("snapshot", "rm", "one", "--api", f"http://{api}")
        controller.send_signal(signal.SIGTERM)
        assert controller.wait(30) == 0
        replica.send_signal(signal.SIGTERM)
        assert replica.wait(30) == 0
    logs = [file.with_suffix(".log").read_text() for file in (replica_file, controller_file)]
    assert not any("Traceback" in log or "Operation not permitted" in log for log in logs), logs
    modes = {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in (place / "replica-1").rglob("*")}
    assert modes == {0}, "files that others may read"
