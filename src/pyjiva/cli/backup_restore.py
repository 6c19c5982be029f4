"""`pyjiva backup restore`: a backup into a file, a block device, or the directory of a new replica."""

import secrets
from pathlib import Path

import click

from pyjiva.backup import RestoreTarget
from pyjiva.backup.restore_io import OpenBackup, open_backup, restore
from pyjiva.backup.target_io import file_target, interrupted_volume_id, replica_target
from pyjiva.cli.backup_options import BACKUP, Reporter, StoreAddress, rate_option, run_backup, store_options

__all__ = ["command"]


@click.command("restore")
@store_options
@click.argument("backup", type=BACKUP)
@click.option("--to", type=click.Path(path_type=Path), help="A file, or a block device.")
@click.option("--to-directory", type=click.Path(path_type=Path), help="The directory of a new replica.")
@click.option("--overwrite", is_flag=True, help="With --to: replace the file, or all of the device.")
@click.option("--volume", "volume_name", help="With --to-directory: the volume's name; else as it was.")
@click.option("--volume-id", help="With --to-directory: 32 hexadecimal digits; else a new id.")
@click.option(
    "--replica-id",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --to-directory: the replica's number.",
)
@rate_option
def command(
    store: StoreAddress,
    backup: str,
    to: Path | None,
    to_directory: Path | None,
    overwrite: bool,
    volume_name: str | None,
    volume_id: str | None,
    replica_id: int,
    rate: int | None,
) -> None:
    """Bring back BACKUP from STORE.  It is compared with its hashes, also once more when all is written.

    Exit code: 0 done, 1 it failed (the same command goes on from there), 2 it cannot be.
    """
    if (to is None) == (to_directory is None):
        raise click.UsageError("give one of --to and --to-directory")
    if volume_id is not None and not _is_volume_id(volume_id):
        raise click.UsageError(f"--volume-id {volume_id}: 32 hexadecimal digits, in small letters")
    if to is None and overwrite:
        raise click.UsageError("--overwrite is of use with --to: a replica's directory is never overwritten")

    async def run() -> int:
        opened = await open_backup(await store.open(), backup)
        manifest = opened.manifest
        if to is not None:
            async with file_target(to, manifest.size_bytes, overwrite=overwrite) as target:
                await _restore(opened, target, rate)
            print(f"{to}  {manifest.volume}@{manifest.snapshot}")
            return 0
        assert to_directory is not None
        identity = volume_id or interrupted_volume_id(to_directory) or secrets.token_hex(16)
        name = volume_name or manifest.volume
        async with replica_target(
            to_directory,
            volume_id=identity,
            replica_id=replica_id,
            volume_name=name,
            size_bytes=manifest.size_bytes,
            block_size_bytes=manifest.block_size_bytes,
        ) as target:
            await _restore(opened, target, rate)
        print(
            f"{to_directory}  {manifest.volume}@{manifest.snapshot}: pyjiva-replica --volume {name} "
            f"--volume-id {identity} --replica-id {replica_id} --size {manifest.size_bytes} --block-size "
            f"{manifest.block_size_bytes} --directory {to_directory}"
        )
        return 0

    run_backup(run)


async def _restore(opened: OpenBackup, target: RestoreTarget, rate: int | None) -> None:
    with Reporter("restore") as reporter:
        await restore(opened, target, rate=rate, report=reporter)


def _is_volume_id(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
