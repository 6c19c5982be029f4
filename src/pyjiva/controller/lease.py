"""The read lease: until when a controller may be sure that no other one has answered a write.  Pure.

A controller that was overtaken gets no write answered, since those that promised the newer epoch refuse it.
But a member that is cut off together with it would go on answering its reads.  So:

- The controller answers a read only while a majority of the configured replicas has confirmed its epoch
  within the last LEASE_S.  What confirms is the answer to a ping, and it counts from the moment when the
  ping was *sent*.
- A new controller waits, from the moment when it knows of a majority of promises, for WAIT_OUT_S before it
  takes I/O; unless the newest record is clean: then its controller had stopped before it was written.

Why this is enough.  Two majorities have a replica in common.  That one answered the old controller's pings
only before it promised the new epoch, so the old lease ends at most LEASE_S after that promise, as the old
clock measures it; and the new controller hears of the promise later than it was given.  Assumed: clocks
that run (steady ones: steps of the time of day do not matter) at rates that differ by less than
CLOCK_RATES_DIFFER; a process that stands still measures the time when it goes on, and so does one on a
machine that was suspended (`clock_sys`).

A witness' confirmation may cost more than a copy's, such as a request to another server for each ping.  While
the copies alone keep the lease it is asked now and then only, to see that it is there (`needs`).

An answer that was checked and is then delayed, in this process or on the network, is still right: the read
was asked before the check and its value was the newest at the check.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import attrs

from pyjiva.controller.quorum import MAJORITY

__all__ = ["LEASE_S", "WAIT_OUT_S", "Lease"]

LEASE_S: Final = 2.0  # four pings, or two while no host asks for anything
CLOCK_RATES_DIFFER: Final = 0.05
WITNESS_NEEDED_S: Final = 0.9  # two pings of the copies did not come back, or one of those a second apart
WAIT_OUT_S: Final = LEASE_S * (1 + CLOCK_RATES_DIFFER)


@attrs.define(eq=False)
class Lease:
    """What one controller knows of its own lease."""

    lease_s: float = LEASE_S
    _confirmed_at_s: dict[int, float] = attrs.field(factory=dict, init=False)

    def confirm(self, member: int, asked_at_s: float) -> None:
        """`member` has answered a question of our epoch that was sent at `asked_at_s`."""
        self._confirmed_at_s[member] = max(asked_at_s, self._confirmed_at_s.get(member, asked_at_s))

    def until_s(self, configurations: Iterable[Sequence[int]], without: Collection[int] = ()) -> float:
        """Before this moment reads may be answered; in the past if too few have confirmed.

        `configurations`: the sets of replicas of each of which a majority counts.  `without`: as if these had
        never confirmed anything.
        """
        return min(self._confirmed_by_majority_at_s(each, without) for each in configurations) + self.lease_s

    def _confirmed_by_majority_at_s(self, configured: Sequence[int], without: Collection[int]) -> float:
        never = float("-inf")
        newest_first = sorted(
            (
                never if member in without else self._confirmed_at_s.get(member, never)
                for member in configured
            ),
            reverse=True,
        )
        return newest_first[MAJORITY[len(configured)] - 1]

    def needs(
        self, witnesses: Collection[int], configurations: Iterable[Sequence[int]], now_s: float
    ) -> bool:
        """Whether the copies alone do not keep it any more, so that these are to be asked at every turn."""
        return self.until_s(configurations, witnesses) - now_s < WITNESS_NEEDED_S
