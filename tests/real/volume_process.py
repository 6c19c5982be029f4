"""`pyjiva up` as a process of its own, and what tests do to it: find its children, kill them, ask its API."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

__all__ = ["UpProcess", "is_gone", "needs", "running_up", "wait_until"]

DEADLINE_S: Final = 60.0


def needs(*programs: tuple[str, str]) -> pytest.MarkDecorator:
    """Skip where a foreign program is missing: (program, Debian package)."""
    missing = [f"{package} (for {program})" for program, package in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"Debian package missing: {', '.join(missing)}")


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = DEADLINE_S) -> Any:
    """Ask again and again until `condition()` is true; its value.  Fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)  # between two looks at another process: there is nothing to wait on


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not Path(f"/proc/{pid}").exists()


@attrs.define(eq=False)
class UpProcess:
    """A running `pyjiva up`."""

    process: "subprocess.Popen[str]"
    log: Path
    ready: dict[str, str]

    @property
    def url(self) -> str:
        """libiscsi's name of the unit."""
        return f"iscsi://{self.ready['portal']}/{self.ready['iqn']}/0"

    @property
    def portal_url(self) -> str:
        """libiscsi's name of the portal."""
        return f"iscsi://{self.ready['portal']}"

    @property
    def portals(self) -> list[str]:
        """All addresses of the target."""
        status = self.status()
        assert status is not None
        return list(status["portals"])

    def children(self) -> dict[str, int]:
        """Process ids by role: `controller`, `replica-1`, …"""
        # A child belongs to the thread that started it.
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        roles = {}
        for child in [int(word) for task in tasks for word in task.read_text().split()]:
            try:
                arguments = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            except FileNotFoundError:
                continue
            if "--replica-id" in arguments:
                roles[f"replica-{arguments[arguments.index('--replica-id') + 1]}"] = child
            elif "--portal" in arguments:
                roles["controller"] = child
        return roles

    def kill(self, role: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one child; its process id."""
        pid = self.children()[role]
        os.kill(pid, number)
        return pid

    def status(self) -> dict[str, Any] | None:
        """The API's answer; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.ready['api']}/v1/volume", timeout=2) as answer:
                body: dict[str, Any] = json.load(answer)
                return body
        except (urllib.error.URLError, OSError):
            return None

    def state(self) -> str:
        """healthy, degraded or parked; empty while nobody answers."""
        status = self.status()
        return status["state"] if status is not None else ""

    def wait_state(self, state: str, *, timeout_s: float = DEADLINE_S) -> None:
        """Wait until the API says `state`."""
        wait_until(lambda: self.state() == state, f"state {state}; now {self.status()}", timeout_s=timeout_s)

    def stop(self) -> int:
        """SIGTERM, and wait for the end; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def running_up(data: Path, *arguments: str, log: Path | None = None) -> Iterator[UpProcess]:
    """`pyjiva up` with `arguments` over `data`, ready; whatever is left of it is killed at the end."""
    command = [sys.executable, "-m", "pyjiva.cli.main", "up", *arguments, "--data", str(data)]
    for option, value in (("--portal", "127.0.0.1:0"), ("--api", "127.0.0.1:0")):
        if option not in arguments:
            command += [option, value]
    log = log or data.with_name(data.name + ".log")
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    up = UpProcess(process, log, {})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), f"no ready line: {line!r}\n{log.read_text()[-4000:]}"
        for field in line.split()[1:]:
            name, _, value = field.partition("=")
            up.ready[name] = value
        yield up
    finally:
        left = list(up.children().values()) if process.poll() is None else []
        for pid in left:
            os.kill(pid, signal.SIGCONT)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in left:
            wait_until(partial(is_gone, pid), f"child {pid} to end")
        assert process.stdout is not None
        process.stdout.close()
