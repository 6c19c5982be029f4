"""What a replica remembers of writes that the others may not have."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyjiva.extent import Extent, merge_extents
from pyjiva.replica import unstable
from pyjiva.replica.unstable import UnstableWrites


def test_a_process_that_has_just_started_cannot_know() -> None:
    writes = UnstableWrites()
    assert writes.extents() is None
    writes.add(1, 1, 0, 4096)
    assert writes.extents() is None


def test_a_member_remembers_what_is_not_stable() -> None:
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    assert writes.extents() == []
    for id_ in (1, 2, 3):
        writes.add(1, id_, id_ * 8192, 4096)
    writes.settle(1, 2)
    assert writes.extents() == [Extent(3 * 8192, 4096)]
    writes.settle(1, 3)
    assert writes.extents() == []


def test_marks_of_a_later_controller_say_nothing_about_earlier_writes() -> None:
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    writes.add(1, 5, 0, 4096)
    writes.settle(2, 100)
    assert writes.extents() == [Extent(0, 4096)]


def test_its_record_does() -> None:
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    writes.add(1, 5, 0, 4096)
    writes.add(2, 1, 8192, 4096)
    writes.accepted(2, in_sync=True, equal=True)
    assert writes.extents() == [Extent(8192, 4096)]


def test_a_member_that_was_taken_out_cannot_know_what_it_missed() -> None:
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    writes.accepted(1, in_sync=False, equal=False)
    assert writes.extents() is None


def test_a_record_alone_does_not_bring_a_lost_memory_back() -> None:
    """It may have been taken in before its process lost the memory."""
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=False)
    assert writes.extents() is None


def test_a_record_alone_leaves_a_complete_memory_as_it_is() -> None:
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    writes.add(1, 1, 0, 4096)
    writes.accepted(2, in_sync=True, equal=False)
    assert writes.extents() == [Extent(0, 4096)]


@pytest.mark.patches
def test_a_memory_that_overflowed_says_so_until_a_later_controller_makes_all_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unstable, "WRITES_MAX", 3)
    writes = UnstableWrites()
    writes.accepted(1, in_sync=True, equal=True)
    for id_ in range(1, 5):
        writes.add(1, id_, id_ * 4096, 4096)
    assert writes.extents() is None
    writes.accepted(1, in_sync=True, equal=True)  # the same controller, with those writes in flight still
    assert writes.extents() is None
    writes.accepted(2, in_sync=True, equal=True)
    assert writes.extents() == []


class Memory(RuleBasedStateMachine):
    """Against a dict of every write and what is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = UnstableWrites()
        self.remembered: dict[tuple[int, int], Extent] = {}
        self.complete = False
        self.epoch = 1
        self.last_id = 0

    @rule(offset=st.integers(0, 20), length=st.integers(1, 5))
    def write(self, offset: int, length: int) -> None:
        self.last_id += 1
        self.writes.add(self.epoch, self.last_id, offset, length)
        self.remembered[self.epoch, self.last_id] = Extent(offset, length)

    @rule(behind=st.integers(0, 4))
    def settle(self, behind: int) -> None:
        self.writes.settle(self.epoch, self.last_id - behind)
        # A mark stops at writes of an earlier controller: those leave when its record comes.
        if all(epoch == self.epoch for epoch, _ in self.remembered):
            self.forget(lambda epoch, id_: id_ <= self.last_id - behind)

    @rule()
    def next_controller(self) -> None:
        self.epoch, self.last_id = self.epoch + 1, 0

    @rule(in_sync=st.booleans(), equal=st.booleans())
    def record(self, in_sync: bool, equal: bool) -> None:
        self.writes.accepted(self.epoch, in_sync=in_sync, equal=equal)
        self.complete = in_sync and (equal or self.complete)
        if in_sync and equal:
            self.forget(lambda epoch, id_: epoch < self.epoch)

    def forget(self, which: Callable[[int, int], bool]) -> None:
        self.remembered = {key: extent for key, extent in self.remembered.items() if not which(*key)}

    @invariant()
    def nothing_is_forgotten_too_early(self) -> None:
        expected = merge_extents(self.remembered.values()) if self.complete else None
        assert self.writes.extents() == expected


TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=60, deadline=None)


def test_what_lies_beyond_the_end_is_not_told() -> None:
    """A rebuild has made the replica smaller: a controller would take it for a lie."""
    writes = UnstableWrites()
    assert writes.extents_within(Extent(0, 100)) is None
    writes.accepted(1, in_sync=True, equal=True)
    for request_id, offset in enumerate((0, 90, 200), 1):
        writes.add(1, request_id, offset, 20)
    assert writes.extents_within(Extent(0, 100)) == [Extent(0, 20), Extent(90, 10)]
