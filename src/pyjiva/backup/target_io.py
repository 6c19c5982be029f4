"""Where backups are restored to: a file or block device, or the directory of a new replica.

Both appear under their name only when they are whole.  Until then they are called NAME.partial, and an
interrupted restore goes on there.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import trio

from pyjiva.backup.directory_source_io import open_replica
from pyjiva.backup.file_target_sys import RawFile, check_absent, check_overwrite, partial_of, settle_file
from pyjiva.errors import StorageError, StorageFailure
from pyjiva.extent import Extent
from pyjiva.membership import MembershipRecord
from pyjiva.snapshot import ReplicaState, Store
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.sparse import SUM_BLOCK_BYTES

__all__ = ["ThreadTarget", "file_target", "interrupted_volume_id", "replica_target"]


class _Blocking(Protocol):
    """A ResumableTarget whose calls block."""

    @property
    def size_bytes(self) -> int: ...
    def data(self, extent: Extent) -> list[Extent]: ...
    def read(self, extent: Extent) -> bytes: ...
    def write(self, extent: Extent, data: bytes) -> None: ...
    def zero(self, extent: Extent) -> None: ...
    def flush(self) -> None: ...
    def forget_cache(self) -> None: ...


@attrs.define(eq=False)
class ThreadTarget:
    """A ResumableTarget: each call of `_blocking` in a thread."""

    _blocking: _Blocking
    size_bytes: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size_bytes = self._blocking.size_bytes

    async def data(self, extent: Extent) -> list[Extent]:
        """See ResumableTarget."""
        return await trio.to_thread.run_sync(self._blocking.data, extent)

    async def read(self, extent: Extent) -> bytes:
        """See ResumableTarget."""
        return await trio.to_thread.run_sync(self._blocking.read, extent)

    async def write(self, extent: Extent, data: bytes) -> None:
        """See RestoreTarget."""
        await trio.to_thread.run_sync(self._blocking.write, extent, data)

    async def zero(self, extent: Extent) -> None:
        """See ResumableTarget."""
        await trio.to_thread.run_sync(self._blocking.zero, extent)

    async def flush(self) -> None:
        """See RestoreTarget."""
        await trio.to_thread.run_sync(self._blocking.flush)

    async def forget_cache(self) -> None:
        """See ResumableTarget."""
        await trio.to_thread.run_sync(self._blocking.forget_cache)


@asynccontextmanager
async def file_target(path: Path, size_bytes: int, *, overwrite: bool) -> AsyncIterator[ThreadTarget]:
    """The file `path`, or the block device; what is in it is lost if `overwrite`, else it is refused.

    Raises ConfigError.
    """
    is_device = check_overwrite(path, overwrite=overwrite)
    raw = RawFile.open(path if is_device else partial_of(path), size_bytes)
    try:
        yield ThreadTarget(raw)
    finally:
        raw.close()
    if not is_device:
        settle_file(partial_of(path), path)


@attrs.define(eq=False)
class _Replica:
    """A Store as a target: whole blocks, zeros as holes."""

    store: Store
    from_disk: bool = False

    @property
    def size_bytes(self) -> int:
        return self.store.size_bytes

    def data(self, extent: Extent) -> list[Extent]:
        return self.store.allocated(extent)

    def read(self, extent: Extent) -> bytes:
        if self.from_disk:
            self.store.verify(extent)
        return bytes(self.store.read(extent.offset_bytes, extent.length_bytes))

    def write(self, extent: Extent, data: bytes) -> None:
        """Blocks that are zeros become holes, as a host that unmapped them would have left them."""
        for start, end, is_zero in _runs(data):
            offset_bytes = extent.offset_bytes + start
            if is_zero:
                self.store.zero(offset_bytes, end - start)
            else:
                self.store.write(offset_bytes, end - start, (memoryview(data)[start:end],))

    def zero(self, extent: Extent) -> None:
        self.store.zero(extent.offset_bytes, extent.length_bytes)

    def flush(self) -> None:
        self.store.flush()

    def forget_cache(self) -> None:
        self.from_disk = True


@asynccontextmanager
async def replica_target(
    path: Path, *, volume_id: str, replica_id: int, volume_name: str, size_bytes: int, block_size_bytes: int
) -> AsyncIterator[ThreadTarget]:
    """A new replica in the directory `path`, which must not be there.

    Raises ConfigError: it is there, or another replica was being restored there.
    """
    check_absent(path)
    store = Store.open_or_create(
        partial_of(path),
        volume_id=volume_id,
        replica_id=replica_id,
        volume_name=volume_name,
        size_bytes=size_bytes,
        block_size_bytes=block_size_bytes,
    )
    try:
        yield ThreadTarget(_Replica(store))
        # Also if a power cut had interrupted it: what a restore has compared with its hash is whole.
        store.mark_intact()
        store.settle_all()
        if not store.mark_clean():
            raise StorageError(StorageFailure.NOT_READY, f"{path}: something was written to it meanwhile")
        store.save_state(_alone(store.state))
    finally:
        store.close()
    settle_file(partial_of(path), path)


def _alone(state: ReplicaState) -> ReplicaState:
    """The state of a replica that has all of a volume which has no other yet.

    Its record says so: a controller that is told of empty replicas too serves from this one alone, and takes
    them in only when they have been copied to.  Without it a new volume would take all for equal.
    """
    record = MembershipRecord(
        epoch=1,
        version=1,
        controller_id="restore",
        configured=(state.replica_id,),
        in_sync=(state.replica_id,),
        clean=True,
    )
    return attrs.evolve(
        state,
        promised_epoch=record.epoch,
        promised_to=record.controller_id,
        record=record,
        told_equal=True,
    )


def interrupted_volume_id(path: Path) -> str | None:
    """The volume's id of the replica whose restore to `path` was interrupted; None: there is none."""
    partial = partial_of(path)
    if not (partial / STATE_FILE).is_file():
        return None
    with open_replica(partial) as store:
        return store.state.volume_id


def _runs(data: bytes) -> list[tuple[int, int, bool]]:
    """(start, end, whether it is zeros) of the blocks of `data`, joined."""
    runs: list[tuple[int, int, bool]] = []
    zeros = bytes(SUM_BLOCK_BYTES)
    for start in range(0, len(data), SUM_BLOCK_BYTES):
        end = min(start + SUM_BLOCK_BYTES, len(data))
        is_zero = data[start:end] == zeros[: end - start]
        if runs and runs[-1][2] == is_zero:
            runs[-1] = (runs[-1][0], end, is_zero)
        else:
            runs.append((start, end, is_zero))
    return runs
