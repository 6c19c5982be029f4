"""A store of backups: its objects wrapped and unwrapped, each call in a thread."""

import os
from collections.abc import Callable
from functools import partial
from typing import Final, Self, TypeVar

import attrs
import trio

from pyjiva.backup.configuration import (
    CHUNK_BYTES,
    CONFIGURATION_KEY,
    SALT_BYTES,
    Configuration,
    Keys,
)
from pyjiva.backup.envelope import CONTENT_BYTES_MAX, NONCE_BYTES, Cipher, Kind, unwrap, wrap
from pyjiva.backup.manifest import (
    CHUNKS,
    MANIFEST_BYTES_MAX,
    MANIFESTS,
    TABLES,
    UNFINISHED,
    Checkpoint,
    Manifest,
    chunk_key,
    name_of_chunk_key,
)
from pyjiva.backup.objects import DamagedError, Listed, MissingError, Objects
from pyjiva.backup.plan import is_whole
from pyjiva.backup.process_sys import awake_s, is_gone, own_process
from pyjiva.backup.table import ChunkTable, table_bytes_max
from pyjiva.errors import BackupError, ConfigError

__all__ = ["WORKERS", "BackupStore", "open_store"]

WORKERS: Final = 8  # chunks on their way at once: hides a store's latency; 3 MiB of memory each

T = TypeVar("T")


@attrs.define(eq=False)
class BackupStore:
    """One store, open with its key."""

    objects: Objects
    configuration: Configuration
    keys: Keys
    _cipher: Cipher | None
    process: str = attrs.field(factory=own_process, kw_only=True)
    """Who we are for others who work in the store."""
    is_gone: Callable[[str], bool] = attrs.field(default=is_gone, kw_only=True)
    """Whether such a process is known to live no more."""
    clock: Callable[[], float] = attrs.field(default=awake_s, kw_only=True)
    """Seconds that go on while the machine is suspended."""
    poll_s: float = attrs.field(default=2.0, kw_only=True)
    """Between two looks at a lock that is in the way."""
    _limiter: trio.CapacityLimiter = attrs.field(
        factory=lambda: trio.CapacityLimiter(2 * WORKERS), init=False
    )

    @property
    def name(self) -> str:
        """What the operator calls it."""
        return self.objects.name

    @property
    def chunk_bytes(self) -> int:
        """Bytes in a chunk."""
        return self.configuration.chunk_bytes

    async def run(self, call: Callable[[], T]) -> T:
        """`call` in a thread of the store's."""
        return await trio.to_thread.run_sync(call, limiter=self._limiter)

    # Chunks

    async def put_chunk(self, name: bytes, content: bytes) -> int:
        """Store a chunk; how many bytes that took."""
        return await self.run(partial(self._put, Kind.CHUNK, chunk_key(name), content))

    async def get_chunk(self, name: bytes) -> bytes:
        """A chunk.  Raises MissingError, DamagedError: it is not, or not any more, what has this name."""
        return await self.run(partial(self._get_chunk, name))

    def _get_chunk(self, name: bytes) -> bytes:
        key = chunk_key(name)
        content = self._get(Kind.CHUNK, key, self.chunk_bytes)
        if len(content) != self.chunk_bytes or self.keys.name_of(content) != name:
            raise DamagedError(f"{self.name}: {key}: its content is another one's")
        return content

    async def chunk_names(self) -> set[bytes]:
        """The names of all chunks that the store has: some 100 MiB of memory for a million."""

        def names() -> set[bytes]:
            found = (name_of_chunk_key(listed.key) for listed in self.objects.list(CHUNKS))
            return {name for name in found if name is not None}

        return await self.run(names)

    # Backups

    async def ids(self) -> list[str]:
        """The ids of all backups, the oldest first."""
        return [listed.key.removeprefix(MANIFESTS) for listed in await self.listed(MANIFESTS)]

    async def listed(self, prefix: str) -> list[Listed]:
        """Everything below `prefix`, by key."""
        return await self.run(lambda: sorted(self.objects.list(prefix), key=lambda listed: listed.key))

    async def manifest(self, backup_id: str) -> Manifest:
        """What the backup is.  Raises ConfigError: there is none; DamagedError."""
        key = MANIFESTS + backup_id
        try:
            content = await self.run(partial(self._get, Kind.MANIFEST, key, MANIFEST_BYTES_MAX))
        except MissingError:
            raise ConfigError(
                f"{self.name} has no backup {backup_id}: `pyjiva backup ls` shows them"
            ) from None
        manifest = Manifest.decode(content, f"{self.name}: {key}")
        if manifest.id != backup_id or manifest.chunk_bytes != self.chunk_bytes:
            raise DamagedError(f"{self.name}: {key}: it is that of another backup or store")
        return manifest

    async def manifests(self) -> tuple[list[Manifest], list[BackupError]]:
        """Those of all backups, the oldest first, and what is wrong with the rest.

        One that is removed meanwhile is left out.
        """
        found: list[Manifest] = []
        damaged: list[BackupError] = []
        for backup_id in await self.ids():
            try:
                found.append(await self.manifest(backup_id))
            except DamagedError as error:
                damaged.append(error)
            except ConfigError:
                continue
        found.sort(key=lambda manifest: (manifest.created, manifest.id))
        return found, damaged

    async def table(self, manifest: Manifest) -> ChunkTable:
        """The chunks of a backup.  Raises DamagedError, MissingError."""
        key = TABLES + manifest.id
        bytes_max = table_bytes_max(manifest.size_bytes, manifest.chunk_bytes)
        content = await self.run(partial(self._get, Kind.TABLE, key, bytes_max))
        table = ChunkTable.decode(content, f"{self.name}: {key}")
        if not is_whole(table, manifest):
            raise DamagedError(f"{self.name}: {key}: it is not the table that the manifest names")
        return table

    async def put_backup(self, manifest: Manifest, table: ChunkTable, guard: Callable[[], None]) -> None:
        """Make the backup be there.  All of its chunks must be stored before; `guard` has the last word."""
        assert is_whole(table, manifest)
        await self.run(partial(self._put, Kind.TABLE, TABLES + manifest.id, table.encode()))

        def put_manifest() -> None:
            guard()
            self._put(Kind.MANIFEST, MANIFESTS + manifest.id, manifest.encode())

        await self.run(put_manifest)

    async def delete_backup(self, backup_id: str) -> None:
        """Make the backup not be there any more; its chunks stay."""
        await self.delete(MANIFESTS + backup_id)
        await self.delete(TABLES + backup_id)

    # Checkpoints

    def checkpoint_key(self, *identity: str) -> str:
        """Where the checkpoint of a backup with this identity lies; without the key nobody can tell whose."""
        return UNFINISHED + self.keys.name_of("\n".join(identity).encode()).hex()

    async def put_checkpoint(self, key: str, checkpoint: Checkpoint) -> None:
        """Keep how far a backup has come."""
        await self.run(partial(self._put, Kind.CHECKPOINT, key, checkpoint.encode()))

    async def checkpoint(self, key: str) -> Checkpoint | None:
        """What was kept; None: nothing.  Raises DamagedError."""
        try:
            content = await self.run(partial(self._get, Kind.CHECKPOINT, key, CONTENT_BYTES_MAX + 8))
        except MissingError:
            return None
        return Checkpoint.decode(content, f"{self.name}: {key}")

    # Objects

    async def delete(self, key: str) -> None:
        """Remove an object; there may be none."""
        await self.run(partial(self.objects.delete, key))

    def _put(self, kind: Kind, key: str, content: bytes) -> int:
        wrapped = wrap(kind, key, content, self._cipher, os.urandom(NONCE_BYTES))
        self.objects.put(key, wrapped)
        return len(wrapped)

    def _get(self, kind: Kind, key: str, content_bytes_max: int) -> bytes:
        wrapped = self.objects.get(key)
        try:
            return unwrap(kind, key, wrapped, self._cipher, content_bytes_max)
        except DamagedError as error:
            raise DamagedError(f"{self.name}: {error}") from error

    @classmethod
    def of(cls, objects: Objects, configuration: Configuration, secret: bytes | None) -> Self:
        """The store at `objects`.  Raises ConfigError: it has another key."""
        keys = configuration.keys(secret, objects.name)
        return cls(objects, configuration, keys, _cipher_of(keys))


