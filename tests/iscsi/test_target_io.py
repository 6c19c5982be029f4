"""The target over real sockets: sessions, transfers, aborts, limits."""

import struct

import pytest
import trio

from pyjiva.errors import ConfigError
from pyjiva.iscsi import Target, TargetOptions, serve_portal
from pyjiva.iscsi.connection import COMMAND_WINDOW
from pyjiva.iscsi.pdu import (
    LOGOUT_RESPONSE,
    NO_TAG,
    READY_TO_TRANSFER,
    AsyncEvent,
    LoginStatus,
    LogoutResult,
    Opcode,
    RejectReason,
    TaskFunction,
    TaskResult,
)
from pyjiva.iscsi.text import decode_text
from pyjiva.scsi import AdditionalSense, SenseKey, Status
from pyjiva.testing.initiator import OFFER, Answer, ConnectionEnded, Initiator, open_initiator
from pyjiva.testing.target import TARGET_NAME, RunningTarget, running_target
from pyjiva.transport import EndOfBatch
from pyjiva.units import KIB, MIB

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


# Discovery


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_discovery_tells_the_portal_that_the_question_came_in_on(host: str) -> None:
    async with running_target(host=host) as running, open_initiator(host, running.port) as initiator:
        assert (await initiator.login()).status == LoginStatus.SUCCESS
        shown = f"[{host}]" if ":" in host else host
        expected = [("TargetName", TARGET_NAME), ("TargetAddress", f"{shown}:{running.port},1")]
        for question in (b"SendTargets=All\0", f"SendTargets={TARGET_NAME}\0".encode()):
            pdu = await initiator.text(question)
            assert decode_text(bytes(pdu.data)) == expected
        pdu = await initiator.text(b"SendTargets=iqn.2001-01.other\0")
        assert pdu.header[0] == Opcode.TEXT_RESPONSE
        assert not pdu.data
        [session] = running.target.sessions()
        assert (session.session_type, session.initiator_name) == ("discovery", "iqn.2026-01.test:initiator")


async def test_discovery_session_takes_no_scsi_command() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await initiator.login()
        await initiator.send_command(TEST_UNIT_READY)
        reject = await initiator.receive()
        assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, RejectReason.PROTOCOL_ERROR)
        assert await initiator.logout() == LogoutResult.CLOSED


async def test_empty_send_targets_means_the_sessions_own_target() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        pdu = await initiator.text(b"SendTargets=\0")
        assert decode_text(bytes(pdu.data))[0] == ("TargetName", TARGET_NAME)
        pdu = await initiator.text(b"SendTargets=iqn.2001-01.other\0")
        assert pdu.header[0] == Opcode.REJECT


async def test_text_goes_in_and_out_in_parts() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await initiator.login(offer={**OFFER, "MaxRecvDataSegmentLength": "512"})
        pdu = await initiator.text(b"SendTargets=A", flags=0x40, itt=77)
        assert (pdu.header[1], bytes(pdu.data)) == (0, b"")
        unknown = b"".join(f"X-{number:040}=1\0".encode() for number in range(20))
        tag = int.from_bytes(pdu.header[20:24], "big")
        pdu = await initiator.text(b"ll\0" + unknown, itt=77, tag=tag)
        collected = bytes(pdu.data)
        while pdu.header[1] & 0x40:
            assert len(pdu.data) == 512
            pdu = await initiator.text(b"", itt=77, tag=int.from_bytes(pdu.header[20:24], "big"))
            collected += pdu.data
        assert pdu.header[1] == 0x80
        answers = decode_text(collected)
        assert answers[0] == ("TargetName", TARGET_NAME)
        assert len(answers) == 22


# Transfers

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


# Numbering


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


# Sessions


async def test_reinstatement_ends_the_old_session_and_waits_for_its_writes() -> None:
    """The repeated write must not be followed by its first edition, late."""
    async with running_target() as running, open_initiator(running.host, running.port) as old:
        await log_in(old)
        running.device.holding = True
        await old.send_command(write_10(0, 1), data=b"o" * BLOCK)
        await running.device.wait_held()
        running.device.holding = False
        async with open_initiator(running.host, running.port) as new:
            new.cmd_sn = 1000
            answer = await new.login(TARGET_NAME)
            assert answer.status == LoginStatus.SUCCESS
            await old.wait_closed()
            assert [session.tsih for session in running.target.sessions()] == [answer.tsih]
            itt = await new.send_command(write_10(0, 1), data=b"n" * BLOCK)
            await new.ping()
            assert not new.is_answered(itt)
            running.device.release()
            # The unit attention of the new session comes first, then the write is done.
            assert (await new.result(itt)).sense_code[0] == SenseKey.UNIT_ATTENTION
            assert (await write(new, 0, b"n" * BLOCK)).status == Status.GOOD
            assert running.memory.content(0, 1) == b"n"


