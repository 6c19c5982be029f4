"""What the tests over sockets have in common: CDBs, a login, a read and a write."""

import struct

import trio

from pyjiva.iscsi.pdu import (
    LoginStatus,
)
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from pyjiva.testing.initiator import Answer, Initiator
from pyjiva.testing.target import TARGET_NAME, RunningTarget

BLOCK = 512
TEST_UNIT_READY = bytes(6)


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0)


def write_10(lba: int, blocks: int, *, fua: bool = False) -> bytes:
    return struct.pack(">BBIBHB", 0x2A, 0x08 if fua else 0, lba, 0, blocks, 0)


def pattern(length: int, seed: int = 0) -> bytes:
    return bytes((seed + index * 7 + index // 256) & 0xFF for index in range(length))


async def log_in(initiator: Initiator, **options: object) -> None:
    """A normal session whose first unit attention is out of the way."""
    answer = await initiator.login(TARGET_NAME, **options)  # type: ignore[arg-type]
    assert answer.status == LoginStatus.SUCCESS
    attention = await initiator.command(TEST_UNIT_READY)
    assert attention.sense_code == (SenseKey.UNIT_ATTENTION, AdditionalSense.POWER_ON_OR_RESET)


async def write(initiator: Initiator, lba: int, data: bytes, **options: object) -> Answer:
    return await initiator.command(write_10(lba, len(data) // BLOCK), data=data, **options)


async def read(initiator: Initiator, lba: int, length: int) -> bytes:
    answer = await initiator.command(read_10(lba, length // BLOCK), read_bytes=length)
    assert answer.status == Status.GOOD
    return bytes(answer.data)


async def wait_no_session(running: RunningTarget) -> None:
    """The target sees the end of a connection a little later than the initiator."""
    with trio.fail_after(5):
        while running.target.sessions():
            await trio.sleep(0.001)
