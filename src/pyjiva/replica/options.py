"""What a replica daemon is told at its start."""

from pathlib import Path
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["ReplicaOptions"]

BLOCK_SIZES_BYTES: Final = (512, 4096)


@attrs.frozen
class ReplicaOptions:
    """Raises ConfigError: the values contradict each other."""

    volume_name: str
    volume_id: str
    """32 hexadecimal digits, the same for all processes of the volume."""
    replica_id: int
    directory: Path
    size_bytes: int
    block_size_bytes: int
    key: bytes = attrs.field(repr=False)
    """The volume's key: never in a log."""
    witness: bool = False
    """Whether it votes and holds no data."""

    def __attrs_post_init__(self) -> None:
        if self.replica_id < 1:
            raise ConfigError(f"replica id {self.replica_id}: numbers begin at 1")
        if self.block_size_bytes not in BLOCK_SIZES_BYTES:
            raise ConfigError(f"block size {self.block_size_bytes}: 512 or 4096")
        if self.size_bytes < 1 or self.size_bytes % self.block_size_bytes:
            raise ConfigError(f"size {self.size_bytes}: must be a multiple of {self.block_size_bytes}")
