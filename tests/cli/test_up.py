"""`pyjiva up` over small programs that pretend to be the daemons."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPLICA = """
import sys
sys.stdin.read()
"""
CONTROLLER = """
import sys, signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
portal = sys.argv[sys.argv.index("--portal") + 1].replace(":0", ":4711")
print(f"ready volume=x iqn=iqn.x portal={portal} lun=0 api=http://127.0.0.1:4712 replicas=3", flush=True)
sys.stdin.read()
"""
MAIN = """
import sys, trio
from functools import partial
from pathlib import Path
from pyjiva.cli.daemon import Address, run_daemon
from pyjiva.cli.up import Commands, UpOptions, run_up
data, controller, replica, portal = sys.argv[1:5]
options = UpOptions("demo", 1 << 20, 512, 3, Path(data), Address.parse(portal), Address("127.0.0.1", 0))
commands = Commands((sys.executable, controller), (sys.executable, replica), stop_s=3)
sys.exit(run_daemon("pyjiva", partial(run_up, options, commands)))
"""

Up = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Start `up` with pretended daemons; it is ended after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        *,
        controller: str = CONTROLLER,
        replica: str = REPLICA,
        portal: str = "127.0.0.1:0",
        data: str = "data",
    ) -> "subprocess.Popen[str]":
        files = {"main.py": MAIN, "controller.py": controller, "replica.py": replica}
        for name, text in files.items():
            (tmp_path / name).write_text(textwrap.dedent(text))
        process = subprocess.Popen(
            [
                *(sys.executable, str(tmp_path / "main.py"), str(tmp_path / data)),
                *(str(tmp_path / "controller.py"), str(tmp_path / "replica.py"), portal),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Ask it to stop: exit code, the rest of its output, its errors."""
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def children(process: "subprocess.Popen[str]") -> list[int]:
    """Process ids."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def wait_until(condition: Callable[[], Any]) -> None:
    """Within 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line of its standard output."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_ready_line_then_a_clean_end(up: Up, number: signal.Signals) -> None:
    process = up()
    assert line_of(process).startswith("ready volume=x ")
    code, out, err = end(process, number)
    assert (code, out) == (0, "")
    assert "iscsiadm -m discovery -t sendtargets -p 127.0.0.1:4711" in err
    assert "qemu-img info iscsi://127.0.0.1:4711/iqn.x/0" in err
    assert "iscsi-inq iscsi://127.0.0.1:4711/iqn.x/0" in err


def test_a_child_that_dies_is_started_again_and_only_one_line_is_printed(up: Up) -> None:
    process = up()
    line_of(process)
    before = children(process)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children(process)) == 4 and not set(children(process)) & set(before))
    code, out, err = end(process)
    assert (code, out) == (0, "")
    assert "controller ended with exit code -9: starting it again" in err


def test_the_ports_of_the_first_ready_line_are_kept(up: Up, tmp_path: Path) -> None:
    """The initiators know them."""
    portals = tmp_path / "portals"
    process = up(
        controller=f"import sys\nopen({str(portals)!r}, 'a').write(repr(sys.argv) + '\\n')\n" + CONTROLLER
    )
    line_of(process)
    first = set(children(process))
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(portals.read_text().splitlines()) == 2)
    again = portals.read_text().splitlines()[1]
    assert "'127.0.0.1:4711'" in again
    assert "'127.0.0.1:4712'" in again
    assert "--new-volume" not in again  # it was ready once
    end(process)


def test_an_impossible_configuration_ends_everything(up: Up) -> None:
    process = up(replica="import sys\nprint('pyjiva-replica: no', file=sys.stderr)\nsys.exit(2)\n")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "pyjiva-replica: no" in err


def test_one_that_ignores_the_signal_is_killed(up: Up) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    process = up(replica=stubborn + "import time\nwhile True: time.sleep(1)\n")
    line_of(process)
    code, _, err = end(process)
    assert code == 0
    assert "does not stop: killed" in err


def test_the_children_end_when_it_is_killed(up: Up) -> None:
    process = up()
    line_of(process)
    alive = children(process)
    assert len(alive) == 4
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in alive))


def test_a_busy_portal_is_one_line_and_exit_code_2(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        process = up(portal=f"127.0.0.1:{busy.getsockname()[1]}")
        out, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out == ""
    assert err.startswith("pyjiva: cannot listen on 127.0.0.1:")
    assert err.count("\n") == 1


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    process = up()
    line_of(process)
    second = up()
    _, err = second.communicate(timeout=30)
    assert second.returncode == 2
    assert "another process has it open" in err
    assert end(process)[0] == 0


def test_a_full_disk_is_one_line_and_exit_code_2(up: Up, tmp_path: Path) -> None:
    """A file system without a free byte."""
    (tmp_path / "full").mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "none", str(tmp_path / "full")],
        capture_output=True,
    ).returncode:
        pytest.skip("mounting needs root")
    try:
        process = up(data="full")
        _, err = process.communicate(timeout=30)
    finally:
        subprocess.run(["umount", str(tmp_path / "full")], check=True)
    assert process.returncode == 2
    assert err.startswith("pyjiva: ")
    assert err.count("\n") == 1
