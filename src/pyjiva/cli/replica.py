"""`pyjiva-replica`: one copy of one volume, in one directory."""

import pyjiva.cli.plain_logs  # noqa: F401  # isort: skip - it must come before structlog

import contextlib
import functools
import math
import resource
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import click
import structlog
import trio

from pyjiva.block import BlockStatus
from pyjiva.cli.configuration import configurable
from pyjiva.cli.daemon import ADDRESS, SIZE, Address, StopCause, read_key, run_daemon, wait_for_stop
from pyjiva.cli.garbage import collect_seldom
from pyjiva.cli.service_manager import ServiceManager
from pyjiva.cli.tls_options import keep_tls, take_tls, tls_options
from pyjiva.cli.token_option import token_option
from pyjiva.errors import ConfigError
from pyjiva.replica import ReplicaDaemon, ReplicaOptions
from pyjiva.replica.health_io import serve_health
from pyjiva.snapshot import ChainDevice, Store
from pyjiva.transport import EndOfBatch
from pyjiva.transport.bearer import Token
from pyjiva.transport.tls_sys import Tls
from pyjiva.transport.token_file_sys import check_reach, read_token

__all__ = ["main"]

_log = structlog.get_logger(__name__)

EXIT_BROKEN: Final = 4  # its disk failed a flush: another process finds out what is there
OPEN_FILES: Final = 32768  # for 10,000 snapshots, and what else is open
LEAVE_S: Final = 10.0  # as long as a controller may take to stop


@attrs.frozen
class Endpoints:
    """Where the replica is to be reached."""

    data: Address
    health: Address
    token: Token | None
    """What requests to the health port have to carry."""
    tls: Tls | None
    stop_with_stdin: bool


@configurable("pyjiva-replica", command_line_only=("stop-with-stdin",))
@click.command()
@click.option("--volume", "volume_name", required=True, help="Name of the volume.")
@click.option("--volume-id", required=True, help="The volume's id: 32 hexadecimal digits.")
@click.option("--replica-id", type=int, required=True, help="This replica's number, from 1.")
@click.option("--directory", type=click.Path(path_type=Path), required=True, help="Where the data is.")
@click.option("--size", "size_bytes", type=SIZE, required=True, help="Size of the volume, such as 10GiB.")
@click.option(
    "--block-size", "block_size_bytes", type=int, default=512, show_default=True, help="512 or 4096."
)
@click.option("--data", type=ADDRESS, default="127.0.0.1:9502", show_default=True, help="Data port.")
@click.option("--health", type=ADDRESS, default="127.0.0.1:9503", show_default=True, help="Metrics port.")
@token_option
@tls_options
@click.option("--witness", is_flag=True, help="Hold no data: vote, so that two replicas need no third.")
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The volume's key.")
@click.option("--stop-with-stdin", is_flag=True, help="Stop when standard input ends.")
def main(
    volume_name: str,
    volume_id: str,
    replica_id: int,
    directory: Path,
    size_bytes: int,
    block_size_bytes: int,
    data: Address,
    health: Address,
    api_token_file: Path | None,
    witness: bool,
    key_file: Path,
    stop_with_stdin: bool,
    **given: Any,
) -> None:
    """Serve one replica of a pyjiva volume."""

    async def run() -> int:
        options = ReplicaOptions(
            volume_name=volume_name,
            volume_id=volume_id,
            replica_id=replica_id,
            directory=directory,
            size_bytes=size_bytes,
            block_size_bytes=block_size_bytes,
            key=read_key(key_file, warn=True),
            witness=witness,
        )
        token = None if api_token_file is None else read_token(api_token_file)
        tls = take_tls(given)
        if tls is None:
            check_reach(health.host, token)  # now: a directory that was made would be left behind
        return await _run(options, Endpoints(data, health, token, tls, stop_with_stdin))

    sys.exit(run_daemon("pyjiva-replica", run, volume=volume_name, id=replica_id))


def _allow_many_files() -> None:
    """A snapshot keeps three files open: as many as ten thousand of them need, or as the system lets this
    process have.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, OPEN_FILES)
    with contextlib.suppress(ValueError):  # only root may have more than the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(options: ReplicaOptions, at: Endpoints) -> int:
    _allow_many_files()
    manager = ServiceManager.of()
    store = Store.open_or_create(
        options.directory,
        volume_id=options.volume_id,
        replica_id=options.replica_id,
        volume_name=options.volume_name,
        size_bytes=options.size_bytes,
        block_size_bytes=options.block_size_bytes,
        witness=options.witness,
    )
    try:
        batch = EndOfBatch()
        device = ChainDevice(store, batch)
        daemon = ReplicaDaemon(store, device, options.key, batch, tls=at.tls)
        async with trio.open_nursery() as nursery:
            await _listen(nursery, daemon, at.data)
            serve = functools.partial(serve_health, token=at.token, tls=at.tls)
            nursery.start_soon(serve, daemon, device, at.health.host, at.health.port)
            nursery.start_soon(_end_when_broken, daemon, manager, nursery.cancel_scope)
            longest_s = manager.watchdog_s or math.inf
            answers = functools.partial(_disk_answers, device, batch, longest_s)
            nursery.start_soon(manager.keep_watchdog, answers)
            nursery.start_soon(keep_tls, at.tls)
            nursery.start_soon(manager.keep_status, functools.partial(_status, daemon))
            collect_seldom()
            await manager.ready()
            cause = await wait_for_stop(stop_with_stdin=at.stop_with_stdin)
            await manager.stopping()
            if cause is StopCause.ORPHANED:
                await _wait_for_controller_to_leave(daemon)
            await daemon.stop()
            nursery.cancel_scope.cancel()
        return 0 if store.broken is None else EXIT_BROKEN
    finally:
        store.close()


def _status(daemon: ReplicaDaemon) -> str:
    """For people."""
    said = daemon.statistics()
    if not said.attached:
        return "no controller is connected"
    return "in sync" if said.in_sync else "connected, not in sync"


async def _disk_answers(device: ChainDevice, batch: EndOfBatch, longest_s: float) -> bool:
    """Whether the threads that use the disk answer, and none has been in one call for `longest_s`.

    Waits for as long as none answers.
    """
    if device.oldest_operation_s() >= longest_s:
        return False
    answered = trio.Event()
    # A map takes the way of every request that may wait for the disk, and neither reads nor changes data.
    device.submit(BlockStatus(0, device.store.state.block_size_bytes, lambda _: answered.set()))
    batch.end()
    await answered.wait()
    return True


async def _end_when_broken(daemon: ReplicaDaemon, manager: ServiceManager, scope: trio.CancelScope) -> None:
    error = await daemon.wait_broken()
    await manager.status(f"ended: its disk failed to flush: {error}")
    _log.error("the replica ends: what its disk failed to flush is for its next start", reason=str(error))
    scope.cancel()


async def _wait_for_controller_to_leave(daemon: ReplicaDaemon) -> None:
    """Let a controller that stops at the same moment commit its clean record first."""
    with trio.move_on_after(LEAVE_S):
        while daemon.statistics().attached:
            await trio.sleep(LEAVE_S / 100)


async def _listen(nursery: trio.Nursery, daemon: ReplicaDaemon, data: Address) -> None:
    try:
        await nursery.start(daemon.serve, data.host, data.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {data}: {error.strerror or error}") from error


if __name__ == "__main__":
    main()
