"""`pyjiva up` over small programs that pretend to be the daemons."""

import ast
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
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
portal, api = (sys.argv[sys.argv.index(option) + 1] for option in ("--portal", "--api"))
print("something else", flush=True)
print(f"ready volume=x iqn=iqn.x portal={portal} lun=0 api=http://{api} replicas=3", flush=True)
sys.stdin.read()
"""
MAIN = """
import sys
from functools import partial
from pathlib import Path
from pyjiva.cli import up
from pyjiva.cli.daemon import Address, run_daemon
from pyjiva.cli.up import Commands, UpOptions, run_up
from pyjiva.supervisor import VolumeRequest
data, controller, replica, stop_s, replicas, witness, first_port = sys.argv[1:8]
up.REPLICA_PORTS = range(int(first_port), int(first_port) + 100)
volume = VolumeRequest("demo", 1 << 20, 512, int(replicas), bool(int(witness)))
options = UpOptions(volume, Path(data), (Address("127.0.0.1", 0),), Address("127.0.0.1", 0))
commands = Commands((sys.executable, controller), (sys.executable, replica), float(stop_s))
sys.exit(run_daemon("pyjiva", partial(run_up, options, commands)))
"""

#: Where these tests look for free ports of replicas: what others start beside them does not take one between
#: two lives of a volume.
FIRST_PORT = 9700 + 100 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 3)

Up = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Start `up` with pretended daemons; it is ended after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        *,
        controller: str = CONTROLLER,
        replica: str = REPLICA,
        stop_s: float = 10,
        replicas: int = 3,
        witness: bool = False,
    ) -> "subprocess.Popen[str]":
        files = {"main.py": MAIN, "controller.py": controller, "replica.py": replica}
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        process = subprocess.Popen(
            [
                *(sys.executable, str(tmp_path / "main.py"), str(tmp_path / "data")),
                *(str(tmp_path / "controller.py"), str(tmp_path / "replica.py"), str(stop_s)),
                *(str(replicas), str(int(witness)), str(FIRST_PORT)),
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


def command_line(pid: int) -> bytes:
    """Of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def wait_until(condition: Callable[[], Any]) -> None:
    """Within 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line of its standard output, within 20 s."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 20)[0], "it prints nothing"
    return process.stdout.readline()


def read_errors_until(process: "subprocess.Popen[str]", words: str) -> None:
    """Read its standard error until a line has `words`."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended and never said {words!r}")


def fields(line: str) -> dict[str, str]:
    """Of a ready line."""
    return dict(field.split("=", 1) for field in line.split()[1:])


def description(tmp_path: Path) -> dict[str, Any]:
    """volume.json."""
    found: dict[str, Any] = json.loads((tmp_path / "data" / "demo" / "volume.json").read_bytes())
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_ready_line_then_a_clean_end(up: Up, number: signal.Signals, tmp_path: Path) -> None:
    process = up()
    line = line_of(process)
    assert line.startswith("ready volume=x ")
    assert description(tmp_path)["born"] is True
    code, out, err = end(process, number)
    assert (code, out) == (0, "")
    portal, api = fields(line)["portal"], fields(line)["api"]
    for command in (
        f"iscsiadm -m discovery -t sendtargets -p {portal}",
        f"iscsiadm -m node -T iqn.x -p {portal} --login",
        f"qemu-img info iscsi://{portal}/iqn.x/0",
        f"iscsi-ls -s iscsi://{portal}",
        f"iscsi-inq iscsi://{portal}/iqn.x/0",
        f"pyjiva status --api {api}",
    ):
        assert f"  {command}\n" in err


def test_a_child_that_dies_is_started_again_and_only_one_line_is_printed(up: Up) -> None:
    process = up()
    line_of(process)
    before = children(process)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children(process)) == 4 and not set(children(process)) & set(before))
    code, out, err = end(process)
    assert (code, out) == (0, "")
    assert "pyjiva: controller was ended by SIGKILL: starting it again\n" in err


def test_secrets_in_the_environment_are_the_controllers_alone(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYJIVA_CHAP", "alice not-for-replicas")
    process = up()
    line_of(process)
    told = {
        b"--replica-id" in command_line(pid): b"not-for-replicas" in Path(f"/proc/{pid}/environ").read_bytes()
        for pid in children(process)
    }
    assert told == {True: False, False: True}
    end(process)


def test_everything_is_the_same_in_a_second_life(up: Up, tmp_path: Path) -> None:
    """The ports above all: initiators know them.  And blank replicas are not served any more."""
    calls = tmp_path / "calls"
    note = f"import sys\nopen({str(calls)!r}, 'a').write(repr(sys.argv) + '\\n')\n"
    process = up(controller=note + CONTROLLER)
    line_of(process)
    for pid in children(process):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(calls.read_text().splitlines()) == 2)
    first, second = map(ast.literal_eval, calls.read_text().splitlines())
    assert first[-1] == "--new-volume"
    assert second == first[:-1]
    assert "127.0.0.1:0" not in first
    end(process)
    kept = description(tmp_path)
    process = up()
    line_of(process)
    end(process)
    assert description(tmp_path) == kept


