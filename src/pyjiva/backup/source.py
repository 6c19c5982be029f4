"""Where backups come from and where restores go to.  Pure: what both look like; `*_io` has them.

To read a backup without restoring all of it, see `restore_io.open_backup`.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pyjiva.extent import Extent

__all__ = ["RestoreTarget", "ResumableTarget", "SnapshotSource"]


class SnapshotSource(Protocol):
    """One snapshot of one volume.  Each call raises StorageError or BackupError: it cannot be read."""

    @property
    def volume_name(self) -> str:
        """The volume's name; others may have the same."""

    @property
    def volume_id(self) -> str:
        """The volume's id, which no other one has."""

    @property
    def snapshot(self) -> str:
        """The snapshot's name."""

    @property
    def created(self) -> str:
        """When the snapshot was made, as the volume says it; "": nobody knows."""

    @property
    def size_bytes(self) -> int:
        """The volume's size."""

    @property
    def block_size_bytes(self) -> int:
        """Bytes of a logical block as initiators see it."""

    async def snapshots(self) -> Mapping[str, str]:
        """Name → time of creation of the snapshots of the volume that can be compared with this one."""

    async def changed(self, since: str | None) -> list[Extent]:
        """Where the snapshot may differ from the older one `since`; None: what is allocated, all else is
        zeros.
        """

    async def read(self, extent: Extent) -> bytes:
        """What the volume held there.  At most one chunk is asked for at a time."""


class RestoreTarget(Protocol):
    """A new volume, all zeros: what a restore does not write stays so."""

    @property
    def size_bytes(self) -> int:
        """How much fits."""

    async def write(self, extent: Extent, data: bytes) -> None:
        """Write `data`; extents do not overlap, and come in no order, several at once."""

    async def flush(self) -> None:
        """Make what was written stable."""


@runtime_checkable
class ResumableTarget(RestoreTarget, Protocol):
    """A target that may hold something already: what an interrupted restore wrote, or something else."""

    async def data(self, extent: Extent) -> list[Extent]:
        """The parts of `extent` that may be other than zeros."""

    async def read(self, extent: Extent) -> bytes:
        """What is there."""

    async def zero(self, extent: Extent) -> None:
        """Make the range zeros, without taking space where that can be."""

    async def forget_cache(self) -> None:
        """Let reads that follow come from the medium; after a flush."""
