"""Data both ways over sockets, whatever was negotiated; residuals and errors in it."""

import struct

import pytest
import trio

from pyjiva.iscsi.pdu import (
    READY_TO_TRANSFER,
    Opcode,
    RejectReason,
)
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from pyjiva.testing.initiator import OFFER, open_initiator
from pyjiva.testing.target import running_target
from pyjiva.units import KIB, MIB
from tests.iscsi.exchanges import (
    BLOCK,
    TEST_UNIT_READY,
    log_in,
    pattern,
    read,
    read_10,
    write,
    write_10,
)

OFFERS = [
    {},
    {"ImmediateData": "No"},
    {"InitialR2T": "Yes"},
    {"InitialR2T": "Yes", "ImmediateData": "No", "MaxOutstandingR2T": "1"},
    {"HeaderDigest": "CRC32C"},
    {"DataDigest": "CRC32C"},
    {"HeaderDigest": "CRC32C", "DataDigest": "CRC32C", "InitialR2T": "Yes"},
    {"MaxBurstLength": "4096", "FirstBurstLength": "1024", "MaxRecvDataSegmentLength": "1536"},
    {"MaxBurstLength": "8192", "FirstBurstLength": "8192", "DataDigest": "CRC32C"},
]


@pytest.mark.parametrize("changes", OFFERS, ids=lambda c: ",".join(f"{k}={v}" for k, v in c.items()) or "all")
async def test_data_arrives_whatever_was_negotiated(changes: dict[str, str]) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer={**OFFER, **changes})
        for number, length in enumerate([BLOCK, 3 * BLOCK, 64 * KIB, 300 * KIB, 2 * MIB]):
            data = pattern(length, seed=number)
            answer = await write(initiator, 8, data)
            assert (answer.status, answer.residual) == (Status.GOOD, 0)
            assert running.memory.content(8 * BLOCK, length) == data
            assert await read(initiator, 8, length) == data
        assert await read(initiator, 0, 8 * BLOCK) == bytes(8 * BLOCK)


async def test_data_in_obeys_segment_and_burst_lengths() -> None:
    offer = {**OFFER, "MaxRecvDataSegmentLength": "3072", "MaxBurstLength": "8192"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        answer = await initiator.command(read_10(0, 20), read_bytes=20 * BLOCK)
        assert [(flags, length) for flags, _, length in answer.data_in_pdus] == [
            (0x00, 3072), (0x00, 3072), (0x80, 2048), (0x81, 2048),
        ]  # fmt: skip


async def test_small_read_is_one_pdu_with_its_status() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        answer = await initiator.command(read_10(0, 8), read_bytes=4096)
        assert answer.data_in_pdus == [(0x81, 0, 4096)]


async def test_several_r2ts_are_outstanding_at_a_time() -> None:
    offer = {**OFFER, "MaxBurstLength": "4096", "ImmediateData": "No", "InitialR2T": "Yes"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        initiator.serve_r2ts = False
        data = pattern(32 * KIB)
        itt = await initiator.send_command(write_10(0, 64), data=data)
        r2ts = [READY_TO_TRANSFER.unpack((await initiator.receive()).header) for _ in range(4)]
        assert [(r2t[9], r2t[10]) for r2t in r2ts] == [(number * 4096, 4096) for number in range(4)]
        assert [r2t[8] for r2t in r2ts] == [0, 1, 2, 3]
        assert len({r2t[4] for r2t in r2ts}) == 4
        with trio.move_on_after(0.05) as scope:
            await initiator.receive()
        assert scope.cancelled_caught, "no fifth R2T while four are outstanding"
        initiator.serve_r2ts = True
        for r2t in r2ts:
            await initiator.send_data(itt, r2t[4], r2t[9], data[r2t[9] : r2t[9] + r2t[10]])
        assert (await initiator.result(itt)).status == Status.GOOD
        assert await read(initiator, 0, 32 * KIB) == data


RESIDUALS = [
    # what is asked, expected length, bytes that come, residual (negative: overflow)
    (read_10(0, 1), 10000, 512, 9488),
    (read_10(0, 1), 200, 200, -312),
    (read_10(0, 2), 512, 512, -512),
    (b"\x12\0\0\0\xff\0", 255, 96, 159),
    (TEST_UNIT_READY, 100, 0, 100),
]


@pytest.mark.parametrize(("cdb", "expected", "received", "residual"), RESIDUALS)
async def test_residual_of_reads(cdb: bytes, expected: int, received: int, residual: int) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        answer = await initiator.command(cdb, read_bytes=1, expected_bytes=expected)
        assert (answer.status, len(answer.data), answer.residual) == (Status.GOOD, received, residual)


@pytest.mark.parametrize(
    ("blocks", "offered", "written", "residual"),
    [(1, 2048, 512, 1536), (2, 512, 512, -512), (1, 200, 0, -312), (4, 1300, 1024, -748)],
)
async def test_residual_of_writes(blocks: int, offered: int, written: int, residual: int) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        answer = await initiator.command(write_10(0, blocks), data=b"x" * offered)
        assert (answer.status, answer.residual) == (Status.GOOD, residual)
        assert running.memory.content(0, 4096) == (b"x" * written).ljust(4096, b"\0")


async def test_data_digest_error_in_a_write_fails_it_and_writes_nothing() -> None:
    offer = {**OFFER, "DataDigest": "CRC32C", "ImmediateData": "No", "InitialR2T": "Yes"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        initiator.serve_r2ts = False
        itt = await initiator.send_command(write_10(0, 1), data=b"y" * BLOCK)
        r2t = READY_TO_TRANSFER.unpack((await initiator.receive()).header)
        initiator.framing.data_digest = False
        # Without the digest of our own framing: four wrong bytes in its place.
        await initiator.send_data(itt, r2t[4], 0, b"y" * BLOCK)
        await initiator.stream.send_all(b"\xde\xad\xbe\xef")
        initiator.framing.data_digest = True
        reject = await initiator.receive()
        assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, RejectReason.DATA_DIGEST_ERROR)
        answer = await initiator.result(itt)
        assert answer.sense_code == (SenseKey.ABORTED_COMMAND, AdditionalSense.PROTOCOL_SERVICE_CRC_ERROR)
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK)


async def test_unexpected_data_fails_the_command() -> None:
    offer = {**OFFER, "ImmediateData": "No", "InitialR2T": "Yes"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        answer = await initiator.command(write_10(0, 1), data=b"z" * BLOCK, immediate_bytes=BLOCK)
        assert answer.sense_code == (SenseKey.ABORTED_COMMAND, AdditionalSense.UNEXPECTED_UNSOLICITED_DATA)
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK)


async def test_force_unit_access_reaches_the_device() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        await write(initiator, 0, b"f" * BLOCK)
        assert running.memory.flush_count == 0
        await initiator.command(write_10(0, 1, fua=True), data=b"f" * BLOCK)
        assert running.memory.flush_count == 1
        await initiator.command(struct.pack(">BBIBHB", 0x28, 0x08, 0, 0, 1, 0), read_bytes=BLOCK)
        assert running.memory.flush_count == 2
        await initiator.command(struct.pack(">BBIBHB", 0x35, 0, 0, 0, 0, 0))
        assert running.memory.flush_count == 3
