"""A wrapper of a block device that lets requests wait as long as the volume's limits want it.  Pure; hot."""

import attrs

from pyjiva.block.device import BlockDevice, Request
from pyjiva.block.limit import Limiter

__all__ = ["LimitedDevice"]


@attrs.define(eq=False)
class LimitedDevice:  # hot
    """The block device `device`, as fast as `limiter` lets it be."""

    device: BlockDevice
    limiter: Limiter

    @property
    def size_bytes(self) -> int:
        """Of the device below."""
        return self.device.size_bytes

    def submit(self, request: Request) -> None:
        """See BlockDevice."""
        if self.limiter.limited:
            self.limiter.submit(request, self.device.submit)
        else:
            self.device.submit(request)
