"""The units of deploy/systemd under a real systemd, process 1 of namespaces of its own, as the page says."""

import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from pyjiva.units import MIB
from tests.deploy.own_systemd import OwnSystemd, own_systemd, why_no_systemd
from tests.deploy.test_units import PAGE, metric, pyjiva, status_of, write_and_compare
from tests.deploy.units import Unit
from tests.real.volume_process import wait_until

REPLICA, CONTROLLER = "pyjiva-replica@demo-1", "pyjiva-controller@demo"
PORTAL, API, DATA, HEALTH = (f"127.0.0.1:{port}" for port in (3260, 9501, 9502, 9503))
COMMON: Final = (
    f'volume = "demo"\nvolume-id = "{"7a" * 16}"\nsize = "16MiB"\nkey-file = "/etc/pyjiva/demo.key"\n'
)
#: In place of the units' minutes.
WAITING: Final = "parked: .*replica.*"
SHORT: Final = "[Service]\nWatchdogSec=3\nTimeoutAbortSec=1\n"

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def own() -> Iterator[OwnSystemd]:
    """With everything that the page has done before the first `systemctl start`."""
    folder = Path(tempfile.mkdtemp(prefix="pyjiva-systemd-"))
    try:
        if reason := why_no_systemd(folder):
            pytest.skip(reason)
        with own_systemd(folder) as own:
            install(own)
            yield own
    finally:
        folder.rmdir()
        folder.with_name(folder.name + ".log").unlink(missing_ok=True)


def install(own: OwnSystemd) -> None:
    """By the page's own commands, but for the programs, which are there."""
    block = PAGE.read_text().partition("## Install")[2].split("```")[1].removeprefix("sh\n")
    made = ("python3 -m venv", "/opt/pyjiva/bin/pip")
    commands = [line for line in block.splitlines() if not line.startswith(made)]
    assert len(commands) == 4
    own.run("sh", "-euc", "\n".join(["cd /opt/source", *commands]))
    own.write("/etc/pyjiva/demo.key", "ab" * 32, 0o600)
    own.run("chown", "pyjiva:", "/etc/pyjiva/demo.key")
    replica = f'replica-id = 1\ndirectory = "/var/lib/pyjiva/demo-1"\ndata = "{DATA}"\nhealth = "{HEALTH}"\n'
    own.write("/etc/pyjiva/replica-demo-1.toml", COMMON + replica)
    controller = f'replica = ["1={DATA}"]\nportal = ["{PORTAL}"]\napi = "{API}"\n'
    own.write("/etc/pyjiva/controller-demo.toml", COMMON + controller)
    own.run("systemctl", "start", REPLICA)
    create(own)


