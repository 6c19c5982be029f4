"""Reservations over sockets: who an I_T nexus is, and commands that PREEMPT AND ABORT takes away."""

import struct

from pyjiva.iscsi.pdu import Opcode, TaskFunction
from pyjiva.scsi import AdditionalSense, Status
from pyjiva.scsi.reservation import ReservationType
from pyjiva.testing.initiator import OFFER, Initiator, open_initiator
from pyjiva.testing.target import running_target
from tests.iscsi.exchanges import BLOCK, TEST_UNIT_READY, log_in, read, write_10

REGISTER, RESERVE, PREEMPT_AND_ABORT = 0, 1, 5
EA = ReservationType.EXCLUSIVE_ACCESS


async def reserve_out(
    initiator: Initiator, action: int, key: int = 0, action_key: int = 0, kind: int = 0
) -> int:
    """Send a PERSISTENT RESERVE OUT; returns its tag."""
    cdb = struct.pack(">BBBxxIB", 0x5F, action, kind, 24, 0)
    return await initiator.send_command(cdb, data=struct.pack(">QQ8x", key, action_key))


async def do(initiator: Initiator, action: int, key: int = 0, action_key: int = 0, kind: int = 0) -> int:
    """The status of a PERSISTENT RESERVE OUT."""
    return (await initiator.result(await reserve_out(initiator, action, key, action_key, kind))).status


async def status_of_write(initiator: Initiator, lba: int = 0) -> int:
    return (await initiator.command(write_10(lba, 1), data=b"w" * BLOCK)).status


async def test_session_of_the_same_initiator_port_has_the_reservation_again() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as other,
    ):
        other.isid = b"\x80other"
        await log_in(one)
        await log_in(other)
        assert await do(one, REGISTER, 0, 0xA) == Status.GOOD
        assert await do(one, RESERVE, 0xA, 0, EA) == Status.GOOD
        assert await status_of_write(other) == Status.RESERVATION_CONFLICT, "the same name, another ISID"
        await one.logout()
        await one.wait_closed()
        assert await status_of_write(other) == Status.RESERVATION_CONFLICT
        async with open_initiator(running.host, running.port) as back:
            await log_in(back)
            assert await status_of_write(back) == Status.GOOD
            assert await do(back, REGISTER, 0xA, 0) == Status.GOOD, "and may end it"
        assert await status_of_write(other) == Status.GOOD


async def test_preempt_and_abort_is_answered_when_nothing_of_the_victim_can_land() -> None:
    """One write runs, one is still sending its data; neither may reach the medium after the answer."""
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as victim,
        open_initiator(running.host, running.port) as winner,
    ):
        winner.isid = b"\x80winner"[:6]
        await log_in(victim, offer={**OFFER, "InitialR2T": "Yes"})
        await log_in(winner)
        await do(victim, REGISTER, 0, 0xA)
        await do(winner, REGISTER, 0, 0xB)
        await do(victim, RESERVE, 0xA, 0, EA)
        running.device.holding = True
        running_write = await victim.send_command(write_10(0, 1), data=b"1" * BLOCK)
        await running.device.wait_held()
        victim.serve_r2ts = False
        sending_write = await victim.send_command(write_10(1, 1), data=b"2" * BLOCK, immediate_bytes=0)
        r2t = await victim.receive_opcode(Opcode.READY_TO_TRANSFER)
        task = await reserve_out(winner, PREEMPT_AND_ABORT, 0xB, 0xA, EA)
        await winner.ping()
        assert not winner.is_answered(task)
        running.device.holding = False
        running.device.release()
        assert (await winner.result(task)).status == Status.GOOD
        running.memory._write(0, bytes(BLOCK))
        await victim.send_data(sending_write, int.from_bytes(r2t.header[20:24], "big"), 0, b"2" * BLOCK)
        await victim.ping()
        assert not victim.is_answered(running_write) and not victim.is_answered(sending_write)
        attention = await victim.command(TEST_UNIT_READY)
        assert attention.sense_code[1] == AdditionalSense.REGISTRATIONS_PREEMPTED
        assert await status_of_write(victim) == Status.RESERVATION_CONFLICT
        assert await read(winner, 0, 2 * BLOCK) == bytes(2 * BLOCK)


async def test_reset_ends_reserve_but_not_a_persistent_reservation() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as other,
    ):
        other.isid = b"\x80other"
        await log_in(one)
        await log_in(other)
        assert (await one.command(b"\x16" + bytes(5))).status == Status.GOOD
        assert await status_of_write(other) == Status.RESERVATION_CONFLICT
        await other.task_management(TaskFunction.LOGICAL_UNIT_RESET)
        for initiator in (one, other):
            assert (await initiator.command(TEST_UNIT_READY)).sense_code[0] == 6
        assert await status_of_write(other) == Status.GOOD
        await do(one, REGISTER, 0, 0xA)
        await do(one, RESERVE, 0xA, 0, EA)
        await other.task_management(TaskFunction.LOGICAL_UNIT_RESET)
        await other.command(TEST_UNIT_READY)
        assert await status_of_write(other) == Status.RESERVATION_CONFLICT
