"""`pyjiva backup`: backups of snapshots in a directory or an S3 bucket."""

import click

from pyjiva.cli import backup_create, backup_ls, backup_restore, backup_rm, backup_verify

__all__ = ["command"]


@click.group("backup")
def command() -> None:
    """Back up snapshots of a volume, and bring them back.

    STORE is a directory, or s3://BUCKET/PREFIX.
    """


for _command in (
    backup_create.command,
    backup_ls.command,
    backup_restore.command,
    backup_verify.command,
    backup_rm.command,
):
    command.add_command(_command)
