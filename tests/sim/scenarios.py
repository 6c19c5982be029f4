"""Failures at stated moments: bugs of the protocol that random worlds would meet once in a thousand.

A scenario is a `World` with a script in the place of faults that come by chance.  What must hold is what
holds in every world: clients know what each block may hold, and at the end all replicas are equal.  The
moment comes from the wire: a script waits for a certain frame, and may keep it from arriving.
"""

from functools import partial
from typing import Final

import trio

from pyjiva.block import Write
from pyjiva.replication import ANSWER, FrameType
from pyjiva.testing.clients import BLOCK_BYTES, offset_of
from pyjiva.testing.machine import HEAD, LATENCY_S
from pyjiva.testing.world import World
from tests.sim.scenarios_of_copies import SCENARIOS_OF_COPIES
from tests.sim.scenarios_of_snapshots import SCENARIOS_OF_SNAPSHOTS
from tests.sim.stage import LOOK_S, NEW, OLD, Scenario, come, healthy, mode, start, successor, until, watch

__all__ = ["SCENARIOS"]

BIDS_S: Final = 60.0  # until pauses are long enough for one of two to get through


async def a_promise_is_forgotten(world: World) -> None:
    """The replica that both controllers need is killed after it promised the new one's epoch, and the old one
    reaches it first.
    """
    old = await healthy(world)
    world.network.cut(OLD, "replica-3")
    world.network.cut(NEW, "replica-1")
    promised = watch(world, "replica-2", NEW, FrameType.PROMISE | ANSWER)
    asked = watch(world, NEW, "replica-2", FrameType.ACCEPT, hold_back=True)
    world.next_controller.set()
    await come(promised)
    world.network.cut(OLD, "replica-2")
    await come(asked)
    await world.machines[2].kill()
    world.network.mend()
    world.network.cut(OLD, "replica-3")
    world.network.cut(NEW, "replica-1")
    world.network.cut(NEW, "replica-2")
    start(world, 2)
    with trio.move_on_after(8):
        await world.clients.write(old, [0])


async def a_witness_alone_stores_the_first_record(world: World) -> None:
    """The controller of a new volume dies then; no replica with data has ever stored one."""
    for i in (1, 2):
        watch(world, OLD, f"replica-{i}", FrameType.ACCEPT, hold_back=True)
    stored = watch(world, "replica-3", OLD, FrameType.ACCEPT | ANSWER)
    await come(stored)
    world.volume_scope.cancel()
    for i in (1, 2):
        world.network.break_connections(f"replica-{i}")
    world.network.mend()
    assert [machine.id for machine in world.machines.values() if machine.record() is not None] == [3]
    await until(lambda: world.volume is not None)


async def a_minority_holds_the_record(world: World) -> None:
    """One of the two that are left is slow to store that the third is out; then only that one comes back,
    and the third.
    """
    volume = await healthy(world)
    world.machines[2].latency_s = 60
    await world.machines[1].kill()
    with trio.move_on_after(2):
        await world.clients.write(volume, [0])
    world.volume_scope.cancel()
    for i in (2, 3):
        await world.machines[i].kill()
    world.machines[2].latency_s = LATENCY_S
    start(world, 1, 2)
    await until(lambda: world.volume not in (None, volume))
    start(world, 3)


async def a_source_is_lost_while_its_range_is_locked(world: World) -> None:
    """A write of the host is on its way, which the source of a rebuild does not get: it is killed, and back
    as one that is behind when the rebuild gets its lock.
    """
    volume = await healthy(world)
    await world.machines[3].kill()
    await until(lambda: mode(volume, 3) == "out")
    assert await world.clients.write(volume, [0], fua=False)
    world.machines[2].latency_s = 16
    world.network.cut(OLD, "replica-1", one_way=True)
    world.nursery.start_soon(partial(world.clients.write, volume, [0], fua=True))
    await trio.sleep(0.2)
    world.machines[2].latency_s = LATENCY_S  # of all but the write
    start(world, 3)
    await until(lambda: mode(volume, 3) == "rebuilding")
    await world.machines[1].kill()
    await until(lambda: 1 not in volume.required())
    world.network.mend()
    start(world, 1)
    await until(lambda: mode(volume, 1) == "rebuilding")


