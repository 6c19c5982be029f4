"""Task management over sockets: an aborted write never lands later."""

import pytest

from pyjiva.iscsi.connection import COMMAND_WINDOW
from pyjiva.iscsi.pdu import (
    READY_TO_TRANSFER,
    Opcode,
    TaskFunction,
    TaskResult,
)
from pyjiva.scsi import AdditionalSense, Status
from pyjiva.testing.initiator import OFFER, Initiator, open_initiator
from pyjiva.testing.target import RunningTarget, running_target
from tests.iscsi.exchanges import BLOCK, TEST_UNIT_READY, log_in, read, write_10


async def hold_write(running: RunningTarget, initiator: Initiator, lba: int = 0) -> int:
    """A write that the device has not answered yet; returns its tag."""
    running.device.holding = True
    itt = await initiator.send_command(write_10(lba, 1), data=b"a" * BLOCK)
    await running.device.wait_held()
    return itt


@pytest.mark.parametrize(
    "function",
    [
        TaskFunction.ABORT_TASK,
        TaskFunction.ABORT_TASK_SET,
        TaskFunction.CLEAR_TASK_SET,
        TaskFunction.LOGICAL_UNIT_RESET,
        TaskFunction.TARGET_WARM_RESET,
        TaskFunction.TARGET_COLD_RESET,
    ],
)
async def test_abort_is_answered_when_nothing_can_land_any_more(function: TaskFunction) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        itt = await hold_write(running, initiator)
        await initiator.send_task_management(function, referenced=itt)
        await initiator.ping()
        assert not [pdu for pdu in initiator.others if pdu.header[0] == Opcode.TASK_MANAGEMENT_RESPONSE]
        running.device.holding = False
        running.device.release()
        response = await initiator.receive_opcode(Opcode.TASK_MANAGEMENT_RESPONSE)
        assert response.header[2] == TaskResult.COMPLETE
        running.memory._write(0, bytes(BLOCK))
        if function is TaskFunction.TARGET_COLD_RESET:
            await initiator.wait_closed()
            return
        await initiator.ping()
        assert not initiator.is_answered(itt), "an aborted task is not answered"
        answer = await initiator.command(TEST_UNIT_READY)
        if function in (TaskFunction.LOGICAL_UNIT_RESET, TaskFunction.TARGET_WARM_RESET):
            assert answer.sense_code[1] == AdditionalSense.BUS_DEVICE_RESET_FUNCTION_OCCURRED
        else:
            assert answer.status == Status.GOOD
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK), "it did not land late"


async def test_write_whose_data_never_came_is_aborted_at_once() -> None:
    offer = {**OFFER, "ImmediateData": "No", "InitialR2T": "Yes"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        initiator.serve_r2ts = False
        itt = await initiator.send_command(write_10(0, 1), data=b"n" * BLOCK)
        r2t = READY_TO_TRANSFER.unpack((await initiator.receive()).header)
        result = await initiator.task_management(TaskFunction.ABORT_TASK, referenced=itt)
        assert result == TaskResult.COMPLETE
        await initiator.send_data(itt, r2t[4], 0, b"n" * BLOCK)  # late: dropped
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK)
        assert initiator.max_cmd_sn == initiator.cmd_sn - 1 + COMMAND_WINDOW, (
            "its place in the window is free"
        )


@pytest.mark.parametrize(
    ("function", "lun", "result"),
    [
        (TaskFunction.ABORT_TASK, 0, TaskResult.TASK_DOES_NOT_EXIST),
        (TaskFunction.ABORT_TASK_SET, 5, TaskResult.LUN_DOES_NOT_EXIST),
        (TaskFunction.LOGICAL_UNIT_RESET, 5, TaskResult.LUN_DOES_NOT_EXIST),
        (TaskFunction.CLEAR_ACA, 0, TaskResult.NOT_SUPPORTED),
        (TaskFunction.TASK_REASSIGN, 0, TaskResult.REASSIGNMENT_NOT_SUPPORTED),
    ],
)
async def test_task_management_that_finds_nothing(
    function: TaskFunction, lun: int, result: TaskResult
) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        assert await initiator.task_management(function, lun=lun, referenced=999) == result


