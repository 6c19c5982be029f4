"""A simulated volume: replicas on memory disks, controllers, a network, clients that check what they read, and faults.

The real shells and deciders run (`controller.Volume`, `replica.ReplicaDaemon`, `snapshot.Store`), on trio's MockClock, with no
thread, no file and no socket; under hypothesis one seed gives one run.

What is checked:

- every read gives the last acknowledged write of its block, or a later one that was not acknowledged; and what was read
  once stays (linearizable registers; each block has one client, so its operations do not overlap);
- when the faults end the volume becomes healthy within HEAL_S, and all replicas hold the same bytes (G4).

What is not checked yet: overlapping operations of several clients, stale reads of a fenced controller (the lease has its own
issue), bit rot, full disks.
"""

import functools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Final

import attrs
import trio

from pyjiva.block import Flush, Read, Unmap, Write
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeFenced, VolumeState
from pyjiva.replica import ReplicaDaemon
from pyjiva.snapshot import ChainDevice, ReplicaState, Store
from pyjiva.testing.memory_file import MemoryDisk
from pyjiva.testing.network import MemoryStream, Network
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.units import KIB

__all__ = ["Faults", "World"]

KEY: Final = bytes(32)
VOLUME_ID: Final = "f" * 32
BLOCK_BYTES: Final = 512  # what a disk writes whole: a power cut may tear anything larger
BLOCKS_PER_PAGE: Final = 4  # blocks of different clients share a page
PAGE_STRIDE_BYTES: Final = 512 * KIB  # so that a rebuild has several chunks to copy, with holes between
HEAL_S: Final = 120.0


@attrs.frozen
class Faults:
    """Mean number of faults in ten seconds, by kind; 0 switches a kind off."""

    replica_kills: float = 0.5
    power_cuts: float = 0.3
    controller_kills: float = 0.3
    cuts: float = 0.4
    broken_connections: float = 0.5


@attrs.define(eq=False)
class Replica:
    """One machine with a disk, and perhaps a daemon that runs on it."""

    id: int
    disk: MemoryDisk
    boot: int = 1
    up: bool = False
    scope: trio.CancelScope | None = None
    gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def name(self) -> str:
        """On the network."""
        return f"replica-{self.id}"


@attrs.define(eq=False)
class Register:
    """What a block may hold, as its client knows."""

    possible: list[bytes]
    since_flush: list[bytes] = attrs.field(factory=list)
    """Values that a power cut of all that have it could bring back or leave."""


