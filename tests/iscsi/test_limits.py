"""Bad input and initiators that do not read: nobody else notices."""

import contextlib
from random import Random

import pytest
import structlog
import trio

from pyjiva.iscsi.pdu import (
    Opcode,
    RejectReason,
)
from pyjiva.scsi import Status
from pyjiva.testing.initiator import OFFER, ConnectionEnded, Initiator, open_initiator
from pyjiva.testing.target import TARGET_NAME, running_target
from pyjiva.units import MIB
from tests.fuzz.harness import FIRST_CMD_SN, PDUS
from tests.fuzz.source import Source
from tests.iscsi.exchanges import (
    BLOCK,
    TEST_UNIT_READY,
    log_in,
    pattern,
    read,
    read_10,
    wait_no_session,
    write,
    write_10,
)

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


async def test_bad_input_is_one_line_in_the_log() -> None:
    with structlog.testing.capture_logs() as lines:
        async with running_target() as running, open_initiator(running.host, running.port) as initiator:
            await initiator.stream.send_all(b"\xff" * 480)
            await initiator.wait_closed()
    assert [(line["event"], line["log_level"]) for line in lines] == [("iscsi-protocol-error", "warning")]
    assert lines[0]["peer"].startswith("127.0.0.1:")


@pytest.mark.parametrize("logged_in", [False, True])
async def test_live_target_fed_garbage_keeps_serving_another_session(logged_in: bool) -> None:
    """Bytes and near-PDUs on many sockets: not one of them is an error of ours."""
    with structlog.testing.capture_logs() as lines:
        async with (
            running_target(nop_interval_s=60) as running,
            open_initiator(running.host, running.port) as good,
        ):
            await log_in(good)
            await write(good, 100, b"g" * BLOCK)
            for seed in range(60):
                source = Source(Random(seed).randbytes(2000))
                async with open_initiator(running.host, running.port) as bad:
                    bad.isid = b"\x80" + seed.to_bytes(5, "big")
                    if logged_in:
                        bad.cmd_sn = FIRST_CMD_SN
                        assert (await bad.login(TARGET_NAME)).status == 0
                    data = b"".join(source.pick(PDUS)(source) for _ in range(20) if source)
                    with contextlib.suppress(trio.BrokenResourceError):
                        await bad.stream.send_all(data if seed % 4 else Random(seed).randbytes(4000))
                        with trio.move_on_after(0.01):
                            await bad.stream.receive_some()
                running.memory._write(100 * BLOCK, b"g" * BLOCK)  # garbage may write, as any initiator may
                answer = await good.command(read_10(100, 1), read_bytes=BLOCK)
                while answer.status != Status.GOOD:  # unit attentions: resets are among the garbage
                    answer = await good.command(read_10(100, 1), read_bytes=BLOCK)
                assert answer.data == b"g" * BLOCK
    assert "iscsi-connection-failed" not in {line["event"] for line in lines}
