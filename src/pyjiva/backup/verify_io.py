"""Looking whether backups can be restored: every chunk is read and compared with its name."""

from collections.abc import Sequence

import attrs
import trio

from pyjiva.backup.manifest import Manifest, chunk_key
from pyjiva.backup.objects import DamagedError, MissingError
from pyjiva.backup.pace import Pace, Progress, ReportProgress
from pyjiva.backup.store_io import WORKERS, BackupStore
from pyjiva.backup.table import ChunkTable
from pyjiva.backup.work_io import in_order

__all__ = ["Problem", "Verified", "verify"]


@attrs.frozen
class Problem:
    """Something that cannot be restored."""

    backups: tuple[str, ...]
    """Which backups it is part of; empty if that cannot be said."""
    what: str
    chunk: str
    """The key of the chunk; "": it is not a chunk."""


@attrs.frozen
class Verified:
    """What was looked at."""

    backups: int
    chunks: int
    problems: tuple[Problem, ...]


async def verify(
    store: BackupStore, backup_ids: Sequence[str], *, quick: bool, rate: int | None, report: ReportProgress
) -> Verified:
    """Look at some backups, or at all if none is named.  A chunk that several have is read once.

    `quick`: only whether every chunk is there.  Raises BackupError: the store cannot be reached.
    """
    problems: list[Problem] = []
    if backup_ids:
        manifests = [await store.manifest(backup_id) for backup_id in backup_ids]
    else:
        manifests, damaged = await store.manifests()
        problems += [Problem((), str(error), "") for error in damaged]
    tables: list[tuple[Manifest, ChunkTable]] = []
    for manifest in manifests:
        try:
            tables.append((manifest, await store.table(manifest)))
        except (MissingError, DamagedError) as error:
            problems.append(Problem((manifest.id,), str(error), ""))
    names = {name for _, table in tables for _, name in table}
    bad = await _look(store, names, quick, Pace(rate), report)
    for name, what in sorted(bad.items()):
        owners = tuple(manifest.id for manifest, table in tables if any(name == other for _, other in table))
        problems.append(Problem(owners, what, chunk_key(name)))
    return Verified(len(manifests), len(names), tuple(problems))


async def _look(
    store: BackupStore, names: set[bytes], quick: bool, pace: Pace, report: ReportProgress
) -> dict[bytes, str]:
    """What is wrong with which chunks."""
    if quick:
        missing = names - await store.chunk_names()
        return {name: f"{store.name}: {chunk_key(name)} is missing" for name in missing}
    bad: dict[bytes, str] = {}
    total_bytes, done_bytes = len(names) * store.chunk_bytes, 0

    async def work(name: bytes) -> None:
        await trio.sleep(pace.wait_s(store.chunk_bytes, store.clock()))
        try:
            await store.get_chunk(name)
        except (MissingError, DamagedError) as error:
            bad[name] = str(error)

    def take(_: None) -> None:
        nonlocal done_bytes
        done_bytes += store.chunk_bytes
        report(Progress(done_bytes, total_bytes))

    await in_order(sorted(names), work, take, at_once=WORKERS)
    return bad
