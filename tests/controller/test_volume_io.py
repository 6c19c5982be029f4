"""The volume over real replica daemons: loopback sockets, real files, one process."""

import socket
from pathlib import Path

import pytest
import trio

from pyjiva.block import PARAMETERS_BYTES_MAX, Space
from pyjiva.controller import Volume, VolumeState
from pyjiva.controller.roster_event import StopRequested
from pyjiva.controller.volume_io import VolumeFenced
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.snapshot import Store
from pyjiva.testing.cluster import open_cluster, wait_state
from pyjiva.transport.near_io import near_listener
from pyjiva.units import MIB
from tests.suites.block_device import CASES, SIZE_BYTES, Case, Driver, case_name, noise


def connected_ports() -> set[int]:
    """The TCP ports of this network namespace that have a connection (proc(5), net/tcp)."""
    lines = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {int(local.rpartition(":")[2], 16) for _, local, _, state, *_ in fields if state == "01"}


@pytest.mark.parametrize("case", CASES, ids=case_name)
async def test_contract_of_a_block_device(case: Case, tmp_path: Path) -> None:
    """Three replicas behave like one device, and hold the same bytes afterwards."""
    async with open_cluster(tmp_path) as cluster:
        assert cluster.size_bytes == SIZE_BYTES
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            driver = Driver(volume, batch)
            await case(driver)
            await driver.flush()
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2]


async def test_a_replica_that_comes_back_is_rebuilt_while_the_host_writes(tmp_path: Path) -> None:
    """One of three dies and nobody notices; when it is back it becomes identical."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            driver = Driver(volume, batch)
            await driver.write(0, noise(1 << 20))
            await cluster.stop_replica(2)
            await driver.write(1 << 20, noise(1 << 20, seed=2))
            await wait_state(volume, VolumeState.DEGRADED)
            await cluster.start_replica(2)
            for n in range(50):
                await driver.write(n * 40_000 + 512, noise(512, seed=n))
            await wait_state(volume, VolumeState.HEALTHY)
            await driver.check()
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2] == bytes(driver.model)


async def test_large_payloads_to_replicas_on_this_machine_do_not_travel(tmp_path: Path) -> None:
    """Nor do they when a replica was lost while it had something of the memory: a new one is begun."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            driver = Driver(volume, batch)
            assert cluster.memory is not None
            for number in range(4):
                data = cluster.memory.take(MIB)
                data[:] = noise(MIB, seed=number)
                if number == 1:  # when it has been told of the data
                    batch.at_end(lambda: volume.lose_member(2, "to see what follows"))
                await driver.write(number % 2 * MIB, data)
                del data
                await driver.check()
                await wait_state(volume, VolumeState.HEALTHY)
                received = {i: node.daemon.statistics().received_bytes for i, node in cluster.nodes.items()}
                received.pop(2)  # which was rebuilt
                assert max(received.values()) < MIB // 4
            assert cluster.memory.generation == 1
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2] == bytes(driver.model)


async def test_replicas_on_this_machine_are_reached_by_their_unix_sockets(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        await wait_state(volume, VolumeState.HEALTHY)
        driver = Driver(volume, batch)
        await driver.write(512, noise(512))
        await driver.check()
        assert not connected_ports() & set(cluster.ports.values())
        with socket.create_connection(("127.0.0.1", cluster.ports[1])):  # it would be seen
            assert connected_ports() & set(cluster.ports.values()) == {cluster.ports[1]}


async def test_who_has_the_name_of_a_replicas_unix_socket_does_not_keep_it_from_the_volume(
    tmp_path: Path,
) -> None:
    """It cannot prove the key; the next try is over TCP."""
    async with open_cluster(tmp_path) as cluster:
        await cluster.stop_replica(2)
        impostor = near_listener(cluster.ports[2])
        assert impostor is not None
        visits = 0

        async def hang_up(visitor: trio.SocketStream) -> None:
            nonlocal visits
            visits += 1
            await visitor.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, hang_up, [impostor])
            await cluster.start_replica(2)
            async with cluster.open_volume(new_volume=True) as (volume, batch):
                await wait_state(volume, VolumeState.HEALTHY)
                driver = Driver(volume, batch)
                await driver.write(512, noise(512))
                await driver.check()
            nursery.cancel_scope.cancel()
        assert visits
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2]


