"""`pyjiva-controller`: one volume, offered over iSCSI and copied to its replicas.

The only place where the replicated volume, the device server and the iSCSI target meet: the volume *is* a
block device.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click
import structlog
import trio

from pyjiva.block import BlockDevice, LimitedDevice, Limits, MeteredDevice, Meters, TracedDevice, ZeroDetect
from pyjiva.block import Request as BlockRequest
from pyjiva.cli.access import FILES, Access, AccessOptions, access_options, read_access
from pyjiva.cli.backup_source import BACKUP_SCHEME, BackupSource
from pyjiva.cli.configuration import configurable
from pyjiva.cli.daemon import ADDRESS, SIZE, Address, read_key, run_daemon, wait_for_stop
from pyjiva.cli.fenced_file import note_fenced, was_fenced
from pyjiva.cli.fill import FillFrom, fill_options, take_fill
from pyjiva.cli.garbage import collect_seldom
from pyjiva.cli.limits import limit_options, take_limits
from pyjiva.cli.replica_address import REPLICA
from pyjiva.cli.schedule import schedule_options, take_schedule
from pyjiva.cli.service_manager import ServiceManager
from pyjiva.cli.tls_options import keep_tls, take_tls, tls_options
from pyjiva.cli.token_option import token_option
from pyjiva.cli.trace_options import TraceOptions, open_tracing, take_trace, trace_options
from pyjiva.cli.tuning import take_tuning, tuning_options
from pyjiva.controller import (
    ControllerOptions,
    HostLimits,
    ReplicaAddress,
    Retention,
    Snapshots,
    Volume,
    VolumeEnded,
    VolumeFenced,
    boot_clock,
)
from pyjiva.controller.api_io import ApiOf, serve_api
from pyjiva.controller.coalescing import CoalescingDevice
from pyjiva.controller.fill_source_io import SnapshotSource
from pyjiva.controller.filling_io import FillingDevice, FillSource
from pyjiva.controller.outages import Outages
from pyjiva.controller.volume_io import CONNECT_S, ConnectTo
from pyjiva.errors import ConfigError
from pyjiva.iscsi import (
    Target,
    TargetOptions,
    open_portal,
    portal_address,
    serve_portal,
)
from pyjiva.scsi import DeviceServer, LogicalUnit, TracedServer, UnitIdentity
from pyjiva.snapshot.window_sys import open_window
from pyjiva.transport import EndOfBatch, Stream
from pyjiva.transport.bearer import Token
from pyjiva.transport.shared_memory_sys import SharedBuffers
from pyjiva.transport.tls_stream_io import open_tls_stream
from pyjiva.transport.tls_sys import Tls
from pyjiva.transport.token_file_sys import read_token

if TYPE_CHECKING:
    from pyjiva.cli.tracing import Tracing

__all__ = ["main"]

IQN_PREFIX: Final = "iqn.2016-09.com.openebs.jiva:"
EXIT_FENCED: Final = 3
EXIT_UNSURE: Final = 5  # another process finds out how the volume is
REVIEW_SPACE_S: Final = 5.0  # as often as replicas look at their disks
TRIM_S: Final = 10.0  # memory of which hosts have had no use for so long is given back


@attrs.frozen
class Endpoints:
    """Where the controller is to be reached."""

    portals: tuple[Address, ...]
    api: Address
    token: Token | None
    """What requests to the API have to carry."""
    tls: Tls | None
    """To replicas, and for the API."""
    stop_with_stdin: bool
    trace: TraceOptions = attrs.field(factory=TraceOptions)


@attrs.frozen
class Keeping:
    """What is done with the volume's past, and with what hosts ask."""

    retention: Retention | None = None
    fill: FillFrom | None = None
    """Where a new volume has its content from."""
    detect_zeros: bool = False
    limits: Limits = attrs.field(factory=Limits)
    old_metric_names: bool = False