async def the_source_is_lost_while_members_are_made_equal(world: World) -> None:
    """One member alone remembers a write; it was copied to the second, not to the third, when it is lost."""
    volume = await healthy(world)
    await trio.sleep(1.5)  # until nothing is remembered
    for i in (2, 3):
        world.network.cut(OLD, f"replica-{i}", one_way=True)
    with trio.move_on_after(0.1):
        await world.clients.write(volume, [0])
    world.volume_scope.cancel()
    for i in (2, 3):
        world.network.break_connections(f"replica-{i}")
    await trio.lowlevel.checkpoint()
    promised = watch(world, "replica-3", NEW, FrameType.PROMISE | ANSWER)
    copied = watch(world, "replica-2", NEW, FrameType.WRITE | ANSWER)
    world.network.mend()
    await come(promised)
    world.machines[3].latency_s = 20
    await come(copied)
    await trio.sleep(1.5)  # pings bring the mark of what is stable
    world.machines[3].latency_s = LATENCY_S
    await world.machines[1].kill()
    await until(lambda: world.volume not in (None, volume))


async def an_unmap_lands_late(world: World) -> None:
    """It is in a slow disk's hands when the controller dies; the next one writes to the same place."""
    volume = await healthy(world)
    world.machines[2].latency_s = 12
    with trio.move_on_after(0.1):
        await world.clients.unmap(volume, [0, 1])
    world.machines[2].latency_s = LATENCY_S
    world.volume_scope.cancel()
    await until(lambda: world.volume not in (None, volume))
    assert world.volume is not None
    await world.clients.write(world.volume, [0, 1])
    await trio.sleep(12)


async def a_clean_stop_with_an_unmap_on_its_way(world: World) -> None:
    """It is in a slow disk's hands, and that replica is killed before it is done: a record that says that all
    are equal would be wrong.
    """
    volume = await healthy(world)
    world.machines[2].latency_s = 12
    with trio.move_on_after(0.1):
        await world.clients.unmap(volume, [0, 1])
    world.machines[2].latency_s = LATENCY_S
    world.send_hosts_away(volume)
    with trio.move_on_after(1):
        await volume.stop()
    await world.machines[2].kill()
    world.volume_scope.cancel()
    start(world, 2)
    await until(lambda: world.volume is not None)


async def a_clean_stop_while_a_block_is_repaired(world: World) -> None:
    """What a repair writes after the clean record would not be doubted when the power goes."""
    volume = await healthy(world)
    machine = world.machines[world.rotting]
    assert await world.clients.flush(volume, [])
    machine.disk.rot(HEAD, offset_of(0))
    world.rotten.add(offset_of(0))
    met = watch(world, machine.name, OLD, FrameType.READ | ANSWER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.clients.read, volume, 0)
        await come(met)
        machine.latency_s = 12
        await trio.sleep(0.1)  # until its disk is looked at, for the repair
        machine.latency_s = LATENCY_S
    assert volume.status().replicas[machine.id - 1].rot.repairing
    world.send_hosts_away(volume)
    with trio.move_on_after(1):
        await volume.stop()
    assert not any(record.clean for record in world.records())
    world.volume_scope.cancel()
    await until(lambda: world.volume is not None)


async def all_lose_power_after_one_joined(world: World) -> None:
    """What was flushed while a replica was out is on its disk too when it is in sync again."""
    volume = await healthy(world)
    await world.machines[1].kill()
    await until(lambda: mode(volume, 1) == "out")
    blocks = list(range(world.blocks))
    for block in blocks:
        assert await world.clients.write(volume, [block], fua=False)
    assert await world.clients.flush(volume, blocks)
    start(world, 1)
    await until(lambda: mode(volume, 1) == "in-sync")
    world.volume_scope.cancel()
    for machine in world.machines.values():
        await machine.cut_power()
    world.clients.lose_unflushed()
    start(world, *world.machines)


async def a_promise_comes_late(world: World) -> None:
    """The old controller's request for the promise that it had, asked anew after its connection broke,
    arrives when the next one has answered a write.
    """
    old = await healthy(world)
    asked = watch(world, OLD, "replica-1", FrameType.PROMISE, hold_back=True)
    world.network.break_connections(OLD)
    await come(asked)
    new = await successor(world, old)
    assert await world.clients.write(new, [0])
    answered: list[Write] = []
    old.submit(Write(offset_of(8), BLOCK_BYTES, (bytes(BLOCK_BYTES),), answered.append))
    old.batch.end()
    world.network.mend()
    await trio.sleep(1)
    assert all(write.error is not None for write in answered), "two controllers answer writes"


