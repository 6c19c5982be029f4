"""An iSCSI target on loopback while a `with` block runs, and a device that answers when it is told to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from pyjiva.block import BlockDevice, Flush, MemoryDevice, Request
from pyjiva.iscsi import Target, TargetOptions, open_portal, portal_address, serve_portal
from pyjiva.scsi import LogicalUnit, UnitIdentity
from pyjiva.transport import EndOfBatch
from pyjiva.units import MIB

__all__ = ["TARGET_NAME", "HeldDevice", "RunningTarget", "running_target"]

TARGET_NAME: Final = "iqn.2016-09.com.openebs.jiva:test"
VOLUME_ID: Final = "4be6f3a0-6f5c-4d0e-9f6e-1d2c3b4a5968"


@attrs.define(eq=False)
class HeldDevice:
    """Passes requests on, except while `holding`: then they wait for `release`."""

    device: BlockDevice
    batch: EndOfBatch
    holding: bool = False
    held: list[Request] = attrs.field(factory=list)
    _arrived: trio.Event = attrs.field(factory=trio.Event)

    @property
    def size_bytes(self) -> int:
        """Size of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """Pass on or keep."""
        if self.holding:
            self.held.append(request)
            self._arrived.set()
        else:
            self.device.submit(request)

    async def wait_held(self, count: int = 1) -> None:
        """Wait until `count` requests are kept."""
        while len(self.held) < count:
            self._arrived = trio.Event()
            await self._arrived.wait()

    def release(self, count: int | None = None) -> None:
        """Pass on the oldest `count` (all, if None), as another task than the connection's would."""
        released, self.held = self.held[:count], self.held[len(self.held[:count]) :]
        for request in released:
            self.device.submit(request)
        self.batch.end()

    @property
    def flushing(self) -> bool:
        """Whether a kept request is a flush."""
        return any(isinstance(request, Flush) for request in self.held)


@attrs.frozen
class RunningTarget:
    """What a test needs to know."""

    target: Target
    host: str
    port: int
    unit: LogicalUnit
    device: HeldDevice
    memory: MemoryDevice

    @property
    def url(self) -> str:
        """LUN 0, as libiscsi and QEMU write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"iscsi://{host}:{self.port}/{TARGET_NAME}/0"

    @property
    def portal_url(self) -> str:
        """The portal, as libiscsi writes it."""
        return self.url.removesuffix(f"/{TARGET_NAME}/0")


@asynccontextmanager
async def running_target(
    *, size_bytes: int = 64 * MIB, block_size_bytes: int = 512, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[RunningTarget]:
    """A target over memory with one LUN; `options` go to TargetOptions."""
    batch = EndOfBatch()
    memory = MemoryDevice(size_bytes)
    device = HeldDevice(memory, batch)
    unit = LogicalUnit(device, UnitIdentity(VOLUME_ID), block_size_bytes)
    target = Target(TargetOptions(target_name=TARGET_NAME, **options), {0: unit}, batch=batch)
    async with trio.open_nursery() as nursery:
        listeners = await open_portal(host, 0)
        bound_host, port = portal_address(listeners)
        nursery.start_soon(serve_portal, target, listeners)
        yield RunningTarget(target, bound_host, port, unit, device, memory)
        nursery.cancel_scope.cancel()
