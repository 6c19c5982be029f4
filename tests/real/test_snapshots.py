"""Snapshots, growth and clones of real processes, by the commands that an operator types."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.volume_process import UpProcess, needs, running_up, wait_until

pytestmark = [pytest.mark.real, needs(("qemu-io", "qemu-utils"))]


def pyjiva(up: UpProcess, *arguments: str) -> str:
    """What a command prints."""
    return subprocess.run(
        [sys.executable, "-m", "pyjiva.cli.main", *arguments, "--api", up.ready["api"]],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def qemu_io(up: UpProcess, *commands: str) -> str:
    """What qemu-io says to reads and writes of the volume; a pattern that is not there is an error."""
    options = [part for command in commands for part in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", "raw", *options, up.url], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verification failed" not in done.stdout, done.stdout
    return done.stdout


def test_an_operator_uses_snapshots(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", "--size", "64MiB") as up:
        qemu_io(up, "write -P 1 0 8M")
        pyjiva(up, "snapshot", "create", "one", "--label", "why=test")
        qemu_io(up, "write -P 2 1M 1M")
        pyjiva(up, "snapshot", "create", "two")
        qemu_io(up, "write -P 3 0 64k")
        listed = json.loads(pyjiva(up, "snapshot", "ls", "--json"))
        assert [each["name"] for each in listed["snapshots"]] == ["one", "two"]
        assert listed["snapshots"][0]["labels"] == {"why": "test"}
        assert listed["stands_on"] == "two"
        assert "the volume now" in pyjiva(up, "snapshot", "ls")
        changed = json.loads(pyjiva(up, "snapshot", "diff", "two", "--since", "one", "--json"))
        assert changed == {"extents": [[1 << 20, 1 << 20]]}
        usage = json.loads(pyjiva(up, "usage", "--json"))
        assert usage["snapshot_bytes"] == {"one": 8 << 20, "two": 1 << 20}
        assert usage["live_bytes"] == 64 << 10
        pyjiva(up, "snapshot", "revert", "one")
        qemu_io(up, "read -P 1 0 8M")
        pyjiva(up, "expand", "96MiB")
        qemu_io(up, "read -P 0 64M 32M", "write -P 4 90M 1M", "read -P 4 90M 1M")
        pyjiva(up, "snapshot", "rm", "one", "--wait")
        assert not json.loads(pyjiva(up, "usage", "--json"))["removed_bytes"], "the space is back"
        qemu_io(up, "read -P 1 0 8M", "read -P 4 90M 1M")
        assert up.stop() == 0


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", "--size", "64MiB") as up:
        with pytest.raises(subprocess.CalledProcessError) as failed:
            pyjiva(up, "snapshot", "revert", "nothing")
        assert failed.value.returncode == 1
        assert failed.value.stderr.strip().endswith("there is no snapshot 'nothing'")
        assert failed.value.stderr.count("\n") == 1


def test_a_clone_serves_at_once_and_goes_on_without_its_source(tmp_path: Path) -> None:
    """It is read while it is filled slowly, survives its controller, and stands alone when it is full."""
    with running_up(tmp_path / "source", "--size", "64MiB") as source:
        qemu_io(source, "write -P 1 0 16M", "write -P 2 40M 1M")
        pyjiva(source, "snapshot", "create", "base")
        qemu_io(source, "write -P 9 0 16M")
        fill = ("--fill-from", f"{source.ready['api']}/v1/snapshots/base")
        with running_up(tmp_path / "clone", "--size", "64MiB", *fill, "--fill-rate", "2MiB") as clone:
            qemu_io(clone, "read -P 2 40M 1M", "write -P 3 8M 64k", "read -P 1 8256k 100k")
            filled = (clone.status() or {})["filled"]
            assert 0 < filled < 1
            clone.kill("controller")
            clone.wait_state("healthy")
            qemu_io(clone, "read -P 3 8M 64k", "read -P 1 0 8M", "read -P 1 8256k 7M", "read -P 0 20M 1M")
            assert clone.stop() == 0
        with running_up(tmp_path / "clone", "--size", "64MiB", *fill) as clone:
            wait_until(lambda: (clone.status() or {}).get("filled") == 1, "the clone to be full")
            clone_past = json.loads(pyjiva(clone, "snapshot", "ls", "--json"))
            wait_until(
                lambda: not json.loads(pyjiva(clone, "snapshot", "ls", "--json"))["snapshots"],
                f"the origin to go: {clone_past}",
            )
            assert clone.stop() == 0
        assert source.stop() == 0
    with running_up(tmp_path / "clone", "--size", "64MiB") as clone:
        qemu_io(clone, "read -P 3 8M 64k", "read -P 1 0 8M", "read -P 1 8256k 7M", "read -P 2 40M 1M")
        assert clone.stop() == 0


def test_a_backup_is_used_while_it_is_restored(tmp_path: Path) -> None:
    """Two backups of a volume that runs, the second of what changed alone; a new volume is filled from it."""
    store = str(tmp_path / "store")
    with running_up(tmp_path / "source", "--size", "64MiB") as source:
        qemu_io(source, "write -P 1 0 32M", "write -P 2 40M 1M")
        pyjiva(source, "snapshot", "create", "monday")
        pyjiva(source, "backup", "create", store, "monday")
        qemu_io(source, "write -P 3 40M 64k")
        pyjiva(source, "snapshot", "create", "tuesday")
        created = pyjiva(source, "backup", "create", store, "tuesday")
        assert source.stop() == 0
    backup = created.split()[0]
    fill = ("--fill-from", f"backup:{store}#{backup}", "--fill-rate", "2MiB")
    with running_up(tmp_path / "restored", "--size", "64MiB", *fill) as restored:
        qemu_io(restored, "read -P 3 40M 64k", "read -P 2 41024k 960k", "read -P 0 42M 1M")
        assert (restored.status() or {})["filled"] < 1
        qemu_io(restored, "read -P 1 0 8M")
        assert restored.stop() == 0
