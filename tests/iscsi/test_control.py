"""Discovery and text over sockets."""

import pytest

from pyjiva.iscsi.pdu import (
    NO_TAG,
    NOP_OUT,
    LoginStatus,
    LogoutResult,
    Opcode,
    RejectReason,
)
from pyjiva.iscsi.text import decode_text
from pyjiva.testing.initiator import OFFER, open_initiator
from pyjiva.testing.target import TARGET_NAME, running_target
from tests.iscsi.exchanges import TEST_UNIT_READY, log_in, read_10


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


async def test_discovery_session_takes_text_and_its_own_logout_only() -> None:
    """RFC 7143 §4.3: all other requests are rejected."""
    itt, number = (5).to_bytes(4, "big"), (1).to_bytes(4, "big")
    others = [
        NOP_OUT.pack(Opcode.NOP_OUT | 0x40, 0x80, b"", 5, NO_TAG, 1, 0),
        bytes([Opcode.TASK_MANAGEMENT_REQUEST | 0x40, 0x82])
        + bytes(14)
        + itt
        + bytes(4)
        + number
        + bytes(20),
        bytes([Opcode.LOGOUT_REQUEST | 0x40, 0x81]) + bytes(14) + itt + bytes(4) + number + bytes(20),
    ]
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await initiator.login()
        for header in others:
            await initiator.send(header)
            reject = await initiator.receive()
            assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, RejectReason.PROTOCOL_ERROR)
            assert bytes(reject.data) == header
        assert (await initiator.text(b"SendTargets=All\0")).header[0] == Opcode.TEXT_RESPONSE
        assert await initiator.logout() == LogoutResult.CLOSED


async def test_ping_is_echoed_as_far_as_the_initiator_takes_it() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator, offer={**OFFER, "MaxRecvDataSegmentLength": "512"})
        data = bytes(range(256)) * 3
        assert bytes((await initiator.ping(data)).data) == data[:512]


LENGTH = b"MaxRecvDataSegmentLength="
FAILED_TEXTS = {
    "twice": LENGTH + b"1024\0" + LENGTH + b"2048\0",
    "out of range": b"InitiatorAlias=me\0" + LENGTH + b"12\0",
    "no text": b"MaxRecvDataSegmentLength\0",
    "after a good one": LENGTH + b"1024\0SendTargets=All\0",
    "an answer to nothing": LENGTH + b"1024\0X-a=NotUnderstood\0",
}


@pytest.mark.parametrize("case", FAILED_TEXTS)
async def test_negotiation_that_fails_changes_nothing(case: str) -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        reject = await initiator.text(FAILED_TEXTS[case])
        assert (reject.header[0], reject.header[2]) == (Opcode.REJECT, RejectReason.PROTOCOL_ERROR)
        answer = await initiator.command(read_10(0, 8), read_bytes=4096)
        assert answer.data_in_pdus == [(0x81, 0, 4096)], "the old length holds"
        response = await initiator.text(LENGTH + b"1024\0")
        assert (response.header[0], bytes(response.data)) == (Opcode.TEXT_RESPONSE, b"")
        answer = await initiator.command(read_10(0, 8), read_bytes=4096)
        assert [length for _, _, length in answer.data_in_pdus] == [1024] * 4


async def test_text_request_that_does_not_belong_to_the_negotiation_is_rejected() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await log_in(initiator)
        reject = await initiator.text(b"", tag=12345)
        assert reject.header[2] == RejectReason.INVALID_PDU_FIELD
        pdu = await initiator.text(b"X-a=1\0", flags=0x40, itt=77)
        tag = int.from_bytes(pdu.header[20:24], "big")
        reject = await initiator.text(b"", tag=tag, itt=78)
        assert reject.header[2] == RejectReason.INVALID_PDU_FIELD
        reject = await initiator.text(b"", tag=tag, itt=77, flags=0xC0)
        assert reject.header[2] == RejectReason.PROTOCOL_ERROR


async def test_keys_while_our_answer_is_being_sent_are_rejected() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as initiator:
        await initiator.login(offer={**OFFER, "MaxRecvDataSegmentLength": "512"})
        unknown = b"".join(f"X-{number:040}=1\0".encode() for number in range(20))
        pdu = await initiator.text(unknown, itt=77)
        assert pdu.header[1] & 0x40
        reject = await initiator.text(b"X-b=1\0", itt=77, tag=int.from_bytes(pdu.header[20:24], "big"))
        assert reject.header[2] == RejectReason.PROTOCOL_ERROR
        assert (await initiator.text(b"SendTargets=All\0")).header[0] == Opcode.TEXT_RESPONSE


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
