"""When a volume took no I/O: from its controller's start until it was activated, and later times.  Pure.

Read off pictures of the volume, as operations are.
"""

from collections.abc import Callable

import attrs

from pyjiva.controller.status import VolumeState, VolumeStatus

__all__ = ["Outage", "Outages"]


@attrs.frozen
class Outage:
    """One such time, which is over."""

    is_activation: bool
    """The first one of a controller: it asked the replicas what the volume holds."""
    begun_at_s: float
    """Seconds since 1970 UTC, by the controller's clock; so is the next."""
    ended_at_s: float
    reason: str
    """Why it took none, as the status said last."""
    epoch: int
    """At its end."""
    replicas_in_sync: int
    """At its end."""


@attrs.define(eq=False)
class Outages:
    """Those of one controller."""

    on_ended: Callable[[Outage], None]
    begun_at_s: float | None
    """When the present one began: at first, when the controller did."""
    _reason: str = attrs.field(default="", init=False)
    _is_first: bool = attrs.field(default=True, init=False)

    def look(self, at_s: float, now: VolumeStatus) -> None:
        """Take over how the volume is."""
        if now.state is VolumeState.PARKED:
            self._reason = now.reason
            if self.begun_at_s is None:
                self.begun_at_s = at_s
        elif self.begun_at_s is not None:
            in_sync = sum(replica.mode == "in-sync" for replica in now.replicas)
            outage = Outage(self._is_first, self.begun_at_s, at_s, self._reason, now.epoch, in_sync)
            self.begun_at_s, self._is_first = None, False
            self.on_ended(outage)