async def test_who_has_its_last_snapshot_when_the_volume_stops_is_given_nothing_more(tmp_path: Path) -> None:
    """World 9952 before background work rested: the map of what it missed was gone already."""
    async with (
        open_cluster(tmp_path) as cluster,
        cluster.open_volume(new_volume=True, cleanly=False) as (volume, _),
    ):
        await wait_state(volume, VolumeState.HEALTHY)
        await cluster.stop_replica(2)
        await wait_state(volume, VolumeState.DEGRADED)
        volume._apply(StopRequested())
        volume._members_changed()
        volume.copy_live(2)
        assert volume.status().replicas[1].rebuild is None


async def test_why_a_replica_was_given_up_is_not_forgotten_with_its_connection(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, _):
        await wait_state(volume, VolumeState.HEALTHY)
        volume.too_much_rot(2)
        await wait_state(volume, VolumeState.HEALTHY)
        told = [event.text for event in volume.history.events if event.replica == 2]
    assert "in-sync → out: too many of its blocks are not what was written" in told
    assert not any("closed" in text for text in told)


async def test_who_listens_is_told_of_the_end(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, _):
            await wait_state(volume, VolumeState.HEALTHY)
            assert not volume.history.closed
        assert volume.history.closed
        with pytest.RaisesGroup(VolumeFenced):
            async with cluster.open_volume() as (volume, _):
                await wait_state(volume, VolumeState.HEALTHY)
                volume._end(VolumeFenced("to see what follows"))
                await trio.sleep_forever()
        assert volume.history.closed


async def test_rot_in_the_last_copy_costs_its_block_and_not_the_volume(tmp_path: Path) -> None:
    """Replica 1 alone has everything, but for one block: the others become as it is, and that block fails."""
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, batch):
        driver = Driver(volume, batch)
        await driver.write(0, noise(1 << 20))
        await wait_state(volume, VolumeState.HEALTHY)
        await cluster.stop_replica(2)
        await driver.write(8192, noise(4096, seed=1))
        await cluster.stop_replica(3)
        with (tmp_path / "replica-1" / "volume-head-000.img").open("r+b") as file:
            file.seek(5000)
            file.write(b"rot")
        for replica_id in (2, 3):
            cluster.boot_ids[replica_id] = "boot-2"
            await cluster.start_replica(replica_id)
        await wait_state(volume, VolumeState.HEALTHY)
        for _ in range(3):  # whoever is asked
            with pytest.raises(AssertionError, match="has a good copy"):
                await driver.read(4096, 4096)
        assert await driver.read(0, 4096) == noise(1 << 20)[:4096]
        assert await driver.read(8192, 4096) == noise(4096, seed=1)
        await driver.write(4096, noise(4096, seed=2))
        await driver.check()
        await driver.flush()
    assert cluster.content(1) == cluster.content(2) == cluster.content(3)


async def test_a_disk_that_cannot_be_read_does_not_keep_a_volume_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an unclean end the others are made equal to replica 1, unless it cannot be read."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True, cleanly=False) as (volume, batch):
            driver = Driver(volume, batch)
            await driver.write(0, noise(1 << 20))
        for replica_id in (1, 2, 3):
            await cluster.stop_replica(replica_id)
            await cluster.start_replica(replica_id)
        hash_range = Store.hash_range

        def refuse(store: Store, offset_bytes: int, length_bytes: int) -> bytes:
            if store.state.replica_id == 1:
                raise StorageError(StorageFailure.READ_ERROR, "a sector that cannot be read")
            return hash_range(store, offset_bytes, length_bytes)

        monkeypatch.setattr(Store, "hash_range", refuse)
        async with cluster.open_volume(cleanly=False) as (volume, batch):
            with trio.fail_after(10):
                await volume.ready.wait()
            assert {r.id for r in volume.status().replicas if r.mode == "in-sync"} == {2, 3}
            assert await Driver(volume, batch).read(0, 1 << 20) == noise(1 << 20)