@attrs.define(eq=False)
class World:
    """See the module."""

    seed: int
    replicas: int = 3
    blocks: int = 24
    faults: Faults = Faults()
    random: Random = attrs.field(init=False)
    counts: dict[str, int] = attrs.field(factory=dict, init=False)
    """Faults injected and operations done, by kind."""
    trace: list[str] = attrs.field(factory=list, init=False)
    _machines: dict[int, Replica] = attrs.field(init=False)
    _registers: list[Register] = attrs.field(init=False)
    _network: Network = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _volume: Volume | None = attrs.field(default=None, init=False)
    _volume_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _born: bool = attrs.field(default=False, init=False)
    _calm: bool = attrs.field(default=False, init=False)
    _write_number: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.random = Random(self.seed)
        self._machines = {i: Replica(i, MemoryDisk(Random(self.random.random()))) for i in self._ids}
        zero = bytes(BLOCK_BYTES)
        self._registers = [Register([zero], [zero]) for _ in range(self.blocks)]

    @property
    def _ids(self) -> range:
        return range(1, self.replicas + 1)

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
                self._start_replica(machine)
            nursery.start_soon(self._keep_controller)
            with trio.move_on_after(seconds):
                async with trio.open_nursery() as playing:
                    for client in range(4):
                        playing.start_soon(self._client, range(client, self.blocks, 4))
                    for kind, rate in attrs.asdict(self.faults).items():
                        if rate:
                            playing.start_soon(self._inject, getattr(self, f"_{kind}"), 10 / rate)
            await self._heal()
            nursery.cancel_scope.cancel()

    # --- processes

    def _start_replica(self, machine: Replica) -> None:
        machine.scope, machine.gone, machine.up = trio.CancelScope(), trio.Event(), True
        self._nursery.start_soon(self._run_replica, machine, machine.scope, machine.gone)

    async def _run_replica(self, machine: Replica, scope: trio.CancelScope, gone: trio.Event) -> None:
        identity = ReplicaState(VOLUME_ID, machine.id, "world", self.size_bytes, 512)
        store = Store.open_in(machine.disk.open_directory(), identity, boot_id=f"boot-{machine.boot}")
        batch = EndOfBatch()
        device = ChainDevice(store, batch, self._in_disk_thread)
        daemon = ReplicaDaemon(store, device, KEY, batch, in_thread=self._in_disk_thread)
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(daemon.run)
                    self._network.listen(
                        machine.name, functools.partial(self._serve_in, nursery, daemon.serve_connection)
                    )
                    await trio.sleep_forever()
        finally:
            self._network.listen(machine.name, None)
            self._network.break_connections(machine.name)
            gone.set()

    @staticmethod
    async def _serve_in(
        nursery: trio.Nursery, serve: Callable[[Stream], Awaitable[None]], stream: MemoryStream
    ) -> None:
        """Serve as a task of the process, so that it dies with it."""
        done = trio.Event()

        async def serve_until_done() -> None:
            try:
                await serve(stream)
            finally:
                done.set()

        nursery.start_soon(serve_until_done)
        await done.wait()

    async def _in_disk_thread(self, call: Callable[[], None]) -> None:
        """A blocking call takes some time, then happens at once: a kill comes before it or after it."""
        await trio.sleep(self.random.random() * 0.01)
        call()

    async def _keep_controller(self) -> None:
        while True:
            with trio.CancelScope() as self._volume_scope:
                try:
                    await self._run_controller()
                except VolumeFenced:
                    self._note("fenced")
            self._volume = None
            await trio.sleep(0.1 + self.random.random())

    async def _run_controller(self) -> None:
        name = f"controller-{self.counts.get('controllers', 0)}"
        self._note("controllers", name)
        options = ControllerOptions(
            volume_name="world",
            volume_id=VOLUME_ID,
            size_bytes=self.size_bytes,
            block_size_bytes=512,
            replicas=tuple(ReplicaAddress(i, f"replica-{i}", 0) for i in self._ids),
            key=KEY,
            new_volume=not self._born,
        )

        def connect(address: ReplicaAddress) -> AbstractAsyncContextManager[Stream]:
            return self._network.connect(name, address.host)

        volume = Volume(options, EndOfBatch(), connect)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(volume.run)
                self._volume = volume
                await volume.ready.wait()
                self._born = True
                await trio.sleep_forever()
        except* VolumeFenced as group:
            raise group.exceptions[0] from None
        finally:
            self._network.break_connections(name)

    # --- clients

    async def _client(self, blocks: range) -> None:
        random = Random(self.random.random())
        while True:
            await trio.sleep(random.random() * 0.2)
            volume = self._volume
            if volume is None:
                continue
            block = random.choice(blocks)
            match random.choices(("write", "read", "unmap", "flush"), (6, 6, 1, 1))[0]:
                case "write":
                    await self._write(volume, block)
                case "unmap":
                    await self._unmap(volume, block)
                case "read":
                    await self._read(volume, block)
                case _:
                    await self._flush(volume, blocks)

    async def _ask(self, volume: Volume, make: Callable[[Callable[[object], None]], object]) -> bool:
        """Submit and wait; False when the controller died before it answered."""
        answered = trio.Event()
        request = make(lambda _: answered.set())
        volume.submit(request)  # type: ignore[arg-type]
        volume.batch.end()
        while not answered.is_set():
            with trio.move_on_after(0.5):
                await answered.wait()
            if self._volume is not volume and not answered.is_set():
                return False
        return getattr(request, "error", None) is None

    async def _write(self, volume: Volume, block: int) -> None:
        self._write_number += 1
        value = (self._write_number.to_bytes(8, "big") * 64)[:BLOCK_BYTES]
        await self._change(
            volume, block, value, lambda done: Write(_offset(block), BLOCK_BYTES, (value,), done)
        )

    async def _unmap(self, volume: Volume, block: int) -> None:
        await self._change(
            volume, block, bytes(BLOCK_BYTES), lambda done: Unmap(_offset(block), BLOCK_BYTES, done)
        )

    async def _change(
        self, volume: Volume, block: int, value: bytes, make: Callable[[Callable[[object], None]], object]
    ) -> None:
        register = self._registers[block]
        register.possible.append(value)
        register.since_flush.append(value)
        if await self._ask(volume, make):
            register.possible = [value]
            self._note("acknowledged", f"block {block} {_name(value)}")
        else:
            self._note("unanswered", f"block {block} {_name(value)}")

    async def _read(self, volume: Volume, block: int) -> None:
        request: list[Read] = []

        def make(done: Callable[[object], None]) -> Read:
            request.append(Read(_offset(block), BLOCK_BYTES, done))
            return request[0]

        if await self._ask(volume, make):
            self._check(block, b"".join(request[0].data))

    def _check(self, block: int, value: bytes) -> None:
        register = self._registers[block]
        assert value in register.possible, (
            f"block {block} holds {_name(value)}, may hold {[_name(v) for v in register.possible]}"
        )
        register.possible = [value]
        self._note("read", f"block {block} {_name(value)}")

    async def _flush(self, volume: Volume, blocks: range) -> None:
        before = {b: list(self._registers[b].possible) for b in blocks}
        if await self._ask(volume, Flush):  # type: ignore[arg-type]
            self._note("flushed", blocks)
            for block, values in before.items():
                # This client's blocks do not change meanwhile: what they may hold now is all that is left.
                self._registers[block].since_flush = values

    # --- faults

    async def _inject(self, fault: Callable[[], Awaitable[None]], mean_s: float) -> None:
        while True:
            await trio.sleep(self.random.expovariate(1 / mean_s))
            await fault()

    async def _replica_kills(self) -> None:
        machine = self._machines[self.random.choice(self._ids)]
        if not machine.up:
            return
        await self._kill(machine)
        self._note("replica killed", machine.id)
        await trio.sleep(self.random.random() * 8)
        self._start_replica(machine)

    async def _kill(self, machine: Replica) -> None:
        machine.up = False
        assert machine.scope is not None
        machine.scope.cancel()
        with trio.CancelScope(shield=True):
            await machine.gone.wait()
        machine.disk.kill_process()

    async def _power_cuts(self) -> None:
        machine = self._machines[self.random.choice(self._ids)]
        if not machine.up:
            return
        others = self._others_with_everything(machine)
        await self._kill(machine)
        machine.disk.power_cut()
        machine.boot += 1
        self._note("power cut", f"{machine.id}, whole elsewhere: {others}")
        if not others:
            for register in self._registers:
                register.possible = list(dict.fromkeys([*register.possible, *register.since_flush]))
        await trio.sleep(self.random.random() * 8)
        self._start_replica(machine)

    def _others_with_everything(self, machine: Replica) -> list[int]:
        """Machines beside `machine` that hold every acknowledged write, flushed or not, as the records tell."""
        states = {m.id: self._state_of(m) for m in self._machines.values()}
        records = [s.record for s in states.values() if s is not None and s.record is not None]
        if not records:
            return []
        newest = max(records)
        whole = []
        for other in self._machines.values():
            state = states[other.id]
            if other is not machine and other.id in newest.in_sync and state is not None:
                if state.written_boot_id in ("", f"boot-{other.boot}"):
                    whole.append(other.id)
        return whole

    def _state_of(self, machine: Replica) -> ReplicaState | None:
        from pyjiva.snapshot.state import STATE_FILE, decode_state

        if STATE_FILE not in machine.disk.inodes():
            return None
        return decode_state(machine.disk.content(STATE_FILE))

    async def _controller_kills(self) -> None:
        self._note("controller killed")
        self._volume_scope.cancel()
        await trio.sleep(0)

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
        await trio.sleep(0)

    # --- the end

    async def _heal(self) -> None:
        self._calm = True
        self._note("calm")
        self._network.mend()
        for machine in self._machines.values():
            if not machine.up:
                self._start_replica(machine)
        with trio.move_on_after(HEAL_S) as limit:
            while self._volume is None or self._volume.status().state is not VolumeState.HEALTHY:
                await trio.sleep(0.1)
        assert not limit.cancelled_caught, f"not healed: {self._volume and self._volume.status()}"
        volume = self._volume
        assert volume is not None
        with trio.fail_after(HEAL_S):
            for block in range(self.blocks):
                await self._read(volume, block)
            assert await self._ask(volume, Flush)  # type: ignore[arg-type]
        heads = [m.disk.content("volume-head-000.img") for m in self._machines.values()]
        for machine, head in zip(self._machines.values(), heads, strict=True):
            assert head == heads[0], f"replica {machine.id} differs from replica 1"


def _offset(block: int) -> int:
    page, place = divmod(block, BLOCKS_PER_PAGE)
    return page * PAGE_STRIDE_BYTES + place * BLOCK_BYTES


def _name(value: bytes) -> str:
    return f"write {int.from_bytes(value[:8], 'big')}" if any(value) else "zeros"
