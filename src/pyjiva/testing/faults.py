"""What fails in a simulated world: one method for each kind of fault of `Faults`."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from pyjiva.controller import ReplicaAddress, VolumeState
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.replication import ANSWER, DONE_TYPES, FrameType
from pyjiva.sparse.checked_file_sys import SUM_BLOCK_BYTES
from pyjiva.testing.clients import offset_of
from pyjiva.testing.machine import HEAD, LATENCY_S, Machine
from pyjiva.testing.memory_file import no_fault
from pyjiva.testing.network import FRAME_TYPE

if TYPE_CHECKING:
    from pyjiva.testing.world import World

__all__ = ["ROT", "Faults", "Injector"]


@attrs.frozen
class Faults:
    """Mean number of faults in ten seconds, by kind; 0 switches a kind off."""

    replica_kills: float = 0.35
    replica_stops: float = 0.1
    power_cuts: float = 0.25
    deaths_after_answers: float = 0.2
    controller_kills: float = 0.25
    controller_stops: float = 0.1
    cuts: float = 0.4
    broken_connections: float = 0.5
    stops: float = 0.3
    disk_errors: float = 0.2
    slow_disks: float = 0.2
    replaced_disks: float = 0.1
    blackouts: float = 0.1
    takeovers: float = 0.15
    partitions: float = 0.15
    changes: float = 0.0
    rots: float = 0.0
    scrubs: float = 0.0
    register_cuts: float = 0.0
    snapshots: float = 0.0
    """Not a fault: what `SnapshotClient` does."""


#: Disks rot, and nothing loses power but right after an answer, where that costs no checksums (see `World`).
ROT: Final = Faults(power_cuts=0, blackouts=0, rots=4, scrubs=0.5)


@attrs.define(eq=False)
class Injector:
    """Lets things fail in `world`."""

    world: "World"

    async def run(self, faults: Faults) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for kind, rate in attrs.asdict(faults).items():
                if rate:
                    nursery.start_soon(self._inject, getattr(self, kind), 10 / rate)

    async def _inject(self, fault: Callable[[], Awaitable[None]], mean_s: float) -> None:
        while True:
            await trio.sleep(self.world.random.expovariate(1 / mean_s))
            await fault()

    async def replica_kills(self) -> None:
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        if not machine.up:
            return
        await machine.kill()
        self.world.note("replica killed", machine.id)
        await trio.sleep(self.world.random.random() * 8)
        machine.start(self.world.network, self.world.nursery)

    async def replica_stops(self) -> None:
        """A replica is stopped as its supervisor stops it: everything is flushed, and it says so.  Its
        machine may be switched off then: nothing is lost.
        """
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        if not machine.up:
            return
        await machine.stop()
        self.world.note("replica stopped", machine.id)
        if self.world.random.random() < 0.5:
            await self._cut_power(machine)
        await trio.sleep(self.world.random.random() * 4)
        machine.start(self.world.network, self.world.nursery)

    async def power_cuts(self) -> None:
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        if not machine.up:
            return
        await self._cut_power(machine)
        await trio.sleep(self.world.random.random() * 8)
        machine.start(self.world.network, self.world.nursery)

    async def _cut_power(self, machine: Machine) -> None:
        """End everything on the machine.  The one that rots keeps its power, only its process ends, while
        the next boot would drop checksums: what had rotted could not be told from a torn write (see `World`).
        """
        if self.world.faults.rots and machine.id == self.world.rotting and machine.would_drop_checksums:
            await machine.kill()
            self.world.note("killed instead of a power cut", machine.id)
            return
        await machine.cut_power()
        self.world.note("power cut", f"{machine.id}, whole: {self._whole_or_lost()}")

    def _whole_or_lost(self) -> list[int]:
        """Who has everything, after a power cut; with nobody, what was not flushed may be lost."""
        leaving = self.world.leaving
        whole = [m.id for m in self.world.hold_everything() if m.id not in leaving]
        if not whole:
            self.world.clients.lose_unflushed()
        return whole

    async def deaths_after_answers(self) -> None:
        """A replica dies at the moment when it has answered one kind of frame: what it said must hold."""
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        type_ = self.world.random.choice(
            (FrameType.PROMISE, FrameType.ACCEPT, FrameType.FLUSH, FrameType.WRITE, FrameType.HASH)
        )
        kinds = {bytes([type_ | ANSWER])}
        if type_ in DONE_TYPES:  # by a DONE, if others were answered with it
            kinds.add(bytes([FrameType.DONE]))
        answered = trio.Event()

        def tap(sender: str, _receiver: str, frame: bytes) -> None:
            if sender == machine.name and frame[FRAME_TYPE] in kinds:
                answered.set()

        self.world.network.taps.append(tap)
        with trio.move_on_after(10):
            await answered.wait()
        self.world.network.taps.remove(tap)
        if not answered.is_set() or not machine.up:
            return
        self.world.note("death after an answer", f"{machine.id} {type_.name}")
        if self.world.random.random() < 0.5:
            await self._cut_power(machine)
        else:
            await machine.kill()
        await trio.sleep(self.world.random.random() * 4)
        machine.start(self.world.network, self.world.nursery)

    async def blackouts(self) -> None:
        """Every machine with a replica loses power at once; the controller may live on."""
        machines = [m for m in self.world.machines.values() if m.up]
        for machine in machines:
            await machine.cut_power()
        self.world.note("blackout", f"{[m.id for m in machines]}, whole: {self._whole_or_lost()}")
        if self.world.random.random() < 0.5:
            self.world.volume_scope.cancel()
        await trio.sleep(self.world.random.random() * 4)
        for machine in machines:
            machine.start(self.world.network, self.world.nursery)

    async def stops(self) -> None:
        """A process stands still, then goes on with all that has come meanwhile."""
        name = f"replica-{self.world.random.choice(self.world.ids)}"
        if self.world.random.random() < 0.3:
            name = f"controller-{self.world.counts.get('controllers', 1) - 1}"
        self.world.note("stopped", name)
        self.world.network.freeze(name)
        await trio.sleep(self.world.random.random() * 10)
        self.world.network.thaw(name)

    async def disk_errors(self) -> None:
        """One disk refuses some kind of step for a while, or all are full or refuse to sync; it may take a
        new process then.

        A replica whose disk refused to sync says no more than one whose machine lost its power: when nobody
        else has everything, what was not flushed may be lost, unless there is no other to be preferred.
        The one that rots does not refuse to sync: it would drop checksums that tell of the rot (see `World`).
        """
        verb, failure = self.world.random.choice(
            (
                ("write", StorageFailure.NO_SPACE),
                ("sync", StorageFailure.WRITE_ERROR),
                ("read", StorageFailure.READ_ERROR),
            )
        )
        machines = [self.world.machines[self.world.random.choice(self.world.ids)]]
        if verb != "read" and self.world.random.random() < 0.4:
            machines = list(self.world.machines.values())
        if verb == "sync" and self.world.faults.rots:
            machines = [machine for machine in machines if machine.id != self.world.rotting]
        self.world.note("disk error", f"{[m.id for m in machines]} {verb}")
        chance = self.world.random.choice((0.1, 1.0))

        def refuse(machine: Machine, step: str) -> None:
            if not step.startswith(verb):
                return
            if verb == "write" and machine.disk.has_room_for(step.partition(" ")[2]):
                return
            if self.world.random.random() < chance:
                if step.startswith(("sync volume-head-", "sync volume-snap-")):
                    self._doubt(machine)
                raise StorageError(failure, step)

        for machine in machines:
            machine.disk.before_step = partial(refuse, machine)
        await trio.sleep(self.world.random.random() * 6)
        for machine in machines:
            machine.disk.before_step = no_fault
            # A flush that failed breaks the store for good.
            if machine.up and (verb == "sync" or self.world.random.random() < 0.5):
                await machine.kill()
                machine.start(self.world.network, self.world.nursery)

    def _doubt(self, machine: Machine) -> None:
        """Its store is about to be broken."""
        leaving = {machine.id, *self.world.leaving}
        others = [m for m in self.world.hold_everything() if m.id not in leaving]
        records = self.world.records()
        if records and not others and max(records).in_sync != (machine.id,):
            self.world.clients.lose_unflushed()

    async def slow_disks(self) -> None:
        """What waits for one disk takes seconds; the network of its machine is as ever."""
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        latency_s = self.world.random.choice((1.0, 8.0, 20.0))
        self.world.note("slow disk", f"{machine.id} {latency_s} s")
        machine.latency_s = latency_s
        await trio.sleep(self.world.random.random() * 10)
        machine.latency_s = LATENCY_S

    async def replaced_disks(self) -> None:
        """One machine comes back with a blank disk, while the others have all that it had and know it.

        Not while it may be the only one of a record that is on its way: its disk would be all there is.
        """
        machine = self.world.machines[self.world.random.choice(self.world.ids)]
        others = [m for m in self.world.machines.values() if m is not machine]
        whole = [m for m in self.world.hold_everything() if m is not machine]
        records = self.world.records()
        if not machine.up or not whole or max(records).in_sync == (machine.id,):
            return
        volume = self.world.volume
        if volume is None or volume.status().state is not VolumeState.HEALTHY:
            return
        knowing = max(records).configured
        if any(m.record() is None or m.id in self._blank for m in others if m.id in knowing):
            return
        await machine.replace_disk()
        self.world.note("disk replaced", f"{machine.id}, whole elsewhere: {[m.id for m in whole]}")
        await trio.sleep(self.world.random.random() * 8)
        machine.start(self.world.network, self.world.nursery)

    @property
    def _blank(self) -> set[int]:
        """Machines whose disk was replaced, and that nobody has made equal since."""
        states = {m.id: m.state() for m in self.world.machines.values() if not m.witness}
        return {i for i, state in states.items() if state is None or not state.told_equal}

    async def takeovers(self) -> None:
        """Another controller begins while the present one is alive; clients go to the new one."""
        self.world.note("takeover")
        self.world.next_controller.set()
        await trio.sleep(1)

    async def partitions(self) -> None:
        """The present controller and one replica are cut off together; the others get a new controller."""
        present = self.world.counts.get("controllers", 1) - 1
        alone = self.world.random.choice(self.world.ids)
        self.world.note("partition", f"controller-{present} and replica-{alone}")
        for machine in self.world.machines.values():
            if machine.id == alone:
                self.world.network.cut(f"controller-{present + 1}", machine.name)
            else:
                self.world.network.cut(f"controller-{present}", machine.name)
        self.world.next_controller.set()
        await trio.sleep(3 + self.world.random.random() * 9)
        self.world.network.mend()

    async def controller_kills(self) -> None:
        self.world.note("controller killed")
        self.world.volume_scope.cancel()
        await trio.lowlevel.checkpoint()

    async def controller_stops(self) -> None:
        """The controller is stopped: its hosts are sent away, and it tries to leave a clean record."""
        volume = self.world.volume
        if volume is not None:
            self.world.note("controller stopped")
            self.world.send_hosts_away(volume)
            self.world.nursery.start_soon(volume.stop)  # also when it lasts beyond the faults
        await trio.lowlevel.checkpoint()

    async def cuts(self) -> None:
        replica = f"replica-{self.world.random.choice(self.world.ids)}"
        controller = f"controller-{self.world.counts.get('controllers', 1) - 1}"
        one_way = self.world.random.random() < 0.3
        self.world.note("cut", f"{controller} {replica} {one_way=}")
        self.world.network.cut(controller, replica, one_way=one_way)
        await trio.sleep(self.world.random.random() * 10)
        self.world.network.mend()

    async def register_cuts(self) -> None:
        """A controller's witness cannot reach the register, or none can."""
        register, last = self.world.register, self.world.counts.get("controllers", 1) - 1
        assert register is not None
        numbers = self.world.random.choice(([last], [last - 1], range(last + 2)))
        self.world.note("register cut off", f"from {[*numbers]}")
        for number in numbers:
            register.cut(f"controller-{number}")
        await trio.sleep(self.world.random.random() * 10)
        register.mend()

    async def broken_connections(self) -> None:
        self.world.note("connections broken")
        self.world.network.break_connections(f"replica-{self.world.random.choice(self.world.ids)}")
        await trio.lowlevel.checkpoint()

    async def changes(self) -> None:
        """The operator adds or removes a replica, if the volume lets him."""
        volume, machine = self.world.volume, self.world.machines[self.world.random.choice(self.world.ids)]
        if volume is not None:
            address = ReplicaAddress(machine.id, machine.name, 0, witness=machine.witness)
            if not volume.add_replica(address):
                self.world.note("replica to be added", machine.id)
            elif not volume.remove_replica(machine.id):
                self.world.note("replica to be removed", machine.id)
        await trio.lowlevel.checkpoint()

    async def rots(self) -> None:
        """A bit of a block changes on one machine, with a checksum that tells; others have the block."""
        machine = self.world.machines[self.world.rotting]
        records = self.world.records()
        if not records or len(max(records).in_sync) < self.world.replicas:
            return
        disk = machine.disk
        place = offset_of(self.world.random.randrange(self.world.blocks))
        start = place - place % SUM_BLOCK_BYTES
        if machine.has_checksum(start) and not machine.is_bad(start):
            disk.rot(HEAD, place)
            self.world.rotten.add(start)
            self.world.note("rot", f"{machine.id} at {start}")
        await trio.lowlevel.checkpoint()

    async def scrubs(self) -> None:
        if self.world.volume is not None and self.world.volume.start_scrub(None):
            self.world.note("scrub")
        await trio.lowlevel.checkpoint()

    async def snapshots(self) -> None:
        await self.world.snapshots.act()
