"""Making a backup: read what has changed, store what the store does not have, and then say so.

Order of what becomes durable: chunks; table; manifest.  A crash before the manifest leaves chunks, which the
next run of the same backup finds, and which are collected if there is none.
"""

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs
import trio

from pyjiva.backup.envelope import CONTENT_BYTES_MAX
from pyjiva.backup.lock_io import HeldLock, under_lock
from pyjiva.backup.locks import LockKind
from pyjiva.backup.manifest import Checkpoint, Manifest
from pyjiva.backup.pace import Pace, Progress, ReportProgress
from pyjiva.backup.plan import CHECKPOINT_BYTES, Previous, Step, bases, count, plan
from pyjiva.backup.source import SnapshotSource
from pyjiva.backup.store_io import WORKERS, BackupStore
from pyjiva.backup.table import ChunkTable, TableBuilder, table_bytes_max
from pyjiva.backup.work_io import in_order
from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent
from pyjiva.units import format_size

__all__ = ["CreateOptions", "create_backup"]

KNOWN_AT_ONCE: Final = 4096  # chunks whose names are known are one piece of work for so many
LAST_WORDS_S: Final = 10.0


@attrs.frozen(kw_only=True)
class CreateOptions:
    """How a backup is made."""

    full: bool = False
    """Read all that is allocated, whatever older backups say."""
    rate: int | None = None
    """Bytes per second read from the volume at most."""
    checkpoint_bytes: int = CHECKPOINT_BYTES
    """How much is read before the progress is kept again."""


async def create_backup(
    store: BackupStore,
    source: SnapshotSource,
    options: CreateOptions,
    report: ReportProgress,
    on_wait: Callable[[str], None] | None = None,
) -> Manifest:
    """Make a backup of the snapshot; if one was interrupted, go on where that was.

    Raises BackupError, StorageError, ConfigError: there is no new backup; what was stored is found next time.
    """
    return await under_lock(
        store, LockKind.CREATE, partial(_create, store, source, options, report), on_wait=on_wait
    )


async def _create(
    store: BackupStore, source: SnapshotSource, options: CreateOptions, report: ReportProgress, lock: HeldLock
) -> Manifest:
    now = datetime.now(UTC)
    if table_bytes_max(source.size_bytes, store.chunk_bytes) > CONTENT_BYTES_MAX:
        raise ConfigError(
            f"chunks of {format_size(store.chunk_bytes)} are too small for a volume of "
            f"{format_size(source.size_bytes)}: its table would not fit an object"
        )
    stored = await store.chunk_names()
    base, table, differs = await _choose_base(store, source, options)
    everything = Extent(0, source.size_bytes)
    changed = [part for extent in differs if (part := extent.clip(everything)) is not None]
    key = store.checkpoint_key(source.volume_id, source.snapshot, source.created, str(source.size_bytes))
    checkpoint = await _read_checkpoint(store, source, key)
    previous = Previous(table, checkpoint, stored)
    making = _Making(
        store=store,
        source=source,
        key=key,
        stored=stored,
        pace=Pace(options.rate),
        report=report,
        checkpoint_bytes=options.checkpoint_bytes,
        total_bytes=count(plan(changed, store.chunk_bytes, previous)) * store.chunk_bytes,
        builder=TableBuilder(source.size_bytes, store.chunk_bytes),
    )
    made = await making.run(plan(changed, store.chunk_bytes, previous))
    manifest = Manifest(
        id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        volume=source.volume_name,
        volume_id=source.volume_id,
        snapshot=source.snapshot,
        snapshot_created=source.created,
        size_bytes=source.size_bytes,
        block_size_bytes=source.block_size_bytes,
        chunk_bytes=store.chunk_bytes,
        created=now.isoformat(timespec="microseconds"),
        base=base.id if base is not None else "",
        table_hash=made.hash(),
        chunks=made.chunks,
        read_bytes=making.read_bytes,
        stored_bytes=making.stored_bytes,
    )
    await _commit(store, lock, manifest, made)
    await store.delete(key)
    return manifest


async def _commit(store: BackupStore, lock: HeldLock, manifest: Manifest, table: ChunkTable) -> None:
    """Make the backup be there.

    If the lock is still there afterwards, every collector since has seen the manifest; if not, one may have
    taken chunks away before, and the manifest is withdrawn.
    """
    await lock.check()
    try:
        await store.put_backup(manifest, table, lock.check_time)
        await lock.check()
    except BaseException:
        # Also if nobody knows whether the manifest was put.
        with trio.move_on_after(LAST_WORDS_S, shield=True), contextlib.suppress(BackupError):
            await store.delete_backup(manifest.id)
        raise