async def an_overtaken_controller_pings(world: World) -> None:
    """Two replicas have promised the next controller's epoch; the third, from which the old one reads, has
    not heard of it.  The old one's pings do not renew its lease.
    """
    old = await healthy(world)
    world.network.cut(NEW, "replica-1")
    new = await successor(world, old)
    assert await world.clients.write(new, [0])
    for _ in range(5):
        await world.clients.read_from_overtaken(old, 0)


async def parked_requests_are_sent_once(world: World) -> None:
    """Two of three connections break under load and come back: what was unanswered is sent again, what was
    parked is sent once.
    """
    volume = await healthy(world)
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for name in ("replica-2", "replica-3"):
                world.network.break_connections(name)
            for block in range(0, world.blocks, 2):
                nursery.start_soon(world.clients.unmap, volume, [block, block + 1])
                nursery.start_soon(world.clients.write, volume, [block])


async def a_copy_that_lost_its_power_unnoticed(world: World) -> None:
    """It cannot be heard when the other copy is killed: that one is waited for, as it has everything."""
    volume = await healthy(world)
    for block in range(world.blocks):
        assert await world.clients.write(volume, [block], fua=False)
    world.network.cut(OLD, "replica-1")
    await world.machines[1].cut_power()
    start(world, 1)
    await world.machines[2].kill()
    await trio.sleep(1)
    world.network.mend()
    await trio.sleep(3)
    start(world, 2)


async def two_controllers_begin_at_once(world: World) -> None:
    """Each must wait a little for a replica that is down, and each bid for an epoch undoes the other's."""
    volume = await healthy(world)
    await world.machines[1].kill()
    world.volume_scope.cancel()
    await until(lambda: world.counts["controllers"] == 2)
    world.next_controller.set()
    with trio.fail_after(BIDS_S):
        while world.volume in (None, volume):
            await trio.sleep(LOOK_S)
    start(world, 1)


async def a_controller_and_a_replica_are_cut_off_together(world: World) -> None:
    """The others get a new controller, and what it answers is not undone by a read from the old one."""
    old = await healthy(world)
    world.network.cut(OLD, "replica-2")
    world.network.cut(OLD, "replica-3")
    world.network.cut(NEW, "replica-1")
    new = await successor(world, old)
    assert await world.clients.write(new, [0])
    for _ in range(3):
        await world.clients.read_from_overtaken(old, 0)


async def a_replica_is_stopped_and_switched_off(world: World) -> None:
    """It flushes everything before it says that it has."""
    volume = await healthy(world)
    for block in range(world.blocks):
        assert await world.clients.write(volume, [block], fua=False)
    await world.machines[1].stop()
    await world.machines[1].cut_power()
    start(world, 1)


#: By name; `planted_bugs` says which is for which bug.
SCENARIOS: Final[dict[str, Scenario]] = {
    **SCENARIOS_OF_COPIES,
    **SCENARIOS_OF_SNAPSHOTS,
    "a promise is forgotten": Scenario(a_promise_is_forgotten),
    "a witness alone stores the first record": Scenario(
        a_witness_alone_stores_the_first_record, replicas=2, witnesses=1
    ),
    "a minority holds the record": Scenario(a_minority_holds_the_record),
    "a source is lost while its range is locked": Scenario(
        a_source_is_lost_while_its_range_is_locked, seed=19
    ),
    "the source is lost while members are made equal": Scenario(
        the_source_is_lost_while_members_are_made_equal
    ),
    "a copy that lost its power unnoticed": Scenario(
        a_copy_that_lost_its_power_unnoticed, replicas=2, witnesses=1
    ),
    "a controller and a replica are cut off together": Scenario(
        a_controller_and_a_replica_are_cut_off_together
    ),
    "a replica is stopped and switched off": Scenario(a_replica_is_stopped_and_switched_off, replicas=1),
    "two controllers begin at once": Scenario(two_controllers_begin_at_once),
    "an unmap lands late": Scenario(an_unmap_lands_late, seed=2),
    "a clean stop with an unmap on its way": Scenario(a_clean_stop_with_an_unmap_on_its_way),
    "a clean stop while a block is repaired": Scenario(a_clean_stop_while_a_block_is_repaired),
    "all lose power after one joined": Scenario(all_lose_power_after_one_joined),
    "a promise comes late": Scenario(a_promise_comes_late, replicas=1),
    "an overtaken controller pings": Scenario(an_overtaken_controller_pings),
    "parked requests are sent once": Scenario(parked_requests_are_sent_once, seed=6),
}
