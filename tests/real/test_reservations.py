"""Persistent reservations outlive the controller."""

import struct
from pathlib import Path

import pytest
import trio

from pyjiva.scsi import Status
from pyjiva.scsi.reservation import ReservationType
from pyjiva.testing.initiator import Initiator, open_initiator
from tests.real.volume_process import UpProcess, is_gone, running_up, wait_until

pytestmark = pytest.mark.real

REGISTER, RESERVE, RELEASE = 0, 1, 2
APTPL = 1
READ_KEYS = b"\x5e\0\0\0\0\0\0\x20\0\0"
WRITE = struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 1, 0)
EA = ReservationType.EXCLUSIVE_ACCESS
DEADLINE_S = 60


async def do(initiator: Initiator, action: int, key: int, action_key: int = 0, flags: int = 0) -> int:
    """The status of a PERSISTENT RESERVE OUT."""
    cdb = struct.pack(">BBBxxIB", 0x5F, action, EA, 24, 0)
    return (await initiator.command(cdb, data=struct.pack(">QQ4xB3x", key, action_key, flags))).status


async def log_in(initiator: Initiator, up: UpProcess, last: int) -> None:
    """A session with an ISID of its own, past its first unit attention."""
    initiator.isid = b"\x80\x12\x34\x56\x78" + bytes([last])
    assert (await initiator.login(up.ready["iqn"])).status == 0
    await initiator.command(bytes(6))


async def reserve(up: UpProcess, host: str, port: int) -> None:
    async with open_initiator(host, port) as one:
        await log_in(one, up, 1)
        assert await do(one, REGISTER, 0, 0xA, APTPL) == Status.GOOD
        assert await do(one, RESERVE, 0xA) == Status.GOOD
        pid = up.kill("controller")
        await trio.to_thread.run_sync(wait_until, lambda: is_gone(pid), "the controller's end")


async def wait_portal(host: str, port: int) -> None:
    """The supervisor starts the controller again."""
    with trio.fail_after(DEADLINE_S):
        while True:
            try:
                async with open_initiator(host, port):
                    return
            except OSError:
                await trio.sleep(0.05)  # between two looks at another process


async def check(up: UpProcess, host: str, port: int) -> None:
    async with open_initiator(host, port) as other, open_initiator(host, port) as one:
        await log_in(other, up, 2)
        assert (await other.command(WRITE, data=b"x" * 512)).status == Status.RESERVATION_CONFLICT
        answer = await other.command(READ_KEYS, read_bytes=32)
        assert bytes(answer.data) == struct.pack(">IIQ", 0, 8, 0xA), "PRGENERATION begins anew"
        await log_in(one, up, 1)
        assert (await one.command(WRITE, data=b"x" * 512)).status == Status.GOOD
        assert await do(one, RELEASE, 0xA) == Status.GOOD
        assert (await other.command(WRITE, data=b"x" * 512)).status == Status.GOOD


def test_persistent_reservation_survives_kill_9_of_the_controller(tmp_path: Path) -> None:
    """Another initiator is kept out by the next controller too, and the holder is still the holder."""
    with running_up(tmp_path / "data", "--size", "64MiB") as up:
        host, _, port = up.ready["portal"].rpartition(":")

        async def play() -> None:
            await reserve(up, host, int(port))
            await wait_portal(host, int(port))
            await check(up, host, int(port))

        trio.run(play)
        assert up.stop() == 0
