"""Whatever is started is stopped: with the body, with its children, with us."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.process_sys import FIRST_PORT, cpu_s, family, free_port, ports_of_programs, running
from tests.bench.waiting import is_gone, wait_for

pytestmark = pytest.mark.real

# A parent that has a child which ignores SIGTERM, and says so when both are there.
STUBBORN_CHILD = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('here', flush=True); time.sleep(600)"
)
PARENT = (
    "import subprocess, sys, time;"
    f" child = subprocess.Popen([sys.executable, '-c', {STUBBORN_CHILD!r}], stdout=subprocess.PIPE);"
    " child.stdout.readline(); print(f'ready pid={child.pid}', flush=True); time.sleep(600)"
)


def test_a_family_ends_with_the_body(tmp_path: Path) -> None:
    with running([sys.executable, "-c", PARENT], tmp_path / "log") as process:
        child = int(process.read_line("ready ", 30).partition("=")[2])
        assert family(process.pid) == [process.pid, child]
        assert cpu_s([process.pid, child]) > 0
    wait_for(lambda: is_gone(child))
    assert is_gone(process.pid)
    assert family(process.pid) == []
    assert cpu_s([process.pid]) == 0


def test_a_body_that_fails_stops_them_too(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        running([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log") as process,
    ):
        raise KeyboardInterrupt
    assert is_gone(process.pid)


def test_a_process_ends_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bench.process_sys import running\n"
        "with running([sys.executable, '-c', 'input()'], Path(sys.argv[1])) as process:\n"
        "    print(process.pid, flush=True); time.sleep(600)"
    )
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=root
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert not is_gone(pid)
        starter.kill()
        wait_for(lambda: is_gone(pid))


def test_a_program_that_fails_to_start_is_quoted(tmp_path: Path) -> None:
    code = "import sys; print('no such disk', file=sys.stderr); sys.exit(2)"
    with (
        running([sys.executable, "-c", code], tmp_path / "log") as process,
        pytest.raises(BenchError, match="no such disk"),
    ):
        process.read_line("ready ", 30)


def test_ctrl_c_is_ours_alone(tmp_path: Path) -> None:
    """The process is not in our process group, to which a terminal sends SIGINT."""
    with running([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log") as process:
        assert os.getpgid(process.pid) != os.getpgid(0)
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait()


def test_a_free_port_is_none_that_connections_get() -> None:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    port = free_port()
    assert port in ports_of_programs(text)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("32768\t60999\n", range(FIRST_PORT, 32768)),
        (f"{FIRST_PORT}\t60999\n", range(FIRST_PORT, 65536)),
        ("1024\t65535\n", range(FIRST_PORT, 65536)),
    ],
)
def test_where_connections_get_every_port_any_will_do(text: str, ports: range) -> None:
    assert ports_of_programs(text) == ports
