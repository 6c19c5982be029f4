"""Reading a backup: any part of it, or all of it into a target.  What is given out was checked."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs
import trio

from pyjiva.backup.manifest import Manifest
from pyjiva.backup.objects import MissingError
from pyjiva.backup.pace import Pace, Progress, ReportProgress
from pyjiva.backup.source import RestoreTarget, ResumableTarget
from pyjiva.backup.store_io import WORKERS, BackupStore
from pyjiva.backup.table import ChunkTable, TableBuilder
from pyjiva.backup.work_io import in_order
from pyjiva.errors import BackupError, ConfigError
from pyjiva.extent import Extent
from pyjiva.units import GIB

__all__ = ["OpenBackup", "open_backup", "restore"]

CACHED_CHUNKS: Final = 16
HOLE_BYTES_MAX: Final = GIB  # a step through what is zeros


@attrs.define(eq=False)
class OpenBackup:
    """A backup that can be read anywhere."""

    store: BackupStore
    manifest: Manifest
    table: ChunkTable
    _cache: OrderedDict[bytes, bytes] = attrs.field(factory=OrderedDict, init=False)

    async def read(self, extent: Extent) -> bytes:
        """What the volume held there.  Raises BackupError: a chunk is missing or damaged."""
        if extent.offset_bytes < 0 or extent.end_bytes > self.manifest.size_bytes:
            raise ConfigError(f"{extent}: the backup has {self.manifest.size_bytes} bytes")
        parts = []
        for part in extent.split(self.table.chunk_bytes):
            index, start = divmod(part.offset_bytes, self.table.chunk_bytes)
            name = self.table.name_at(index)
            if name is None:
                parts.append(bytes(part.length_bytes))
            else:
                parts.append((await self._chunk(name))[start : start + part.length_bytes])
        return b"".join(parts)

    async def _chunk(self, name: bytes) -> bytes:
        content = self._cache.get(name)
        if content is None:
            content = await self.chunk(name)
            self._cache[name] = content
            if len(self._cache) > CACHED_CHUNKS:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(name)
        return content

    async def chunk(self, name: bytes) -> bytes:
        """One chunk, from the store.  Raises BackupError: it is missing or damaged."""
        try:
            return await self.store.get_chunk(name)
        except MissingError as error:
            raise BackupError(
                f"backup {self.manifest.id} is not whole: {error}; "
                "`pyjiva backup verify` shows all that is missing"
            ) from error
        except BackupError as error:
            raise BackupError(f"backup {self.manifest.id} cannot be read: {error}") from error


async def open_backup(store: BackupStore, backup_id: str) -> OpenBackup:
    """Raises ConfigError: there is no such backup; BackupError: its table is missing or damaged."""
    manifest = await store.manifest(backup_id)
    return OpenBackup(store, manifest, await store.table(manifest))


async def restore(
    backup: OpenBackup, target: RestoreTarget, *, rate: int | None, report: ReportProgress
) -> None:
    """Make the target what the backup is.

    A target that may hold something keeps what is right already, so an interrupted restore goes on where it
    was; at the end all of it is read again and compared with the hash of the whole.  Raises BackupError: a
    chunk is missing or damaged, or the target does not give back what was written; StorageError.
    """
    if target.size_bytes < backup.manifest.size_bytes:
        raise ConfigError(
            f"the target has {target.size_bytes} bytes, the backup {backup.manifest.size_bytes}: "
            "take a larger one"
        )
    table = backup.table
    resumable = target if isinstance(target, ResumableTarget) else None
    run = _Restore(
        backup, target, resumable, Pace(rate), report, total_bytes=table.chunks * table.chunk_bytes
    )
    if resumable is not None:
        run.total_bytes *= 2  # written, and read again
        for hole in _pieces(table.holes()):
            for part in await resumable.data(hole):
                await resumable.zero(part)
    await in_order(table, run.work, run.take, at_once=WORKERS)
    await target.flush()
    if resumable is not None:
        await resumable.forget_cache()
        await _compare(backup, resumable, run)


@attrs.define(eq=False)
class _Restore:
    backup: OpenBackup
    target: RestoreTarget
    resumable: ResumableTarget | None
    pace: Pace
    report: ReportProgress
    total_bytes: int
    done_bytes: int = attrs.field(default=0, init=False)
    written_bytes: int = attrs.field(default=0, init=False)

    async def work(self, entry: tuple[int, bytes]) -> int:
        index, name = entry
        extent = self.backup.table.extent_of(index)
        if self.resumable is not None and await self.resumable.data(extent):
            content = await self.resumable.read(extent)
            if await self.backup.store.run(lambda: self._name(content)) == name:
                return 0
        await trio.sleep(self.pace.wait_s(extent.length_bytes, self.backup.store.clock()))
        content = await self.backup.chunk(name)
        await self.target.write(extent, content[: extent.length_bytes])
        return extent.length_bytes

    def take(self, written_bytes: int) -> None:
        self.written_bytes += written_bytes
        self.say(self.backup.table.chunk_bytes)

    def say(self, more_bytes: int) -> None:
        self.done_bytes += more_bytes
        self.report(Progress(self.done_bytes, self.total_bytes, self.written_bytes))

    def _name(self, content: bytes) -> bytes:
        return self.backup.store.keys.name_of(content.ljust(self.backup.table.chunk_bytes, b"\0"))

    async def name_in_target(self, index: int) -> tuple[int, bytes]:
        """What the target has there now."""
        assert self.resumable is not None
        content = await self.resumable.read(self.backup.table.extent_of(index))
        return index, await self.backup.store.run(lambda: self._name(content))


async def _compare(backup: OpenBackup, target: ResumableTarget, run: _Restore) -> None:
    builder = TableBuilder(backup.table.size_bytes, backup.table.chunk_bytes)

    def take(found: tuple[int, bytes]) -> None:
        builder.add(*found)
        run.say(backup.table.chunk_bytes)

    await in_order((index for index, _ in backup.table), run.name_in_target, take, at_once=WORKERS)
    found = builder.table()
    if found.hash() != backup.manifest.table_hash:
        wrong = next(i for (i, name), (_, other) in zip(found, backup.table, strict=True) if name != other)
        raise BackupError(
            f"the target gives back other bytes than were written, at {backup.table.extent_of(wrong)}"
        )
    for hole in _pieces(backup.table.holes()):
        for part in await target.data(hole):
            for piece in part.split(backup.table.chunk_bytes):
                if await target.read(piece) != bytes(piece.length_bytes):
                    raise BackupError(f"the target gives back other bytes than zeros, at {piece}")


def _pieces(extents: Iterator[Extent]) -> Iterator[Extent]:
    for extent in extents:
        yield from extent.split(HOLE_BYTES_MAX)
