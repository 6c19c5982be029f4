"""A simulated machine: a disk in memory, and the replica daemon on it, which dies and is started again."""

import contextlib
import functools
from collections.abc import Awaitable, Callable, Collection
from random import Random
from typing import Final

import attrs
import trio
import xxhash

from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.replica import ReplicaDaemon
from pyjiva.snapshot import ChainDevice, ReplicaState, Store
from pyjiva.snapshot.chain import SUMS_SUFFIX
from pyjiva.snapshot.failed_flush_sys import FLUSH_FAILED_FILE
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.sparse.checked_file_sys import SUM_BLOCK_BYTES
from pyjiva.testing.chain_reader import LIVE, ChainReader
from pyjiva.testing.memory_file import SECTOR_BYTES, MemoryDisk
from pyjiva.testing.network import MemoryStream, Network
from pyjiva.transport import EndOfBatch, Stream

__all__ = ["HEAD", "KEY", "LATENCY_S", "VOLUME_ID", "Machine", "hold_everything", "serve_in"]

KEY: Final = bytes(32)
VOLUME_ID: Final = "f" * 32
LATENCY_S: Final = 0.01
STOP_S: Final = 8.0
RESTART_S: Final = 0.5  # after a daemon that ended by itself comes the next one
_MARK_BYTES: Final = 8  # of a sector: clients write their numbers all over it
HEAD: Final = "volume-head-000.img"


