"""Who gets in, over sockets: CHAP, rules for initiators, discovery, and limits before the login."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio

from pyjiva.errors import ConfigError
from pyjiva.iscsi.access import InitiatorRules
from pyjiva.iscsi.chap import ChapSecrets, OwnSecret
from pyjiva.iscsi.login import LOGIN_SEGMENT_BYTES, REQUESTS_MAX
from pyjiva.iscsi.pdu import LOGIN_REQUEST, LoginStatus, Opcode
from pyjiva.iscsi.text import decode_text, encode_text
from pyjiva.testing.initiator import INITIATOR_NAME, OFFER, ConnectionEnded, Initiator, open_initiator
from pyjiva.testing.initiator_chap import ChapLogin, log_in_with_chap
from pyjiva.testing.target import TARGET_NAME, RunningTarget, running_target
from tests.iscsi.exchanges import BLOCK, log_in, read

SECRET, OWN, OTHER = b"initiator-secret", b"target-own-secret", b"discovery-secret"
NORMAL = ChapSecrets({"alice": SECRET, "bob": b"bobs-own-secret"}, OwnSecret("target", OWN))
DISCOVERY = ChapSecrets({"alice": OTHER})
ALICE = ChapLogin(name="alice", secret=SECRET)
MUTUAL = ChapLogin(name="alice", secret=SECRET, target_secret=OWN)


@asynccontextmanager
async def connection(**options: Any) -> AsyncIterator[tuple[RunningTarget, Initiator]]:
    async with running_target(**options) as running, open_initiator(running.host, running.port) as initiator:
        yield running, initiator


@pytest.mark.parametrize("algorithm", ["5", "6", "7", "8"])
@pytest.mark.parametrize("login", [ALICE, MUTUAL], ids=["one-way", "mutual"])
async def test_right_secret_logs_in(algorithm: str, login: ChapLogin) -> None:
    login = ChapLogin(
        name=login.name, secret=login.secret, target_secret=login.target_secret, algorithms=algorithm
    )
    async with connection(chap=NORMAL) as (running, initiator):
        answer = await log_in_with_chap(initiator, login, TARGET_NAME)
        assert answer.status == LoginStatus.SUCCESS
        assert [session.initiator_name for session in running.target.sessions()] == [INITIATOR_NAME]


REFUSED = {
    "wrong secret": (ChapLogin(name="alice", secret=b"x" * 12), LoginStatus.AUTHENTICATION_FAILURE),
    "unknown user": (ChapLogin(name="mallory", secret=SECRET), LoginStatus.AUTHENTICATION_FAILURE),
    "another user's": (ChapLogin(name="bob", secret=SECRET), LoginStatus.AUTHENTICATION_FAILURE),
    "reflection": (
        ChapLogin(name="alice", secret=SECRET, reflects=True),
        LoginStatus.AUTHENTICATION_FAILURE,
    ),
    "algorithm": (
        ChapLogin(name="alice", secret=SECRET, algorithms="9"),
        LoginStatus.AUTHENTICATION_FAILURE,
    ),
    "no list": (ChapLogin(name="alice", secret=SECRET, algorithms="md5"), LoginStatus.INITIATOR_ERROR),
    "malformed": (
        ChapLogin(name="alice", secret=SECRET, changes={"CHAP_R": "0x0"}),
        LoginStatus.INITIATOR_ERROR,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_login_without_proof_is_refused(case: str) -> None:
    login, status = REFUSED[case]
    async with connection(chap=NORMAL) as (running, initiator):
        assert (await log_in_with_chap(initiator, login, TARGET_NAME)).status == status
        await initiator.wait_closed()
        assert running.target.sessions() == []


async def test_login_that_offers_no_chap_is_refused() -> None:
    names = {"InitiatorName": INITIATOR_NAME, "TargetName": TARGET_NAME}
    for flags, keys in ((0x87, OFFER), (0x81, {"AuthMethod": "None"}), (0x81, {}), (0x83, {})):
        async with connection(chap=NORMAL) as (_, initiator):
            answer = await initiator.login_request(flags=flags, text=encode_text({**names, **keys}.items()))
            assert answer.status == LoginStatus.AUTHENTICATION_FAILURE


async def test_discovery_has_secrets_of_its_own() -> None:
    for login, status in (
        (ALICE, LoginStatus.AUTHENTICATION_FAILURE),
        (ChapLogin(name="alice", secret=OTHER), LoginStatus.SUCCESS),
    ):
        async with connection(chap=NORMAL, discovery_chap=DISCOVERY) as (_, initiator):
            assert (await log_in_with_chap(initiator, login)).status == status
    async with connection(chap=NORMAL) as (_, initiator):
        assert (await initiator.login()).status == LoginStatus.SUCCESS, "no secrets: no proof is asked for"
    async with connection(discovery_chap=DISCOVERY) as (_, initiator):
        assert (await initiator.login(TARGET_NAME)).status == LoginStatus.SUCCESS


async def test_every_login_has_a_challenge_of_its_own() -> None:
    keys = {"InitiatorName": INITIATOR_NAME, "TargetName": TARGET_NAME, "AuthMethod": "CHAP"}
    challenges = set()
    async with running_target(chap=NORMAL) as running:
        for _ in range(3):
            async with open_initiator(running.host, running.port) as initiator:
                await initiator.login_request(flags=0, text=encode_text(keys.items()))
                answer = await initiator.login_request(flags=0, text=b"CHAP_A=7\0")
                challenges.add(answer.keys["CHAP_C"])
    assert len(challenges) == 3
    assert all(len(challenge) >= 2 + 2 * 16 for challenge in challenges)


async def test_no_secret_is_in_a_log_or_a_status() -> None:
    with structlog.testing.capture_logs() as lines:
        for login in (MUTUAL, *(login for login, _ in REFUSED.values())):
            async with connection(chap=NORMAL) as (running, initiator):
                await log_in_with_chap(initiator, login, TARGET_NAME)
                seen = f"{running.target.sessions()} {running.target.options!r}"
                assert not any(secret.decode() in seen for secret in (SECRET, OWN))
    assert lines
    assert not any(secret.decode() in str(lines) for secret in (SECRET, OWN))


def test_one_secret_for_both_directions_is_refused() -> None:
    secrets = ChapSecrets({"alice": SECRET}, OwnSecret("target", SECRET))

    async def run() -> None:
        async with running_target(chap=secrets):
            pytest.fail("it was started")

    with pytest.raises(ConfigError, match="must differ"):
        trio.run(run)


# Rules

ALLOWED = [
    (["iqn.2026-01.test:*"], True),
    ([INITIATOR_NAME, "127.0.0.0/8"], True),
    (["iqn.2026-01.test:other"], False),
    (["10.0.0.0/8"], False),
    ([INITIATOR_NAME, "10.0.0.0/8"], False),
]


@pytest.mark.parametrize(("rules", "allowed"), ALLOWED)
async def test_rules_decide_about_login_and_about_discovery(rules: list[str], allowed: bool) -> None:
    options = {"initiators": InitiatorRules.parse(rules)}
    async with connection(**options) as (running, initiator):
        answer = await initiator.login(TARGET_NAME)
        assert answer.status == (LoginStatus.SUCCESS if allowed else LoginStatus.AUTHORIZATION_FAILURE)
        async with open_initiator(running.host, running.port) as curious:
            assert (await curious.login()).status == LoginStatus.SUCCESS
            for question in (b"SendTargets=All\0", f"SendTargets={TARGET_NAME}\0".encode()):
                pdu = await curious.text(question)
                assert bool(pdu.data) is allowed


async def test_advertised_addresses_are_told_in_discovery() -> None:
    async with connection(advertised=("storage.example:3260", "[fd00::1]:3261")) as (_, initiator):
        await initiator.login()
        pdu = await initiator.text(b"SendTargets=All\0")
        assert decode_text(bytes(pdu.data)) == [
            ("TargetName", TARGET_NAME),
            ("TargetAddress", "storage.example:3260,1"),
            ("TargetAddress", "[fd00::1]:3261,1"),
        ]


# Limits before the login


@asynccontextmanager
async def from_address(running: RunningTarget, address: str) -> AsyncIterator[Initiator]:
    """A connection that comes from another address of loopback."""
    sock = trio.socket.socket(socket.AF_INET)
    await sock.bind((address, 0))
    await sock.connect((running.host, running.port))
    async with trio.SocketStream(sock) as stream:
        yield Initiator(stream)


async def test_one_machine_cannot_take_all_login_slots() -> None:
    async with (
        running_target(logins_max=4, logins_per_address_max=2) as running,
        from_address(running, "127.0.0.2") as one,
        from_address(running, "127.0.0.2") as two,
    ):
        await trio.testing.wait_all_tasks_blocked()
        async with from_address(running, "127.0.0.2") as three:
            await three.wait_closed()
        async with from_address(running, "127.0.0.3") as other:
            await log_in(other)
        await log_in(one)  # its slot is free from here on
        async with from_address(running, "127.0.0.2") as four:
            four.isid = b"\x80other"
            await log_in(four)
        await two.stream.aclose()


async def test_discovery_sessions_leave_room_for_others() -> None:
    async with running_target(sessions_max=1) as running, trio.open_nursery() as nursery:
        answers = []

        async def discover() -> None:
            async with open_initiator(running.host, running.port) as initiator:
                answers.append((await initiator.login()).status)
                await trio.sleep_forever()

        for count in range(1, 18):
            nursery.start_soon(discover)
            with trio.fail_after(5):
                while len(answers) < count:
                    await trio.testing.wait_all_tasks_blocked()
        assert answers[-2:] == [LoginStatus.SUCCESS, LoginStatus.OUT_OF_RESOURCES]
        async with open_initiator(running.host, running.port) as initiator:
            await log_in(initiator)
        nursery.cancel_scope.cancel()


async def test_login_that_never_ends_is_ended_by_count() -> None:
    names = {"InitiatorName": INITIATOR_NAME, "TargetName": TARGET_NAME}
    async with connection() as (_, initiator):
        await initiator.login_request(flags=4, text=encode_text(names.items()))
        for _ in range(REQUESTS_MAX - 1):
            assert (await initiator.login_request(flags=4)).status == LoginStatus.SUCCESS
        assert (await initiator.login_request(flags=4)).status == LoginStatus.OUT_OF_RESOURCES
        await initiator.wait_closed()


async def test_login_text_that_never_ends_is_ended_by_size() -> None:
    async with connection() as (_, initiator):
        sent = 0
        while True:
            answer = await initiator.login_request(flags=0x44, text=b"x" * LOGIN_SEGMENT_BYTES)
            sent += LOGIN_SEGMENT_BYTES
            if answer.status:
                break
        assert (answer.status, sent) == (LoginStatus.INITIATOR_ERROR, 40 * 1024)
        await initiator.wait_closed()


async def test_segment_longer_than_login_allows_is_not_even_read() -> None:
    async with connection() as (_, initiator):
        header = LOGIN_REQUEST.pack(Opcode.LOGIN_REQUEST | 0x40, 4, 0, 0, bytes(6), 0, 0, 1, 1, 0)
        await initiator.stream.send_all(
            header[:5] + (LOGIN_SEGMENT_BYTES + 1).to_bytes(3, "big") + header[8:]
        )
        await initiator.wait_closed()


async def drip(initiator: Initiator) -> None:
    """A byte at a time, for as long as the target takes them."""
    while True:
        await initiator.stream.send_all(b"\x43")
        with trio.move_on_after(0.02):
            await initiator.receive()


async def test_login_that_drips_is_ended_by_time() -> None:
    """The time is for the whole login: a byte now and then does not prolong it."""
    async with connection(login_time_s=0.3) as (running, initiator):
        began = time.monotonic()
        with pytest.raises((trio.BrokenResourceError, ConnectionEnded)):
            await drip(initiator)
        assert 0.2 < time.monotonic() - began < 5
        async with open_initiator(running.host, running.port) as welcome:
            await log_in(welcome)


async def test_flood_of_half_open_connections_leaves_sessions_alone() -> None:
    async with running_target() as running, open_initiator(running.host, running.port) as good:
        await log_in(good)
        async with trio.open_nursery() as nursery:

            async def half_open() -> None:
                async with from_address(running, "127.0.0.9") as initiator:
                    await initiator.wait_closed()

            for _ in range(60):
                nursery.start_soon(half_open)
            await trio.testing.wait_all_tasks_blocked()
            assert await read(good, 0, BLOCK) == bytes(BLOCK)
            async with open_initiator(running.host, running.port) as late:
                late.isid = b"\x80other"
                await log_in(late)
            nursery.cancel_scope.cancel()
