"""Snapshots of a volume over real replica daemons: what each of them holds, and when one was away."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from pyjiva.block import Unmap
from pyjiva.controller import Snapshots, Volume, VolumeState
from pyjiva.controller.operations import DONE, MERGE, RUNNING
from pyjiva.errors import ConfigError, StorageError
from pyjiva.extent import Extent
from pyjiva.lineage import Change, ChangeKind
from pyjiva.snapshot import Merger, Store
from pyjiva.testing.cluster import VOLUME_ID, Cluster, open_cluster, wait_state
from pyjiva.transport import EndOfBatch
from tests.suites.block_device import Driver, noise

MIB = 1 << 20


@attrs.define(eq=False)
class Bench:
    """A volume in use, with what it ought to hold at each of its snapshots."""

    cluster: Cluster
    volume: Volume
    batch: EndOfBatch
    snapshots: Snapshots
    driver: Driver
    past: dict[str, bytes] = attrs.field(factory=dict)

    async def snapshot(self, name: str) -> None:
        await self.snapshots.create(name)
        self.past[name] = bytes(self.driver.model)

    async def delete(self, name: str) -> None:
        await self.snapshots.delete(name)
        del self.past[name]

    async def revert(self, name: str, *, keep_newer: bool = False) -> None:
        await self.snapshots.revert(name, keep_newer=keep_newer)
        self.driver.model[:] = self.past[name]
        left = {snapshot.name for snapshot in self.volume.past.lineage.snapshots}
        self.past = {each: content for each, content in self.past.items() if each in left}

    async def write(self, offset: int, length: int, seed: int = 1) -> None:
        await self.driver.write(offset, noise(length, seed=seed))

    async def healthy(self) -> None:
        await wait_state(self.volume, VolumeState.HEALTHY)

    async def degraded(self) -> None:
        await wait_state(self.volume, VolumeState.DEGRADED)

    async def check(self) -> None:
        """What the volume gives out is what it ought to."""
        await self.driver.check()
        assert {each.name for each in self.volume.past.lineage.snapshots} == set(self.past)
        for name, content in self.past.items():
            read = b"".join(
                [
                    await self.snapshots.read(name, Extent(at, min(MIB, len(content) - at)))
                    for at in range(0, len(content), MIB)
                ]
            )
            assert read == content.ljust(len(read), b"\0"), f"snapshot {name}"


@asynccontextmanager
async def bench(path: Path, *, replicas: int = 3) -> AsyncIterator[Bench]:
    """A new volume; afterwards all its replicas hold the same past."""
    async with (
        open_cluster(path, replicas=replicas) as cluster,
        cluster.open_volume(new_volume=True) as (volume, batch),
    ):
        made = Bench(cluster, volume, batch, Snapshots(volume), Driver(volume, batch))
        await made.healthy()
        yield made
        await made.healthy()
        await made.check()
        await made.driver.flush()
    check_replicas(made, replicas)


def open_store(made: Bench, replica_id: int) -> Store:
    """The directory of a replica that does not run."""
    return Store.open_or_create(
        made.cluster.directory / f"replica-{replica_id}",
        volume_id=VOLUME_ID,
        replica_id=replica_id,
        volume_name="test",
        size_bytes=made.cluster.size_bytes,
        block_size_bytes=made.cluster.block_size_bytes,
        boot_id="boot-1",
    )


def check_replicas(made: Bench, replicas: int) -> None:
    """Every replica's directory holds what the volume ought to, by its own files."""
    for replica_id in range(1, replicas + 1):
        store = open_store(made, replica_id)
        try:
            assert store.lineage.is_whole
            assert store.lineage == made.volume.past.lineage
            everything = Extent(0, store.size_bytes)
            assert bytes(store.read(0, store.size_bytes)) == bytes(made.driver.model), f"replica {replica_id}"
            for name, content in made.past.items():
                held = bytes(store.read_at(name, everything))
                assert held == content.ljust(len(held), b"\0"), f"snapshot {name} of replica {replica_id}"
            store.self_check()
        finally:
            store.close()


async def grow(it: Bench) -> None:
    await it.snapshots.grow(it.volume.size_bytes + MIB)
    it.driver.model += bytes(MIB)


@pytest.mark.parametrize(
    ("change", "ahead"),
    [
        (lambda it: it.snapshot("two"), ["flush", "prepare_snapshot"]),
        (lambda it: it.delete("one"), ["flush"]),
        (grow, ["flush"]),
    ],
    ids=["create", "delete", "grow"],
)
async def test_what_was_not_flushed_is_before_a_change_for_which_all_requests_wait(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Bench], Awaitable[None]],
    ahead: list[str],
) -> None:
    """And whoever merges knows before that, and again when it is there."""
    seen: list[tuple[int, str]] = []
    async with bench(tmp_path) as it:
        await it.write(0, 8192)
        await it.snapshot("one")
        await it.write(4096, 8192)
        for name in ("flush", "prepare_snapshot", "change"):
            monkeypatch.setattr(Store, name, noted(seen, name, getattr(Store, name)))
        for name in ("change_comes", "change_is_here"):
            monkeypatch.setattr(Merger, name, noted(seen, name, getattr(Merger, name)))
        await change(it)
        monkeypatch.undo()
        await it.healthy()
    for id_ in (1, 2, 3):
        theirs = [name for each, name in seen if each == id_]
        expected = ["change_comes", *ahead, "change_is_here", "change"]
        assert theirs[: theirs.index("change") + 1] == expected


