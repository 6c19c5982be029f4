"""`pyjiva import`: look at a replica's directory of Longhorn or Jiva, serve it, or make it pyjiva's."""

import contextlib
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import click

from pyjiva.cli.access import AccessOptions, access_options, read_access
from pyjiva.cli.daemon import ADDRESS, Address, run_daemon
from pyjiva.cli.progress import progress_bar, refusals
from pyjiva.cli.render import open_console
from pyjiva.cli.render_foreign import render_foreign, report
from pyjiva.cli.serve_image import ServeOptions, identity_of, serve_image
from pyjiva.errors import ConfigError
from pyjiva.migration import (
    HEADER_BYTES,
    MARKER,
    ForeignReplica,
    Hinders,
    Upgrade,
    convert,
    describe,
    finish,
    first_state,
    look,
    open_image,
    open_image_file,
    open_read_only,
    parse_qcow2_header,
)
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.sparse import DataFile, SparseFile, open_directory

__all__ = ["command"]

EXIT_READ_ONLY: Final = 3
EXIT_NOT_TAKEN: Final = 4


@attrs.frozen(kw_only=True)
class ImportOptions:
    """What was asked for."""

    directory: Path
    as_json: bool
    serve: bool
    upgrade: bool
    snapshot: str
    backing_file: Path | None
    scratch: Path | None
    accept_dirty: bool
    name: str
    volume_id: str | None
    replica_id: int
    block_size_bytes: int
    portals: tuple[Address, ...]

    def __attrs_post_init__(self) -> None:
        if self.serve and self.upgrade:
            raise click.UsageError("--serve and --upgrade: give one of them")
        if self.as_json and (self.serve or self.upgrade):
            raise click.UsageError("--json says what the directory holds: without --serve and --upgrade")


@click.command("import")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
@click.option("--serve", is_flag=True, help="Serve it over iSCSI, for reading alone; change nothing.")
@click.option("--upgrade", is_flag=True, help="Make it a pyjiva replica, in place.")
@click.option("--snapshot", default="", help="With --serve: as of this snapshot.")
@click.option("--backing-file", type=click.Path(path_type=Path), help="Where the backing file is.")
@click.option(
    "--scratch", type=click.Path(path_type=Path), help="Where a qcow2 backing file is unpacked meanwhile."
)
@click.option("--accept-dirty", is_flag=True, help="Upgrade it although it was not closed.")
@click.option("--name", default="imported", show_default=True, help="Name of the volume.")
@click.option("--volume-id", help="With --upgrade: the volume's id.  [default: a new one]")
@click.option("--replica-id", type=click.IntRange(1), default=1, show_default=True, help="Its number.")
@click.option(
    "--block-size", "block_size_bytes", type=int, default=512, show_default=True, help="512 or 4096."
)
@click.option(
    "--portal",
    "portals",
    type=ADDRESS,
    multiple=True,
    default=["127.0.0.1:3260"],
    show_default=True,
    help="With --serve: iSCSI address; repeat for several.",
)
@access_options
def command(**given: Any) -> None:
    """Look at a replica's directory that Longhorn or Jiva wrote; serve it, or make it a pyjiva replica.

    Exit code: 0 done (without --serve and --upgrade: it can be upgraded), 2 it cannot be, 3 it can be served
    and not upgraded, 4 it cannot be taken.
    """
    access_fields = {field.name for field in attrs.fields(AccessOptions)}
    access = AccessOptions(**{name: given.pop(name) for name in access_fields})
    options = ImportOptions(**given)
    with refusals():
        if options.serve:
            sys.exit(_serve(options, access))
        if options.upgrade:
            _upgrade(options)
        else:
            sys.exit(_explain(options))


def _describe(path: Path) -> ForeignReplica:
    with contextlib.closing(open_read_only(path)) as directory:
        try:
            return describe(look(directory))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _explain(options: ImportOptions) -> int:
    replica = _describe(options.directory)
    if options.as_json:
        print(json.dumps(report(options.directory, replica), indent=2))
    else:
        render_foreign(options.directory, replica, open_console())
    if replica.can_be_upgraded(accept_dirty=options.accept_dirty):
        return 0
    return EXIT_READ_ONLY if replica.can_be_read else EXIT_NOT_TAKEN


