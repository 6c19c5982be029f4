"""What a volume's controller says of it (`GET /v1/volume`), as far as the reconciler asks.  Pure."""

from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from pyjiva.errors import RemoteProtocolError

__all__ = ["IN_SYNC", "PARKED", "MemberReport", "VolumeReport"]

PARKED = "parked"
IN_SYNC = "in-sync"
WITNESS = "witness"


@attrs.frozen
class MemberReport:
    """One of the volume's replicas, as its controller counts them."""

    id: int
    address: str
    mode: str
    """in-sync, rebuilding, out or witness."""
    reason: str
    progress: float | None = None

    @property
    def good(self) -> bool:
        """Whether it has all that it is to have."""
        return self.mode in (IN_SYNC, WITNESS)


@attrs.frozen
class VolumeReport:
    """One answer."""

    state: str
    """healthy, degraded or parked."""
    reason: str
    size_bytes: int
    epoch: int
    replicas: tuple[MemberReport, ...]
    adding: int | None = None
    removing: int | None = None
    filled: float | None = None
    """Of a volume that is filled from elsewhere: how much is there, 0 to 1."""
    sessions: tuple[Mapping[str, Any], ...] = ()

    @property
    def parked(self) -> bool:
        """Whether host I/O waits."""
        return self.state == PARKED

    @property
    def busy(self) -> bool:
        """Whether a replica is being added or removed: one at a time."""
        return self.adding is not None or self.removing is not None

    def member(self, replica_id: int) -> MemberReport | None:
        """The replica, if the volume counts it: one that is being added does not count yet."""
        if replica_id == self.adding:
            return None
        return next((each for each in self.replicas if each.id == replica_id), None)

    @classmethod
    def of(cls, value: Any) -> "VolumeReport":
        """From JSON.  Raises RemoteProtocolError: it is none."""
        try:
            return cattrs.structure(value, cls)
        except (cattrs.BaseValidationError, TypeError, ValueError, KeyError) as error:
            raise RemoteProtocolError(f"not a volume's status: {error}") from error
