"""A snapshot in a replica's directory that no daemon serves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import attrs
import trio

from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.snapshot import Store
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.sparse import open_directory, read_file

__all__ = ["DirectorySource", "open_replica"]


@contextmanager
def open_replica(path: Path) -> Iterator[Store]:
    """The replica in `path`, whoever it is; nobody else may have it open.

    Raises ConfigError: there is none, or another process has it.
    """
    if not (path / STATE_FILE).is_file():
        raise ConfigError(f"{path} is not the directory of a pyjiva replica")
    directory = open_directory(path)
    try:
        state = decode_state(read_file(directory, STATE_FILE))
    except BaseException:
        directory.close()
        raise
    if state.witness:
        directory.close()
        raise ConfigError(f"{path} is a witness: it holds no data")
    store = Store.open_in(directory, state, boot_id=read_boot_id())
    try:
        yield store
    finally:
        store.close()


@attrs.define(eq=False)
class DirectorySource:
    """A SnapshotSource over an open replica."""

    store: Store
    volume_name: str
    volume_id: str
    snapshot: str
    created: str
    size_bytes: int
    block_size_bytes: int

    @classmethod
    def of(cls, store: Store, snapshot: str) -> Self:
        """Raises ConfigError: there is no such snapshot."""
        layer = store.chain.snapshot(snapshot)
        state = store.state
        return cls(
            store,
            state.volume_name,
            state.volume_id,
            snapshot,
            layer.created,
            state.size_bytes,
            state.block_size_bytes,
        )

    async def snapshots(self) -> Mapping[str, str]:
        """See SnapshotSource."""
        layers = self.store.chain.layers
        return {layer.name: layer.created for layer in layers if layer.sealed and not layer.removed}

    async def changed(self, since: str | None) -> list[Extent]:
        """See SnapshotSource."""
        return await trio.to_thread.run_sync(self.store.diff, since or "", self.snapshot)

    async def read(self, extent: Extent) -> bytes:
        """See SnapshotSource."""
        return bytes(await trio.to_thread.run_sync(self.store.read_at, self.snapshot, extent))
