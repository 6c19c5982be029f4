"""`pyjiva backup create`: a snapshot into a store."""

import json
from pathlib import Path

import attrs
import click

from pyjiva.backup import Manifest, SnapshotSource
from pyjiva.backup.api_source_io import open_api_source
from pyjiva.backup.configuration import CHUNK_BYTES
from pyjiva.backup.create_io import CreateOptions, create_backup
from pyjiva.backup.directory_source_io import DirectorySource, open_replica
from pyjiva.cli.api import ApiAddress, api_option
from pyjiva.cli.backup_options import Reporter, StoreAddress, rate_option, run_backup, store_options
from pyjiva.cli.daemon import SIZE
from pyjiva.errors import ConfigError
from pyjiva.units import format_size

__all__ = ["command"]


@click.command("create")
@store_options
@click.argument("snapshot")
@api_option
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Read this replica's directory, which no daemon serves, instead of asking the API.",
)
@rate_option
@click.option(
    "--chunk-size",
    type=SIZE,
    help=f"Of a store that is made; a power of two.  [default: {format_size(CHUNK_BYTES)}]",
)
@click.option("--full", is_flag=True, help="Read all that is allocated, not only what has changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the backup as JSON.")
def command(
    store: StoreAddress,
    snapshot: str,
    api: ApiAddress,
    directory: Path | None,
    rate: int | None,
    chunk_size: int | None,
    full: bool,
    as_json: bool,
) -> None:
    """Back up SNAPSHOT into STORE, which is made if it is not there.

    What has not changed since the newest backup of an older snapshot is neither read nor stored again.
    Exit code: 0 done, 1 it failed (the same command goes on from there), 2 it cannot be.
    """

    async def run() -> int:
        if directory is not None:
            with open_replica(directory) as replica:
                return await _create(
                    store, DirectorySource.of(replica, snapshot), options, chunk_size, as_json
                )
        async with open_api_source(api.url, snapshot, api.token) as source:
            return await _create(store, source, options, chunk_size, as_json)

    options = CreateOptions(full=full, rate=rate)
    run_backup(run)


async def _create(
    store: StoreAddress,
    source: SnapshotSource,
    options: CreateOptions,
    chunk_bytes: int | None,
    as_json: bool,
) -> int:
    opened = await store.open(create=True, chunk_bytes=chunk_bytes or CHUNK_BYTES)
    if chunk_bytes is not None and chunk_bytes != opened.chunk_bytes:
        raise ConfigError(
            f"{opened.name} was made with chunks of {format_size(opened.chunk_bytes)}, not of "
            f"{format_size(chunk_bytes)}: leave --chunk-size out, or take another store"
        )
    with Reporter("backup") as reporter:
        manifest = await create_backup(opened, source, options, reporter, reporter.wait)
    print(json.dumps(attrs.asdict(manifest)) if as_json else _line(manifest))
    return 0


def _line(manifest: Manifest) -> str:
    return (
        f"{manifest.id}  {manifest.volume}@{manifest.snapshot}  "
        f"{format_size(manifest.read_bytes)} read, {format_size(manifest.stored_bytes)} stored"
    )
