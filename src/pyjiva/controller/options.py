"""What a controller is told at its start."""

import math
from typing import Final

import attrs

from pyjiva.block import FLOOR_BYTES_PER_S
from pyjiva.controller.quorum import REPLICAS_MAX, min_copies_default
from pyjiva.errors import ConfigError

__all__ = ["HOST_CHARACTERS_MAX", "ControllerOptions", "ReplicaAddress", "Tuning"]

BLOCK_SIZES: Final = (512, 4096)
MEMBER_TIMEOUT_S_MIN: Final = 1.0  # two pings
HOST_CHARACTERS_MAX: Final = 253  # a DNS name (RFC 1035 §2.3.4); every record of the volume carries it
PORT_MAX: Final = 65535


@attrs.frozen
class ReplicaAddress:
    """Where one configured replica serves data."""

    replica_id: int
    host: str
    port: int
    witness: bool = False
    """Whether it votes and holds no data."""

    @classmethod
    def parse(cls, replica_id: int, text: str, *, witness: bool) -> "ReplicaAddress | None":
        """The address of `str`; None: it is none."""
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isascii() or not port.isdigit():
            return None
        if len(host) > HOST_CHARACTERS_MAX or len(port) > len(str(PORT_MAX)) or int(port) > PORT_MAX:
            return None
        return cls(replica_id, host.removeprefix("[").removesuffix("]"), int(port), witness)

    def __str__(self) -> str:
        """HOST:PORT, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Tuning:
    """How a volume behaves when copies are missing.  Raises ConfigError: a value makes no sense."""

    min_copies: int | None = None
    """How many in-sync members there must be for writes to go on; None: `quorum.min_copies_default`."""
    park_limit_s: float = (
        120.0  # as long as Linux' iscsid tries to reach a lost session (replacement_timeout)
    )
    """Host I/O waits so long for copies, then fails with NOT READY."""
    member_timeout_s: float = 4.0
    """A member that owes an answer and says nothing for so long is given up (host I/O stalls no longer)."""
    disk_timeout_s: float = 30.0
    """A member whose oldest disk operation is so old is given up, however alive its network is, and also if
    its disk was never fast (`disk_deadline`).
    """
    rebuild_rate: int | None = None
    """Bytes per second that all rebuilds together may compare and copy; None: no limit."""
    background_floor: int = FLOOR_BYTES_PER_S
    """Bytes per second at which such work goes on however much hosts ask for (`block.Yielding`)."""

    def __attrs_post_init__(self) -> None:
        if self.rebuild_rate is not None and self.rebuild_rate < 1:
            raise ConfigError(f"rebuild rate {self.rebuild_rate}: at least 1 byte per second")
        if self.background_floor < 1:
            raise ConfigError(f"background floor {self.background_floor}: at least 1 byte per second")
        if not MEMBER_TIMEOUT_S_MIN <= self.member_timeout_s <= self.disk_timeout_s:
            least, most = MEMBER_TIMEOUT_S_MIN, self.disk_timeout_s
            raise ConfigError(f"member timeout {self.member_timeout_s:g}: {least:g} to {most:g} seconds")
        if not 0 <= self.park_limit_s < math.inf:
            raise ConfigError(f"park limit {self.park_limit_s:g}: a number of seconds from 0")

    def check_copies(self, replicas: int) -> None:
        """Raises ConfigError: so many replicas cannot make the minimum of copies."""
        if self.min_copies is not None and not 1 <= self.min_copies <= replicas:
            raise ConfigError(f"minimum copies {self.min_copies}: 1 to the number of replicas, {replicas}")

    def min_copies_of(self, replicas: int, witnesses: int) -> int:
        """How many in-sync members there must be for writes to go on, in a volume of so many."""
        if self.min_copies is None:
            return min_copies_default(replicas, witnesses)
        return min(self.min_copies, replicas)


@attrs.frozen
class ControllerOptions:
    """Raises ConfigError: the values contradict each other."""

    volume_name: str
    volume_id: str
    """32 hexadecimal digits, the same for all processes of the volume."""
    size_bytes: int
    block_size_bytes: int
    replicas: tuple[ReplicaAddress, ...]
    key: bytes = attrs.field(repr=False)
    """The volume's key: never in a log."""
    new_volume: bool = False
    """Whether the replicas may all be blank."""
    tuning: Tuning = attrs.field(factory=Tuning)

    def __attrs_post_init__(self) -> None:
        ids = [r.replica_id for r in self.replicas]
        if not 1 <= len(ids) <= REPLICAS_MAX:
            raise ConfigError(f"{len(ids)} replicas: a volume has 1 to {REPLICAS_MAX}")
        if len(set(ids)) != len(ids) or min(ids) < 1:
            raise ConfigError("replica ids must be different and at least 1")
        data = sum(not r.witness for r in self.replicas)
        if not data:
            raise ConfigError("a volume needs a replica that is no witness")
        self.tuning.check_copies(data)
        if self.block_size_bytes not in BLOCK_SIZES:
            raise ConfigError(f"block size {self.block_size_bytes}: 512 or 4096")
        if self.size_bytes < 1 or self.size_bytes % self.block_size_bytes:
            raise ConfigError(
                f"size {self.size_bytes}: must be a multiple of the block size {self.block_size_bytes}"
            )
