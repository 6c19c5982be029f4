"""`pyjiva export`: what a replica's directory holds, as an image or as a directory of Longhorn's."""

import contextlib
import sys
from pathlib import Path
from typing import Final

import click

from pyjiva.cli.progress import progress_bar, refusals
from pyjiva.errors import ConfigError
from pyjiva.extent import Extent
from pyjiva.migration import CheckedReader, LonghornExport, exported_chain, open_replica, write_image
from pyjiva.snapshot import Store
from pyjiva.snapshot.chain import HEAD
from pyjiva.sparse import open_directory

__all__ = ["command"]

EXIT_ROTTEN: Final = 5
SHOWN_MAX: Final = 10


@click.command("export")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--snapshot", default="head", show_default=True, help="As of this snapshot.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["raw", "qcow2", "longhorn"]),
    default="raw",
    show_default=True,
    help="A sparse file, a QEMU image, or a replica's directory of Longhorn.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="What is to be made.")
@click.option("--despite-rot", is_flag=True, help="Take blocks that are not what was written, and name them.")
def command(directory: Path, snapshot: str, form: str, output: Path, despite_rot: bool) -> None:
    """Write what a replica's directory holds, which no process serves, to a new file or directory.

    Exit code: 0 done, 2 it cannot be, 5 done, and some blocks are not what was written (--despite-rot).
    """
    reader = CheckedReader(despite_rot)
    with refusals(), contextlib.closing(open_replica(directory)) as store:
        if doubt := _doubt(store):
            print(f"pyjiva: {directory}: {doubt}: another replica may have more", file=sys.stderr)
        name = HEAD if snapshot == "head" and "head" not in store.chain else snapshot
        if form == "longhorn":
            _export_directory(store, name, output, reader)
        else:
            source = store.view(name)
            total_bytes = sum(part.length_bytes for part in source.allocated(Extent(0, store.size_bytes)))
            with progress_bar("export", total_bytes) as progress:
                write_image(store, name, output, qcow2=form == "qcow2", reader=reader, progress=progress)
    if reader.rotten:
        shown = ", ".join(str(extent) for extent in reader.rotten[:SHOWN_MAX])
        more = f" and {len(reader.rotten) - SHOWN_MAX} more" if len(reader.rotten) > SHOWN_MAX else ""
        print(f"pyjiva: not what was written: {shown}{more}", file=sys.stderr)
        sys.exit(EXIT_ROTTEN)


def _doubt(store: Store) -> str:
    """Why this copy may lack writes that were answered, as far as it knows; "" if it knows of nothing."""
    record = store.state.record
    if record is not None and store.state.replica_id not in record.in_sync:
        return "was not in sync when it last heard of it"
    return "" if store.intact else "its machine went down with writes not yet flushed"


def _export_directory(store: Store, name: str, output: Path, reader: CheckedReader) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output}: is there already; give a new directory")
    exported_chain(store.chain, name, store.size_bytes)  # before anything is made
    with (
        contextlib.closing(open_directory(output)) as target,
        progress_bar("export", None) as progress,
    ):
        LonghornExport(store, name, target, reader, progress).run()
