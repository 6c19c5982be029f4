"""A minute of `make torture`, and that it leaves nothing behind."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.real.volume_process import wait_until
from tests.torture.machines import ROOT

SECONDS: Final = 60
SEED: Final = 13294  # a blackout, a power cut, kills, a full disk and takeovers among the first eight
NEEDED: Final = {
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}

pytestmark = pytest.mark.real


@functools.cache
def reason_not_to() -> str:
    """Why there can be no torture here; empty: there can."""
    missing = [f"{NEEDED[program]} (for {program})" for program in NEEDED if shutil.which(program) is None]
    if missing:
        return f"Debian package missing: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces and mounts take root"
    attempt = (
        "mkdir -p /run/netns && mount -t tmpfs torture /run/netns && ip netns add x && ip netns delete x"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", attempt],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return f"no namespaces or mounts here: {done.stderr.strip()}"
    if not Path("/dev/loop-control").exists():
        return "no loop devices here"
    return ""


@pytest.fixture(autouse=True)
def _possible() -> None:
    if reason := reason_not_to():
        pytest.skip(reason)


def start(work: Path, seconds: float, *arguments: str) -> "subprocess.Popen[str]":
    """The program, with its files in `work`."""
    environment = {
        **os.environ,
        "TORTURE_SECONDS": f"{seconds:g}",
        "TORTURE_SEED": str(SEED),
        "TMPDIR": str(work),
    }
    return subprocess.Popen(
        [ROOT / "scripts" / "torture", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def what_is_left(work: Path) -> list[str]:
    """Mounts, loop devices and files that a run has left, and network namespaces."""
    left = [line for line in Path("/proc/mounts").read_text().splitlines() if str(work) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it is being taken away at this moment
            left += [line for line in backing.read_text().splitlines() if str(work) in line]
    named = Path("/run/netns")
    left += [path.name for path in named.glob("pyjiva-torture-*")] if named.exists() else []
    return left + [path.name for path in work.iterdir() if path.name.startswith("pyjiva-torture-")]


def test_a_minute_of_torture_holds(tmp_path: Path) -> None:
    """Nothing is lost, wrong or stuck, and nothing is left of it."""
    report = tmp_path / "report.json"
    with start(tmp_path, SECONDS, "--quiet", "--json", str(report)) as process:
        output, errors = process.communicate(timeout=SECONDS + 300)
    assert process.returncode == 0, output + errors
    told = json.loads(report.read_text())
    assert told["verdict"] == "holds"
    assert json.loads(output) == told
    assert told["acknowledged"] > 500
    assert told["read"] > 500
    assert told["flushed"] > 20
    assert sum(told["faults"].values()) >= 2  # fewer where other tests run beside it
    wait_until(lambda: not what_is_left(tmp_path), "everything to be removed", timeout_s=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, 600) as process:
        assert process.stdout is not None and process.stderr is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.endswith(" ready\n"):
                break
        else:
            pytest.fail(f"it never began: {''.join(said)}{process.stderr.read()}")
        assert what_is_left(tmp_path), "the check sees nothing while there is something"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    wait_until(lambda: not what_is_left(tmp_path), "everything to be removed", timeout_s=10)
