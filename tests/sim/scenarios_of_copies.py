"""Failures at stated moments that leave a copy behind, or a block of it wrong (see `scenarios`)."""

from typing import Final

import trio

from pyjiva.errors import StorageError, StorageFailure
from pyjiva.replication import ANSWER, FrameType
from pyjiva.testing.clients import BLOCKS_PER_PAGE, offset_of
from pyjiva.testing.machine import HEAD
from pyjiva.testing.memory_file import no_fault
from pyjiva.testing.world import World
from tests.sim.stage import OLD, Scenario, come, healthy, mode, start, until, watch

__all__ = ["SCENARIOS_OF_COPIES"]


async def a_machine_loses_its_power_while_nobody_writes(world: World) -> None:
    """What it had not flushed is brought to it again, though it missed nothing."""
    volume = await healthy(world)
    for block in range(world.blocks):
        assert await world.clients.write(volume, [block], fua=False)
    await world.machines[2].cut_power()
    start(world, 2)
    await trio.sleep(1)


async def a_replica_dies_with_a_write_on_its_way(world: World) -> None:
    """It is answered without it then: it is of what the replica lacks."""
    volume = await healthy(world)
    async with trio.open_nursery() as nursery:
        world.network.cut(OLD, "replica-3", one_way=True)
        nursery.start_soon(world.clients.write, volume, [0])
        await trio.sleep(0.1)
        await world.machines[3].kill()
    world.network.mend()
    start(world, 3)


async def a_write_reaches_one_replica(world: World) -> None:
    """It alone remembers the write, when the controller has died."""
    volume = await healthy(world)
    await trio.sleep(1.5)  # until nothing is remembered
    for i in (1, 3):
        world.network.cut(OLD, f"replica-{i}", one_way=True)
    world.nursery.start_soon(world.clients.write, volume, [0])
    await trio.sleep(0.1)
    world.volume_scope.cancel()
    for i in (1, 3):
        world.network.break_connections(f"replica-{i}")
    world.network.mend()
    await until(lambda: world.volume not in (None, volume))


async def a_write_comes_to_what_a_rebuild_has_passed_over(world: World) -> None:
    """The rebuilt replica lacked nothing there when the copy of a later range began."""
    volume = await healthy(world)
    await world.machines[3].kill()
    await until(lambda: mode(volume, 3) == "out")
    await trio.sleep(0.5)  # until it is given up
    assert await world.clients.write(volume, [3 * BLOCKS_PER_PAGE])
    copied = watch(world, OLD, "replica-3", FrameType.WRITE)
    start(world, 3)
    await come(copied)
    assert await world.clients.write(volume, [BLOCKS_PER_PAGE])


async def a_write_comes_to_what_a_rebuild_has_done_too_early(world: World) -> None:
    """A rebuild copies two pages beside each other, from one replica each, and is done with the second first.
    It is written then, and so is one that lies between them, and was not missed.
    """
    volume = await healthy(world)
    await world.machines[3].kill()
    await until(lambda: mode(volume, 3) == "out")
    await trio.sleep(0.5)  # until it is given up
    for page in (0, 3):
        assert await world.clients.write(volume, [page * BLOCKS_PER_PAGE])
    held = watch(world, "replica-1", OLD, FrameType.READ | ANSWER, hold_back=True)
    done = watch(world, "replica-3", OLD, FrameType.HASH | ANSWER)
    start(world, 3)
    await come(held)
    await come(done)
    await trio.sleep(0.1)
    async with trio.open_nursery() as nursery:
        for page in (1, 3):
            nursery.start_soon(world.clients.write, volume, [page * BLOCKS_PER_PAGE])
        await trio.sleep(0.1)
        world.network.mend()