async def test_several_sessions_share_the_unit() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as two,
    ):
        two.isid = b"\x80other"
        await log_in(one)
        await log_in(two)
        assert len(running.target.sessions()) == 2
        await write(one, 5, b"s" * BLOCK)
        assert await read(two, 5, BLOCK) == b"s" * BLOCK


async def test_second_connection_of_a_session_is_refused() -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as two,
    ):
        tsih = (await one.login(TARGET_NAME)).tsih
        assert (await two.login(TARGET_NAME, tsih=tsih)).status == LoginStatus.TOO_MANY_CONNECTIONS
        await two.wait_closed()
        async with open_initiator(running.host, running.port) as three:
            answer = await three.login(TARGET_NAME, tsih=tsih + 1)
            assert answer.status == LoginStatus.SESSION_DOES_NOT_EXIST


async def test_sessions_are_limited() -> None:
    async with (
        running_target(sessions_max=1) as running,
        open_initiator(running.host, running.port) as one,
        open_initiator(running.host, running.port) as two,
    ):
        await one.login(TARGET_NAME)
        two.isid = b"\x80other"
        assert (await two.login(TARGET_NAME)).status == LoginStatus.OUT_OF_RESOURCES


async def test_connections_before_login_are_limited_in_number_and_time() -> None:
    async with (
        running_target(logins_max=1, login_time_s=0.2) as running,
        open_initiator(running.host, running.port) as silent,
    ):
        await trio.testing.wait_all_tasks_blocked()
        async with open_initiator(running.host, running.port) as refused:
            await refused.wait_closed()
        await silent.wait_closed()
        async with open_initiator(running.host, running.port) as welcome:
            assert (await welcome.login(TARGET_NAME)).status == LoginStatus.SUCCESS


async def test_silent_initiator_is_asked_and_then_dropped() -> None:
    async with (
        running_target(nop_interval_s=0.1) as running,
        open_initiator(running.host, running.port) as initiator,
    ):
        await initiator.login(TARGET_NAME)
        ping = await initiator.receive()
        assert ping.header[0] == Opcode.NOP_IN
        assert int.from_bytes(ping.header[16:20], "big") == NO_TAG
        assert int.from_bytes(ping.header[20:24], "big") != NO_TAG
        await initiator.wait_closed()
        await wait_no_session(running)


async def test_logout_waits_for_running_writes_and_closes() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        running.device.holding = True
        await initiator.send_command(write_10(0, 1), data=b"l" * BLOCK)
        await running.device.wait_held()
        async with trio.open_nursery() as nursery:
            results = []

            async def log_out() -> None:
                results.append(await initiator.logout())

            nursery.start_soon(log_out)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert results == []
            running.device.release()
        assert results == [LogoutResult.CLOSED]
        await initiator.wait_closed()
        await wait_no_session(running)


@pytest.mark.parametrize(
    ("reason", "cid", "result"),
    [
        (1, 9, LogoutResult.CONNECTION_NOT_FOUND),
        (2, 1, LogoutResult.RECOVERY_NOT_SUPPORTED),
        (1, 1, LogoutResult.CLOSED),
    ],
)
async def test_logout_reasons(reason: int, cid: int, result: LogoutResult) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        assert LOGOUT_RESPONSE.size == 48
        assert await initiator.logout(reason=reason, cid=cid) == result


async def test_shut_down_asks_to_log_out_and_ends_sessions() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.target.shut_down)
            message = await initiator.receive_opcode(Opcode.ASYNC_MESSAGE)
            assert message.header[36] == AsyncEvent.LOGOUT_REQUESTED
            async with open_initiator(running.host, running.port) as late:
                assert (await late.login(TARGET_NAME)).status == LoginStatus.SERVICE_UNAVAILABLE
            assert await initiator.logout() == LogoutResult.CLOSED
        await wait_no_session(running)


# Task management


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


