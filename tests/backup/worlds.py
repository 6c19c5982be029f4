"""A volume, a store and a target in memory, without threads, and processes in it that die or stand still."""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, TypeVar

import attrs
import trio

from pyjiva.backup import Manifest, Progress
from pyjiva.backup.configuration import Configuration
from pyjiva.backup.create_io import CreateOptions, create_backup
from pyjiva.backup.objects import Listed, MissingError, Objects
from pyjiva.backup.restore_io import open_backup, restore
from pyjiva.backup.store_io import BackupStore
from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent, merge_extents

__all__ = [
    "CHUNK_BYTES",
    "SECRET",
    "DeadError",
    "MemoryObjects",
    "MemorySource",
    "MemoryTarget",
    "Process",
    "Volume",
    "create",
    "ignore",
    "open_process",
    "restored",
    "snapshot_of",
]

CHUNK_BYTES: Final = 4096
BLOCK_BYTES: Final = 512
SECRET: Final = b"a key of the operator's"

T = TypeVar("T")


class DeadError(BackupError):
    """The process was killed: nothing that it does has an effect any more."""


@attrs.define(eq=False)
class MemoryObjects:
    """Objects in a dict."""

    name: str = "memory"
    clock: Callable[[], float] = trio.current_time
    content: dict[str, tuple[bytes, float]] = attrs.field(factory=dict)

    def put(self, key: str, content: bytes) -> None:
        """See Objects."""
        self.content[key] = (bytes(content), self.clock())

    def put_new(self, key: str, content: bytes) -> bool:
        """See Objects."""
        if key in self.content:
            return False
        self.put(key, content)
        return True

    def get(self, key: str) -> bytes:
        """See Objects."""
        if key not in self.content:
            raise MissingError(f"{self.name}: {key} is missing")
        return self.content[key][0]

    def list(self, prefix: str) -> Iterator[Listed]:
        """See Objects."""
        for key, (content, modified_s) in list(self.content.items()):
            if key.startswith(prefix):
                yield Listed(key, len(content), modified_s)

    def delete(self, key: str) -> None:
        """See Objects."""
        self.content.pop(key, None)

    def keys(self, prefix: str) -> set[str]:
        """Those that begin so."""
        return {key for key in self.content if key.startswith(prefix)}


@attrs.define(eq=False)
class Mortal:
    """Objects as one process sees them: it is killed at the change number `dies_at`."""

    below: Objects
    dies_at: int | None = None
    last_one_counts: bool = False
    """Whether the change at which it is killed has happened."""
    changes: int = 0

    @property
    def name(self) -> str:
        """See Objects."""
        return self.below.name

    @property
    def is_dead(self) -> bool:
        """Whether it was killed."""
        return self.dies_at is not None and self.changes >= self.dies_at

    def _change(self, change: Callable[[], T]) -> T:
        self.changes += 1
        if self.is_dead:
            if self.changes == self.dies_at and self.last_one_counts:
                change()
            raise DeadError("killed")
        return change()

    def _look(self) -> None:
        if self.is_dead:
            raise DeadError("killed")

    def put(self, key: str, content: bytes) -> None:
        """See Objects."""
        self._change(partial(self.below.put, key, content))

    def put_new(self, key: str, content: bytes) -> bool:
        """See Objects."""
        return self._change(partial(self.below.put_new, key, content))

    def delete(self, key: str) -> None:
        """See Objects."""
        self._change(partial(self.below.delete, key))

    def get(self, key: str) -> bytes:
        """See Objects."""
        self._look()
        return self.below.get(key)

    def list(self, prefix: str) -> Iterator[Listed]:
        """See Objects."""
        self._look()
        return self.below.list(prefix)


@attrs.define(eq=False)
class Process(BackupStore):
    """A store as one process has it open: no thread, but time passes at every call."""

    chance: random.Random = attrs.field(factory=lambda: random.Random(0), kw_only=True)
    call_s_max: float = attrs.field(default=0.0, kw_only=True)
    stands_still: tuple[int, float] | None = attrs.field(default=None, kw_only=True)
    """(before which call, for how long)."""
    calls: int = attrs.field(default=0, init=False)
    _until_s: float = attrs.field(default=0.0, init=False)

    async def run(self, call: Callable[[], T]) -> T:
        """See BackupStore."""
        self.calls += 1
        if self.stands_still is not None and self.calls == self.stands_still[0]:
            self._until_s = trio.current_time() + self.stands_still[1]
        await trio.sleep(self.chance.random() * self.call_s_max)
        while trio.current_time() < self._until_s:  # all of a process stands still at once
            await trio.sleep_until(self._until_s)
        return call()


