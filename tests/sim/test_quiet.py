"""A volume that nobody asks anything: how seldom it looks, and that it is as ready.  In virtual time."""

import collections
from random import Random

import attrs
import pytest
import trio
from trio.testing import MockClock

from pyjiva.block import Write
from pyjiva.replication import FrameType
from pyjiva.testing.network import FRAME_TYPE
from tests.sim.lab import BLOCK_BYTES, Lab, ask, open_lab

WATCHED_S = 20.0
GIVEN_UP_S = (3.74, 4.6)  # 4 s from a tick before or after it, up to a tick more, and some trips


@attrs.define
class Watched:
    """What a controller did while it was watched."""

    looks: int
    """Ticks in which it did all that a tick is for."""
    pings: dict[str, int]
    """By the name of the replica."""
    lease_left_s: float
    """The least that was left of it."""


async def watch(lab: Lab) -> Watched:
    """For WATCHED_S."""
    pings: collections.Counter[str] = collections.Counter()
    looks: list[None] = []
    seen = Watched(0, pings, float("inf"))

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if sender == lab.controller and frame[FRAME_TYPE] == bytes([FrameType.PING]):
            pings[receiver] += 1

    lab.network.taps.append(tap)
    lab.volume.on_look = lambda *_: looks.append(None)
    until_s = trio.current_time() + WATCHED_S
    while trio.current_time() < until_s:
        await trio.sleep(0.01)
        seen.lease_left_s = min(seen.lease_left_s, lab.volume._data.lease_until_s - trio.current_time())
    seen.looks = len(looks)
    lab.volume.on_look = None
    lab.network.taps.remove(tap)
    return seen


@pytest.mark.parametrize(
    ("host_rests", "looks", "pings", "lease_left_s"),
    [(True, (19, 22), (19, 22), 0.9), (False, (76, 90), (36, 41), 1.3)],
)
async def test_a_quiet_volume_looks_once_a_second_and_keeps_its_lease(
    host_rests: bool,
    looks: tuple[int, int],
    pings: tuple[int, int],
    lease_left_s: float,
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        lab.host_rests = host_rests
        await trio.sleep(3)
        seen = await watch(lab)
        assert looks[0] <= seen.looks <= looks[1]
        assert set(seen.pings) == {machine.name for machine in lab.machines.values()}
        assert all(pings[0] <= count <= pings[1] for count in seen.pings.values()), seen.pings
        assert seen.lease_left_s > lease_left_s, "a read never waits for it"
        lab.host_rests = False
        await lab.heal()
        assert lab.errors == []


@pytest.mark.parametrize("seed", range(8))
async def test_the_lease_lasts_whenever_a_host_pauses(seed: int, autojump_clock: MockClock) -> None:
    """Between two pings, for a fraction of a second or more."""
    random = Random(seed)
    async with open_lab() as lab, trio.open_nursery() as nursery:

        async def pause() -> None:
            while True:
                lab.host_rests = not lab.host_rests
                await trio.sleep(random.uniform(0.1, 1.8))

        nursery.start_soon(pause)
        seen = await watch(lab)
        assert seen.lease_left_s > 0.9
        nursery.cancel_scope.cancel()


async def test_a_replica_that_falls_silent_meanwhile_is_given_up(autojump_clock: MockClock) -> None:
    async with open_lab() as lab:
        lab.host_rests = True
        await trio.sleep(3)
        lab.network.freeze(lab.machines[2].name)
        await lab.wait_out(2, timeout_s=GIVEN_UP_S[1] + 1.1)  # the next ping may be a second away
        assert lab.told(2)[0] == "silent"
        lab.network.thaw(lab.machines[2].name)
        lab.host_rests = False
        await lab.heal()
        assert lab.errors == []


@pytest.mark.parametrize("seed", range(16))
async def test_the_first_write_after_it_waits_no_longer_for_a_silent_replica(
    seed: int, autojump_clock: MockClock
) -> None:
    """Wherever between two ticks it comes."""
    random = Random(seed)
    async with open_lab() as lab:
        lab.host_rests = True
        await trio.sleep(3 + random.random())
        lab.network.freeze(lab.machines[2].name)
        began_at_s = trio.current_time()
        assert await ask(lab.volume, lambda done: Write(0, BLOCK_BYTES, (bytes(BLOCK_BYTES),), done)) is None
        assert GIVEN_UP_S[0] <= trio.current_time() - began_at_s <= GIVEN_UP_S[1]
        assert lab.told(2)[0] == "silent"


@pytest.mark.parametrize("seed", range(8))
async def test_a_replica_that_was_late_with_the_first_answer_after_it_stays_in(
    seed: int, autojump_clock: MockClock
) -> None:
    random = Random(seed)
    async with open_lab() as lab:
        for _ in range(4):
            lab.host_rests = True
            await trio.sleep(random.uniform(0.3, 1.2))
            lab.network.freeze(lab.machines[2].name)
            lab.host_rests = False
            await trio.sleep(3.7)
            lab.network.thaw(lab.machines[2].name)
            await trio.sleep(0.5)
        assert lab.losses() == []
