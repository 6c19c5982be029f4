"""A backup as the source of a new volume: it takes I/O at once, and is restored meanwhile."""

import os
from pathlib import Path
from typing import Final

import attrs

from pyjiva.backup.restore_io import OpenBackup, open_backup
from pyjiva.cli.backup_options import StoreAddress
from pyjiva.controller.filling_io import SourceLost
from pyjiva.errors import BackupError, ConfigError, StorageError
from pyjiva.extent import Extent

__all__ = ["BACKUP_SCHEME", "BackupSource"]

BACKUP_SCHEME: Final = "backup:"


@attrs.define(eq=False)
class BackupSource:
    """The backup at `url`: backup:STORE#BACKUP.

    The key of an encrypted store and the server of one in S3 come from the environment, as for
    `pyjiva backup`.  Raises ConfigError: it is no such URL.
    """

    url: str
    _opened: OpenBackup | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        store, hash_, backup = self.url.removeprefix(BACKUP_SCHEME).rpartition("#")
        if not self.url.startswith(BACKUP_SCHEME) or not hash_ or not store or not backup:
            raise ConfigError(f"{self.url!r}: write backup:STORE#BACKUP")

    async def _open(self) -> OpenBackup:
        if self._opened is None:
            store, _, backup = self.url.removeprefix(BACKUP_SCHEME).rpartition("#")
            key_file = os.environ.get("PYJIVA_BACKUP_KEY_FILE")
            address = StoreAddress(
                store, None if key_file is None else Path(key_file), os.environ.get("PYJIVA_S3_ENDPOINT")
            )
            try:
                self._opened = await open_backup(await address.open(), backup)
            except (BackupError, StorageError) as error:
                raise SourceLost(str(error)) from error
        return self._opened

    async def size_bytes(self) -> int:
        """Part of FillSource."""
        return (await self._open()).manifest.size_bytes

    async def extents(self) -> list[Extent]:
        """Part of FillSource."""
        opened = await self._open()
        held, position = [], 0
        for hole in opened.table.holes():
            if hole.offset_bytes > position:
                held.append(Extent(position, hole.offset_bytes - position))
            position = hole.end_bytes
        if position < opened.manifest.size_bytes:
            held.append(Extent(position, opened.manifest.size_bytes - position))
        return held

    async def read(self, extent: Extent) -> bytes:
        """Part of FillSource."""
        opened = await self._open()
        try:
            return await opened.read(extent)
        except (BackupError, StorageError) as error:
            raise SourceLost(str(error)) from error