def open_process(
    objects: Objects,
    *,
    secret: bytes | None = None,
    process: str = "alive",
    dead: Callable[[str], bool] = lambda _: False,
    chance: random.Random | None = None,
    call_s_max: float = 0.0,
    stands_still: tuple[int, float] | None = None,
) -> Process:
    """The store at `objects`, made if it is not there."""
    made = Configuration.new(chunk_bytes=CHUNK_BYTES, salt=bytes(16), secret=secret)
    try:
        configuration = Configuration.decode(objects.get("pyjiva-backup.json"))
    except MissingError:
        objects.put_new("pyjiva-backup.json", made.encode())
        configuration = made
    store = Process.of(objects, configuration, secret)
    store.process, store.is_gone, store.clock = process, dead, trio.current_time
    store.chance = chance or random.Random(0)
    store.call_s_max, store.stands_still = call_s_max, stands_still
    return store


@attrs.define(eq=False)
class Volume:
    """A volume and its snapshots."""

    content: bytearray
    snapshots: dict[str, tuple[bytes, str]] = attrs.field(factory=dict)
    """Name → (content, when it was made)."""
    made: int = 0
    reads: list[Extent] = attrs.field(factory=list)

    def snapshot(self, name: str) -> None:
        """Keep what it holds."""
        self.made += 1
        self.snapshots[name] = (bytes(self.content), f"2026-01-01T00:00:00.{self.made:06}Z")


@attrs.define(eq=False)
class MemorySource:
    """A SnapshotSource."""

    volume: Volume
    snapshot: str
    created: str
    content: bytes
    volume_name: str = "demo"
    volume_id: str = "0" * 32
    block_size_bytes: int = BLOCK_BYTES

    @property
    def size_bytes(self) -> int:
        """See SnapshotSource."""
        return len(self.content)

    async def snapshots(self) -> Mapping[str, str]:
        """See SnapshotSource."""
        return {name: created for name, (_, created) in self.volume.snapshots.items()}

    async def changed(self, since: str | None) -> list[Extent]:
        """See SnapshotSource."""
        if since is not None and since not in self.volume.snapshots:
            raise ConfigError(f"no snapshot {since}")
        old = b"" if since is None else self.volume.snapshots[since][0]
        old = old.ljust(len(self.content), b"\0")
        starts = range(0, len(self.content), BLOCK_BYTES)
        return merge_extents(
            Extent(start, min(BLOCK_BYTES, len(self.content) - start))
            for start in starts
            if old[start : start + BLOCK_BYTES] != self.content[start : start + BLOCK_BYTES]
        )

    async def read(self, extent: Extent) -> bytes:
        """See SnapshotSource."""
        self.volume.reads.append(extent)
        return self.content[extent.offset_bytes : extent.end_bytes]


def snapshot_of(volume: Volume, name: str) -> MemorySource:
    """The snapshot `name` of `volume`."""
    content, created = volume.snapshots[name]
    return MemorySource(volume, name, created, content)


@attrs.define(eq=False)
class MemoryTarget:
    """A ResumableTarget."""

    content: bytearray
    writes: list[Extent] = attrs.field(factory=list)
    flushed: bool = False

    @property
    def size_bytes(self) -> int:
        """See RestoreTarget."""
        return len(self.content)

    async def data(self, extent: Extent) -> list[Extent]:
        """See ResumableTarget."""
        return [extent] if any(self.content[extent.offset_bytes : extent.end_bytes]) else []

    async def read(self, extent: Extent) -> bytes:
        """See ResumableTarget."""
        return bytes(self.content[extent.offset_bytes : extent.end_bytes])

    async def write(self, extent: Extent, data: bytes) -> None:
        """See RestoreTarget."""
        assert len(data) == extent.length_bytes
        self.writes.append(extent)
        self.content[extent.offset_bytes : extent.end_bytes] = data

    async def zero(self, extent: Extent) -> None:
        """See ResumableTarget."""
        self.content[extent.offset_bytes : extent.end_bytes] = bytes(extent.length_bytes)

    async def flush(self) -> None:
        """See RestoreTarget."""
        self.flushed = True

    async def forget_cache(self) -> None:
        """See ResumableTarget."""
        assert self.flushed


def ignore(_: Progress) -> None:
    """For who does not want to know how far it is."""


async def create(
    store: BackupStore, volume: Volume, name: str, *, full: bool = False, checkpoint_bytes: int = 1 << 30
) -> Manifest:
    """Back up the snapshot `name`."""
    options = CreateOptions(full=full, checkpoint_bytes=checkpoint_bytes)
    return await create_backup(store, snapshot_of(volume, name), options, ignore)


async def restored(store: BackupStore, backup_id: str) -> bytes:
    """What a backup holds."""
    backup = await open_backup(store, backup_id)
    target = MemoryTarget(bytearray(backup.manifest.size_bytes))
    await restore(backup, target, rate=None, report=ignore)
    return bytes(target.content)
