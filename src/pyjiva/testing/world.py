"""A simulated volume: replicas on memory disks, controllers, a network, clients that check what they read,
and faults.

The real shells and deciders run (`controller.Volume`, `replica.ReplicaDaemon`, `snapshot.Store`), on trio's
MockClock, with no thread, no file and no socket; under hypothesis one seed gives one run.

What is checked:

- every read, also one that an overtaken controller answers, gives the last acknowledged write of its block,
  or a later one that was not acknowledged; and what was read once stays (linearizable registers; each block
  has one client, so its operations do not overlap);
- whenever a write is acknowledged, also by an overtaken controller, everyone that it had to wait for has
  held it; every member of the newest record holds it, unless its machine lost power or its disk was replaced
  since, and so do at least as many replicas as a write needs copies;
- a write that an overtaken controller acknowledges late stays, if nothing was written there since;
- a flush and a FUA write survive the loss of all power, and so does everything that a replica or a controller
  says is clean; unflushed writes are lost only when no member is whole (`machine.hold_everything`);
- no connection ends because an answer came to what nobody had asked;
- when the faults end the volume becomes healthy within HEAL_S, reads of all that did not rot succeed, and all
  replicas hold the same bytes (G4).

- no read gives out rot.  A block rots only on one machine, while other members hold what it held; if they
  are lost before it is repaired, reads of it may fail, and it may keep the volume from becoming healthy.
  Rot on a machine that loses its power before all that was written there is stable, or whose sync fails, is
  not played: checksums of what was not flushed are dropped then, by design.

What is not checked: overlapping operations of several clients (one client's own do overlap).  A read that
was on its way when the power went does not narrow what its block may hold: it was of before, and what came
back may be another of the contents that were possible.  What is not played, as it is not promised
(docs/explanation/replication.md): a disk that is replaced while a controller takes over, which forgets a
promise; a failed sync that brings back holes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final

import attrs
import trio

from pyjiva.block import Flush, Unmap, Write
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeEnded, VolumeState
from pyjiva.controller.causes import UNKNOWN, cause_of
from pyjiva.controller.quorum import min_copies_default
from pyjiva.errors import RemoteProtocolError
from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.replica import WitnessDaemon, WitnessIdentity
from pyjiva.sparse.checked_file_sys import SUM_BLOCK_BYTES
from pyjiva.testing.clients import BLOCKS_PER_PAGE, PAGE_STRIDE_BYTES, Clients, name_of, offset_of
from pyjiva.testing.faults import Faults, Injector
from pyjiva.testing.machine import KEY, LATENCY_S, VOLUME_ID, Machine, hold_everything, serve_in
from pyjiva.testing.memory_file import MemoryDisk, no_fault
from pyjiva.testing.network import Network
from pyjiva.testing.peeking import peek
from pyjiva.testing.snapshot_client import SnapshotClient
from pyjiva.testing.votes import VoteRegister
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.units import align_down

__all__ = ["World"]

HEAL_S: Final = 120.0
BESIDE: Final = "beside"
"""The address of the witness beside a controller: another process for each, as on a loopback."""
CLOCK_DRIFT: Final = 0.02  # two clocks differ by less than lease.CLOCK_RATES_DIFFER


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class World:
    """See the module."""

    seed: int
    replicas: int = 3
    witnesses: int = 0
    spares: int = 0
    """Machines that do not belong to the volume at first: `changes` adds and removes replicas."""
    shared_vote: bool = False
    """Whether there is a witness beside each controller, all of them over one register."""
    windows: bool = False
    """Whether controllers read the files of replicas, as if they were on one machine (`peeking`)."""
    blocks: int = 32
    faults: Faults = attrs.field(factory=Faults)
    script: "Callable[[World], Awaitable[None]] | None" = None
    """What happens instead of `faults` and of what clients ask for."""
    random: Random = attrs.field(init=False)
    counts: dict[str, int] = attrs.field(factory=dict, init=False)
    """Faults injected and operations done, by kind."""
    trace: list[str] = attrs.field(factory=list, init=False)
    machines: dict[int, Machine] = attrs.field(init=False)
    clients: Clients = attrs.field(init=False)
    snapshots: SnapshotClient = attrs.field(init=False)
    network: Network = attrs.field(init=False)
    register: VoteRegister | None = attrs.field(default=None, init=False)
    """With `shared_vote`: what its processes stand for."""
    nursery: trio.Nursery = attrs.field(init=False)
    volume: Volume | None = attrs.field(default=None, init=False)
    _running: list[Volume] = attrs.field(factory=list, init=False)
    """Volumes that were ready and whose process has not ended."""
    volume_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    next_controller: trio.Event = attrs.field(factory=trio.Event, init=False)
    _born: bool = attrs.field(default=False, init=False)
    rotten: set[int] = attrs.field(factory=set, init=False)
    """Offsets of blocks that rotted once, on the machine `_rotting`."""
    _calm: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        voters = range(self.replicas + 1, self.replicas + self.witnesses + 1)
        self.machines = {
            i: Machine(
                i,
                MemoryDisk(Random(self.random.random())),
                self.random,
                self.size_bytes,
                witness=i in voters,
            )
            for i in self.ids
        }
        self.clients = Clients(
            self.blocks,
            self.random,
            lambda: self.volume,
            lambda: [v for v in self._running if v is not self.volume],
            self._check_copies,
            self.note,
        )
        self.snapshots = SnapshotClient(self)

    @property
    def ids(self) -> range:
        return range(1, self.replicas + self.witnesses + self.spares + 1)

    @property
    def rotting(self) -> int:
        """Whose disk rots: always the same one, as two may not rot in one place."""
        return 1 + self.seed // 10 % self.replicas

    @property
    def _given(self) -> tuple[ReplicaAddress, ...]:
        """What every controller is told, also when it is not true any more."""
        beside = (ReplicaAddress(len(self.ids) + 1, BESIDE, 0, witness=True),) if self.shared_vote else ()
        return beside + tuple(
            ReplicaAddress(i, self.machines[i].name, 0, witness=self.machines[i].witness)
            for i in range(1, self.replicas + self.witnesses + 1)
        )

    @property
    def leaving(self) -> set[int]:
        """Whom the operator has asked to be removed: nobody may rely on what they hold."""
        return {i for volume in self._running if (i := volume.leaving) is not None}

    @property
    def size_bytes(self) -> int:
        """Of the volume."""
        return -(-self.blocks // BLOCKS_PER_PAGE) * PAGE_STRIDE_BYTES

    def note(self, kind: str, detail: object = "") -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.trace.append(f"{trio.current_time():.3f} {kind} {detail}")

    async def play(self, seconds: float) -> None:
        """Run for so long with faults, then let it heal, then compare everything."""
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            self.network = Network(self.random, nursery, neighbours=self.windows)
            if self.shared_vote:
                self.register = VoteRegister(self.random, nursery, losses=0.02, interference=0.02)
            for machine in self.machines.values():
                machine.start(self.network, nursery)
            nursery.start_soon(self._keep_controller)
            nursery.start_soon(self._watch_reasons)
            if self.faults.snapshots:
                nursery.start_soon(self.snapshots.watch)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as playing:
                    if self.script is None:
                        playing.start_soon(self.clients.run)
                        playing.start_soon(Injector(self).run, self.faults)
                    else:
                        await self.script(self)
            await self._heal()
            nursery.cancel_scope.cancel()

    # --- processes

    async def _keep_controller(self) -> None:
        while True:
            self.volume_scope, self.next_controller = trio.CancelScope(), trio.Event()
            self.nursery.start_soon(self._controller_process, self.volume_scope, self.next_controller)
            await self.next_controller.wait()
            await trio.sleep(0.1 + self.random.random())

    async def _controller_process(self, scope: trio.CancelScope, ended: trio.Event) -> None:
        with scope:
            try:
                await self._run_controller()
            except VolumeEnded as error:
                self.note("fenced", error)
        ended.set()

    async def _run_controller(self) -> None:
        name = f"controller-{self.counts.get('controllers', 0)}"
        self.note("controllers", name)
        options = ControllerOptions(
            volume_name="world",
            volume_id=VOLUME_ID,
            size_bytes=self.size_bytes,
            block_size_bytes=512,
            replicas=self._given,
            key=KEY,
            new_volume=not self._born,
        )

        controller_id = f"{self.random.getrandbits(64):016x}"  # how long it pauses follows from it
        rate, zero_s = 1 + self.random.uniform(-CLOCK_DRIFT, CLOCK_DRIFT), self.random.random() * 1e6

        @asynccontextmanager
        async def connect(address: ReplicaAddress) -> AsyncIterator[Stream]:
            there = witness_of(name) if address.host == BESIDE else address.host
            async with self.network.connect(name, there) as stream:
                try:
                    yield stream
                except RemoteProtocolError as error:
                    # The other end is ours too.  What came together with the answer that ended a connection
                    # is of no account.
                    if not stream.ended and "not open" in str(error):
                        raise AssertionError(str(error)) from error
                    raise

        volume = Volume(
            options,
            EndOfBatch(),
            connect,
            lambda: zero_s + rate * trio.current_time(),
            controller_id,
            open_window=partial(peek, self.machines) if self.windows else None,
        )
        try:
            async with trio.open_nursery() as nursery:
                if self.register is not None:
                    nursery.start_soon(self._run_witness, name, self.register)
                nursery.start_soon(self._run_volume, volume, nursery.cancel_scope)
                await volume.ready.wait()
                # Not before: as the real one, whose portal opens when it has its epoch.  What was asked of
                # one that is still to get it might be done after another has answered.
                self.volume, self._born = volume, True
                self._running.append(volume)
                await trio.sleep_forever()
        except* VolumeEnded as group:
            raise group.exceptions[0] from None
        finally:
            if self.volume is volume:
                self.volume = None
            if volume in self._running:
                self._running.remove(volume)
            self.network.break_connections(name)
            if self.windows:
                reads = "reads through a window"
                self.counts[reads] = self.counts.get(reads, 0) + volume.window_reads

    async def _run_witness(self, name: str, register: VoteRegister) -> None:
        """The process beside the controller `name`; it dies with it."""
        own = witness_of(name)
        identity = WitnessIdentity(VOLUME_ID, len(self.ids) + 1, "the register")
        daemon = WitnessDaemon(identity, register.client(name), KEY, EndOfBatch())
        try:
            async with trio.open_nursery() as nursery:
                self.network.listen(own, partial(serve_in, nursery, daemon.serve_connection))
                await daemon.run()
        finally:
            self.network.listen(own, None)
            self.network.break_connections(own)

    def send_hosts_away(self, volume: Volume) -> None:
        """Close the portal of `volume`: nobody asks it for anything any more."""
        self.volume = None
        self._running.remove(volume)

    async def _run_volume(self, volume: Volume, process: trio.CancelScope) -> None:
        await volume.run()
        process.cancel()  # it was stopped

    # --- what must hold

    async def _watch_reasons(self) -> None:
        """Whatever the status says, `explain` knows what it means."""
        while True:
            await trio.sleep(0.5)
            for volume in self._running:
                volume.self_check()
                status = volume.status()
                reasons = {status.reason if status.state is VolumeState.PARKED else ""}
                for reason in reasons | {replica.reason for replica in status.replicas}:
                    assert not reason or cause_of(reason) is not UNKNOWN, reason

    def _check_copies(self, write: Write | Unmap, volume: Volume) -> None:
        """A write is acknowledged: who must hold it does.

        Whoever the controller had to wait for has held it at some time, whatever came since.  If it was
        overtaken meanwhile that is all: the answer may come later than a write of the next controller to the
        same place.
        """
        data = b"".join(write.data) if isinstance(write, Write) else bytes(write.length_bytes)
        end = write.offset_bytes + len(data)
        rotten = {
            start for start in self.rotten if start < end and write.offset_bytes < start + SUM_BLOCK_BYTES
        }
        for i in volume.required():  # a copy of what has rotted is marked as bad, so it may never have had it
            assert (
                rotten or isinstance(write, Unmap) or self.machines[i].has_held(write.offset_bytes, data)
            ), f"replica {i} never had {name_of(data)} at {write.offset_bytes}"
        records = self.records()
        newest = max(records)
        if newest.epoch > volume.status().epoch:
            return
        copies = 0
        for machine in self.machines.values():
            held = isinstance(write, Unmap) or machine.has_held(write.offset_bytes, data)
            lost = held and (machine.lost_power or machine.is_new)  # its power or its disk, after its answer
            holds = machine.holds(write.offset_bytes, data)
            if rotten and machine.id == self.rotting:
                holds = True  # it did, until it rotted
            elif bad := {start for start in rotten if machine.is_bad(start)}:
                # What rotted was all there was to copy, but of those blocks alone.
                holds = _holds_but_for(machine, write.offset_bytes, data, bad)
            copies += holds or lost
            assert holds or lost or machine.id not in newest.in_sync, (
                f"replica {machine.id} of {newest} lacks {name_of(data)} at {write.offset_bytes}"
            )
        needed = min(_min_copies(record) for record in records if record.epoch == newest.epoch)
        assert copies >= needed, f"{copies} copies of {name_of(data)}"

    def records(self) -> list[MembershipRecord]:
        """All that anybody holds."""
        held = [m.record() for m in self.machines.values()]
        if self.register is not None:
            held.append(self.register.vote.record)
        return [record for record in held if record is not None]

    def hold_everything(self) -> list[Machine]:
        """Machines that hold every acknowledged write, as the records tell."""
        elsewhere = None if self.register is None else self.register.vote.record
        return hold_everything(self.machines.values(), elsewhere)

    # --- the end

    def _names(self) -> list[str]:
        controllers = [f"controller-{n}" for n in range(self.counts.get("controllers", 0))]
        return [*(machine.name for machine in self.machines.values()), *controllers]

    async def _heal(self) -> None:
        self._calm = True
        self.note("calm")
        self.network.mend()
        if self.register is not None:
            self.register.mend()
            self.register.losses = self.register.interference = 0.0
        await trio.sleep(2)  # a controller that is about to take over does so
        for name in self._names():
            self.network.thaw(name)
        for machine in self.machines.values():
            machine.latency_s = LATENCY_S
            machine.disk.before_step = no_fault
            if not machine.up:
                machine.start(self.network, self.nursery)
        with trio.move_on_after(HEAL_S) as limit:
            while (
                not await self._is_as_it_should_be()
            ):  # what a slow disk had in hand may cost it its place yet
                await trio.sleep(0.1)
        assert not limit.cancelled_caught, f"not healed: {self.volume and self.volume.status()}"
        newest = max(self.records())
        if self.faults.snapshots:
            self.snapshots.compare(newest.in_sync)
        heads = {i: bytearray(self.machines[i].reader.everything()) for i in newest.in_sync}
        hopeless = [start for start in self.rotten if self.machines[newest.in_sync[0]].is_bad(start)]
        for i, head in heads.items():
            for start in hopeless:  # as far as rot goes: no replica has it
                assert self.machines[i].is_bad(start), f"replica {i} has the block at {start}"
                head[start : start + SUM_BLOCK_BYTES] = bytes(len(head[start : start + SUM_BLOCK_BYTES]))
            assert head == heads[newest.in_sync[0]], f"replica {i} differs from {newest.in_sync[0]}"
        self.counts["rot in the last good copy"] = len(hopeless)
        expected = set(newest.configured) - set(newest.witnesses)
        assert set(heads) == expected, f"{newest} is not whole"

    async def _is_as_it_should_be(self) -> bool:
        """Whether all that clients know can be read, and the volume is still healthy after that."""
        while not await self._read_all_and_flush():
            await trio.sleep(0.1)
        await self._scrub()
        if self.faults.snapshots:
            while not await self.snapshots.check_all():
                await trio.sleep(0.1)
            await self.snapshots.wait_merged(max(self.records()).in_sync)
        return self.volume is not None and self.volume.status().state is VolumeState.HEALTHY

    async def _scrub(self) -> None:
        """Have all rot repaired that nobody has met."""
        while self.rotten:
            volume = self.volume
            if volume is not None and volume.start_scrub(None):
                while volume is self.volume and (scrub := volume.status().scrub) and scrub.running:
                    await trio.sleep(0.1)
                for _ in range(100):  # what it found is being repaired, or found to be hopeless
                    if not any(r.rot.repairing for r in volume.status().replicas):
                        break
                    await trio.sleep(0.1)
            if volume is not None and volume is self.volume:
                status = volume.status()
                busy = any(r.rot.repairing for r in status.replicas)
                left = status.scrub is None or (
                    status.scrub.bad and not any(r.rot.hopeless for r in status.replicas)
                )
                if status.state is VolumeState.HEALTHY and not busy and not left:
                    return
            await trio.sleep(0.1)

    async def _read_all_and_flush(self) -> bool:
        """Whether one controller did it all and is healthy: a failure may be noticed late."""
        volume = self.volume
        if volume is None or volume.status().state is not VolumeState.HEALTHY:
            return False
        for block in range(len(self.clients.registers)):
            rotten = offset_of(block) // SUM_BLOCK_BYTES * SUM_BLOCK_BYTES in self.rotten
            if not await self.clients.read(volume, block) and not rotten:
                return False
        flushed = await self.clients.ask(volume, Flush)
        return flushed and volume is self.volume and volume.status().state is VolumeState.HEALTHY


def witness_of(controller: str) -> str:
    """The name of the process beside it."""
    return f"witness-of-{controller}"


def _min_copies(record: MembershipRecord) -> int:
    witnesses = len(record.witnesses)
    return min_copies_default(len(record.configured) - witnesses, witnesses)


def _holds_but_for(machine: Machine, offset_bytes: int, data: bytes, bad: set[int]) -> bool:
    """Whether it has `data` there, but for the blocks that begin at `bad`."""
    for part in Extent(offset_bytes, len(data)).split(SUM_BLOCK_BYTES):
        start = part.offset_bytes - offset_bytes
        if align_down(part.offset_bytes, SUM_BLOCK_BYTES) in bad:
            continue
        if not machine.holds(part.offset_bytes, data[start : start + part.length_bytes]):
            return False
    return True
