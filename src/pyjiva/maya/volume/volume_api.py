"""What the reconciler asks of a volume's controller, and how that fails.

`volume_api_io` is the real one; tests have one of their own.
"""

from typing import Protocol

import attrs

from pyjiva.errors import PyjivaError
from pyjiva.maya.volume.report import VolumeReport

__all__ = ["Refused", "Silent", "SnapshotReport", "VolumeAddress", "VolumeApi"]


class Silent(PyjivaError):
    """The controller does not answer, or says something that is not understood."""


class Refused(PyjivaError):
    """It answered that it cannot do that, with the reason for people."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """`reason` of the problem details (docs/reference/api.md)."""


@attrs.frozen
class VolumeAddress:
    """Whom to ask."""

    host: str
    """Address of the controller's Service."""
    token: str = attrs.field(repr=False)


@attrs.frozen
class SnapshotReport:
    """One snapshot of a volume."""

    name: str
    created: str
    """RFC 3339."""
    bytes: int
    """What was written between its parent and it takes on the disk of one replica."""


class VolumeApi(Protocol):
    """The controller's API (docs/reference/api.md).  Every verb raises Silent, or Refused."""

    async def report(self, at: VolumeAddress) -> VolumeReport:
        """How the volume is."""
        ...

    async def add_replica(self, at: VolumeAddress, replica_id: int, address: str, *, witness: bool) -> None:
        """Begin to take a replica in."""
        ...

    async def remove_replica(self, at: VolumeAddress, replica_id: int) -> None:
        """Begin to go on without a replica, or call its adding off."""
        ...

    async def grow(self, at: VolumeAddress, size_bytes: int) -> None:
        """Make it larger."""
        ...

    async def snapshots(self, at: VolumeAddress) -> tuple[SnapshotReport, ...]:
        """All of them."""
        ...

    async def create_snapshot(self, at: VolumeAddress, name: str, key: str) -> None:
        """Make one; with the same `key` again: the same one."""
        ...

    async def delete_snapshot(self, at: VolumeAddress, name: str) -> None:
        """Let one go; none is there: done."""
        ...
