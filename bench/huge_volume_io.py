"""For `bench.scale`: one volume that is far larger than what is written to it."""

import os
import struct
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from bench.errors import BenchError
from bench.process_sys import memory_of
from bench.targets_sys import RunningTarget, start_pyjiva
from pyjiva.iscsi.pdu import LoginStatus
from pyjiva.scsi import Status
from pyjiva.testing.initiator import Initiator, open_initiator
from pyjiva.units import MIB, format_size

__all__ = ["Huge", "measure_huge", "places"]

PIECE_BYTES: Final = 1 * MIB
LOGICAL_BLOCK_BYTES: Final = 512
READ_16: Final = 0x88
WRITE_16: Final = 0x8A
_CDB_16: Final = struct.Struct(">BBQIBB")
_SYNCHRONIZE_CACHE_16: Final = _CDB_16.pack(0x91, 0, 0, 0, 0, 0)
_TEST_UNIT_READY: Final = bytes(6)


@attrs.frozen
class Huge:
    """What it came to."""

    size_bytes: int
    note: str
    """Why it is not the size that was asked for; empty if it is."""
    ready_s: float
    """From the start to I/O, of the new volume."""
    again_s: float
    """The same when it was opened again."""
    pss_bytes: dict[str, int]
    """By role, all processes of the role together, after all was read back."""
    taken_bytes: int
    """Of the disk, replicas together."""


def measure_huge(directory: Path, size_bytes: int, replicas: int, seed: int) -> Huge:
    """In the empty `directory`.  Raises BenchError: it is not what was written, or not to be had."""
    size_bytes, note = largest_file(directory, size_bytes)
    random = Random(seed)
    pieces = {place: random.randbytes(PIECE_BYTES) for place in places(size_bytes)}
    began = time.monotonic()
    with start_pyjiva(directory, size_bytes, replicas) as volume:
        ready_s = time.monotonic() - began
        trio.run(_write, volume, pieces)
        trio.run(_compare, volume, pieces)
    began = time.monotonic()
    with start_pyjiva(directory, size_bytes, replicas) as volume:
        again_s = time.monotonic() - began
        trio.run(_compare, volume, pieces)
        pss: dict[str, int] = {}
        for pid, role in sorted(volume.roles().items(), key=lambda item: item[1]):
            pss[role] = pss.get(role, 0) + memory_of(pid).pss_bytes
        taken = sum(path.stat().st_blocks * 512 for path in volume.data.rglob("*"))
    return Huge(size_bytes, note, ready_s, again_s, pss, taken)


def places(size_bytes: int) -> list[int]:
    """Where it is written: both ends and the middle."""
    middle = size_bytes // 2 // PIECE_BYTES * PIECE_BYTES
    return [0, middle, size_bytes - PIECE_BYTES]


def largest_file(directory: Path, size_bytes: int) -> tuple[int, str]:
    """`size_bytes`, or a little less if the file system has no file of that size, and then why.

    ext4's largest file is a block short of 16 TiB, and a volume is one file.  Raises BenchError: it has none
    of that either.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        for size, note in ((size_bytes, ""), (size_bytes - MIB, "1 MiB less than asked for")):
            try:
                os.ftruncate(file.fileno(), size)
            except OSError:
                continue
            return size, note and f"{note}: the file system has no larger file"
    raise BenchError(f"{directory}: no file can have {format_size(size_bytes)} there")


async def _log_in(initiator: Initiator, volume: RunningTarget) -> None:
    name = volume.url.split("/")[3]
    answer = await initiator.login(name)
    if answer.status != LoginStatus.SUCCESS:
        raise BenchError(f"{name}: login was refused with status {answer.status:#x}")
    await initiator.command(_TEST_UNIT_READY)  # takes the unit attention of a new session


async def _write(volume: RunningTarget, pieces: dict[int, bytes]) -> None:
    host, _, port = volume.url.split("/")[2].rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await _log_in(initiator, volume)
        for place, data in pieces.items():
            answer = await initiator.command(_cdb(WRITE_16, place), data=data)
            _check(answer.status, f"write at {place}")
        answer = await initiator.command(_SYNCHRONIZE_CACHE_16)
        _check(answer.status, "flush")


async def _compare(volume: RunningTarget, pieces: dict[int, bytes]) -> None:
    host, _, port = volume.url.split("/")[2].rpartition(":")
    async with open_initiator(host, int(port)) as initiator:
        await _log_in(initiator, volume)
        for place, data in pieces.items():
            answer = await initiator.command(_cdb(READ_16, place), read_bytes=PIECE_BYTES)
            _check(answer.status, f"read at {place}")
            if answer.data != data:
                raise BenchError(f"what was read at {place} is not what was written")


def _cdb(operation: int, place: int) -> bytes:
    blocks = PIECE_BYTES // LOGICAL_BLOCK_BYTES
    return _CDB_16.pack(operation, 0, place // LOGICAL_BLOCK_BYTES, blocks, 0, 0)


def _check(status: int, what: str) -> None:
    if status != Status.GOOD:
        raise BenchError(f"{what}: status {status:#x}")
