"""Failures at stated moments while the snapshots of a volume change (see `scenarios`)."""

from typing import Final

import trio

from pyjiva.controller import Volume, VolumeState
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.replication import ANSWER, FrameType
from pyjiva.snapshot.chain import CHAIN_FILE
from pyjiva.testing.memory_file import no_fault
from pyjiva.testing.snapshot_client import Point
from pyjiva.testing.world import World
from tests.sim.stage import OLD, Scenario, come, healthy, mode, start, until, watch

__all__ = ["SCENARIOS_OF_SNAPSHOTS"]

PATIENCE_S: Final = 30.0


async def snapshot(world: World, volume: Volume, name: str) -> Point:
    """One that is there."""
    point = await world.snapshots.create(volume, name, PATIENCE_S)
    assert point is not None
    assert any(each.name == name for each in volume.past.lineage.snapshots)
    return point


async def write_everything(world: World, volume: Volume, *, fua: bool = True) -> None:
    """Give every block a content of its own."""
    for block in range(world.blocks):
        assert await world.clients.write(volume, [block], fua=fua)


async def a_revert_reaches_one_replica(world: World) -> None:
    """The controller dies then; the others are told, before they serve, to go back to what they stand on."""
    volume = await healthy(world)
    point = await snapshot(world, volume, "a")
    await write_everything(world, volume)
    for i in (2, 3):
        watch(world, OLD, f"replica-{i}", FrameType.CHANGE, hold_back=True)
    made = watch(world, "replica-1", OLD, FrameType.CHANGE | ANSWER)
    world.nursery.start_soon(revert, world, volume, point)
    await come(made)
    world.volume_scope.cancel()
    for i in (2, 3):
        world.network.break_connections(f"replica-{i}")
    world.network.mend()
    await until(lambda: world.volume not in (None, volume))


async def revert(world: World, volume: Volume, point: Point) -> None:
    """Ask for it, and wait a little."""
    await world.snapshots.revert(volume, point, 1.0, keep_newer=False)


async def a_replica_grows_alone(world: World) -> None:
    """The controller dies then, and the replica too; the others go on without it, by another change of the
    same generation.  When it is back it gets their size, and grows with them again.
    """
    volume = await healthy(world)
    await snapshot(world, volume, "a")
    for i in (2, 3):
        watch(world, OLD, f"replica-{i}", FrameType.CHANGE, hold_back=True)
    made = watch(world, "replica-1", OLD, FrameType.CHANGE | ANSWER)
    world.nursery.start_soon(world.snapshots.grow, volume, 1.0)
    await come(made)
    world.volume_scope.cancel()
    await world.machines[1].kill()
    for i in (2, 3):
        world.network.break_connections(f"replica-{i}")
    world.network.mend()
    await until(lambda: world.volume not in (None, volume))
    after = world.volume
    assert after is not None
    await until(lambda: mode(after, 1) == "out")
    await write_everything(world, after)
    await snapshot(world, after, "b")
    grown = size_of(world, 1)
    assert grown > after.size_bytes == size_of(world, 2)
    start(world, 1)
    await until(lambda: after.status().state is VolumeState.HEALTHY)
    assert size_of(world, 1) == after.size_bytes
    await world.snapshots.grow(after, PATIENCE_S)
    assert size_of(world, 1) == after.size_bytes == grown


def size_of(world: World, replica: int) -> int:
    """As it is kept."""
    state = world.machines[replica].state()
    assert state is not None
    return state.size_bytes