async def test_second_abort_of_a_task_waits_as_the_first() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        itt = await hold_write(running, initiator)
        for _ in range(2):
            await initiator.send_task_management(TaskFunction.ABORT_TASK, referenced=itt)
        await initiator.ping()
        assert not [pdu for pdu in initiator.others if pdu.header[0] == Opcode.TASK_MANAGEMENT_RESPONSE]
        running.device.holding = False
        running.device.release()
        for _ in range(2):
            response = await initiator.receive_opcode(Opcode.TASK_MANAGEMENT_RESPONSE)
            assert response.header[2] == TaskResult.COMPLETE


OF_THE_SET = [
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
    TaskFunction.TARGET_WARM_RESET,
]


@pytest.mark.parametrize("function", [TaskFunction.ABORT_TASK, *OF_THE_SET])
async def test_aborted_command_that_waits_for_older_ones_is_never_carried_out(function: TaskFunction) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        missing, early = initiator.take_cmd_sn(), initiator.take_cmd_sn()
        itt = await initiator.send_command(write_10(0, 1), data=b"e" * BLOCK, cmd_sn=early)
        result = await initiator.task_management(function, referenced=itt, ref_cmd_sn=early)
        assert result == TaskResult.COMPLETE
        answer = await initiator.command(TEST_UNIT_READY, cmd_sn=missing)
        assert (answer.status == Status.GOOD) is (function not in OF_THE_SET[2:]), "else a unit attention"
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK)
        assert not initiator.is_answered(itt)
        assert initiator.max_cmd_sn == initiator.cmd_sn - 1 + COMMAND_WINDOW, (
            "its place in the window is free"
        )


async def test_abort_of_a_command_that_never_came_takes_its_number() -> None:
    """RFC 7143 §11.5.1: the number counts as received, what comes with it later is not carried out."""
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        missing = initiator.take_cmd_sn()
        later = await initiator.send_command(TEST_UNIT_READY)
        result = await initiator.task_management(
            TaskFunction.ABORT_TASK, referenced=0x1234, ref_cmd_sn=missing
        )
        assert result == TaskResult.COMPLETE
        assert (await initiator.result(later)).status == Status.GOOD
        await initiator.send_command(write_10(0, 1), data=b"l" * BLOCK, cmd_sn=missing)
        assert await read(initiator, 0, BLOCK) == bytes(BLOCK)


@pytest.mark.parametrize("distance", [-1, 0, 200])
async def test_abort_takes_no_number_that_is_not_older_and_open(distance: int) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        result = await initiator.task_management(
            TaskFunction.ABORT_TASK, referenced=0x1234, ref_cmd_sn=initiator.cmd_sn + distance
        )
        assert result == TaskResult.TASK_DOES_NOT_EXIST
        assert (await initiator.command(TEST_UNIT_READY)).status == Status.GOOD


async def test_abort_spares_a_waiting_command_with_another_tag() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        missing, early = initiator.take_cmd_sn(), initiator.take_cmd_sn()
        itt = await initiator.send_command(write_10(0, 1), data=b"e" * BLOCK, cmd_sn=early)
        result = await initiator.task_management(
            TaskFunction.ABORT_TASK, referenced=itt + 1000, ref_cmd_sn=early
        )
        assert result == TaskResult.TASK_DOES_NOT_EXIST
        await initiator.command(TEST_UNIT_READY, cmd_sn=missing)
        assert (await initiator.result(itt)).status == Status.GOOD


async def test_clear_task_set_tells_the_other_initiator() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as two,
    ):
        two.isid = b"\x80other"
        await log_in(one)
        await log_in(two)
        await hold_write(running, one)
        await two.send_task_management(TaskFunction.CLEAR_TASK_SET)
        await two.ping()
        running.device.holding = False
        running.device.release()
        response = await two.receive_opcode(Opcode.TASK_MANAGEMENT_RESPONSE)
        assert response.header[2] == TaskResult.COMPLETE
        answer = await one.command(TEST_UNIT_READY)
        assert answer.sense_code[1] == AdditionalSense.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
        assert (await two.command(TEST_UNIT_READY)).status == Status.GOOD


async def test_cold_reset_ends_every_session() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as two,
    ):
        two.isid = b"\x80other"
        await log_in(one)
        await log_in(two)
        assert await one.task_management(TaskFunction.TARGET_COLD_RESET) == TaskResult.COMPLETE
        await one.wait_closed()
        await two.wait_closed()
