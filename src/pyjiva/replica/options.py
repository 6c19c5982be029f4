"""What a replica daemon is told at its start."""

from pathlib import Path
from typing import Final

import attrs

from pyjiva.errors import ConfigError

__all__ = ["ReplicaOptions"]

BLOCK_SIZES: Final = (512, 4096)


def _positive(_: object, attribute: "attrs.Attribute[int]", value: int) -> None:
    if value < 1:
        raise ConfigError(f"{attribute.name.replace('_', ' ')}: {value} must be at least 1")


@attrs.frozen
class ReplicaOptions:
    """Raises ConfigError: the values contradict each other."""

    volume_name: str
    volume_id: str
    """32 hexadecimal digits, the same for all processes of the volume."""
    replica_id: int = attrs.field(validator=_positive)
    directory: Path
    size_bytes: int = attrs.field(validator=_positive)
    block_size_bytes: int
    data_host: str
    data_port: int
    health_host: str
    health_port: int
    key: bytes = attrs.field(repr=False)
    """The volume's key: never in a log."""

    def __attrs_post_init__(self) -> None:
        if self.block_size_bytes not in BLOCK_SIZES:
            raise ConfigError(f"block size {self.block_size_bytes}: 512 or 4096")
        if self.size_bytes % self.block_size_bytes:
            raise ConfigError(
                f"size {self.size_bytes}: must be a multiple of the block size {self.block_size_bytes}"
            )