async def a_snapshot_is_deleted_while_a_replica_is_given_it(world: World) -> None:
    """Two others stand on it, so it is not merged away.  What the replica was given of it is theirs too, and
    is stable when they are whole: all lose power.
    """
    volume = await healthy(world)
    await world.machines[1].kill()
    await until(lambda: mode(volume, 1) == "out")
    await trio.sleep(0.5)  # until it is given up
    await write_everything(world, volume)
    point = await snapshot(world, volume, "a")
    assert await world.clients.write(volume, [0])
    await snapshot(world, volume, "b")
    await world.snapshots.revert(volume, point, PATIENCE_S, keep_newer=True)
    assert await world.clients.write(volume, [1])
    await snapshot(world, volume, "c")
    given = trio.Event()

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if (sender, receiver) == (OLD, "replica-1") and b'"kind":"whole"' in frame:
            given.set()

    world.network.taps.append(tap)
    start(world, 1)
    await come(given)
    world.network.break_connections("replica-1")
    await world.snapshots.delete(volume, point, PATIENCE_S)
    await until(lambda: mode(volume, 1) == "in-sync")
    assert await world.clients.flush(volume, list(range(world.blocks)))
    world.volume_scope.cancel()
    for machine in world.machines.values():
        await machine.cut_power()
    world.clients.lose_unflushed()
    start(world, *world.machines)


async def a_replica_comes_back_while_a_snapshot_is_made(world: World) -> None:
    """It has made it before it was killed; another one is yet to.  That it is ahead does not mean that it has
    to lose the snapshot, nor that it has it for ever.
    """
    volume = await healthy(world)
    slow = watch(world, OLD, "replica-2", FrameType.CHANGE, hold_back=True)
    made = watch(world, "replica-3", OLD, FrameType.CHANGE | ANSWER)
    world.nursery.start_soon(world.snapshots.create, volume, "a", PATIENCE_S)
    await come(slow)
    await come(made)
    await world.machines[3].kill()
    await until(lambda: mode(volume, 3) == "out")
    await trio.sleep(0.5)  # until it is given up
    start(world, 3)
    await until(lambda: mode(volume, 3) == "rebuilding")
    await trio.sleep(1)
    assert volume.past.lineage.snapshots == ()
    world.network.mend()
    await until(lambda: volume.past.lineage.snapshots != ())


async def one_replica_is_not_sure_that_it_made_a_snapshot(world: World) -> None:
    """Its disk fails when the snapshot is there already; the other one's is full, so nobody has made it.  The
    next one leads to the same generation.
    """
    renamed = False

    def fail_after_the_rename(step: str) -> None:
        nonlocal renamed
        if renamed and step == "sync directory":
            world.machines[1].disk.before_step = no_fault
            raise StorageError(StorageFailure.WRITE_ERROR, step)
        renamed = renamed or step == f"rename {CHAIN_FILE}.tmp"

    def be_full(step: str) -> None:
        if step == f"create {CHAIN_FILE}.tmp":
            raise StorageError(StorageFailure.NO_SPACE, step)

    volume = await healthy(world)
    world.machines[1].disk.before_step = fail_after_the_rename
    world.machines[2].disk.before_step = be_full
    await world.snapshots.create(volume, "a", PATIENCE_S)
    assert renamed
    assert volume.past.lineage.snapshots == ()
    world.machines[2].disk.before_step = no_fault
    await world.machines[1].kill()
    await until(lambda: mode(volume, 1) == "out")
    start(world, 1)
    await until(lambda: volume.status().state is VolumeState.HEALTHY)
    await snapshot(world, volume, "b")


SCENARIOS_OF_SNAPSHOTS: Final[dict[str, Scenario]] = {
    "a revert reaches one replica": Scenario(a_revert_reaches_one_replica, snapshots=True),
    "a replica grows alone": Scenario(a_replica_grows_alone, snapshots=True),
    "a snapshot is deleted while a replica is given it": Scenario(
        a_snapshot_is_deleted_while_a_replica_is_given_it, snapshots=True
    ),
    "a replica comes back while a snapshot is made": Scenario(
        a_replica_comes_back_while_a_snapshot_is_made, replicas=5, snapshots=True
    ),
    "one replica is not sure that it made a snapshot": Scenario(
        one_replica_is_not_sure_that_it_made_a_snapshot, replicas=2, snapshots=True
    ),
}
