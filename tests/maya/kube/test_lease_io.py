"""`maya.kube.lease_io`: one leads, never two, whatever happens to contenders and to the network."""

import os
from random import Random

import attrs
import pytest
import trio
from hypothesis import example, given, note, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock

from pyjiva.maya.kube import KubeError, Object
from pyjiva.maya.kube.lease_io import LeaseLostError, run_elected
from pyjiva.maya.kube.resource import LEASES
from pyjiva.testing.kube import Call, FakeCluster, Moment

NS = "default"
SEEDS = st.just(int(os.environ["SIM_SEED"])) if "SIM_SEED" in os.environ else st.integers(0, 2**32 - 1)


async def held(cluster: FakeCluster) -> Object:
    lease = await cluster.get(LEASES, NS, "l")
    assert lease is not None
    return dict(lease["spec"])


async def away(_: Call, __: Moment) -> None:
    raise KubeError("the network is away")


# --- one contender, and two


async def test_it_leads_renews_and_gives_back(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    seen: list[Object] = []

    async def main() -> None:
        seen.append(await held(world))
        await trio.sleep(7)
        seen.append(await held(world))

    await run_elected(world.client(), NS, "l", "a", main, now=world.now)
    assert [record["holderIdentity"] for record in seen] == ["a", "a"]
    assert [record["renewTime"][-10:] for record in seen] == ["00.000000Z", "06.000000Z"]
    assert seen[1]["acquireTime"] == "2024-01-01T00:00:00.000000Z"
    assert trio.current_time() == 7
    assert (await held(world))["holderIdentity"] == ""


async def test_the_next_one_need_not_wait_after_a_clean_stop(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    led: list[tuple[str, float]] = []

    async def contend(name: str, seconds: float) -> None:
        async def main() -> None:
            led.append((name, trio.current_time()))
            await trio.sleep(seconds)

        await run_elected(world.client(), NS, "l", name, main, now=world.now, random=Random(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(contend, "a", 20)
        await trio.sleep(1)
        nursery.start_soon(contend, "b", 1)
    assert [name for name, _ in led] == ["a", "b"]
    assert 20 <= led[1][1] <= 20 + 2 * 2.2
    assert (await held(world))["leaseTransitions"] == 1


async def test_a_cancelled_leader_ends_main_and_then_gives_back(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    order: list[str] = []

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                order.append((await held(world))["holderIdentity"])

    with trio.move_on_after(5):
        await run_elected(world.client(), NS, "l", "a", main, now=world.now)
    order.append((await held(world))["holderIdentity"])
    assert order == ["a", ""]


async def test_what_main_raises_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    world = FakeCluster()

    async def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_elected(world.client(), NS, "l", "a", main, now=world.now)
    assert (await held(world))["holderIdentity"] == ""


async def test_a_leader_that_is_cut_off_stops_before_others_begin(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    client = world.client()
    ended: list[float] = []
    began: list[float] = []

    async def main() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def other() -> None:
        began.append(trio.current_time())

    async def cut_off() -> None:
        await trio.sleep(5)
        client.fault = away

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_off)
        nursery.start_soon(lambda: run_elected(world.client(), NS, "l", "b", other, now=world.now))
        with pytest.raises(LeaseLostError, match="default/l could not be renewed in time"):
            await run_elected(client, NS, "l", "a", main, now=world.now)
    assert ended == [14]  # ten after the last renewal, at 4
    assert began and began[0] >= 19


async def test_a_request_that_hangs_does_not_keep_a_leader(autojump_clock: MockClock) -> None:
    world = FakeCluster()
    client = world.client()

    async def hang(_: Call, __: Moment) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        await trio.sleep(1)
        client.fault = hang
        await trio.sleep_forever()

    with pytest.raises(LeaseLostError):
        await run_elected(client, NS, "l", "a", main, now=world.now)
    assert trio.current_time() == 10 + 5  # and what is tried for giving it back ends too


async def test_a_leader_whose_lease_was_taken_stops_at_once(autojump_clock: MockClock) -> None:
    world = FakeCluster()

    async def main() -> None:
        await trio.sleep(1)
        await world.merge(LEASES, NS, "l", {"spec": {"holderIdentity": "thief"}})
        await trio.sleep_forever()

    with pytest.raises(LeaseLostError, match="thief holds the lease default/l"):
        await run_elected(world.client(), NS, "l", "a", main, now=world.now)
    assert trio.current_time() == 2
    assert (await held(world))["holderIdentity"] == "thief"


# --- many, and a bad network


@attrs.define(eq=False)
class Contest:
    """Processes that come and go, and all want to lead."""

    seed: int
    stop_s_max: float = 4.0
    """How long a leader may take to stop: less than duration less deadline, if it is to be right."""
    random: Random = attrs.field(init=False)
    world: FakeCluster = attrs.field(factory=FakeCluster, init=False)
    leading: list[str] = attrs.field(factory=list, init=False)
    terms: list[str] = attrs.field(factory=list, init=False)
    notes: list[str] = attrs.field(factory=list, init=False)
    together: list[str] = attrs.field(factory=list, init=False)
    """Leaders that began while another led."""

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)

    async def play(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(self._machine, f"m{number}")

    async def _machine(self, name: str) -> None:
        """One process after the other, each with an identity of its own."""
        for life in range(1000):
            client = self.world.client()
            client.fault = self._bad_network
            with trio.move_on_after(self.random.expovariate(1 / 120)) as scope:
                try:
                    await self._process(client, f"{name}-{life}")
                except LeaseLostError:
                    self.notes.append(f"{trio.current_time():.1f} {name} lost it")
                if self.random.random() < 0.5:
                    client.fault = away  # it dies, and gives nothing back
            if scope.cancelled_caught:
                self.notes.append(f"{trio.current_time():.1f} {name} ended")
            await trio.sleep(self.random.random() * 5)

    async def _process(self, client: FakeCluster, identity: str) -> None:
        async def main() -> None:
            if self.leading:
                self.together.append(f"{trio.current_time():.1f} {identity} beside {self.leading}")
            self.leading.append(identity)
            self.terms.append(identity)
            self.notes.append(f"{trio.current_time():.1f} {identity} leads")
            try:
                await trio.sleep(self.random.expovariate(1 / 60))
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.random.random() * self.stop_s_max)
                self.leading.remove(identity)

        await run_elected(client, NS, "l", identity, main, now=self.world.now, random=self.random)

    async def _bad_network(self, call: Call, moment: Moment) -> None:
        """Slow now and then; requests and answers are lost, sometimes for a while."""
        if self.random.random() < 0.1:
            await trio.sleep(self.random.random() * 12)
        if self.random.random() < 0.1:
            raise KubeError("lost")
        if self.random.random() < 0.02:
            await trio.sleep(self.random.random() * 60)
        await trio.lowlevel.checkpoint()


def contest(seed: int, stop_s_max: float = 4.0) -> Contest:
    made = Contest(seed, stop_s_max)
    with capture_logs():  # a thousand lines
        trio.run(made.play, 600, clock=MockClock(autojump_threshold=0))
    return made


@settings(deadline=None, max_examples=15)
@example(seed=1)
@given(seed=SEEDS)
def test_no_two_lead_at_once_whatever_the_network_does(seed: int) -> None:
    note(f"replay: SIM_SEED={seed}")
    made = contest(seed)
    assert made.together == [], made.notes
    assert len(made.terms) > 2  # and somebody leads at all


def test_the_contest_would_notice_two_leaders() -> None:
    """Leaders that take longer to stop than they may are found out."""
    assert any(contest(seed, stop_s_max=20.0).together for seed in range(10))