@configurable(
    "pyjiva-controller",
    command_line_only=("stop-with-stdin",),
    not_in_files=("new-volume",),
    same={option.removeprefix("--"): variable for option, variable, _ in FILES.values()},
)
@click.command()
@click.option("--volume", "volume_name", required=True, help="Name of the volume.")
@click.option("--volume-id", required=True, help="The volume's id: 32 hexadecimal digits.")
@click.option("--size", "size_bytes", type=SIZE, required=True, help="Size of the volume, such as 10GiB.")
@click.option("--block-size", "block_size_bytes", type=int, default=512, show_default=True, help="Bytes.")
@click.option("--replica", "replicas", type=REPLICA, multiple=True, required=True, help="A replica; repeat.")
@click.option("--witness", "witnesses", type=REPLICA, multiple=True, help="A witness; repeat.")
@click.option(
    "--portal",
    "portals",
    type=ADDRESS,
    multiple=True,
    default=["127.0.0.1:3260"],
    show_default=True,
    help="iSCSI address; repeat for several.",
)
@click.option("--api", type=ADDRESS, default="127.0.0.1:9501", show_default=True, help="HTTP API.")
@token_option
@tls_options
@access_options
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The volume's key.")
@tuning_options
@schedule_options
@fill_options
@limit_options
@trace_options
@click.option("--detect-zeros", is_flag=True, help="Blocks of zeros that are written take no space.")
@click.option("--old-metric-names", is_flag=True, help="Metrics openebs_* as OpenEBS' exporter had them.")
@click.option("--new-volume", is_flag=True, help="The volume has never held data: its replicas may be blank.")
@click.option(
    "--fenced-file",
    type=click.Path(path_type=Path),
    help="Made when another controller has taken the volume over; where it is, this one does not start.",
)
@click.option("--stop-with-stdin", is_flag=True, help="Stop when standard input ends.")
def main(
    volume_name: str,
    volume_id: str,
    size_bytes: int,
    block_size_bytes: int,
    replicas: tuple[ReplicaAddress, ...],
    witnesses: tuple[ReplicaAddress, ...],
    portals: tuple[Address, ...],
    api: Address,
    api_token_file: Path | None,
    key_file: Path,
    detect_zeros: bool,
    old_metric_names: bool,
    new_volume: bool,
    fenced_file: Path | None,
    stop_with_stdin: bool,
    **given: Any,
) -> None:
    """Serve one pyjiva volume over iSCSI."""

    async def run() -> int:
        if fenced_file is not None and was_fenced(fenced_file):
            return EXIT_FENCED
        options = ControllerOptions(
            volume_name=volume_name,
            volume_id=volume_id,
            size_bytes=size_bytes,
            block_size_bytes=block_size_bytes,
            replicas=(*replicas, *(attrs.evolve(witness, witness=True) for witness in witnesses)),
            key=read_key(key_file, warn=True),
            new_volume=new_volume,
            tuning=take_tuning(given),
        )
        keeping = Keeping(
            take_schedule(given), take_fill(given), detect_zeros, take_limits(given), old_metric_names
        )
        tls, trace = take_tls(given), take_trace(given)
        allowed = read_access(AccessOptions(**given), warn=True)
        token = None if api_token_file is None else read_token(api_token_file)
        endpoints = Endpoints(portals, api, token, tls, stop_with_stdin, trace)
        code = await _run(options, endpoints, allowed, keeping)
        if code == EXIT_FENCED and fenced_file is not None:
            note_fenced(fenced_file)
        return code

    sys.exit(run_daemon("pyjiva-controller", run, volume=volume_name))


async def _run(options: ControllerOptions, endpoints: Endpoints, access: Access, keeping: "Keeping") -> int:
    batch = EndOfBatch()
    of = {"pyjiva.volume": options.volume_name, "pyjiva.volume_id": options.volume_id}
    tracing = open_tracing(endpoints.trace, **of)
    memory = _shared_memory()
    volume = Volume(
        options,
        batch,
        None if endpoints.tls is None else _secure_links(endpoints.tls, batch),
        clock=boot_clock,
        clock_ns=time.perf_counter_ns,
        memory=memory,
        open_window=open_window,
        sampler=None if tracing is None else tracing.sampler,
    )
    try:
        return await Controller(options, endpoints, access, batch, volume, keeping, memory, tracing).run()
    finally:
        if tracing is not None:
            await tracing.close()


def _secure_links(tls: Tls, batch: EndOfBatch) -> ConnectTo:
    def connect(address: ReplicaAddress) -> AbstractAsyncContextManager[Stream]:
        return open_tls_stream(address.host, address.port, batch, CONNECT_S, tls.client)

    return connect