@pytest.mark.parametrize("cleanly", [True, False])
async def test_a_new_controller_finds_every_acknowledged_write(tmp_path: Path, cleanly: bool) -> None:
    """Also when the old one and a replica died."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True, cleanly=cleanly) as (volume, batch):
            first = Driver(volume, batch)
            await first.write(4096, noise(100_000))
            await cluster.stop_replica(3)
            await first.write(8192, noise(5_000, seed=3))
        await cluster.start_replica(3)
        async with cluster.open_volume() as (volume, batch):
            second = Driver(volume, batch, model=first.model)
            with trio.fail_after(20):
                await second.check()
            await wait_state(volume, VolumeState.HEALTHY)
        contents = [cluster.content(i) for i in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2]


async def test_a_replica_that_starts_a_little_later_is_waited_for(tmp_path: Path) -> None:
    """After a restart of everything one is always the last: it must not be rebuilt for that."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            await Driver(volume, batch).write(0, noise(4096))
        await cluster.stop_replica(3)
        async with cluster.open_volume() as (volume, _):
            await trio.sleep(0.8)  # several ticks after the other two have promised
            await cluster.start_replica(3)
            await wait_state(volume, VolumeState.HEALTHY)  # a majority has the record by then
            with trio.fail_after(20):
                while (record := cluster.nodes[3].daemon.store.state.record) is None or record.epoch < 2:
                    await trio.sleep(0.01)
            assert record.version == 1, "taken in by the first record, not by a rebuild"


async def test_space_is_told_by_the_replicas_that_hold_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest copy and the fullest disk count: one that cannot take a write is enough."""
    spaces = {1: Space(1 << 20, 9 << 30), 2: Space(3 << 20, 8 << 30), 3: Space(2 << 20, 7 << 30)}
    monkeypatch.setattr(Store, "space", lambda store: spaces[store.state.replica_id])
    async with (
        open_cluster(tmp_path) as cluster,
        cluster.open_volume(new_volume=True) as (volume, batch),
    ):
        await Driver(volume, batch).write(0, noise(4096))
        told = {id_: (space.used_bytes, space.available_bytes) for id_, space in spaces.items()}
        with trio.fail_after(20):
            while {r.id: (r.used_bytes, r.available_bytes) for r in volume.status().replicas} != told:
                await trio.sleep(0.01)
        assert volume.space == Space(3 << 20, 7 << 30)
        await cluster.stop_replica(3)
        await wait_space(volume, Space(3 << 20, 8 << 30))
        assert [r.used_bytes for r in volume.status().replicas] == [1 << 20, 3 << 20, None]


async def wait_space(volume: Volume, space: Space) -> None:
    """Until the volume says so."""
    with trio.fail_after(20):
        while volume.space != space:
            await trio.sleep(0.01)


@pytest.mark.parametrize("size", [5, PARAMETERS_BYTES_MAX])
async def test_parameters_outlive_their_controller_and_any_one_replica(tmp_path: Path, size: int) -> None:
    """What a logical unit keeps is as durable as the membership record."""
    parameters = noise(size)
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True, cleanly=False) as (volume, _):
            await save_parameters(volume, b"older")
            await cluster.stop_replica(2)
            await save_parameters(volume, parameters)
            await save_parameters(volume, parameters)
            assert volume.parameters == parameters
        await cluster.start_replica(2)
        await cluster.stop_replica(1)
        async with cluster.open_volume() as (volume, _):
            with trio.fail_after(20):
                await volume.ready.wait()
            assert volume.parameters == parameters


async def save_parameters(volume: Volume, parameters: bytes) -> None:
    """Save, and wait for the answer."""
    saved = trio.Event()

    def done(error: StorageError | None) -> None:
        assert error is None
        saved.set()

    volume.save_parameters(parameters, done)
    with trio.fail_after(20):
        await saved.wait()