# Bad input and back-pressure


GARBAGE = [
    bytes(48),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".ljust(96),
    b"\x43\x87" + b"\xff" * 46,
    b"\x43\x87\0\0\0\0\0\x08" + bytes(40) + b"nonsense",
    b"\xff" * 4096,
]


async def wait_refused(initiator: Initiator) -> None:
    """At most one answer, a Login Response with an error status, then the end."""
    for _ in range(2):
        try:
            pdu = await initiator.receive()
        except ConnectionEnded:
            return
        assert pdu.header[0] == Opcode.LOGIN_RESPONSE
        assert pdu.header[36] != 0
    pytest.fail("still open after two answers")


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_closes_its_own_connection_only(garbage: bytes) -> None:
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as good,
        open_initiator(running.host, running.port) as bad,
    ):
        await log_in(good)
        await bad.stream.send_all(garbage)
        await wait_refused(bad)
        assert await read(good, 0, BLOCK) == bytes(BLOCK)


async def test_garbage_in_full_feature_phase_closes_the_connection() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        await initiator.stream.send_all(b"\x01\xff\0\0\0\xff\xff\xff" + bytes(40))
        await initiator.wait_closed()
        await wait_no_session(running)


@pytest.mark.parametrize(
    ("opcode", "reason"),
    [(0x1F, RejectReason.COMMAND_NOT_SUPPORTED), (0x10, RejectReason.SNACK_REJECT)],
)
async def test_unknown_pdu_is_rejected_with_its_header(opcode: int, reason: RejectReason) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        header = bytes([opcode | 0x40, 1, 2, 3]) + bytes(44)
        await initiator.send(header)
        reject = await initiator.receive()
        assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, reason)
        assert bytes(reject.data) == header
        assert (await initiator.command(TEST_UNIT_READY)).status == Status.GOOD


async def test_initiator_that_does_not_read_stops_being_read() -> None:
    """Its answers queue up to a limit; others go on; when it reads again, all comes."""
    async with (
        running_target() as running,
        open_initiator(running.host, running.port) as slow,
        open_initiator(running.host, running.port) as other,
    ):
        other.isid = b"\x80other"
        await log_in(slow)
        await log_in(other)
        itts = [await slow.send_command(read_10(0, 2048), read_bytes=MIB) for _ in range(40)]
        await trio.testing.wait_all_tasks_blocked(0.05)
        [session] = [s for s in running.target._table.all() if s.isid != other.isid]
        queued = running.target._streams[session].queued_bytes
        assert 0 < queued < 20 * MIB, "bounded, although 40 MiB were asked for"
        assert await read(other, 0, BLOCK) == bytes(BLOCK)
        for itt in itts:
            assert (await slow.result(itt)).status == Status.GOOD


async def test_solicited_data_is_asked_for_within_a_budget() -> None:
    offer = {**OFFER, "ImmediateData": "No", "InitialR2T": "Yes", "MaxOutstandingR2T": "1"}
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer=offer)
        initiator.serve_r2ts = False
        data = pattern(4 * MIB)
        itts = [await initiator.send_command(write_10(number * 8192, 8192), data=data) for number in range(6)]
        await initiator.ping()
        asked = [pdu for pdu in initiator.others if pdu.header[0] == Opcode.READY_TO_TRANSFER]
        assert len(asked) == 4, "16 MiB are asked for, the rest waits"
        initiator.serve_r2ts = True
        for pdu in asked:
            await initiator._keep(pdu)
        for number, itt in enumerate(itts):
            assert (await initiator.result(itt)).status == Status.GOOD
            assert running.memory.content(number * 4 * MIB, 4 * MIB) == data


# Portals


async def test_two_portals_serve_one_target() -> None:
    async with running_target() as running, trio.open_nursery() as nursery:
        host, port = await nursery.start(serve_portal, running.target, "127.0.0.1", 0)
        assert port != running.port
        async with open_initiator(host, port) as initiator:
            await log_in(initiator)
        nursery.cancel_scope.cancel()


async def test_busy_port_is_an_error_of_the_caller() -> None:
    async with running_target() as running:
        with pytest.raises(OSError, match="in use"):
            await serve_portal(running.target, running.host, running.port)


def test_target_name_must_be_one() -> None:
    with pytest.raises(ConfigError):
        Target(TargetOptions(target_name="vol"), {}, batch=EndOfBatch())
