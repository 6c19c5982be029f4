"""A volume and its replicas in one process, over real files and loopback sockets, for tests.

Replicas can be taken away and brought back while the volume runs.  What it does not show: the death of a
process (`kill -9` is for the tests with real processes), and power cuts (the store's own tests).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from pyjiva.controller import ControllerOptions, ReplicaAddress, Tuning, Volume, VolumeState
from pyjiva.replica import ReplicaDaemon
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.snapshot.window_sys import open_window
from pyjiva.transport import EndOfBatch
from pyjiva.transport.shared_memory_sys import SharedBuffers
from pyjiva.units import MIB

__all__ = ["KEY", "VOLUME_ID", "Cluster", "open_cluster", "wait_state"]

KEY: Final = bytes(range(32))
VOLUME_ID: Final = "0123456789abcdef0123456789abcdef"


@attrs.define(eq=False)
class Node:
    """One replica daemon that runs now."""

    daemon: ReplicaDaemon
    scope: trio.CancelScope
    gone: trio.Event


@attrs.define(eq=False)
class Cluster:
    """Replicas 1..n under `directory`, and at most one volume over them at a time."""

    directory: Path
    replicas: int
    nursery: trio.Nursery
    size_bytes: int = 4 * MIB
    block_size_bytes: int = 512
    ports: dict[int, int] = attrs.field(factory=dict, init=False)
    nodes: dict[int, Node] = attrs.field(factory=dict, init=False)
    boot_ids: dict[int, str] = attrs.field(factory=dict, init=False)
    """What each replica's machine says its boot is; change it to pretend a reboot."""
    memory: SharedBuffers | None = attrs.field(default=None, init=False)
    """What the last volume shares with its replicas."""

    async def start_replica(self, replica_id: int) -> None:
        """Start the daemon of one replica on the port that it had before."""
        await self.nursery.start(self._run_replica, replica_id)

    async def _run_replica(
        self, replica_id: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        store = Store.open_or_create(
            self.directory / f"replica-{replica_id}",
            volume_id=VOLUME_ID,
            replica_id=replica_id,
            volume_name="test",
            size_bytes=self.size_bytes,
            block_size_bytes=self.block_size_bytes,
            boot_id=self.boot_ids.get(replica_id, "boot-1"),
        )
        batch = EndOfBatch()
        daemon = ReplicaDaemon(store, ChainDevice(store, batch), KEY, batch)
        node = Node(daemon, trio.CancelScope(), trio.Event())
        try:
            with node.scope:
                async with trio.open_nursery() as nursery:
                    port = await nursery.start(daemon.serve, "127.0.0.1", self.ports.get(replica_id, 0))
                    self.ports[replica_id] = port
                    self.nodes[replica_id] = node
                    task_status.started()
        finally:
            self.nodes.pop(replica_id, None)
            store.close()
            node.gone.set()

    async def stop_replica(self, replica_id: int, *, cleanly: bool = False) -> None:
        """End one daemon: by default at once, as if its process had died (its page cache survives)."""
        node = self.nodes[replica_id]
        if cleanly:
            await node.daemon.stop()
        node.scope.cancel()
        await node.gone.wait()

    @asynccontextmanager
    async def open_volume(
        self, *, new_volume: bool = False, cleanly: bool = True, member_timeout_s: float = 1.0
    ) -> AsyncIterator[tuple[Volume, EndOfBatch]]:
        """A controller over the replicas; `cleanly` False ends it as if its process had died."""
        options = ControllerOptions(
            volume_name="test",
            volume_id=VOLUME_ID,
            size_bytes=self.size_bytes,
            block_size_bytes=self.block_size_bytes,
            replicas=tuple(ReplicaAddress(i, "127.0.0.1", port) for i, port in sorted(self.ports.items())),
            key=KEY,
            new_volume=new_volume,
            tuning=Tuning(member_timeout_s=member_timeout_s),
        )
        batch = EndOfBatch()
        self.memory = SharedBuffers()
        volume = Volume(options, batch, memory=self.memory, open_window=open_window)
        async with trio.open_nursery() as nursery:
            await nursery.start(volume.run)
            yield volume, batch
            if cleanly:
                await volume.stop()
            nursery.cancel_scope.cancel()

    def content(self, replica_id: int) -> bytes:
        """The bytes of one replica as its files have them."""
        path = next((self.directory / f"replica-{replica_id}").glob("volume-head-*.img"))
        return path.read_bytes()


@asynccontextmanager
async def open_cluster(directory: Path, *, replicas: int = 3) -> AsyncIterator[Cluster]:
    """A cluster whose replica daemons are up; they end with the block."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(directory, replicas, nursery)
        for replica_id in range(1, replicas + 1):
            await cluster.start_replica(replica_id)
        yield cluster
        nursery.cancel_scope.cancel()


async def wait_state(volume: Volume, state: VolumeState, *, timeout_s: float = 20) -> None:
    """Wait until the volume says `state`.  Raises trio.TooSlowError: it does not within `timeout_s`."""
    try:
        with trio.fail_after(timeout_s):
            while volume.status().state is not state:
                await trio.sleep(0.01)
    except trio.TooSlowError as error:
        error.add_note(f"the volume says {volume.status()}")
        raise
