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
GIVEN_UP_S = (3.75, 4.76)  # 4 s of silence, which begin half a quiet tick before or after, and a busy tick


@attrs.define
class Watched:
    """What a controller did while it was watched."""

    ticks: int
    pings: dict[str, int]
    """By the name of the replica."""
    lease_left_s: float
    """The least that was left of it."""


async def watch(lab: Lab) -> Watched:
    """For WATCHED_S."""
    pings: collections.Counter[str] = collections.Counter()
    seen = Watched(0, pings, float("inf"))

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if sender == lab.controller and frame[FRAME_TYPE] == bytes([FrameType.PING]):
            pings[receiver] += 1

    lab.network.taps.append(tap)
    ticked_at_s, until_s = lab.volume._ticked_at_s, trio.current_time() + WATCHED_S
    while trio.current_time() < until_s:
        await trio.sleep(0.01)
        seen.lease_left_s = min(seen.lease_left_s, lab.volume._data.lease_until_s - trio.current_time())
        seen.ticks += lab.volume._ticked_at_s != ticked_at_s
        ticked_at_s = lab.volume._ticked_at_s
    lab.network.taps.remove(tap)
    return seen


@pytest.mark.parametrize(
    ("host_rests", "ticks", "pings"), [(True, (19, 22), (19, 22)), (False, (76, 81), (30, 41))]
)
async def test_a_quiet_volume_keeps_time_once_a_second_and_its_lease(
    host_rests: bool, ticks: tuple[int, int], pings: tuple[int, int], autojump_clock: MockClock
) -> None:
    async with open_lab() as lab:
        lab.host_rests = host_rests
        await trio.sleep(3)
        seen = await watch(lab)
        assert ticks[0] <= seen.ticks <= ticks[1]
        assert set(seen.pings) == {machine.name for machine in lab.machines.values()}
        assert all(pings[0] <= count <= pings[1] for count in seen.pings.values()), seen.pings
        assert seen.lease_left_s > 0.5, "a read never waits for it"
        lab.host_rests = False
        await lab.heal()
        assert lab.errors == []


async def test_a_replica_that_falls_silent_meanwhile_is_given_up(autojump_clock: MockClock) -> None:
    async with open_lab() as lab:
        lab.host_rests = True
        await trio.sleep(3)
        lab.network.freeze(lab.machines[2].name)
        await lab.wait_out(2, timeout_s=GIVEN_UP_S[1] + 1)  # the next ping may be a second away
        assert lab.told(2)[0] == "silent"
        lab.network.thaw(lab.machines[2].name)
        lab.host_rests = False
        await lab.heal()
        assert lab.errors == []


@pytest.mark.parametrize("seed", range(16))
async def test_the_first_write_after_it_waits_no_longer_for_a_silent_replica(
    seed: int, autojump_clock: MockClock
) -> None:
    """Wherever between two ticks it comes; and nobody is given up for time in which nobody looked."""
    random = Random(seed)
    async with open_lab() as lab:
        lab.host_rests = True
        await trio.sleep(3 + random.random())
        lab.network.freeze(lab.machines[2].name)
        began_at_s = trio.current_time()
        assert await ask(lab.volume, lambda done: Write(0, BLOCK_BYTES, (bytes(BLOCK_BYTES),), done)) is None
        assert GIVEN_UP_S[0] <= trio.current_time() - began_at_s <= GIVEN_UP_S[1]
        assert lab.told(2)[0] == "silent"


async def test_a_replica_that_was_late_with_the_first_answer_after_it_stays_in(
    autojump_clock: MockClock,
) -> None:
    async with open_lab() as lab:
        lab.host_rests = True
        for _ in range(4):
            await trio.sleep(2.7)
            lab.network.freeze(lab.machines[2].name)
            lab.host_rests = False
            await trio.sleep(3.5)
            lab.network.thaw(lab.machines[2].name)
            await trio.sleep(0.5)
            lab.host_rests = True
        assert lab.losses() == []