async def one_copy_is_left_of_a_write(world: World) -> None:
    """Two of three are gone before they have it; one is back, behind, and its vote takes the other one out:
    the write is not answered before there are two copies.
    """
    volume = await healthy(world)
    await world.machines[3].kill()
    await until(lambda: mode(volume, 3) == "out")
    await trio.sleep(0.5)
    assert await world.clients.write(volume, [0])
    async with trio.open_nursery() as nursery:
        world.network.cut(OLD, "replica-2", one_way=True)
        nursery.start_soon(world.clients.write, volume, [0])
        await trio.sleep(0.1)
        await world.machines[2].kill()
        start(world, 3)
        await trio.sleep(2)
        world.network.mend()
        start(world, 2)


async def the_copy_that_is_left_loses_its_power(world: World) -> None:
    """It has stored the record without the other one, which is whole, and nobody has heard of that."""
    volume = await healthy(world)
    for block in range(world.blocks):
        assert await world.clients.write(volume, [block], fua=False)
    stored = watch(world, "replica-1", OLD, FrameType.ACCEPT | ANSWER, hold_back=True)
    world.network.cut(OLD, "replica-2")
    await come(stored)
    await world.machines[1].cut_power()
    world.volume_scope.cancel()
    world.network.break_connections("replica-2")
    world.network.mend()
    start(world, 1)
    await until(lambda: world.volume not in (None, volume))


async def all_disks_are_full(world: World) -> None:
    """Each took another part of what it refused: one counts, and the others become like it."""

    def refuse(step: str) -> None:
        if step == f"write {HEAD}":
            raise StorageError(StorageFailure.NO_SPACE, step)

    volume = await healthy(world)
    for machine in world.machines.values():
        machine.disk.before_step = refuse
    async with trio.open_nursery() as nursery:
        for block in range(0, world.blocks, 2):
            nursery.start_soon(world.clients.write, volume, [block, block + 1])
        await trio.sleep(0.1)
        for machine in world.machines.values():
            machine.disk.before_step = no_fault


async def rot(world: World, block: int) -> None:
    """Change what one replica has of a block, that clients have written; no other one does."""
    assert world.volume is not None
    assert await world.clients.flush(world.volume, [])
    world.machines[world.rotting].disk.rot(HEAD, offset_of(block))
    world.rotten.add(offset_of(block) // 4096 * 4096)


async def rot_lies_in_two_blocks_that_are_read(world: World) -> None:
    """The client's two blocks have a checksum each."""
    volume = await healthy(world)
    first = BLOCKS_PER_PAGE + 2
    assert await world.clients.write(volume, [first, first + 1])
    await rot(world, first)
    await world.clients.read(volume, first, 2)


async def rot_lies_under_a_partial_write(world: World) -> None:
    """The checksum that the write leaves is not that of the rot."""
    volume = await healthy(world)
    assert await world.clients.write(volume, [0, 1])
    await rot(world, 1)
    assert await world.clients.write(volume, [0])
    await world.clients.read(volume, 1)


SCENARIOS_OF_COPIES: Final[dict[str, Scenario]] = {
    "a machine loses its power while nobody writes": Scenario(
        a_machine_loses_its_power_while_nobody_writes, replicas=2
    ),
    "a replica dies with a write on its way": Scenario(a_replica_dies_with_a_write_on_its_way),
    "a write reaches one replica": Scenario(a_write_reaches_one_replica),
    "a write comes to what a rebuild has passed over": Scenario(
        a_write_comes_to_what_a_rebuild_has_passed_over
    ),
    "a write comes to what a rebuild has done too early": Scenario(
        a_write_comes_to_what_a_rebuild_has_done_too_early
    ),
    "one copy is left of a write": Scenario(one_copy_is_left_of_a_write),
    "the copy that is left loses its power": Scenario(
        the_copy_that_is_left_loses_its_power, replicas=2, witnesses=1
    ),
    "all disks are full": Scenario(all_disks_are_full),
    "rot lies in two blocks that are read": Scenario(rot_lies_in_two_blocks_that_are_read),
    "rot lies under a partial write": Scenario(rot_lies_under_a_partial_write),
}
