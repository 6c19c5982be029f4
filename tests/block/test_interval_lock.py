"""Interval locks against a list that is searched from end to end for every question."""

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pyjiva.block import IntervalLocks, Lock
from pyjiva.block.interval_lock import GRANULE_BYTES, WIDE_GRANULES
from pyjiva.extent import Extent

BLOCK = 4096
DEVICE_BYTES = (2 * WIDE_GRANULES + 10) * GRANULE_BYTES


@attrs.define(eq=False)
class Claim:
    """The model of one lock."""

    extent: Extent
    exclusive: bool
    lock: Lock


@st.composite
def ranges(draw: st.DrawFn) -> Extent:
    """Small ones that often meet, some over a few granules, some wide."""
    kind = draw(st.sampled_from(["small", "small", "middle", "wide"]))
    if kind == "small":
        return Extent(draw(st.integers(0, 7)) * BLOCK, draw(st.integers(1, 4)) * BLOCK)
    granule = draw(st.integers(0, 6)) * GRANULE_BYTES
    offset = granule + draw(st.integers(-2, 2)) * BLOCK if granule else 0
    if kind == "middle":
        return Extent(offset, draw(st.integers(1, 4 * GRANULE_BYTES)))
    # Around the length from which a lock counts as wide.
    return Extent(offset, WIDE_GRANULES * GRANULE_BYTES + draw(st.integers(-3, 3)) * BLOCK)


class Locks(RuleBasedStateMachine):
    """First come, first served for each byte; only shared locks are held together."""

    def __init__(self) -> None:
        super().__init__()
        self.locks = IntervalLocks()
        self.claims: list[Claim] = []  # in the order of their arrival

    def blockers(self, claim: Claim) -> int:
        """How many earlier claims that are still there are in the way."""
        earlier = self.claims[: self.claims.index(claim)]
        return sum(
            other.extent.overlaps(claim.extent) and (other.exclusive or claim.exclusive) for other in earlier
        )

    def may_hold(self, claim: Claim) -> bool:
        """Nobody is in the way."""
        return not self.blockers(claim)

    @rule(extent=ranges(), exclusive=st.booleans())
    def acquire(self, extent: Extent, exclusive: bool) -> None:
        lock = self.locks.acquire(extent.offset_bytes, extent.length_bytes, exclusive=exclusive, owner=extent)
        claim = Claim(extent, exclusive, lock)
        self.claims.append(claim)
        assert lock.blockers == self.blockers(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """There is always a lock that is held: the oldest."""
        self.give_back(data.draw(st.sampled_from([claim for claim in self.claims if claim.lock.held])))

    def give_back(self, claim: Claim) -> None:
        """Release, and compare who goes on."""
        waiting = [other for other in self.claims if not other.lock.held]
        self.claims.remove(claim)
        now_held = list(self.locks.release(claim.lock))
        assert now_held == [other.lock for other in waiting if self.may_hold(other)]

    @invariant()
    def every_lock_is_as_the_model_says(self) -> None:
        assert len(self.locks) == len(self.claims)
        assert [claim.lock.held for claim in self.claims] == [self.may_hold(claim) for claim in self.claims]
        seen = sorted((extent, exclusive, held) for extent, exclusive, held in self.locks.extents())
        assert seen == sorted((c.extent, c.exclusive, c.lock.held) for c in self.claims)

    def teardown(self) -> None:
        """Everybody gets a turn, and nothing is left behind."""
        while self.claims:
            self.give_back(next(claim for claim in self.claims if claim.lock.held))
        assert not self.locks._granules
        assert not self.locks._wide


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=50, deadline=None)


def test_disjoint_writers_do_not_wait() -> None:
    locks = IntervalLocks()
    assert all(locks.acquire(n * BLOCK, BLOCK, exclusive=True).held for n in range(300))


def test_a_reader_does_not_overtake_a_writer_that_waits() -> None:
    locks = IntervalLocks()
    reader = locks.acquire(0, BLOCK, exclusive=False)
    writer = locks.acquire(0, BLOCK, exclusive=True)
    late = locks.acquire(0, BLOCK, exclusive=False)
    assert (reader.held, writer.held, late.held) == (True, False, False)
    assert list(locks.release(reader)) == [writer]
    assert list(locks.release(writer)) == [late]


def test_a_wide_lock_waits_for_every_narrow_one_and_they_for_it() -> None:
    locks = IntervalLocks()
    narrow = [locks.acquire(n * GRANULE_BYTES, 3 * GRANULE_BYTES, exclusive=True) for n in (0, 10, 20)]
    wide = locks.acquire(0, DEVICE_BYTES, exclusive=True)
    after = locks.acquire(DEVICE_BYTES - BLOCK, BLOCK, exclusive=False)
    assert [list(locks.release(lock)) for lock in narrow] == [[], [], [wide]]
    assert list(locks.release(wide)) == [after]
