"""Rot over real replicas: no read gives it out, and another copy takes its place while the host goes on."""

from pathlib import Path

import pytest
import trio

from pyjiva.block import Read, Write
from pyjiva.controller import Volume, VolumeState
from pyjiva.controller.pace import Pace
from pyjiva.controller.repairs import RotCounts
from pyjiva.errors import StorageFailure
from pyjiva.testing.cluster import Cluster, open_cluster, wait_state
from pyjiva.units import KIB, MIB
from tests.suites.block_device import Driver, noise


def rot(cluster: Cluster, replica_id: int, offset: int, length: int = 1) -> None:
    """Change bytes of a replica behind its back."""
    path = cluster.directory / f"replica-{replica_id}" / "volume-head-000.img"
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0x10 for byte in old))


async def wait_repaired(volume: Volume, replica_id: int) -> RotCounts:
    """Wait until nothing of the replica is under repair."""
    with trio.fail_after(20):
        while (rot := volume.status().replicas[replica_id - 1].rot).repairing:
            await trio.sleep(0.01)
    return rot


async def test_rot_is_read_from_another_replica_and_repaired_in_place(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(MIB))
        for replica_id, place in ((1, 5000), (2, 100_000), (3, 9_000), (3, 700_000)):
            rot(cluster, replica_id, place)
        for _ in range(6):  # reads go round among the members
            await driver.check()
        assert await wait_repaired(volume, 1) == RotCounts(0, 1, 0, 1)
        await wait_state(volume, VolumeState.HEALTHY)
        assert volume.start_scrub(None)
        while (scrub := volume.status().scrub) is None or scrub.running:
            await trio.sleep(0.01)
        for replica_id in (1, 2, 3):
            await wait_repaired(volume, replica_id)
            assert cluster.content(replica_id) == bytes(driver.model)
        assert all(r.mode == "in-sync" for r in volume.status().replicas)


async def test_writes_during_repairs_are_not_undone(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(MIB))
        for number in range(60):
            offset, data = number * 16 * KIB, noise(1024, seed=number)
            rot(cluster, 1 + number % 3, offset)
            read = Read(offset, 4096, driver.done)
            driver.model[offset + 512 : offset + 512 + len(data)] = data
            write = Write(offset + 512, len(data), (data,), driver.done)
            await driver.submit(*((read, write) if number % 2 else (write, read)))
            assert (read.error, write.error) == (None, None)
        await driver.check()
        assert volume.start_scrub(None)
        while (scrub := volume.status().scrub) is None or scrub.running:
            await trio.sleep(0.01)
        for replica_id in (1, 2, 3):
            await wait_repaired(volume, replica_id)
            assert cluster.content(replica_id) == bytes(driver.model)


async def test_rot_in_every_copy_is_an_error_and_never_data(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(64 * KIB))
        for replica_id in (1, 2, 3):
            rot(cluster, replica_id, 8192 + replica_id)
        request = Read(8192, 512, driver.done)
        await driver.submit(request)
        assert request.error is not None
        assert request.error.failure is StorageFailure.BAD_CHECKSUM
        assert await wait_repaired(volume, 1) == RotCounts(0, 0, 1, 1)
        assert await driver.read(0, 8192) == noise(64 * KIB)[:8192]
        assert volume.status().state is VolumeState.HEALTHY, "no copy is thrown away for it"
        await driver.write(8192, noise(4096, seed=2))
        await driver.check()


async def test_a_source_that_has_rotted_is_replaced_in_a_rebuild(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(MIB))
        await cluster.stop_replica(3)
        await wait_state(volume, VolumeState.DEGRADED)
        await driver.write(0, noise(2 * MIB, seed=2))
        for place in range(0, 2 * MIB, 256 * KIB):
            rot(cluster, 1 + place // (256 * KIB) % 2, place)
        await cluster.start_replica(3)
        await wait_state(volume, VolumeState.HEALTHY)
        assert cluster.content(3) == bytes(driver.model)
        await driver.check()


async def test_a_replica_that_differs_though_its_checksums_are_right_is_rebuilt(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(2 * MIB))
        cluster.nodes[2].daemon.store.write(4096, 4096, [b"?" * 4096])
        assert volume.start_scrub(None)
        assert not volume.start_scrub(None), "one at a time"
        await wait_state(volume, VolumeState.DEGRADED)
        await wait_state(volume, VolumeState.HEALTHY)
        scrub = volume.status().scrub
        assert scrub is not None
        assert (scrub.bad, scrub.different) == (0, 1)
        assert cluster.content(2) == bytes(driver.model)


async def test_a_scrub_obeys_its_rate(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, _):
        await wait_state(volume, VolumeState.HEALTHY)
        began = trio.current_time()
        assert volume.start_scrub(2 * MIB)
        while (scrub := volume.status().scrub) is None or scrub.running:
            await trio.sleep(0.01)
        assert scrub.position_bytes == cluster.size_bytes == 4 * MIB
        assert 1.0 < trio.current_time() - began < 10


def test_a_pace_gives_what_its_rate_allows() -> None:
    pace = Pace(1000)
    went = 0

    def go_on() -> None:
        nonlocal went
        went += 1
        pace.spent(300)
        pace.may_go_on(go_on)

    pace.tick(0.0)
    assert not pace.may_go_on(go_on)
    for tick in range(1, 101):
        pace.tick(tick / 4)
    assert 25_000 - 600 <= went * 300 <= 25_000 + 600


def test_a_pace_saves_up_for_half_a_second_only() -> None:
    pace = Pace(1000)
    pace.tick(0.0)
    pace.tick(100.0)
    spent = 0
    while pace.may_go_on(lambda: None):
        pace.spent(100)
        spent += 100
    assert spent == 500


def test_no_limit_is_no_wait() -> None:
    pace = Pace(None)
    for _ in range(3):
        assert pace.may_go_on(lambda: None)
        pace.spent(10**12)


@pytest.mark.parametrize("rotten", [(1,), (1, 2), (1, 2, 3)])
async def test_rot_does_not_keep_a_volume_from_starting_after_an_unclean_end(
    tmp_path: Path, rotten: tuple[int, ...]
) -> None:
    """Replica 1 is what the others are made equal to; what it has lost comes from the next that has it."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True, cleanly=False) as (volume, batch):
            driver = Driver(volume, batch)
            await driver.write(0, noise(MIB))
        for replica_id in rotten:
            rot(cluster, replica_id, 5000)
            await cluster.stop_replica(replica_id)  # what it remembers is gone: all is compared
            await cluster.start_replica(replica_id)
        # In flight when the controller ended: 1 has it, and so are all to have it, or none.
        cluster.nodes[1].daemon.store.write(64 * KIB, 4096, [b"?" * 4096])
        async with cluster.open_volume() as (volume, batch):
            await wait_state(volume, VolumeState.HEALTHY)
            driver = Driver(volume, batch)
            request = Read(4096, 4096, driver.done)
            await driver.submit(request)
            assert (request.error is not None) == (rotten == (1, 2, 3))
            for replica_id in rotten:
                await wait_repaired(volume, replica_id)
        expected = bytearray(noise(MIB))
        expected[64 * KIB : 68 * KIB] = b"?" * 4096
        for replica_id in (1, 2, 3):
            content = cluster.content(replica_id)
            assert content[:4096] == expected[:4096]
            assert content[8192:MIB] == expected[8192:]
            assert rotten == (1, 2, 3) or content[4096:8192] == expected[4096:8192]
