"""Sessions and portals over real sockets."""

import pytest
import trio

from pyjiva.errors import ConfigError
from pyjiva.iscsi import Target, TargetOptions, open_portal, portal_address, serve_portal
from pyjiva.iscsi.pdu import (
    LOGOUT_RESPONSE,
    NO_TAG,
    AsyncEvent,
    LoginStatus,
    LogoutResult,
    Opcode,
)
from pyjiva.scsi import SenseKey, Status
from pyjiva.testing.initiator import open_initiator
from pyjiva.testing.target import TARGET_NAME, running_target
from pyjiva.transport import EndOfBatch
from tests.iscsi.exchanges import BLOCK, log_in, read, wait_no_session, write, write_10


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
        running_target(nop_interval_s=0.1, silence_max_s=0.15) as running,
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


async def test_two_portals_serve_one_target() -> None:
    async with running_target() as running, trio.open_nursery() as nursery:
        listeners = await open_portal("127.0.0.1", 0)
        nursery.start_soon(serve_portal, running.target, listeners)
        host, port = portal_address(listeners)
        assert port != running.port
        async with open_initiator(host, port) as initiator:
            await log_in(initiator)
        nursery.cancel_scope.cancel()


async def test_busy_port_is_an_error_of_the_caller() -> None:
    async with running_target() as running:
        with pytest.raises(OSError, match="in use"):
            await open_portal(running.host, running.port)


def test_target_name_must_be_one() -> None:
    with pytest.raises(ConfigError):
        Target(TargetOptions(target_name="vol"), {}, batch=EndOfBatch())