def test_a_kept_port_that_was_taken_is_replaced_and_the_others_stay(up: Up, tmp_path: Path) -> None:
    process = up()
    line_of(process)
    end(process)
    before = description(tmp_path)["data_ports"]
    with socket.create_server(("127.0.0.1", before[0])):
        process = up()
        line_of(process)
        end(process)
    after = description(tmp_path)["data_ports"]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert len({*after, *description(tmp_path)["health_ports"]}) == 6


def test_two_at_once_never_share_a_port(up: Up, tmp_path: Path) -> None:
    """Also while no child listens: these never do."""
    ports: list[int] = []
    for name in ("data", "other"):
        process = up()
        line_of(process)
        ports += description(tmp_path)["data_ports"] + description(tmp_path)["health_ports"]
        if name == "data":
            (tmp_path / "data").rename(tmp_path / "moved")  # it goes on where it is; the next makes its own
    assert len(set(ports)) == 12


def test_an_impossible_configuration_ends_everything(up: Up) -> None:
    process = up(
        replica="import sys\nprint('pyjiva-replica: no', file=sys.stderr)\nsys.exit(2)\n", replicas=1
    )
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    own = [line for line in err.splitlines() if line.startswith("pyjiva: replica")]
    assert own == ["pyjiva: replica-1 ended with exit code 2: stopping"]
    assert err.count("pyjiva-replica: no") == 1


def test_a_replica_that_cannot_come_back_does_not_end_the_others(up: Up, tmp_path: Path) -> None:
    """It did live: its disk has failed, or its port was taken while it was away."""
    broken = tmp_path / "broken"
    check = f"import os, sys\nif os.path.exists({str(broken)!r}): sys.exit(2)\n"
    process = up(replica=check + REPLICA, replicas=1)
    line_of(process)
    broken.touch()
    (replica,) = [pid for pid in children(process) if b"--replica-id" in command_line(pid)]
    os.kill(replica, signal.SIGKILL)
    read_errors_until(process, "replica-1 ended with exit code 2: starting it again")
    broken.unlink()
    wait_until(lambda: len(children(process)) == 2)
    assert end(process)[0] == 0


def test_one_that_cannot_be_started_is_tried_again(up: Up, tmp_path: Path) -> None:
    process = up()
    line_of(process)
    limit = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, limit[1]))  # no descriptor for another pipe
    os.kill(children(process)[0], signal.SIGKILL)
    read_errors_until(process, "cannot be started")
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)
    wait_until(lambda: len(children(process)) == 4)
    assert end(process)[0] == 0


def test_one_that_ignores_the_signal_is_killed(up: Up) -> None:
    process = up(controller=CONTROLLER.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN"), stop_s=0.2)
    line_of(process)
    code, _, err = end(process)
    assert code == 0
    assert "pyjiva: controller does not stop: killed\n" in err


def test_the_children_end_when_it_is_killed(up: Up) -> None:
    process = up()
    line_of(process)
    alive = children(process)
    assert len(alive) == 4
    process.kill()
    process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in alive))


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    process = up()
    line_of(process)
    second = up()
    _, err = second.communicate(timeout=30)
    assert second.returncode == 2
    assert "another process has it open" in err
    assert end(process)[0] == 0


def test_it_goes_on_when_nobody_reads_it_any_more(up: Up) -> None:
    """`pyjiva up | head -1`, and then not even that."""
    process = up()
    assert process.stdout is not None
    process.stdout.close()
    read_errors_until(process, "Ctrl-C")
    assert process.stderr is not None
    process.stderr.close()
    for pid in (before := children(process)):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(children(process)) == 4 and not set(children(process)) & set(before))
    process.terminate()
    assert process.wait(30) == 0


def test_two_replicas_come_with_a_note(up: Up) -> None:
    process = up(replicas=2)
    line_of(process)
    err = end(process)[2]
    assert err.count("pyjiva: note: of two both are a majority") == 1


def test_a_witness_is_one_process_more_and_both_sides_know_it(up: Up) -> None:
    process = up(replicas=2, witness=True)
    line_of(process)
    lines = [command_line(pid).split(b"\0") for pid in children(process)]
    (controller,) = [line for line in lines if b"--portal" in line]
    assert [controller.count(option) for option in (b"--replica", b"--witness")] == [2, 1]
    assert controller[controller.index(b"--witness") + 1].startswith(b"3=")
    witnesses = [line[line.index(b"--replica-id") + 1] for line in lines if b"--witness" in line[-2:]]
    assert witnesses == [b"3"]
    assert "of two both" not in end(process)[2]