def create(own: OwnSystemd) -> None:
    """The first start of the volume, as docs/howto/three-machines.md has it, and Ctrl-C."""
    program = ("/opt/pyjiva/bin/pyjiva-controller", "--config", "/etc/pyjiva/controller-demo.toml")
    command = ("nsenter", "--target", str(own.pid), "--all", "runuser", "-u", "pyjiva", "--", *program)
    with subprocess.Popen(
        [*command, "--new-volume"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready "), own.journal()
            lines = {pid: line for pid, (_, line) in own.processes().items() if "--new-volume" in line}
            (pid,) = (pid for pid, line in lines.items() if line.startswith("/opt/python"))
            os.kill(pid, signal.SIGINT)
            assert process.wait(60) == 0, own.journal()
        finally:
            process.kill()


def both_run(own: OwnSystemd) -> tuple[int, int]:
    """The replica's process and the controller's; started if they are not there."""
    own.run("systemctl", "start", REPLICA, CONTROLLER)
    for unit in (REPLICA, CONTROLLER):
        own.wait_for(unit, ActiveState="active", SubState="running")
    return own.main_pid(REPLICA), own.main_pid(CONTROLLER)


def use(own: OwnSystemd) -> None:
    """What an initiator does."""
    own.in_network(partial(trio.run, write_and_compare, PORTAL))


def test_a_controller_is_active_when_initiators_are_served_and_not_before(own: OwnSystemd) -> None:
    """Type=notify with no limit to the start, and words for people meanwhile."""
    own.run("systemctl", "stop", CONTROLLER, REPLICA)
    own.run("systemctl", "start", "--no-block", CONTROLLER)
    waiting = own.wait_for(CONTROLLER, ActiveState="activating", StatusText=WAITING)
    assert (waiting["SubState"], waiting["NRestarts"]) == ("start", "0")
    own.run("systemctl", "start", REPLICA)
    own.wait_for(CONTROLLER, ActiveState="active", SubState="running", NRestarts="0")
    use(own)
    own.wait_for(CONTROLLER, StatusText="healthy")


def test_both_run_as_their_user_with_nothing_that_they_do_not_need(own: OwnSystemd) -> None:
    uid = own.run("id", "--user", "pyjiva").strip()
    assert uid != "0"
    for pid in both_run(own):
        said = status_of(pid)
        assert said["Uid"].split() == [uid] * 4
        assert {said[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
        assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
        root = Path(f"/proc/{pid}/root")
        assert not os.access(root / "etc/passwd", os.W_OK), "read-only, also for root"
        assert not list((root / "root").iterdir()), "ProtectHome="
        assert not list((root / "tmp").iterdir()), "PrivateTmp="
        assert (root / "dev/zero").exists() and not (root / "dev/other").exists(), "PrivateDevices="
    state = Path(f"/proc/{both_run(own)[0]}/root/var/lib/pyjiva/demo-1")
    assert os.access(state, os.W_OK), "StateDirectory="
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_hardening_takes_nothing_that_they_need(own: OwnSystemd) -> None:
    """Reads, writes, flushes, snapshots, and the memory that both share, which takes /proc/PID/fd."""
    both_run(own)

    def work() -> None:
        before = metric(HEALTH, "pyjiva_replica_shared_bytes_total")
        trio.run(write_and_compare, PORTAL)
        wait_until(
            lambda: metric(HEALTH, "pyjiva_replica_shared_bytes_total") >= before + MIB, "memory to be shared"
        )
        pyjiva("snapshot", "create", "one", "--api", f"http://{API}")
        trio.run(write_and_compare, PORTAL)
        pyjiva("snapshot", "rm", "one", "--api", f"http://{API}")

    own.in_network(work)
    journal = own.journal()
    assert "Traceback" not in journal and "Operation not permitted" not in journal, journal


@pytest.mark.parametrize("unit", [REPLICA, CONTROLLER])
def test_the_watchdog_ends_a_process_that_stands_still_and_it_is_started_again(
    unit: str, own: OwnSystemd
) -> None:
    name = f"{unit.partition('@')[0]}@.service"
    assert int(Unit.read(name).one("WatchdogSec")) > 0, "what is short here is there"
    file = f"/etc/systemd/system/{name}.d/short.conf"
    own.write(file, SHORT)
    own.run("systemctl", "daemon-reload")
    both_run(own)
    own.run("systemctl", "restart", unit)
    both_run(own)
    before = own.show(unit)
    os.kill(own.main_pid(unit), signal.SIGSTOP)
    after = own.wait_for(
        unit, NRestarts=str(int(before["NRestarts"]) + 1), ActiveState="active", SubState="running"
    )
    assert after["MainPID"] != before["MainPID"]
    assert f"{unit}.service: Watchdog timeout" in own.journal()
    use(own)
    own.run("rm", "-r", f"/etc/systemd/system/{name}.d")
    own.run("systemctl", "daemon-reload")


def test_what_was_told_wrong_is_not_started_again(own: OwnSystemd) -> None:
    own.write("/etc/pyjiva/replica-none.toml", "colour = 1\n")
    own.run("systemctl", "start", "pyjiva-replica@none", check=False)
    failed = own.show("pyjiva-replica@none")
    assert (failed["ActiveState"], failed["Result"], failed["NRestarts"]) == ("failed", "exit-code", "0")
    assert failed["ExecMainStatus"] == "2"


def test_a_stop_ends_both_cleanly_and_leaves_no_process(own: OwnSystemd) -> None:
    both_run(own)
    use(own)
    for unit in (CONTROLLER, REPLICA):
        before = own.run("journalctl", "--unit", unit)
        own.run("systemctl", "stop", unit)
        assert own.show(unit)["ActiveState"] == "inactive"
        own.run("journalctl", "--sync")  # it writes later than systemd tells it
        ended = own.run("journalctl", "--unit", unit).removeprefix(before)
        # By itself, at SIGTERM, with 0: else systemd says which signal or code it was.
        assert "Deactivated successfully" in ended and "exited" not in ended and "Killing" not in ended, ended
    assert not [line for _, line in own.processes().values() if "pyjiva" in line]
    # What was written is there afterwards, without --new-volume.
    both_run(own)
    use(own)