def _refuse(options: ImportOptions, replica: ForeignReplica) -> NoReturn:
    first = next(each for each in replica.findings if each.hinders is not Hinders.NOTHING)
    raise ConfigError(f"{options.directory}: {first.text}; pyjiva import {options.directory} says all")


def _serve(options: ImportOptions, access: AccessOptions) -> int:
    replica = _describe(options.directory)
    if not replica.can_be_read:
        _refuse(options, replica)

    async def run() -> int:
        serve = ServeOptions(
            options.name, options.block_size_bytes, options.portals, read_access(access, warn=True)
        )
        with (
            _backing(options, replica) as backing,
            contextlib.closing(open_read_only(options.directory)) as directory,
            contextlib.closing(open_image(directory, replica, options.snapshot or HEAD, backing)) as image,
        ):
            return await serve_image(image, identity_of(options.directory), serve)

    return run_daemon("pyjiva import", run, directory=str(options.directory))


def _upgrade(options: ImportOptions) -> None:
    if _is_finished(options.directory):
        print(f"{options.directory}: is a pyjiva replica; nothing was left to do")
        return
    replica = _describe(options.directory)
    if not replica.can_be_upgraded(accept_dirty=options.accept_dirty):
        _refuse(options, replica)
    state = first_state(
        volume_id=options.volume_id or secrets.token_hex(16),
        replica_id=options.replica_id,
        volume_name=options.name,
        size_bytes=replica.size_bytes,
        block_size_bytes=options.block_size_bytes,
    )
    total_bytes = sum(layer.allocated_bytes for layer in replica.layers)
    with (
        _backing(options, replica) as backing,
        contextlib.closing(open_directory(options.directory)) as directory,
        progress_bar("upgrade", total_bytes) as progress,
    ):
        Upgrade(directory, replica, state, backing, progress).run()
    print(
        f"{options.directory}: is replica {state.replica_id} of volume {state.volume_name} now.  "
        f"Start it with\n"
        f"pyjiva-replica --volume {state.volume_name} --volume-id {state.volume_id} "
        f"--replica-id {state.replica_id} --directory {options.directory} --size {state.size_bytes} "
        f"--block-size {state.block_size_bytes} --key-file KEY"
    )


def _is_finished(path: Path) -> bool:
    """Whether the directory is pyjiva's; what an upgrade that was cut has left to do is done then."""
    with contextlib.closing(open_read_only(path)) as directory:
        names = directory.names()
    if STATE_FILE not in names:
        return False
    if MARKER in names:
        with contextlib.closing(open_directory(path)) as owned:
            finish(owned)
    return True


@contextlib.contextmanager
def _backing(options: ImportOptions, replica: ForeignReplica) -> Iterator[DataFile | None]:
    """What is below the lowest layer, as raw; None: nothing.

    A path that the directory names is not followed: it is that of another machine, or of a container.
    """
    if not replica.backing_file:
        if options.backing_file is not None:
            raise ConfigError(f"{options.directory}: has no backing file")
        yield None
        return
    path, file = _open_backing(options, replica)
    try:
        header = parse_qcow2_header(bytes(file.read(0, min(HEADER_BYTES, file.size_bytes()))))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    finally:
        file.close()
    with tempfile.TemporaryDirectory(prefix="pyjiva-import-", dir=options.scratch) as scratch:
        if header is not None:
            raw = Path(scratch) / "backing.raw"
            convert(path, "qcow2", raw, "raw")
            path = raw
        with contextlib.closing(open_image_file(path)) as opened:
            yield opened


def _open_backing(options: ImportOptions, replica: ForeignReplica) -> tuple[Path, SparseFile]:
    if options.backing_file is not None:
        return options.backing_file, open_image_file(options.backing_file)
    name = replica.backing_file
    if "/" not in name:
        with contextlib.closing(open_read_only(options.directory)) as directory:
            if name in directory.names():
                return options.directory / name, directory.open(name)
    raise ConfigError(
        f"{options.directory}: needs the backing file {name}: say where it is by --backing-file"
    )
