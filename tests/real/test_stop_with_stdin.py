"""`pyjiva up --stop-with-stdin`: who starts it and dies takes the volume along, cleanly."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real


def test_it_stops_when_its_standard_input_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyjiva.cli.main", "up", "--size", "16MiB", "--data", str(tmp_path)]
    command += ["--portal", "127.0.0.1:0", "--api", "127.0.0.1:0", "--stop-with-stdin"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready ")
        process.stdin.close()
        assert process.wait(60) == 0
        assert "killed" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_stops_too_when_there_was_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyjiva.cli.main", "up", "--size", "16MiB", "--data", str(tmp_path)]
    command += ["--portal", "127.0.0.1:0", "--api", "127.0.0.1:0", "--stop-with-stdin"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