def noted(seen: list[tuple[int, str]], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, and whose it was in `seen` each time."""

    def instead(owner: Store | Merger, *arguments: Any) -> Any:
        store = owner if isinstance(owner, Store) else owner.device.store
        seen.append((store.state.replica_id, name))
        return call(owner, *arguments)

    return instead


async def test_a_snapshot_keeps_what_the_volume_held(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 3 * MIB)
        await made.snapshot("one")
        await made.write(MIB, MIB, seed=2)
        await made.driver.zero(Unmap, 0, 65536)
        await made.snapshot("two")
        await made.write(512, 512, seed=3)
        assert await made.snapshots.changed("two", "one") == [Extent(0, 65536), Extent(MIB, MIB)]
        await made.check()


async def test_deleting_any_snapshot_leaves_the_others_and_gives_the_space_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for n, name in enumerate(("one", "two", "three")):
            await made.write(n * MIB, MIB, seed=n)
            await made.snapshot(name)
        await made.delete("two")
        await made.check()
        await made.delete("three")
        await made.delete("one")
        with trio.fail_after(20):
            while (await made.snapshots.listing()).removed_bytes:
                await trio.sleep(0.01)
        await made.check()


async def test_a_deletion_is_at_once_an_operation_that_ends_when_the_space_is_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 2 * MIB, seed=1)
        await made.snapshot("one")
        await made.write(0, MIB, seed=2)
        assert not [each for each in made.volume.operations if each.kind == MERGE]
        await made.delete("one")
        begun = [each for each in made.volume.operations if each.kind == MERGE]
        assert sorted(each.replica or 0 for each in begun) == sorted(made.volume.readable())
        with trio.fail_after(30):
            while any(each.state == RUNNING for each in made.volume.operations):
                await trio.sleep(0.01)
        assert not (await made.snapshots.listing()).removed_bytes
        ended = [each for each in made.volume.operations if each.kind == MERGE]
        assert [each.state for each in ended] == [DONE] * len(begun)
        await made.check()


async def test_a_name_can_be_used_again_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for n in range(4):
            await made.write(n * 65536, 65536, seed=n)
            await made.snapshot("daily")
            if n < 3:
                await made.delete("daily")


async def test_going_back_to_a_snapshot(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, MIB)
        await made.snapshot("one")
        await made.write(0, 2 * MIB, seed=2)
        await made.snapshot("two")
        await made.write(0, 65536, seed=3)
        await made.revert("one", keep_newer=True)
        await made.check()
        await made.write(MIB, 65536, seed=4)
        await made.snapshot("branch")
        await made.revert("two")
        await made.check()
        await made.revert("one")
        assert set(made.past) == {"one"}


async def test_growing_adds_zeros_and_the_volume_stays_in_use(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 65536)
        await made.snapshot("small")
        resized: list[int] = []
        made.volume.on_resized = lambda: resized.append(made.volume.size_bytes)
        await made.snapshots.grow(6 * MIB)
        assert resized == [6 * MIB]
        made.driver.model.extend(bytes(2 * MIB))
        await made.write(5 * MIB, MIB, seed=2)
        await made.snapshot("large")


async def test_a_volume_that_has_grown_begins_again_as_large_as_it_was(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            await wait_state(volume, VolumeState.HEALTHY)
            await Snapshots(volume).create("a")
            await Snapshots(volume).grow(6 * MIB)
        async with cluster.open_volume() as (volume, batch):
            await wait_state(volume, VolumeState.HEALTHY)
            assert volume.size_bytes == 6 * MIB
            assert [each.name for each in volume.past.lineage.snapshots] == ["a"]
            driver = Driver(volume, batch, model=bytearray(6 * MIB))
            await driver.write(5 * MIB, noise(MIB))
            await driver.check()


async def test_a_replica_that_was_away_gets_the_snapshots_and_only_what_it_missed(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 4 * MIB)
        await made.snapshot("before")
        await made.cluster.stop_replica(2)
        await made.degraded()
        await made.write(65536, 65536, seed=2)
        await made.snapshot("meanwhile")
        await made.write(MIB, 65536, seed=3)
        await made.snapshot("later")
        await made.delete("before")
        await made.snapshots.grow(5 * MIB)
        made.driver.model.extend(bytes(MIB))
        await made.cluster.start_replica(2)
        await made.healthy()
        rebuilds = made.volume.status().replicas[1].rebuilds
        # The chunk that differs in each of the snapshots, and the two places of the live content.
        assert rebuilds.copied_bytes <= 2 * MIB + 2 * 65536


async def test_a_replica_that_grew_alone_gets_the_size_of_the_volume(tmp_path: Path) -> None:
    """And grows with it afterwards, by nothing but zeros."""
    async with bench(tmp_path) as made:
        await made.write(0, 4 * MIB)
        await made.snapshot("before")
        await made.cluster.stop_replica(2)
        await made.degraded()
        store = open_store(made, 2)
        before = store.lineage.generation
        store.change(Change(kind=ChangeKind.GROW, before=before, after=before + 1, size_bytes=6 * MIB))
        store.write(5 * MIB, MIB, [noise(MIB)])
        store.close()
        await made.snapshot("meanwhile")
        await made.cluster.start_replica(2)
        await made.healthy()
        assert made.volume.status().replicas[1].rebuilds.copied_bytes == 0
        await made.snapshots.grow(6 * MIB)
        made.driver.model.extend(bytes(2 * MIB))


async def test_a_replica_that_missed_a_revert_is_compared_whole(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, MIB)
        await made.snapshot("one")
        await made.write(0, 2 * MIB, seed=2)
        await made.cluster.stop_replica(3)
        await made.degraded()
        await made.revert("one")
        await made.write(3 * MIB, 65536, seed=3)
        await made.cluster.start_replica(3)


async def test_snapshots_change_while_a_replica_is_being_rebuilt(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 4 * MIB)
        await made.cluster.stop_replica(1)
        await made.degraded()
        for n in range(40):
            await made.write(n * 100_000, 4096, seed=n)
        await made.cluster.start_replica(1)
        for n in range(6):
            await made.snapshot(f"s{n}")
            await made.write(n * 300_000, 8192, seed=100 + n)
            if n % 2:
                await made.delete(f"s{n - 1}")
        await made.healthy()


async def test_a_replaced_disk_gets_the_whole_past(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.write(0, 2 * MIB)
        await made.snapshot("one")
        await made.driver.zero(Unmap, 0, MIB)
        await made.snapshot("two")
        await made.revert("one", keep_newer=True)
        await made.write(512, 1024, seed=2)
        await made.snapshot("branch")
        await made.delete("one")
        await made.cluster.stop_replica(2)
        await made.degraded()
        for file in (tmp_path / "replica-2").iterdir():
            file.unlink()
        await made.cluster.start_replica(2)


async def test_a_controller_that_died_leaves_replicas_that_differ_by_one_change(tmp_path: Path) -> None:
    """Whether the snapshot that was under way is there afterwards, all have it or none."""
    async with open_cluster(tmp_path) as cluster:
        async with cluster.open_volume(new_volume=True) as (volume, batch):
            driver = Driver(volume, batch)
            await driver.write(0, noise(MIB))
            await Snapshots(volume).create("first")
            await driver.write(0, noise(4096, seed=2))
        directory = tmp_path / "replica-2"
        await cluster.stop_replica(2)
        store = Store.open_or_create(
            directory,
            volume_id=VOLUME_ID,
            replica_id=2,
            volume_name="test",
            size_bytes=cluster.size_bytes,
            block_size_bytes=512,
            boot_id="boot-1",
        )
        store.change(_create(store, "half"))
        store.close()
        await cluster.start_replica(2)
        async with cluster.open_volume() as (volume, batch):
            await wait_state(volume, VolumeState.HEALTHY)
            assert [each.name for each in volume.past.lineage.snapshots] == ["first", "half"]
            snapshots = Snapshots(volume)
            made = Bench(cluster, volume, batch, snapshots, Driver(volume, batch))
            made.driver.model[:MIB] = noise(MIB)
            made.past["first"] = bytes(made.driver.model)
            made.driver.model[:4096] = noise(4096, seed=2)
            made.past["half"] = bytes(made.driver.model)
            await made.check()
            await made.driver.flush()
    check_replicas(made, 3)


def _create(store: Store, name: str) -> Change:
    generation = store.lineage.generation
    return Change(
        kind=ChangeKind.CREATE, before=generation, after=generation + 1, number=generation + 1, name=name
    )


async def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.snapshot("one")
        with pytest.raises(ConfigError, match="already"):
            await made.snapshots.create("one")
        with pytest.raises(ConfigError, match="letters"):
            await made.snapshots.create("../one")
        with pytest.raises(ConfigError, match="no snapshot"):
            await made.snapshots.delete("two")
        with pytest.raises(ConfigError, match="only grow"):
            await made.snapshots.grow(512)
        with pytest.raises(ConfigError, match="bytes"):
            await made.snapshots.read("one", Extent(made.volume.size_bytes, 512))
        made.snapshots.why_no_revert = lambda: "logged in: somebody"
        with pytest.raises(ConfigError, match="somebody"):
            await made.snapshots.revert("one")


async def test_a_parked_volume_makes_no_snapshot(tmp_path: Path) -> None:
    async with open_cluster(tmp_path) as cluster, cluster.open_volume(new_volume=True) as (volume, _):
        await wait_state(volume, VolumeState.HEALTHY)
        await cluster.stop_replica(1)
        await cluster.stop_replica(2)
        await wait_state(volume, VolumeState.PARKED)
        with pytest.raises(StorageError, match="parked"):
            await Snapshots(volume).create("one")