async def _choose_base(
    store: BackupStore, source: SnapshotSource, options: CreateOptions
) -> tuple[Manifest | None, ChunkTable | None, list[Extent]]:
    """The newest backup that can be stood on, its table, and where the snapshot may differ from it."""
    if not options.full:
        manifests, _ = await store.manifests()
        for manifest in bases(manifests, source.volume_id, await source.snapshots(), source.size_bytes):
            try:
                table = await store.table(manifest)
                return manifest, table, await source.changed(manifest.snapshot)
            except (BackupError, ConfigError):  # a lost table, or a snapshot that went: an older one will do
                continue
    return None, None, await source.changed(None)


async def _read_checkpoint(store: BackupStore, source: SnapshotSource, key: str) -> Checkpoint | None:
    """What an interrupted run left.  Without a time nobody knows whether it was this snapshot."""
    if not source.created:
        return None
    try:
        checkpoint = await store.checkpoint(key)
    except BackupError:  # damaged: all is read, as if there was none
        return None
    sizes = (source.size_bytes, store.chunk_bytes)
    fits = checkpoint is not None and (checkpoint.table.size_bytes, checkpoint.table.chunk_bytes) == sizes
    return checkpoint if fits else None


#: What came of a piece of work: chunks with names (None: zeros), bytes read, bytes stored.
_Done = tuple[list[tuple[int, bytes | None]], int, int]


@attrs.define(eq=False, kw_only=True)
class _Making:
    store: BackupStore
    source: SnapshotSource
    key: str
    stored: set[bytes]
    pace: Pace
    report: ReportProgress
    checkpoint_bytes: int
    total_bytes: int
    builder: TableBuilder
    position: int = attrs.field(default=0, init=False)
    read_bytes: int = attrs.field(default=0, init=False)
    stored_bytes: int = attrs.field(default=0, init=False)
    _kept_at_bytes: int = attrs.field(default=0, init=False)

    async def run(self, steps: Iterable[Step]) -> ChunkTable:
        """Do all steps."""
        self._say()
        try:
            await in_order(_pieces(steps), self._work, self._take, at_once=WORKERS, between=self._keep_if_due)
        except BaseException:
            if self.read_bytes > self._kept_at_bytes:
                with trio.move_on_after(LAST_WORDS_S, shield=True), contextlib.suppress(BackupError):
                    await self._keep()
            raise
        return self.builder.table()

    async def _work(self, piece: list[tuple[int, bytes]] | int) -> _Done:
        if isinstance(piece, list):
            return list(piece), 0, 0
        extent = self._extent(piece)
        await trio.sleep(self.pace.wait_s(extent.length_bytes, self.store.clock()))
        content = await self.source.read(extent)
        name = await self.store.run(partial(self._name, content))
        if name is None or name in self.stored:
            return [(piece, name)], extent.length_bytes, 0
        stored_bytes = await self.store.put_chunk(name, content.ljust(self.store.chunk_bytes, b"\0"))
        self.stored.add(name)
        return [(piece, name)], extent.length_bytes, stored_bytes

    def _name(self, content: bytes) -> bytes | None:
        """In a thread: the chunk's name; None if it is zeros."""
        if content == bytes(len(content)):
            return None
        return self.store.keys.name_of(content.ljust(self.store.chunk_bytes, b"\0"))

    def _extent(self, index: int) -> Extent:
        start = index * self.store.chunk_bytes
        return Extent(start, min(self.store.chunk_bytes, self.source.size_bytes - start))

    def _take(self, done: _Done) -> None:
        chunks, read_bytes, stored_bytes = done
        for index, name in chunks:
            if name is not None:
                self.builder.add(index, name)
            self.position = index + 1
        self.read_bytes += read_bytes
        self.stored_bytes += stored_bytes
        if read_bytes:
            self._say()

    def _say(self) -> None:
        self.report(Progress(min(self.read_bytes, self.total_bytes), self.total_bytes, self.stored_bytes))

    async def _keep_if_due(self) -> None:
        if self.read_bytes - self._kept_at_bytes >= self.checkpoint_bytes:
            await self._keep()

    async def _keep(self) -> None:
        self._kept_at_bytes = self.read_bytes
        await self.store.put_checkpoint(self.key, Checkpoint(self.position, self.builder.table()))


def _pieces(steps: Iterable[Step]) -> Iterator[list[tuple[int, bytes]] | int]:
    """Steps as pieces of work: a chunk to be read, or many that are known."""
    for is_read, group in itertools.groupby(steps, key=lambda step: step[1] is None):
        if is_read:
            yield from (index for index, _ in group)
        else:
            known = [(index, name) for index, name in group if name is not None]
            for start in range(0, len(known), KNOWN_AT_ONCE):
                yield known[start : start + KNOWN_AT_ONCE]
