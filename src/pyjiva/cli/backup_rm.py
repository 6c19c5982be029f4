"""`pyjiva backup rm`: backups out of a store, and the space back."""

import click

from pyjiva.backup.collect_io import collect
from pyjiva.backup.lock_io import BusyError
from pyjiva.cli.backup_options import BACKUP, StoreAddress, run_backup, store_options, warn
from pyjiva.errors import ConfigError
from pyjiva.units import format_size

__all__ = ["command"]


@click.command("rm")
@store_options
@click.argument("backups", type=BACKUP, nargs=-1, metavar="[BACKUP]...")
def command(store: StoreAddress, backups: tuple[str, ...]) -> None:
    """Remove BACKUPs from STORE, and all that no other one needs; without BACKUP, only the latter.

    Other backups are not touched: none depends on another one.
    Exit code: 0 done, 1 it failed, 2 it cannot be.
    """

    async def run() -> int:
        opened = await store.open()
        present = set(await opened.ids())
        for backup in backups:
            if backup not in present:
                raise ConfigError(f"{opened.name} has no backup {backup}: `pyjiva backup ls` shows them")
        for backup in backups:
            await opened.delete_backup(backup)
        try:
            collected = await collect(opened)
        except BusyError as error:
            warn(f"{error}; the next `pyjiva backup rm` gives the space back")
            print(f"{len(backups)} backups removed")
            return 0
        print(
            f"{len(backups)} backups removed, {collected.chunks} chunks with "
            f"{format_size(collected.freed_bytes)} given back"
        )
        return 0

    run_backup(run)
