"""How much room is left below a volume reaches initiators and operators, over real processes."""

import struct
from pathlib import Path

import pytest
import trio

from pyjiva.scsi import AdditionalSense, SenseKey
from pyjiva.testing.initiator import Initiator, open_initiator
from pyjiva.units import MIB
from tests.real.volume_process import running_up, wait_until

pytestmark = pytest.mark.real

WRITTEN = 8 * MIB
LOG_SENSE = struct.pack(">BBBB3xHB", 0x4D, 0, 0x4C, 0, 252, 0)
REACHED = (SenseKey.UNIT_ATTENTION, AdditionalSense.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)


async def write_and_be_told(portal: str, iqn: str) -> tuple[int, int]:
    """Fill some of the volume, wait until the log page has it, then lift the threshold and wait for the
    warning; what was available and used then, in MiB.
    """
    host, _, port = portal.rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await initiator.login(iqn)
        await initiator.command(bytes(6))  # power on
        for lba in range(0, WRITTEN // 512, 2048):
            cdb = struct.pack(">BBIBHB", 0x2A, 0, lba, 0, 2048, 0)
            assert (await initiator.command(cdb, data=b"x" * MIB)).status == 0
        with trio.fail_after(20):
            while True:
                available, used = await room(initiator)
                if used >= WRITTEN // MIB:
                    break
                await trio.sleep(0.1)
        page = struct.pack(">4xBBH12xBB2xI", 0x5C, 2, 20, 0x80, 1, 0xFFFF_FFFF)
        answer = await initiator.command(bytes([0x15, 0x10, 0, 0, len(page), 0]), data=page)
        assert answer.status == 0
        with trio.fail_after(20):
            while (answer := await initiator.command(bytes(6))).status == 0:
                await trio.sleep(0.1)
        assert answer.sense_code == REACHED
        assert (await initiator.command(bytes(6))).status == 0, "once"
        return available, used


async def room(initiator: Initiator) -> tuple[int, int]:
    """What log page 0Ch says is available, and used; zeros while it is not known."""
    answer = await initiator.command(LOG_SENSE, read_bytes=252)
    assert answer.status == 0
    if len(answer.data) < 28:
        return 0, 0
    (available,), (used,) = (
        struct.unpack_from(">I", answer.data, 8),
        struct.unpack_from(">I", answer.data, 20),
    )
    return available, used


def test_room_is_told_to_initiators_and_operators(tmp_path: Path) -> None:
    with running_up(tmp_path / "data", "--size", "64MiB") as up:
        available, used = trio.run(write_and_be_told, up.ready["portal"], up.ready["iqn"])
        # The page has the largest figure; each replica looks at its disk every few seconds.
        wait_until(
            lambda: all(replica["used_bytes"] >= WRITTEN for replica in (up.status() or {})["replicas"]),
            "all replicas to have looked",
        )
        status = up.status()
    assert status is not None
    for replica in status["replicas"]:
        assert WRITTEN <= replica["used_bytes"] < 2 * WRITTEN
        assert replica["available_bytes"] > 0
    assert WRITTEN <= used * MIB < 2 * WRITTEN
    assert available > 0
