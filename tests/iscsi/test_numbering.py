"""Command numbers, the window, the order of tasks, over sockets."""

from pyjiva.iscsi.connection import COMMAND_WINDOW
from pyjiva.iscsi.pdu import (
    Opcode,
    RejectReason,
)
from pyjiva.scsi import Status
from pyjiva.testing.initiator import open_initiator
from pyjiva.testing.target import running_target
from tests.iscsi.exchanges import BLOCK, TEST_UNIT_READY, log_in, read, read_10, write_10


async def test_first_command_number_of_a_session_is_adopted_and_wraps() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        initiator.cmd_sn = 0xFFFF_FFFE
        await log_in(initiator)
        for _ in range(4):
            assert (await initiator.command(TEST_UNIT_READY)).status == Status.GOOD
        assert initiator.cmd_sn == 3


async def test_window_closes_while_commands_are_in_the_target() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        running.device.holding = True
        itts = [
            await initiator.send_command(read_10(number, 1), read_bytes=BLOCK)
            for number in range(COMMAND_WINDOW)
        ]
        await running.device.wait_held(COMMAND_WINDOW)
        assert initiator.max_cmd_sn == initiator.cmd_sn - 1
        too_many = await initiator.send_command(read_10(0, 1), read_bytes=BLOCK)
        await initiator.ping()
        assert len(running.device.held) == COMMAND_WINDOW, "what is outside the window is ignored"
        running.device.release(10)
        for itt in itts[:10]:
            await initiator.result(itt)
        assert initiator.max_cmd_sn == initiator.cmd_sn - 2 + 10
        running.device.holding = False
        running.device.release()
        for itt in itts[10:]:
            await initiator.result(itt)
        assert not initiator.is_answered(too_many)


async def test_commands_run_in_the_order_of_their_numbers() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        first = initiator.take_cmd_sn()
        second = initiator.take_cmd_sn()
        later = await initiator.send_command(write_10(0, 1), data=b"2" * BLOCK, cmd_sn=second)
        await initiator.ping()
        assert running.memory.content(0, 1) == b"\0"
        earlier = await initiator.send_command(write_10(0, 1), data=b"1" * BLOCK, cmd_sn=first)
        for itt in (later, earlier):
            assert (await initiator.result(itt)).status == Status.GOOD
        assert running.memory.content(0, 1) == b"2"


async def test_immediate_command_overtakes_without_using_a_number() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        before = initiator.cmd_sn
        assert (await initiator.command(TEST_UNIT_READY, immediate=True)).status == Status.GOOD
        assert initiator.cmd_sn == before
        assert (await initiator.command(TEST_UNIT_READY)).status == Status.GOOD


async def test_task_tag_in_use_is_rejected() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        running.device.holding = True
        itt = await initiator.send_command(read_10(0, 1), read_bytes=BLOCK)
        await running.device.wait_held()
        initiator._next_itt = itt - 1
        assert await initiator.send_command(read_10(0, 1), read_bytes=BLOCK) == itt
        reject = await initiator.receive()
        assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, RejectReason.INVALID_PDU_FIELD)
        running.device.release()
        assert (await initiator.result(itt)).status == Status.GOOD


async def test_late_device_blocks_nobody_else() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        running.device.holding = True
        late = await initiator.send_command(read_10(0, 1), read_bytes=BLOCK)
        await running.device.wait_held()
        running.device.holding = False
        assert await read(initiator, 1, BLOCK) == bytes(BLOCK)
        assert bytes((await initiator.ping(b"hello")).data) == b"hello"
        running.device.release()
        assert (await initiator.result(late)).status == Status.GOOD


async def test_ordered_task_waits_for_older_ones_and_holds_younger_ones() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        running.device.holding = True
        itts = [
            await initiator.send_command(write_10(0, 1), data=b"1" * BLOCK),
            await initiator.send_command(write_10(0, 1), data=b"2" * BLOCK, attribute=2),
            await initiator.send_command(write_10(0, 1), data=b"3" * BLOCK),
        ]
        for _ in itts:
            await running.device.wait_held()
            await initiator.ping()
            assert len(running.device.held) == 1
            running.device.release(1)
        for itt in itts:
            assert (await initiator.result(itt)).status == Status.GOOD
        assert running.memory.content(0, 1) == b"3"