@attrs.define(eq=False, repr=False)  # what it knows knows it too, and tests that fail show it
class Machine:
    """One machine with a disk, and perhaps a daemon that runs on it."""

    id: int
    disk: MemoryDisk
    random: Random
    size_bytes: int
    """Of the volume."""
    witness: bool = False
    boot: int = 1
    latency_s: float = LATENCY_S
    """A blocking call takes up to so long."""
    up: bool = False
    _daemon: ReplicaDaemon | None = None
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)
    _decoded: tuple[bytes, ReplicaState] | None = None
    """The state file when it was last asked for, which it is at every write."""
    _held: set[tuple[int, bytes]] = attrs.field(factory=set, init=False)
    """(offset, first bytes) of every sector ever written to a layer, also on a former disk."""
    _reader: ChainReader | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.disk.on_change = self._changed

    @property
    def store(self) -> Store | None:
        """Of the daemon that runs."""
        return None if self._daemon is None else self._daemon.store

    @property
    def name(self) -> str:
        """On the network."""
        return f"replica-{self.id}"

    def start(self, network: Network, nursery: trio.Nursery) -> None:
        """Keep a daemon running, as a task of `nursery`."""
        self._scope, self.gone, self.up = trio.CancelScope(), trio.Event(), True
        nursery.start_soon(self._keep_running, network, self._scope, self.gone)

    async def kill(self) -> None:
        """End the daemon as `kill -9` does."""
        self.up = False
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self.gone.wait()
        self.disk.kill_process()

    async def stop(self) -> None:
        """End the daemon as SIGTERM does, or as `kill -9` if it takes longer than its supervisor waits."""
        self.up = False  # nothing else is to befall it meanwhile
        try:
            if self._daemon is not None:
                with trio.move_on_after(STOP_S), contextlib.suppress(StorageError):
                    await self._daemon.stop()
        finally:
            await self.kill()

    async def cut_power(self) -> None:
        """End everything; what was not flushed may be gone."""
        await self.kill()
        self.disk.power_cut()
        self.boot += 1

    def state(self) -> ReplicaState | None:
        """What the daemon keeps beside the data; None: nothing yet."""
        if STATE_FILE not in self.disk.inodes():
            return None
        content = bytes(self.disk.content(STATE_FILE))
        if self._decoded is None or self._decoded[0] != content:
            self._decoded = content, decode_state(content)
        return self._decoded[1]

    def record(self) -> MembershipRecord | None:
        """The newest one that it has accepted."""
        state = self.state()
        return state.record if state is not None else None

    async def replace_disk(self) -> None:
        """End the daemon; the next one finds a blank disk."""
        await self.kill()
        self.disk = MemoryDisk(Random(self.random.random()))
        self.disk.on_change = self._changed

    def holds(self, offset_bytes: int, data: bytes) -> bool:
        """Whether it has `data` there."""
        reader = self.reader
        return reader.has_live() and reader.read(LIVE, Extent(offset_bytes, len(data))) == data

    @property
    def reader(self) -> ChainReader:
        """Of what its disk holds."""
        if self._reader is None or self._reader.disk is not self.disk:
            self._reader = ChainReader(self.disk)
        return self._reader

    def has_held(self, offset_bytes: int, data: bytes) -> bool:
        """Whether `data` was there once, whatever came or was lost since."""
        return all(
            (offset_bytes + at, data[at : at + _MARK_BYTES]) in self._held
            for at in range(0, len(data), SECTOR_BYTES)
        )

    def _changed(self, name: str, offset_bytes: int, data: bytes) -> None:
        if name.endswith(".img"):  # whichever layer was the head when it came
            for at in range(-offset_bytes % SECTOR_BYTES, len(data) - SECTOR_BYTES + 1, SECTOR_BYTES):
                self._held.add((offset_bytes + at, data[at : at + _MARK_BYTES]))

    def has_checksum(self, start_bytes: int) -> bool:
        """Whether a checksum is kept of the block that begins at `start_bytes`."""
        sums = f"{HEAD}{SUMS_SUFFIX}"
        return sums in self.disk.inodes() and any(self.disk.read(sums, start_bytes // SUM_BLOCK_BYTES * 8, 8))

    def is_bad(self, start_bytes: int) -> bool:
        """Whether the block that begins at `start_bytes` does not match the checksum that is kept of it."""
        if not self.has_checksum(start_bytes):
            return False
        data = self.disk.read(HEAD, start_bytes, SUM_BLOCK_BYTES)
        known = self.disk.read(f"{HEAD}{SUMS_SUFFIX}", start_bytes // SUM_BLOCK_BYTES * 8, 8)
        return known != xxhash.xxh3_64_digest(data)[::-1]

    @property
    def lost_power(self) -> bool:
        """Whether it may lack what was written to it, unflushed, before it lost power, or before its disk
        refused to sync, which is no better.
        """
        if FLUSH_FAILED_FILE in self.disk.inodes():
            return True
        state = self.state()
        return state is None or state.written_boot_id not in ("", f"boot-{self.boot}")

    @property
    def would_drop_checksums(self) -> bool:
        """Whether a power cut now would: of all regions that it does not say to be stable."""
        state = self.state()
        return state is not None and bool(state.written_regions)

    @property
    def is_new(self) -> bool:
        """Whether its disk is not the one that any record is about."""
        state = self.state()
        return state is None or not state.told_equal

    async def _keep_running(self, network: Network, scope: trio.CancelScope, gone: trio.Event) -> None:
        try:
            with scope:
                while True:
                    await self._run(network)
                    self.disk.kill_process()
                    await trio.sleep(RESTART_S)
        finally:
            gone.set()

    async def _run(self, network: Network) -> None:
        """One process, until its disk fails."""
        identity = ReplicaState(VOLUME_ID, self.id, "world", self.size_bytes, 512, witness=self.witness)
        try:
            store = Store.open_in(self.disk.open_directory(), identity, boot_id=f"boot-{self.boot}")
        except StorageError:  # the disk fails just now
            return
        batch = EndOfBatch()
        device = ChainDevice(store, batch, self._in_disk_thread)
        daemon = ReplicaDaemon(store, device, KEY, batch, in_thread=self._in_disk_thread, pid=self.id)
        self._daemon = daemon
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(daemon.run)
                serve = functools.partial(serve_in, nursery, daemon.serve_connection)
                network.listen(self.name, serve)
                await daemon.wait_broken()
                nursery.cancel_scope.cancel()
        finally:
            self._daemon = None
            network.listen(self.name, None)
            network.break_connections(self.name)

    async def _in_disk_thread(self, call: Callable[[], None]) -> None:
        """A blocking call takes some time, then happens at once: a kill comes before it or after it."""
        await trio.sleep(self.random.random() * self.latency_s)
        call()


async def serve_in(
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


def hold_everything(
    machines: Collection[Machine], elsewhere: MembershipRecord | None = None
) -> list[Machine]:
    """Those that hold every acknowledged write, flushed or not, as the records tell.

    `elsewhere`: the record of a witness that has no machine.
    """
    held = [elsewhere, *(machine.record() for machine in machines)]
    records = [record for record in held if record is not None]
    if not records:
        return []
    in_sync = max(records).in_sync
    return [
        machine
        for machine in machines
        if machine.id in in_sync
        and not machine.lost_power
        and (state := machine.state()) is not None
        and state.told_equal
    ]
