"""How much room a device takes and could still get on the disks below; optional beside `BlockDevice`.  Pure.

Thin provisioning promises more than there is; only who has the files knows how much that still is.  Figures
are estimates of a moment some seconds ago: nobody waits for a disk to get them.
"""

from typing import Protocol

import attrs

__all__ = ["Space", "SpaceSource"]


@attrs.frozen
class Space:
    """Bytes on the disks below, not bytes of the device."""

    used_bytes: int
    """Allocated for this device, what describes its data included."""
    available_bytes: int
    """What it could still get; others may get it first."""


class SpaceSource(Protocol):
    """A device that can tell."""

    @property
    def space(self) -> Space | None:
        """The newest figures; None while there are none."""
