"""`pyjiva-controller`: one volume, offered over iSCSI and copied to its replicas.

The only place where the replicated volume, the device server and the iSCSI target meet: the volume *is* a
block device.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import click
import trio

from pyjiva.cli.daemon import ADDRESS, SIZE, Address, read_key, run_daemon, wait_for_stop
from pyjiva.controller import ControllerOptions, ReplicaAddress, Volume, VolumeFenced
from pyjiva.controller.api_io import serve_api
from pyjiva.errors import ConfigError
from pyjiva.iscsi import Target, TargetOptions, serve_portal
from pyjiva.scsi import LogicalUnit, UnitIdentity
from pyjiva.transport import EndOfBatch

__all__ = ["main"]

IQN_PREFIX: Final = "iqn.2016-09.com.openebs.jiva:"
EXIT_FENCED: Final = 3


@attrs.frozen
class Endpoints:
    """Where the controller is to be reached."""

    portals: tuple[Address, ...]
    api: Address
    stop_with_stdin: bool


class _ReplicaType(click.ParamType[ReplicaAddress]):
    name = "id=host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReplicaAddress:
        if isinstance(value, ReplicaAddress):
            return value
        number, equals, text = value.partition("=")
        if not equals or not number.isascii() or not number.isdigit():
            self.fail(f"{value!r}: write ID=HOST:PORT, such as 1=10.0.0.1:9502", param, ctx)
        try:
            address = Address.parse(text)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return ReplicaAddress(int(number), address.host, address.port)


@click.command()
@click.option("--volume", "volume_name", required=True, help="Name of the volume.")
@click.option("--volume-id", required=True, help="The volume's id: 32 hexadecimal digits.")
@click.option("--size", "size_bytes", type=SIZE, required=True, help="Size of the volume, such as 10GiB.")
@click.option("--block-size", "block_size_bytes", type=int, default=512, show_default=True, help="Bytes.")
@click.option(
    "--replica", "replicas", type=_ReplicaType(), multiple=True, required=True, help="A replica; repeat."
)
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
@click.option("--key-file", type=click.Path(path_type=Path), required=True, help="The volume's key.")
@click.option("--new-volume", is_flag=True, help="The volume has never held data: its replicas may be blank.")
@click.option("--stop-with-stdin", is_flag=True, help="Stop when standard input ends.")
def main(
    volume_name: str,
    volume_id: str,
    size_bytes: int,
    block_size_bytes: int,
    replicas: tuple[ReplicaAddress, ...],
    portals: tuple[Address, ...],
    api: Address,
    key_file: Path,
    new_volume: bool,
    stop_with_stdin: bool,
) -> None:
    """Serve one pyjiva volume over iSCSI."""

    async def run() -> int:
        options = ControllerOptions(
            volume_name=volume_name,
            volume_id=volume_id,
            size_bytes=size_bytes,
            block_size_bytes=block_size_bytes,
            replicas=replicas,
            key=read_key(key_file),
            new_volume=new_volume,
        )
        return await _run(options, Endpoints(portals, api, stop_with_stdin))

    sys.exit(run_daemon("pyjiva-controller", run, volume=volume_name))


async def _run(options: ControllerOptions, endpoints: Endpoints) -> int:
    batch = EndOfBatch()
    volume = Volume(options, batch)
    unit = LogicalUnit(volume, UnitIdentity(options.volume_id), options.block_size_bytes)
    iqn = IQN_PREFIX + options.volume_name
    target = Target(TargetOptions(target_name=iqn), units={0: unit}, batch=batch)
    fenced = False

    async def run_volume(task_status: trio.TaskStatus[None]) -> None:
        nonlocal fenced
        try:
            await volume.run(task_status=task_status)
        except VolumeFenced:
            fenced = True
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        # Ports first: a busy one must be known before anything is promised.  They open when the volume is
        # ready: a command taken by one that has no epoch yet could be done after its successor's.
        portals = [await _listen(nursery, target, portal, volume.ready) for portal in endpoints.portals]
        api_port = await nursery.start(_serve_api, volume, target, iqn, portals, endpoints.api)
        await nursery.start(run_volume)
        nursery.start_soon(
            _say_ready, options, volume, iqn, portals[0], Address(endpoints.api.host, api_port)
        )
        await wait_for_stop(stop_with_stdin=endpoints.stop_with_stdin)
        await target.shut_down()
        await volume.stop()
        nursery.cancel_scope.cancel()
    return EXIT_FENCED if fenced else 0


async def _listen(nursery: trio.Nursery, target: Target, portal: Address, opens: trio.Event) -> Address:
    serve = partial(serve_portal, target, portal.host, portal.port, opens=opens)
    try:
        host, port = await nursery.start(serve)
    except OSError as error:
        raise ConfigError(f"cannot listen on {portal}: {error.strerror or error}") from error
    return Address(host, port)


async def _serve_api(
    volume: Volume,
    target: Target,
    iqn: str,
    portals: list[Address],
    api: Address,
    task_status: trio.TaskStatus[int],
) -> None:
    def sessions() -> list[dict[str, Any]]:
        now = time.time()
        return [
            {
                "initiator": session.initiator_name,
                "address": session.initiator_address,
                "isid": session.isid,
                "tsih": session.tsih,
                "connected_s": round(max(0.0, now - session.started_at), 1),
            }
            for session in target.sessions()
            if session.session_type == "normal"
        ]

    await serve_api(
        volume,
        api.host,
        api.port,
        iqn=iqn,
        portals=lambda: [str(portal) for portal in portals],
        sessions=sessions,
        task_status=task_status,
    )


async def _say_ready(
    options: ControllerOptions, volume: Volume, iqn: str, portal: Address, api: Address
) -> None:
    await volume.ready.wait()
    print(
        f"ready volume={options.volume_name} iqn={iqn} portal={portal} lun=0 "
        f"api=http://{api} replicas={len(options.replicas)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
