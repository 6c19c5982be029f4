"""Giving space back: removing a backup, and chunks that no backup has."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs

from pyjiva.backup.lock_io import HeldLock, under_lock
from pyjiva.backup.locks import LockKind
from pyjiva.backup.manifest import CHUNKS, TABLES, UNFINISHED, name_of_chunk_key
from pyjiva.backup.objects import DamagedError, Listed
from pyjiva.backup.store_io import WORKERS, BackupStore
from pyjiva.backup.work_io import in_order
from pyjiva.errors import BackupError

__all__ = ["Collected", "collect", "discard_chunks"]

UNFINISHED_S: Final = 7 * 86400.0  # an interrupted backup that nobody takes up in a week is given up
BATCH: Final = 256  # removed between two looks at our lock


@attrs.frozen
class Collected:
    """What was given back."""

    chunks: int
    freed_bytes: int


async def collect(store: BackupStore) -> Collected:
    """Remove every chunk that no backup has.

    Raises BusyError: a backup is being made, or somebody else collects.  Raises BackupError: it cannot be
    said which chunks are needed, and then none is removed.
    """
    return await under_lock(store, LockKind.COLLECT, partial(_collect, store))


async def _collect(store: BackupStore, lock: HeldLock) -> Collected:
    needed = await _needed(store, lock)
    chunks = freed_bytes = 0

    def is_garbage(listed: Listed) -> bool:
        name = name_of_chunk_key(listed.key)
        return name is not None and name not in needed

    garbage = await store.run(lambda: [listed for listed in store.objects.list(CHUNKS) if is_garbage(listed)])
    for start in range(0, len(garbage), BATCH):
        batch = garbage[start : start + BATCH]
        await _delete(store, (listed.key for listed in batch), lock)
        chunks += len(batch)
        freed_bytes += sum(listed.size_bytes for listed in batch)
    return Collected(chunks, freed_bytes)


async def _needed(store: BackupStore, lock: HeldLock) -> set[bytes]:
    """The names of the chunks that backups have, or interrupted ones will want.

    What is left of removed and given-up backups besides chunks goes at once.
    """
    manifests, damaged = await store.manifests()
    if damaged:
        raise BackupError(f"no chunk was removed, as it is not known which are needed: {damaged[0]}")
    needed: set[bytes] = set()
    for manifest in manifests:
        try:
            table = await store.table(manifest)
        except BackupError as error:
            raise BackupError(
                f"no chunk was removed, as it is not known which are needed: {error}; "
                f"if that backup cannot be helped, remove it: pyjiva backup rm {manifest.id}"
            ) from error
        needed.update(name for _, name in table)
    present = {f"{TABLES}{backup_id}" for backup_id in await store.ids()}
    await _delete(
        store, [listed.key for listed in await store.listed(TABLES) if listed.key not in present], lock
    )
    now_s = datetime.now(UTC).timestamp()
    for listed in await store.listed(UNFINISHED):
        try:
            checkpoint = (
                await store.checkpoint(listed.key) if now_s - listed.modified_s < UNFINISHED_S else None
            )
        except DamagedError:
            checkpoint = None
        if checkpoint is None:
            await store.delete(listed.key)
        else:
            needed.update(name for _, name in checkpoint.table)
    return needed


async def discard_chunks(store: BackupStore, keys: Iterable[str]) -> None:
    """Remove damaged chunks, so that the next backup of a volume that still has their content stores them
    again.  Raises BusyError.
    """

    async def discard(lock: HeldLock) -> None:
        await _delete(store, keys, lock)

    await under_lock(store, LockKind.COLLECT, discard)


async def _delete(store: BackupStore, keys: Iterable[str], lock: HeldLock) -> None:
    """Remove objects as long as the lock holds: asked before all of them, and by the clock before each."""

    def delete(key: str) -> None:
        lock.check_time()
        store.objects.delete(key)

    async def work(key: str) -> None:
        await store.run(partial(delete, key))

    await lock.check()
    await in_order(keys, work, lambda _: None, at_once=WORKERS)
