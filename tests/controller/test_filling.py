"""A volume that is in use while it is filled from elsewhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from pyjiva.block import Unmap
from pyjiva.controller import Snapshots, Volume, VolumeState
from pyjiva.controller.filling_io import GRANULE_BYTES, FillingDevice, SourceLost
from pyjiva.controller.operations import DONE, FILL, RUNNING
from pyjiva.controller.status import FillStatus
from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.testing.cluster import Cluster, open_cluster, wait_state
from pyjiva.transport import EndOfBatch
from tests.controller.test_snapshots import Bench, check_replicas
from tests.suites.block_device import Driver, noise

MIB = 1 << 20


@attrs.define(eq=False)
class Source:
    """What it holds is known; it answers when it is let."""

    content: bytes
    holding: bool = False
    losses: int = 0
    """So many times it gives no answer."""
    reads: list[Extent] = attrs.field(factory=list)
    _go_on: trio.Event = attrs.field(factory=trio.Event)

    async def size_bytes(self) -> int:
        return len(self.content)

    async def extents(self) -> list[Extent]:
        return [Extent(0, len(self.content) - MIB // 2)]

    async def read(self, extent: Extent) -> bytes:
        self.reads.append(extent)
        while self.holding:
            await self._go_on.wait()
        if self.losses:
            self.losses -= 1
            raise SourceLost("gone")
        return self.content[extent.offset_bytes : extent.end_bytes]

    def release(self) -> None:
        self.holding = False
        self._go_on.set()


def a_source(*, holding: bool = False) -> Source:
    """3 MiB with holes, and the last half a MiB is zeros."""
    content = bytearray(noise(3 * MIB))
    content[MIB : MIB + 200_000] = bytes(200_000)
    content[-MIB // 2 :] = bytes(MIB // 2)
    return Source(bytes(content), holding)


@attrs.define(eq=False)
class Filled:
    """A volume of 4 MiB over a source."""

    cluster: Cluster
    volume: Volume
    batch: EndOfBatch
    source: Source
    device: FillingDevice
    snapshots: Snapshots
    driver: Driver
    over: trio.Event

    async def full(self) -> None:
        with trio.fail_after(20):
            await self.over.wait()


@asynccontextmanager
async def filled(cluster: Cluster, source: Source, *, new: bool = True) -> AsyncIterator[Filled]:
    async with (
        cluster.open_volume(new_volume=new) as (volume, batch),
        trio.open_nursery() as nursery,
    ):
        await wait_state(volume, VolumeState.HEALTHY)
        snapshots = Snapshots(volume)
        device = FillingDevice(volume, snapshots, source)
        over = trio.Event()

        async def run() -> None:
            await device.run()
            over.set()

        nursery.start_soon(run)
        await device.ready.wait()
        driver = Driver(device, batch)
        held = source.content[: device.size_bytes]
        driver.model[: len(held)] = held
        yield Filled(cluster, volume, batch, source, device, snapshots, driver, over)
        nursery.cancel_scope.cancel()


def check(made: Filled) -> None:
    bench = Bench(made.cluster, made.volume, made.batch, made.snapshots, made.driver)
    check_replicas(bench, 3)


async def test_a_clone_is_complete_from_its_first_moment(tmp_path: Path) -> None:
    """What is not there yet is fetched when somebody asks for it."""
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster:
        async with filled(cluster, source) as made:
            status = made.volume.status()
            assert status.filling == FillStatus(0, 3 * MIB)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.driver.check)
                await trio.testing.wait_all_tasks_blocked(0.05)
                source.release()
            await made.full()
            assert made.device.status().share == 1
            assert not made.volume.past.lineage.snapshots
            (fill,) = (each for each in made.volume.operations if each.kind == FILL)
            assert (fill.state, fill.done_bytes, fill.total_bytes) == (DONE, 3 * MIB, 3 * MIB)
            await made.driver.check()
        await trio.lowlevel.checkpoint()
    check(made)


async def test_what_the_host_writes_meanwhile_stays(tmp_path: Path) -> None:
    """Whole blocks wait for nothing; parts of blocks, and zeros, are put on top of what the source has."""
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        await made.driver.write(8192, noise(8192, seed=2))
        await made.driver.flush()
        assert not any(made.device._waiting.values())
        others = [Driver(made.device, made.batch, made.driver.model) for _ in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others[0].write, 512, noise(512, seed=3))
            nursery.start_soon(others[1].zero, Unmap, MIB - 65536, 131072)
            nursery.start_soon(others[2].write, 2 * MIB + 1024, noise(1024, seed=4))
            await trio.testing.wait_all_tasks_blocked(0.05)
            source.release()
        await made.full()
        await made.driver.check()
    check(made)


async def test_holes_of_the_source_take_no_space(tmp_path: Path) -> None:
    source = Source(bytes(MIB) + noise(65536) + bytes(MIB - 65536))
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        await made.full()
        assert sum(e.length_bytes for e in await made.driver.allocated(0, 4 * MIB)) == 65536
    check(made)


async def test_a_source_that_is_away_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyjiva.controller.filling_io.RETRY_S", 0.01)
    source = a_source()
    source.losses = 6
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        await made.full()
        await made.driver.check()
    check(made)


async def test_a_controller_that_begins_anew_fills_what_is_missing(tmp_path: Path) -> None:
    """What was written before stays; without the source nothing is served."""
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster:
        async with filled(cluster, source) as made:
            await made.driver.write(65536, noise(65536, seed=2))
            kept = bytes(made.driver.model)
        source = a_source(holding=True)
        async with filled(cluster, source, new=False) as again:
            again.driver.model[:] = kept
            source.release()
            await again.driver.check()
            await again.full()
            await again.driver.check()
    check(again)


async def test_a_source_that_grows_meanwhile_stays_the_source(tmp_path: Path) -> None:
    """The volume that the snapshot is of does, beyond this one; the snapshot has nothing there."""
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster:
        async with filled(cluster, source):
            pass
        grown = Source(source.content + bytes(3 * MIB))
        async with filled(cluster, grown, new=False) as again:
            await again.full()
            await again.driver.check()
    check(again)


async def test_it_is_not_full_before_the_replicas_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that begins then still needs the source: nobody may be told that it can be deleted."""
    never = trio.Event()
    monkeypatch.setattr(Snapshots, "filled", lambda *_: never.wait())
    source = a_source()
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        with trio.fail_after(20):
            while made.device.status().done_bytes < 3 * MIB:
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert made.device.status().share < 1
        (fill,) = (each for each in made.volume.operations if each.kind == FILL)
        assert fill.state == RUNNING


