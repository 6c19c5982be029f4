"""`pyjiva backup ls`: what is in a store."""

import json
from collections.abc import Sequence

import attrs
import click
from rich.table import Table
from rich.text import Text

from pyjiva.backup import Manifest
from pyjiva.cli.backup_options import StoreAddress, run_backup, store_options, warn
from pyjiva.cli.render import open_console
from pyjiva.units import format_size

__all__ = ["command"]

COLUMNS = ("backup", "volume", "snapshot", "made", "size", "data", "stored", "since")


@click.command("ls")
@store_options
@click.option("--volume", help="Only those of volumes of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def command(store: StoreAddress, volume: str | None, as_json: bool) -> None:
    """Show the backups in STORE, the oldest first.

    Exit code: 0 done, 1 a backup's manifest cannot be read, 2 STORE is none.
    """

    async def run() -> int:
        opened = await store.open()
        found, damaged = await opened.manifests()
        manifests = [manifest for manifest in found if volume in (None, manifest.volume)]
        if as_json:
            print(json.dumps([attrs.asdict(manifest) for manifest in manifests]))
        else:
            _show(manifests)
        for error in damaged:
            warn(str(error))
        return 1 if damaged else 0

    run_backup(run)


def _show(manifests: Sequence[Manifest]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for manifest in manifests:
        row = (
            manifest.id,
            manifest.volume,
            manifest.snapshot,
            manifest.created.partition(".")[0],
            format_size(manifest.size_bytes),
            format_size(manifest.chunks * manifest.chunk_bytes),
            format_size(manifest.stored_bytes),
            manifest.base,
        )
        table.add_row(*map(Text, row))
    open_console().print(table)
