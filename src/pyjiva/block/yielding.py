"""How background work leaves a device to its hosts: after each step it rests.  Pure.

    step, of a MiB or so ──hosts are quiet──▶ next step, which may be larger
         │ hosts ask for something
         ▼
    rest for REST times as long as the step took, but not below the floor ──▶ next step

So work that goes on step by step has at most a quarter of the time, and several at once at most a third.  The
rule knows no latencies and no baseline: where hosts make a step slower, as they want the same processors and
disks, the rest becomes longer by as much.  A request that comes meanwhile waits for one piece of one step at
most, at each place that it passes; three quarters of the requests meet none.

Hosts are quiet when none has asked for anything for QUIET_S and none waits for an answer; what came since the
last step counts as come now.  The floor is for hosts that never are: a rebuild must end.  A step that is
slower than the floor by itself is not followed by a rest.

Source of floor and idea: Linux' md, `speed_limit_min`, of 1000 KiB/s, and `is_mddev_idle`.  Why there is no
control loop over latencies: docs/decisions/0010-background-work.md.
"""

import math
from typing import Final

import attrs

from pyjiva.units import KIB, MIB

__all__ = ["FLOOR_BYTES_PER_S", "QUIET_S", "REST", "Hosts", "Yielding"]

FLOOR_BYTES_PER_S: Final = 1 * MIB  # as md's: a TiB in twelve days of hosts that never pause
REST: Final = 3.0  # at half load the processors are then busy for an eighth more, not for a half
QUIET_S: Final = 0.25  # a host that flushes to a disk may be silent for so long between two requests
STEP_BYTES_MIN: Final = 64 * KIB  # what a step counts at least that found nothing to copy


@attrs.frozen
class Hosts:
    """What hosts ask for, at one moment."""

    requests: int
    """How many have come, ever."""
    waiting: bool
    """Whether one of them is not answered."""


@attrs.define(eq=False)
class Yielding:
    """Of one device."""

    floor_bytes_per_s: int = FLOOR_BYTES_PER_S
    """No slower than that because of rests."""
    _requests: int = attrs.field(default=0, init=False)
    _asked_at_s: float = attrs.field(default=-math.inf, init=False)
    """When a host was last seen to want something."""

    def are_quiet(self, hosts: Hosts, *, now_s: float) -> bool:
        """Whether none has asked for anything for a while."""
        if hosts.waiting or hosts.requests != self._requests:
            self._requests, self._asked_at_s = hosts.requests, now_s
        return now_s - self._asked_at_s >= QUIET_S

    def rest_s(
        self, hosts: Hosts, *, now_s: float, took_s: float, length_bytes: int, at_once: int = 1
    ) -> float:
        """How long to rest after a step of `length_bytes` that `took_s`, if `at_once` such works go on."""
        if self.are_quiet(hosts, now_s=now_s):
            return 0.0
        longest_s = at_once * max(length_bytes, STEP_BYTES_MIN) / self.floor_bytes_per_s - took_s
        return max(0.0, min(at_once * REST * took_s, longest_s))