def _shared_memory() -> SharedBuffers | None:
    try:
        return SharedBuffers()
    except OSError as error:
        structlog.get_logger(__name__).warning(
            "no memory is shared with replicas on this machine", reason=error.strerror or str(error)
        )
        return None


def _source_of(fill: FillFrom) -> FillSource:
    """Raises ConfigError: it is no URL of a source, or its token or certificates cannot be read."""
    if fill.url.startswith(BACKUP_SCHEME):
        return BackupSource(fill.url)
    return SnapshotSource(fill.url, fill.token(), fill.tls())


async def _loop_answers() -> bool:
    """A controller has no disk of its own: that its event loop gets here is all that there is to see."""
    await trio.lowlevel.checkpoint()
    return True


async def _trim(memory: SharedBuffers) -> None:
    while True:
        await trio.sleep(TRIM_S)
        memory.trim()


async def _review_space(unit: LogicalUnit) -> None:
    while True:
        unit.review_space()
        await trio.sleep(REVIEW_SPACE_S)


@attrs.define(eq=False)
class Controller:
    """The process: a volume, and from the moment when it is ready a target that offers it.

    A command taken by a controller that has no epoch yet could be done after its successor's; and what the
    unit keeps is known only when a majority of the replicas was heard.
    """

    options: ControllerOptions
    endpoints: Endpoints
    access: Access
    batch: EndOfBatch
    volume: Volume
    keeping: Keeping
    memory: SharedBuffers | None
    """Where what hosts write is received, for replicas on this machine to reach it."""
    tracing: "Tracing | None"
    """What is told of all that happens; None: nothing."""
    snapshots: Snapshots = attrs.field(init=False)
    limits: HostLimits = attrs.field(init=False)
    meters: Meters = attrs.field(factory=partial(Meters, time.perf_counter_ns), init=False)
    """Of what the target asks of the volume."""
    target: Target | None = None
    portals: list[str] = attrs.field(factory=list)
    code: int = 0
    """What to end with."""
    manager: ServiceManager = attrs.field(factory=ServiceManager.of, init=False)

    def __attrs_post_init__(self) -> None:
        self.snapshots = Snapshots(self.volume, self._why_no_revert)
        self.limits = HostLimits(self.keeping.limits, self.batch)
        if self.tracing is not None:
            self.volume.on_look = Outages(self.tracing.outage, time.time()).look
            self.volume.operations.on_ended = self.tracing.operation
            self.snapshots.trace_context = self.tracing.context

    def _why_no_revert(self) -> str:
        names = sorted({str(session["initiator"]) for session in self._sessions()})
        return f"logged in, log out first: {', '.join(names)}" if names else ""

    @property
    def iqn(self) -> str:
        """The target's name."""
        return IQN_PREFIX + self.options.volume_name

    async def run(self) -> int:
        """Run until it is told to stop, or the volume has ended; the exit code."""
        # Ports first: a busy one must be known before anything is promised.
        listeners = [await self._listen(portal) for portal in self.endpoints.portals]
        try:
            await self._run(listeners)
        finally:
            for listener in (each for portal in listeners for each in portal):
                listener.socket.close()
        return self.code

    async def _run(self, listeners: list[list[trio.SocketListener]]) -> None:
        async with trio.open_nursery() as nursery:
            api_port = await nursery.start(self._serve_api)
            await nursery.start(self._run_volume, nursery.cancel_scope)
            nursery.start_soon(self.manager.keep_status, self._status)
            nursery.start_soon(self.manager.keep_watchdog, _loop_answers)
            nursery.start_soon(keep_tls, self.endpoints.tls)
            nursery.start_soon(self._serve, listeners, Address(self.endpoints.api.host, api_port))
            await wait_for_stop(stop_with_stdin=self.endpoints.stop_with_stdin)
            await self.manager.stopping()
            if self.target is not None:
                await self.target.shut_down()
            await self.volume.stop()
            nursery.cancel_scope.cancel()

    async def _listen(self, portal: Address) -> list[trio.SocketListener]:
        try:
            listeners = await open_portal(portal.host, portal.port)
        except OSError as error:
            raise ConfigError(f"cannot listen on {portal}: {error.strerror or error}") from error
        self.portals.append(str(Address(*portal_address(listeners))))
        return listeners

    async def _run_volume(self, scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self.volume.run(task_status=task_status)
        except VolumeEnded as error:
            self.code = EXIT_FENCED if isinstance(error, VolumeFenced) else EXIT_UNSURE
            await self.manager.status(f"ended: {error}")
            scope.cancel()

    async def _serve(self, portals: list[list[trio.SocketListener]], api: Address) -> None:
        """Wait until the volume takes I/O, then offer it."""
        await self.volume.ready.wait()
        async with trio.open_nursery() as nursery:
            device = await self._open_device(nursery)
            if self.keeping.detect_zeros:
                device = ZeroDetect(device)
            nursery.start_soon(self.limits.run)
            device = self._traced(device, lambda _: "what the volume is filled with")
            device = self._traced(LimitedDevice(device, self.limits.limiter), lambda _: "the volume's limits")
            await self._offer(MeteredDevice(device, self.meters), portals, api)

    def _traced(self, device: BlockDevice, waits_for: Callable[[BlockRequest], str]) -> BlockDevice:
        return device if self.tracing is None else TracedDevice(device, self.tracing.sampler, waits_for)

    async def _open_device(self, nursery: trio.Nursery) -> BlockDevice:
        """The volume, or what makes it complete while it is filled."""
        fill = self.keeping.fill
        if fill is None:
            if self.volume.past.lineage.filling is not None:
                raise ConfigError("the volume is not filled yet: give --fill-from as at its first start")
            return self._traced(CoalescingDevice(self.volume, self.batch), self.volume.waits_for)
        filling = FillingDevice(self.volume, self.snapshots, _source_of(fill), fill.rate)
        nursery.start_soon(filling.run)
        await filling.ready.wait()
        return CoalescingDevice(filling, self.batch)

    async def _offer(
        self, device: BlockDevice, portals: list[list[trio.SocketListener]], api: Address
    ) -> None:
        options = self.options
        identity = UnitIdentity(options.volume_id)
        unit = LogicalUnit(
            device,
            identity,
            options.block_size_bytes,
            store=self.volume,
            read_only=self.access.read_only,
            space_source=self.volume,
        )
        access = self.access
        target_options = TargetOptions(
            target_name=self.iqn,
            initiators=access.initiators,
            chap=access.chap,
            discovery_chap=access.discovery_chap,
            advertised=access.advertised,
        )
        self.volume.on_resized = unit.capacity_changed
        server = DeviceServer if self.tracing is None else partial(TracedServer, sampler=self.tracing.sampler)
        self.target = Target(target_options, {0: unit}, self.batch, buffers=self.memory, make_server=server)
        async with trio.open_nursery() as nursery:
            for listeners in portals:
                nursery.start_soon(serve_portal, self.target, listeners)
            nursery.start_soon(_review_space, unit)
            if self.memory is not None:
                nursery.start_soon(_trim, self.memory)
            if self.keeping.retention is not None:
                nursery.start_soon(self.snapshots.keep_schedule, self.keeping.retention)
            collect_seldom()
            print(
                f"ready volume={options.volume_name} iqn={self.iqn} portal={self.portals[0]} lun=0 "
                f"api=http://{api} replicas={len(options.replicas)}",
                flush=True,
            )
            await self.manager.ready()

    def _status(self) -> str:
        """The volume's state in words, for people."""
        status = self.volume.status()
        return f"{status.state.value}: {status.reason}" if status.reason else status.state.value

    async def _serve_api(self, task_status: trio.TaskStatus[int]) -> None:
        of = ApiOf(
            volume=self.volume,
            snapshots=self.snapshots,
            iqn=self.iqn,
            portals=lambda: self.portals,
            sessions=self._sessions,
            limiter=self.limits.limiter,
            meters=self.meters,
            old_metric_names=self.keeping.old_metric_names,
        )
        api, token, tls = self.endpoints.api, self.endpoints.token, self.endpoints.tls
        around = None if self.tracing is None else self.tracing.around
        await serve_api(of, api.host, api.port, token=token, tls=tls, around=around, task_status=task_status)

    def _sessions(self) -> list[dict[str, Any]]:
        now = time.time()
        return [
            {
                "initiator": session.initiator_name,
                "address": session.initiator_address,
                "isid": session.isid,
                "tsih": session.tsih,
                "connected_s": round(max(0.0, now - session.started_at), 1),
            }
            for session in (self.target.sessions() if self.target is not None else ())
            if session.session_type == "normal"
        ]


if __name__ == "__main__":
    main()