async def test_a_replica_that_comes_back_meanwhile_gets_all_of_it(tmp_path: Path) -> None:
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        await made.driver.write(0, noise(4096, seed=2))
        await cluster.stop_replica(2)
        await wait_state(made.volume, VolumeState.DEGRADED)
        await made.driver.write(MIB, noise(8192, seed=3))
        source.release()
        while made.device.status().share < 0.6:
            await trio.sleep(0.001)
        await cluster.start_replica(2)
        await wait_state(made.volume, VolumeState.HEALTHY)
        await made.full()
        await wait_state(made.volume, VolumeState.HEALTHY)
        await made.driver.check()
    check(made)


async def test_snapshots_are_made_meanwhile_and_read_afterwards(tmp_path: Path) -> None:
    source = a_source(holding=True)
    async with open_cluster(tmp_path) as cluster, filled(cluster, source) as made:
        bench = Bench(cluster, made.volume, made.batch, made.snapshots, made.driver)
        await bench.snapshot("early")
        await made.driver.write(0, noise(4096, seed=2))
        with pytest.raises(ConfigError, match="still being filled"):
            await made.snapshots.read("early", Extent(0, 4096))
        with pytest.raises(ConfigError, match="still being filled"):
            await made.snapshots.delete("origin")
        assert not made.volume.start_scrub(None)
        source.release()
        await made.full()
        await bench.check()
    check_replicas(bench, 3)


async def test_a_source_that_is_too_large_is_refused(tmp_path: Path) -> None:
    source = Source(bytes(5 * MIB))
    async with (
        open_cluster(tmp_path) as cluster,
        cluster.open_volume(new_volume=True) as (volume, _),
    ):
        await wait_state(volume, VolumeState.HEALTHY)
        with pytest.raises(ConfigError, match="too small"):
            await FillingDevice(volume, Snapshots(volume), source).run()


def test_a_piece_is_what_a_snapshot_can_be_read_by() -> None:
    from pyjiva.controller.api_parameters import LENGTH_BYTES_MAX

    assert GRANULE_BYTES <= LENGTH_BYTES_MAX
