"""Limits of what hosts may ask hold for real initiators, and are changed while they are logged in."""

import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from pyjiva.testing.initiator import Initiator, open_initiator
from tests.real.volume_process import UpProcess, running_up

pytestmark = pytest.mark.real

COMMANDS = 40
IOPS = 50
BURST = 5


def limit(up: UpProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "pyjiva.cli.main", "limit", "--api", up.ready["api"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def delayed(up: UpProcess) -> int:
    status = up.status()
    assert status is not None
    assert status["limits"]["waiting"] == 0
    return int(status["limits"]["delayed"])


async def read(initiator: Initiator) -> None:
    for lba in range(COMMANDS):
        answer = await initiator.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, 1, 0), read_bytes=512)
        assert answer.status == 0


async def use(up: UpProcess) -> None:
    host, _, port = up.ready["portal"].rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(up.ready["iqn"])
        await initiator.command(bytes(6))  # power on
        began_at = time.monotonic()
        await read(initiator)
        assert time.monotonic() - began_at > (COMMANDS - BURST - 1) / IOPS - 0.01
        waited = delayed(up)
        assert waited > 0
        assert limit(up, "--iops", "none") == "no limits"
        await read(initiator)
        assert delayed(up) == waited
        shown = limit(up, "--rate", "1MiB", "--burst", "0.5")
        assert shown == limit(up) == "1MiB per second; after rest 0.5 s of it at once"


def test_limits_hold_and_are_changed_while_a_host_is_logged_in(tmp_path: Path) -> None:
    options = ("--limit-iops", str(IOPS), "--limit-burst", str(BURST / IOPS))
    with running_up(tmp_path, "--size", "64MiB", "--replicas", "1", *options) as up:
        trio.run(use, up)