async def open_store(
    objects: Objects, secret: bytes | None, *, create: bool = False, chunk_bytes: int = CHUNK_BYTES
) -> BackupStore:
    """The store at `objects`; `create`: make it one if it is none, encrypted if there is a `secret`.

    Raises ConfigError: it is none, or has another key.
    """

    def configuration() -> Configuration:
        try:
            return Configuration.decode(objects.get(CONFIGURATION_KEY))
        except MissingError:
            if not create:
                raise ConfigError(
                    f"{objects.name} is not a store of backups: nothing was backed up there"
                ) from None
        made = Configuration.new(chunk_bytes=chunk_bytes, salt=os.urandom(SALT_BYTES), secret=secret)
        _cipher_of(made.keys(secret, objects.name))  # before anything is there that could not be read
        objects.put_new(CONFIGURATION_KEY, made.encode())
        return Configuration.decode(objects.get(CONFIGURATION_KEY))  # of two that create it, one has won

    return BackupStore.of(objects, await trio.to_thread.run_sync(configuration), secret)


def _cipher_of(keys: Keys) -> Cipher | None:
    if not keys.encrypts:
        return None
    try:
        from pyjiva.backup.encryption import AesGcm
    except ImportError as error:
        raise ConfigError(
            f"encryption needs more libraries: pip install 'pyjiva[backup]' ({error})"
        ) from error
    return AesGcm.of(keys.cipher)
