"""Who may begin a step of background work: every state with everything that can be so, and a volume."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import trio

from pyjiva.block import Hosts, Yielding
from pyjiva.block.yielding import QUIET_S
from pyjiva.controller import Snapshots, VolumeState
from pyjiva.controller.background import Background, Turn, TurnState
from pyjiva.controller.pace import Pace
from pyjiva.extent import Extent
from pyjiva.testing.cluster import open_cluster, wait_state
from pyjiva.units import MIB
from tests.suites.block_device import Driver


@attrs.define(eq=False)
class Worker:
    """Counts how often it was told to go on."""

    turn: Turn = attrs.field(factory=Turn)
    told: int = 0

    def go_on(self) -> None:
        self.told += 1


class Bench:
    """A clock that is set, hosts that are told what to want, and who has been put off."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.requests = 0
        self.serving = True
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.background = Background(
            Yielding(),
            lambda: self.now_s,
            self.hosts,
            lambda after_s, call: self.later.append((after_s, call)),
        )

    def hosts(self) -> Hosts | None:
        return Hosts(self.requests, waiting=False) if self.serving else None


@pytest.mark.parametrize("pace_allows", [True, False])
@pytest.mark.parametrize("hosts_ask", [True, False])
@pytest.mark.parametrize("serving", [True, False])
@pytest.mark.parametrize("state", list(TurnState))
def test_what_follows_in_every_state(
    state: TurnState, serving: bool, hosts_ask: bool, pace_allows: bool
) -> None:
    bench, worker = Bench(), Worker()
    pace = Pace(None if pace_allows else 1000)
    worker.turn.state, worker.turn.began_at_s, worker.turn.spent_bytes = state, 49.99, MIB
    bench.requests, bench.serving = int(hosts_ask), serving
    rests = state is TurnState.WORKING and hosts_ask and serving
    may = bench.background.may_go_on(worker, pace, at_once=1)
    assert may == (pace_allows and not rests and state is not TurnState.RESTING)
    assert len(bench.later) == rests
    if may:
        assert (worker.turn.state, worker.turn.began_at_s, worker.turn.spent_bytes) == (
            TurnState.WORKING,
            50.0,
            0,
        )
    else:
        resting = rests or state is TurnState.RESTING
        assert worker.turn.state is (TurnState.RESTING if resting else TurnState.READY)
    assert worker.told == 0


@pytest.mark.parametrize("rate", [None, 10 * MIB])
@pytest.mark.parametrize("hosts_ask", [True, False])
@pytest.mark.parametrize("serving", [True, False])
def test_a_step_that_begins_knows_whether_it_may_be_larger(
    serving: bool, hosts_ask: bool, rate: int | None
) -> None:
    """That no host asks is known after a while only."""
    bench, worker, pace = Bench(), Worker(), Pace(rate)
    bench.requests, bench.serving = 1, serving
    pace.tick(0.0)
    pace.tick(1.0)
    assert bench.background.may_go_on(worker, pace, at_once=1)
    assert worker.turn.quiet == (not serving and rate is None)
    bench.now_s += QUIET_S
    bench.requests += hosts_ask
    worker.turn.state = TurnState.READY
    assert bench.background.may_go_on(worker, pace, at_once=1)
    assert worker.turn.quiet == (not (serving and hosts_ask) and rate is None)


def test_after_a_rest_it_goes_on_though_hosts_ask() -> None:
    bench, worker, pace = Bench(), Worker(), Pace(None)
    assert bench.background.may_go_on(worker, pace, at_once=1)
    worker.turn.spent_bytes += MIB
    bench.now_s, bench.requests = 50.02, 7
    assert not bench.background.may_go_on(worker, pace, at_once=2)
    ((rest_s, rested),) = bench.later
    assert rest_s == pytest.approx(0.12), "three times the step, for each of two"
    bench.now_s += rest_s
    rested()
    assert worker.told == 1
    assert bench.background.may_go_on(worker, pace, at_once=2)
    assert worker.turn.state is TurnState.WORKING


def test_who_waits_for_the_rate_does_not_rest_for_that() -> None:
    """The time in which a step was not allowed to begin is not one that it took."""
    bench, worker, pace = Bench(), Worker(), Pace(1000)
    pace.tick(0.0)
    bench.requests = 1
    assert not bench.background.may_go_on(worker, pace, at_once=1)
    bench.now_s += 10
    pace.tick(10.0)
    assert worker.told == 1
    assert bench.background.may_go_on(worker, pace, at_once=1)
    assert worker.turn.began_at_s == bench.now_s
    assert not bench.later


@pytest.mark.parametrize("busy", [True, False])
async def test_a_scrub_rests_while_a_host_reads_and_only_then(tmp_path: Path, busy: bool) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, b"x" * MIB)
        await wait_state(volume, VolumeState.HEALTHY)
        rests: list[float] = []
        call_later = volume.background.call_later

        def counted(after_s: float, call: Callable[[], None]) -> None:
            rests.append(after_s)
            call_later(after_s, call)

        volume.background.call_later = counted
        if not busy:
            volume.background.rest_s(0.0, 0, at_once=1)  # it has seen the write
            await trio.sleep(1.1 * QUIET_S)
        assert volume.start_scrub(None)
        while (scrub := volume.status().scrub) is None or scrub.running:
            if busy:
                await driver.read(0, 4096)
            else:
                await trio.sleep(0.01)
        assert scrub.position_bytes == cluster.size_bytes
        assert bool(rests) == busy


async def test_a_read_of_a_snapshot_goes_in_pieces_and_rests_after_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        await Driver(volume, batch).write(0, b"x" * 2 * MIB)
        snapshots = Snapshots(volume)
        await snapshots.create("one")
        steps: list[int] = []

        def rest_s(_: Background, took_s: float, length_bytes: int, *, at_once: int) -> float:
            assert took_s > 0
            steps.append(length_bytes)
            return 0.1

        monkeypatch.setattr(Background, "rest_s", rest_s)
        began_at_s = trio.current_time()
        assert await snapshots.read("one", Extent(4096, 2 * MIB)) == b"x" * (2 * MIB - 4096) + bytes(4096)
        assert trio.current_time() - began_at_s >= 0.3
        assert steps == [MIB - 4096, MIB, 4096]
