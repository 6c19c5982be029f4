"""An image as an iSCSI target, for reading alone, until a signal."""

import hashlib
from pathlib import Path

import attrs
import trio

from pyjiva.cli.access import Access
from pyjiva.cli.controller import IQN_PREFIX
from pyjiva.cli.daemon import Address, wait_for_stop
from pyjiva.cli.garbage import collect_seldom
from pyjiva.errors import ConfigError
from pyjiva.iscsi import Target, TargetOptions, open_portal, portal_address, serve_portal
from pyjiva.migration import ImageDevice, LayeredImage
from pyjiva.scsi import LogicalUnit, UnitIdentity
from pyjiva.transport import EndOfBatch

__all__ = ["ServeOptions", "identity_of", "serve_image"]


@attrs.frozen
class ServeOptions:
    """How the image is offered."""

    name: str
    block_size_bytes: int
    portals: tuple[Address, ...]
    access: Access


def identity_of(directory: Path) -> UnitIdentity:
    """The same for as long as the directory stays where it is."""
    return UnitIdentity(hashlib.sha256(bytes(directory.absolute())).hexdigest()[:32])


async def serve_image(image: LayeredImage, identity: UnitIdentity, options: ServeOptions) -> int:
    """Serve until SIGINT or SIGTERM; the exit code.  Raises ConfigError: a portal is not to be had."""
    if image.size_bytes % options.block_size_bytes:
        raise ConfigError(f"{image.size_bytes} bytes are no whole blocks of {options.block_size_bytes}")
    batch = EndOfBatch()
    device = ImageDevice(image, batch)
    unit = LogicalUnit(device, identity, options.block_size_bytes, read_only=True)
    access = options.access
    target_options = TargetOptions(
        target_name=IQN_PREFIX + options.name,
        initiators=access.initiators,
        chap=access.chap,
        discovery_chap=access.discovery_chap,
        advertised=access.advertised,
    )
    target = Target(target_options, units={0: unit}, batch=batch)
    async with trio.open_nursery() as nursery:
        listeners = [await _listen(portal) for portal in options.portals]
        await nursery.start(device.run)
        for each in listeners:
            nursery.start_soon(serve_portal, target, each)
        portal = Address(*portal_address(listeners[0]))
        collect_seldom()
        print(f"ready iqn={target_options.target_name} portal={portal} lun=0 read-only", flush=True)
        await wait_for_stop(stop_with_stdin=False)
        await target.shut_down()
        nursery.cancel_scope.cancel()
    return 0


async def _listen(portal: Address) -> list[trio.SocketListener]:
    try:
        return await open_portal(portal.host, portal.port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {portal}: {error.strerror or error}") from error
