"""Discovery and text over sockets."""

import pytest

from pyjiva.iscsi.pdu import (
    LoginStatus,
    LogoutResult,
    Opcode,
    RejectReason,
)
from pyjiva.iscsi.text import decode_text
from pyjiva.testing.initiator import OFFER, open_initiator
from pyjiva.testing.target import TARGET_NAME, running_target
from tests.iscsi.exchanges import TEST_UNIT_READY, log_in


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
