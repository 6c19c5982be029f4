"""A simulated volume: replicas on memory disks, controllers, a network, clients that check what they read,
and faults.

The real shells and deciders run (`controller.Volume`, `replica.ReplicaDaemon`, `snapshot.Store`), on trio's
MockClock, with no thread, no file and no socket; under hypothesis one seed gives one run.

What is checked:

- every read, also one that an overtaken controller answers, gives the last acknowledged write of its block,
  or a later one that was not acknowledged; and what was read once stays (linearizable registers; each block
  has one client, so its operations do not overlap);
- whenever a write is acknowledged, every member of the newest record that has not lost power since holds
  it, and so do at least as many replicas as a write needs copies;
- when the faults end the volume becomes healthy within HEAL_S, and all replicas hold the same bytes (G4).

- no read gives out rot.  A block rots only on one machine, while other members hold what it held; if they
  are lost before it is repaired, reads of it may fail, and it may keep the volume from becoming healthy.
  Rot together with lost power is not played: checksums of what was not flushed are dropped then, by design.

What is not checked: overlapping operations of several clients (one client's own do overlap).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Final

import attrs
import trio
import xxhash

from pyjiva.block import Flush, Write
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeFenced, VolumeState
from pyjiva.controller.causes import UNKNOWN, cause_of
from pyjiva.controller.quorum import min_copies_default
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot.chain import SUMS_SUFFIX
from pyjiva.sparse.checked_file_sys import SUM_BLOCK_BYTES
from pyjiva.testing.clients import BLOCKS_PER_PAGE, PAGE_STRIDE_BYTES, Clients, name_of, offset_of
from pyjiva.testing.machine import KEY, VOLUME_ID, Machine, hold_everything
from pyjiva.testing.memory_file import MemoryDisk, no_fault
from pyjiva.testing.network import Network
from pyjiva.transport import EndOfBatch, Stream

__all__ = ["ROT", "Faults", "World"]

HEAL_S: Final = 120.0


@attrs.frozen
class Faults:
    """Mean number of faults in ten seconds, by kind; 0 switches a kind off."""

    replica_kills: float = 0.5
    power_cuts: float = 0.3
    controller_kills: float = 0.3
    cuts: float = 0.4
    broken_connections: float = 0.5
    stops: float = 0.3
    disk_errors: float = 0.2
    blackouts: float = 0.1
    takeovers: float = 0.15
    partitions: float = 0.15
    changes: float = 0.0
    rots: float = 0.0
    scrubs: float = 0.0


#: Disks rot, and nothing loses power.
ROT: Final = Faults(power_cuts=0, blackouts=0, rots=4, scrubs=0.5)


@attrs.define(eq=False)
class World:
    """See the module."""

    seed: int
    replicas: int = 3
    witnesses: int = 0
    spares: int = 0
    """Machines that do not belong to the volume at first: `changes` adds and removes replicas."""
    blocks: int = 32
    faults: Faults = Faults()
    random: Random = attrs.field(init=False)
    counts: dict[str, int] = attrs.field(factory=dict, init=False)
    """Faults injected and operations done, by kind."""
    trace: list[str] = attrs.field(factory=list, init=False)
    _machines: dict[int, Machine] = attrs.field(init=False)
    _clients: Clients = attrs.field(init=False)
    _network: Network = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _volume: Volume | None = attrs.field(default=None, init=False)
    _running: list[Volume] = attrs.field(factory=list, init=False)
    """Volumes that were ready and whose process has not ended."""
    _volume_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _next_controller: trio.Event = attrs.field(factory=trio.Event, init=False)
    _born: bool = attrs.field(default=False, init=False)
    _rotten: set[int] = attrs.field(factory=set, init=False)
    """Offsets of blocks that rotted once on the last machine."""
    _calm: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        voters = range(self.replicas + 1, self.replicas + self.witnesses + 1)
        self._machines = {
            i: Machine(
                i,
                MemoryDisk(Random(self.random.random())),
                self.random,
                self.size_bytes,
                witness=i in voters,
            )
            for i in self._ids
        }
        self._clients = Clients(
            self.blocks,
            self.random,
            lambda: self._volume,
            lambda: [v for v in self._running if v is not self._volume],
            self._check_copies,
            self._note,
        )

    @property
    def _ids(self) -> range:
        return range(1, self.replicas + self.witnesses + self.spares + 1)

    @property
    def _given(self) -> tuple[ReplicaAddress, ...]:
        """What every controller is told, also when it is not true any more."""
        return tuple(
            ReplicaAddress(i, self._machines[i].name, 0, witness=self._machines[i].witness)
            for i in range(1, self.replicas + self.witnesses + 1)
        )

    @property
    def size_bytes(self) -> int:
        """Of the volume."""
        return -(-self.blocks // BLOCKS_PER_PAGE) * PAGE_STRIDE_BYTES

    def _note(self, kind: str, detail: object = "") -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.trace.append(f"{trio.current_time():.3f} {kind} {detail}")

    async def play(self, seconds: float) -> None:
        """Run for so long with faults, then let it heal, then compare everything."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._network = Network(self.random, nursery)
            for machine in self._machines.values():
                machine.start(self._network, nursery)
            nursery.start_soon(self._keep_controller)
            nursery.start_soon(self._watch_reasons)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as playing:
                    playing.start_soon(self._clients.run)
                    for kind, rate in attrs.asdict(self.faults).items():
                        if rate:
                            playing.start_soon(self._inject, getattr(self, f"_{kind}"), 10 / rate)
            await self._heal()
            nursery.cancel_scope.cancel()

    # --- processes

    async def _keep_controller(self) -> None:
        while True:
            self._volume_scope, self._next_controller = trio.CancelScope(), trio.Event()
            self._nursery.start_soon(self._controller_process, self._volume_scope, self._next_controller)
            await self._next_controller.wait()
            await trio.sleep(0.1 + self.random.random())

    async def _controller_process(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        with scope:
            try:
                await self._run_controller()
            except VolumeFenced as error:
                self._note("fenced", error)
        ended.set()

    async def _run_controller(self) -> None:
        name = f"controller-{self.counts.get('controllers', 0)}"
        self._note("controllers", name)
        options = ControllerOptions(
            volume_name="world",
            volume_id=VOLUME_ID,
            size_bytes=self.size_bytes,
            block_size_bytes=512,
            replicas=self._given,
            key=KEY,
            new_volume=not self._born,
        )

        def connect(address: ReplicaAddress) -> AbstractAsyncContextManager[Stream]:
            return self._network.connect(name, address.host)

        volume = Volume(options, EndOfBatch(), connect)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(volume.run)
                await volume.ready.wait()
                # Not before: as the real one, whose portal opens when it has its epoch.  What was asked of
                # one that is still to get it might be done after another has answered.
                self._volume, self._born = volume, True
                self._running.append(volume)
                await trio.sleep_forever()
        except* VolumeFenced as group:
            raise group.exceptions[0] from None
        finally:
            if self._volume is volume:
                self._volume = None
            if volume in self._running:
                self._running.remove(volume)
            self._network.break_connections(name)

    # --- what must hold

    async def _watch_reasons(self) -> None:
        """Whatever the status says, `explain` knows what it means."""
        while True:
            await trio.sleep(0.5)
            for volume in self._running:
                status = volume.status()
                reasons = {status.reason if status.state is VolumeState.PARKED else ""}
                for reason in reasons | {replica.reason for replica in status.replicas}:
                    assert not reason or cause_of(reason) is not UNKNOWN, reason

    def _check_copies(self, write: Write) -> None:
        """A write is acknowledged: who must hold it does."""
        data = b"".join(write.data)
        records = self._records()
        newest = max(records)
        copies = 0
        for machine in self._machines.values():
            lost_power = machine.lost_power
            holds = machine.disk.read("volume-head-000.img", write.offset_bytes, len(data)) == data
            if machine.id == self.replicas and any(
                start < write.offset_bytes + len(data) and write.offset_bytes < start + SUM_BLOCK_BYTES
                for start in self._rotten
            ):
                holds = True  # it did, until it rotted
            copies += holds or lost_power
            assert holds or lost_power or machine.id not in newest.in_sync, (
                f"replica {machine.id} of {newest} lacks {name_of(data)} at {write.offset_bytes}"
            )
        needed = min(_min_copies(record) for record in records if record.epoch == newest.epoch)
        assert copies >= needed, f"{copies} copies of {name_of(data)}"

    def _records(self) -> list[MembershipRecord]:
        return [record for m in self._machines.values() if (record := m.record()) is not None]

    # --- faults

    async def _inject(self, fault: Callable[[], Awaitable[None]], mean_s: float) -> None:
        while True:
            await trio.sleep(self.random.expovariate(1 / mean_s))
            await fault()

    async def _replica_kills(self) -> None:
        machine = self._machines[self.random.choice(self._ids)]
        if not machine.up:
            return
        await machine.kill()
        self._note("replica killed", machine.id)
        await trio.sleep(self.random.random() * 8)
        machine.start(self._network, self._nursery)

    async def _power_cuts(self) -> None:
        machine = self._machines[self.random.choice(self._ids)]
        if not machine.up:
            return
        others = [m.id for m in hold_everything(self._machines.values()) if m is not machine]
        await machine.cut_power()
        self._note("power cut", f"{machine.id}, whole elsewhere: {others}")
        if not others:
            self._clients.lose_unflushed()
        await trio.sleep(self.random.random() * 8)
        machine.start(self._network, self._nursery)

    async def _blackouts(self) -> None:
        """Every machine with a replica loses power at once; the controller may live on."""
        machines = [m for m in self._machines.values() if m.up]
        for machine in machines:
            await machine.cut_power()
        self._clients.lose_unflushed()
        self._note("blackout", [m.id for m in machines])
        if self.random.random() < 0.5:
            self._volume_scope.cancel()
        await trio.sleep(self.random.random() * 4)
        for machine in machines:
            machine.start(self._network, self._nursery)

    async def _stops(self) -> None:
        """A process stands still, then goes on with all that has come meanwhile."""
        name = f"replica-{self.random.choice(self._ids)}"
        if self.random.random() < 0.3:
            name = f"controller-{self.counts.get('controllers', 1) - 1}"
        self._note("stopped", name)
        self._network.freeze(name)
        await trio.sleep(self.random.random() * 10)
        self._network.thaw(name)

    async def _disk_errors(self) -> None:
        """One disk refuses some kind of step for a while; then its process is started anew."""
        machine = self._machines[self.random.choice(self._ids)]
        verb, failure = self.random.choice(
            (
                ("write", StorageFailure.NO_SPACE),
                ("sync", StorageFailure.WRITE_ERROR),
                ("read", StorageFailure.READ_ERROR),
            )
        )
        self._note("disk error", f"{machine.id} {verb}")
        chance = self.random.choice((0.1, 1.0))

        def refuse(step: str) -> None:
            if step.startswith(verb) and self.random.random() < chance:
                raise StorageError(failure, step)

        machine.disk.before_step = refuse
        await trio.sleep(self.random.random() * 6)
        machine.disk.before_step = no_fault
        if machine.up:
            await machine.kill()
            machine.start(self._network, self._nursery)

    async def _takeovers(self) -> None:
        """Another controller begins while the present one is alive; clients go to the new one."""
        self._note("takeover")
        self._next_controller.set()
        await trio.sleep(1)

    async def _partitions(self) -> None:
        """The present controller and one replica are cut off together; the others get a new controller."""
        present = self.counts.get("controllers", 1) - 1
        alone = self.random.choice(self._ids)
        self._note("partition", f"controller-{present} and replica-{alone}")
        for machine in self._machines.values():
            if machine.id == alone:
                self._network.cut(f"controller-{present + 1}", machine.name)
            else:
                self._network.cut(f"controller-{present}", machine.name)
        self._next_controller.set()
        await trio.sleep(3 + self.random.random() * 9)
        self._network.mend()

    async def _controller_kills(self) -> None:
        self._note("controller killed")
        self._volume_scope.cancel()
        await trio.lowlevel.checkpoint()

    async def _cuts(self) -> None:
        replica = f"replica-{self.random.choice(self._ids)}"
        controller = f"controller-{self.counts.get('controllers', 1) - 1}"
        one_way = self.random.random() < 0.3
        self._note("cut", f"{controller} {replica} {one_way=}")
        self._network.cut(controller, replica, one_way=one_way)
        await trio.sleep(self.random.random() * 10)
        self._network.mend()

    async def _broken_connections(self) -> None:
        self._note("connections broken")
        self._network.break_connections(f"replica-{self.random.choice(self._ids)}")
        await trio.lowlevel.checkpoint()

    async def _changes(self) -> None:
        """The operator adds or removes a replica, if the volume lets him."""
        volume, machine = self._volume, self._machines[self.random.choice(self._ids)]
        if volume is not None:
            address = ReplicaAddress(machine.id, machine.name, 0, witness=machine.witness)
            if not volume.add_replica(address):
                self._note("replica to be added", machine.id)
            elif not volume.remove_replica(machine.id):
                self._note("replica to be removed", machine.id)
        await trio.lowlevel.checkpoint()

    async def _rots(self) -> None:
        """A bit of a block changes on one machine, with a checksum that tells; others have the block."""
        machine = self._machines[self.replicas]  # always the same one: two may not rot in one place
        records = self._records()
        if not records or len(max(records).in_sync) < self.replicas:
            return
        disk = machine.disk
        place = offset_of(self.random.randrange(self.blocks))
        start = place - place % SUM_BLOCK_BYTES
        block = disk.read("volume-head-000.img", start, SUM_BLOCK_BYTES)
        known = disk.read(f"volume-head-000.img{SUMS_SUFFIX}", start // SUM_BLOCK_BYTES * 8, 8)
        if known == xxhash.xxh3_64_digest(block)[::-1]:
            disk.rot("volume-head-000.img", place)
            self._rotten.add(start)
            self._note("rot", f"{machine.id} at {start}")
        await trio.lowlevel.checkpoint()

    async def _scrubs(self) -> None:
        if self._volume is not None and self._volume.start_scrub(None):
            self._note("scrub")
        await trio.lowlevel.checkpoint()

    # --- the end

    def _names(self) -> list[str]:
        controllers = [f"controller-{n}" for n in range(self.counts.get("controllers", 0))]
        return [*(machine.name for machine in self._machines.values()), *controllers]

    async def _heal(self) -> None:
        self._calm = True
        self._note("calm")
        self._network.mend()
        await trio.sleep(2)  # a controller that is about to take over does so
        for name in self._names():
            self._network.thaw(name)
        for machine in self._machines.values():
            if machine.disk.before_step is not no_fault:  # also gives a broken store another process
                machine.disk.before_step = no_fault
                await machine.kill()
            if not machine.up or machine.gone.is_set():
                machine.start(self._network, self._nursery)
        with trio.move_on_after(HEAL_S) as limit:
            while not await self._read_all_and_flush():
                await trio.sleep(0.1)
            await self._scrub()
        told = (
            "".join(event.text for event in self._volume.history.events) if self._volume is not None else ""
        )
        if limit.cancelled_caught and self._rotten and "no other replica has a good copy" in told:
            self._note("rot in the last good copy")
            return
        assert not limit.cancelled_caught, f"not healed: {self._volume and self._volume.status()}"
        newest = max(self._records())
        heads = {i: self._machines[i].disk.content("volume-head-000.img") for i in newest.in_sync}
        for i, head in heads.items():
            assert head == heads[newest.in_sync[0]], f"replica {i} differs from {newest.in_sync[0]}"
        expected = set(newest.configured) - set(newest.witnesses)
        assert set(heads) == expected, f"{newest} is not whole"

    async def _scrub(self) -> None:
        """Have all rot repaired that nobody has met."""
        while self._rotten:
            volume = self._volume
            if volume is not None and volume.start_scrub(None):
                while volume is self._volume and (scrub := volume.status().scrub) and scrub.running:
                    await trio.sleep(0.1)
            if volume is not None and volume is self._volume:
                status = volume.status()
                busy = any(r.rot.repairing or r.rot.hopeless for r in status.replicas)
                if status.state is VolumeState.HEALTHY and not busy and status.scrub and not status.scrub.bad:
                    return
            await trio.sleep(0.1)

    async def _read_all_and_flush(self) -> bool:
        """Whether one controller did it all and is healthy: a failure may be noticed late."""
        volume = self._volume
        if volume is None or volume.status().state is not VolumeState.HEALTHY:
            return False
        for block in range(self.blocks):
            await self._clients.read(volume, block)
        flushed = await self._clients.ask(volume, Flush)
        return flushed and volume is self._volume and volume.status().state is VolumeState.HEALTHY


def _min_copies(record: MembershipRecord) -> int:
    witnesses = len(record.witnesses)
    return min_copies_default(len(record.configured) - witnesses, witnesses)
