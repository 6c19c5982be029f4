"""Lineages: changes, and bringing a replica up that missed any of them."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from pyjiva.errors import ConfigError
from pyjiva.lineage import NOTHING, Change, ChangeKind, Lineage, Snapshot


def change(lineage: Lineage, kind: ChangeKind, **fields: object) -> Change:
    before = lineage.generation
    number = before + 1 if kind is ChangeKind.CREATE else NOTHING
    return Change(**{"kind": kind, "before": before, "after": before + 1, "number": number, **fields})  # type: ignore[arg-type]


def draw_change(data: DataObject, lineage: Lineage, story: str) -> Change:
    """Any change that can be made of `lineage`; two stories never make the same snapshot."""
    numbers = [snapshot.number for snapshot in lineage.snapshots]
    kinds = [ChangeKind.CREATE, ChangeKind.GROW]
    if numbers:
        kinds += [ChangeKind.DELETE, ChangeKind.REVERT]
    kind = data.draw(st.sampled_from(kinds))
    match kind:
        case ChangeKind.CREATE:
            free = [n for n in "abcdef" if n not in {s.name for s in lineage.snapshots}] or [
                story + str(numbers)
            ]
            name = data.draw(st.sampled_from(free))
            return change(lineage, kind, name=name, created=f"{story} {lineage.generation}")
        case ChangeKind.GROW:
            return change(lineage, kind, size_bytes=lineage.size_bytes + data.draw(st.integers(0, 8)))
        case ChangeKind.DELETE:
            return change(lineage, kind, number=data.draw(st.sampled_from(numbers)))
        case _:
            keep = data.draw(st.booleans())
            return change(lineage, kind, number=data.draw(st.sampled_from(numbers)), keep_newer=keep)


def tell(data: DataObject, lineage: Lineage, story: str, most: int = 8) -> Lineage:
    for _ in range(data.draw(st.integers(0, most))):
        lineage = lineage.apply(draw_change(data, lineage, story))
    return lineage


@given(st.data())
def test_a_replica_is_brought_up_whatever_it_missed_and_whatever_did_not_count(data: DataObject) -> None:
    """One change of its own may be one that was never answered (or several, if it was cut off in between)."""
    shared = tell(data, Lineage(size_bytes=100), "shared")
    goal = tell(data, shared, "theirs")
    here = tell(data, shared, "its own", most=2)
    for step in list(here.steps_to(goal)):
        here = here.apply(step)
    here = here.apply(here.level_with(goal))
    assert here == goal
    assert list(here.steps_to(goal)) == []


@given(st.data())
def test_bringing_up_can_be_cut_anywhere_and_begun_anew(data: DataObject) -> None:
    goal = tell(data, Lineage(size_bytes=100), "theirs")
    here = Lineage(size_bytes=100)
    for _ in range(20):
        steps = list(here.steps_to(goal))
        if not steps:
            break
        for step in steps[: data.draw(st.integers(1, len(steps)))]:
            here = here.apply(step)
    assert here.apply(here.level_with(goal)) == goal


@given(st.data())
def test_what_a_replica_makes_while_it_is_brought_up_is_to_be_compared(data: DataObject) -> None:
    goal = tell(data, Lineage(size_bytes=100), "theirs")
    here = Lineage(size_bytes=100)
    for step in here.steps_to(goal):
        here = here.apply(step)
    assert not any(snapshot.whole for snapshot in here.snapshots)
    for snapshot in here.snapshots:
        whole = Change(kind=ChangeKind.WHOLE, before=0, after=0, number=snapshot.number)
        here = here.apply(whole)
    assert here.is_whole


def two_branches() -> Lineage:
    """a ── b ── c, and the volume on a again."""
    lineage = Lineage(size_bytes=100)
    for name in "abc":
        lineage = lineage.apply(change(lineage, ChangeKind.CREATE, name=name))
    return lineage.apply(change(lineage, ChangeKind.REVERT, number=1, keep_newer=True))


def test_what_stood_on_a_deleted_snapshot_stands_on_its_parent() -> None:
    lineage = two_branches()
    after = lineage.apply(change(lineage, ChangeKind.DELETE, number=2))
    assert [(s.name, s.parent) for s in after.snapshots] == [("a", NOTHING), ("c", 1)]
    rooted = after.apply(change(after, ChangeKind.DELETE, number=1))
    assert [(s.name, s.parent) for s in rooted.snapshots] == [("c", NOTHING)]
    assert rooted.standing_on == NOTHING


def test_a_revert_takes_what_was_made_since_but_not_what_others_stand_on() -> None:
    lineage = two_branches()
    lineage = lineage.apply(change(lineage, ChangeKind.CREATE, name="d"))
    lineage = lineage.apply(change(lineage, ChangeKind.REVERT, number=1))
    assert [s.name for s in lineage.snapshots] == ["a", "b", "c"]
    to_c = lineage.apply(change(lineage, ChangeKind.REVERT, number=3))
    assert to_c.apply(change(to_c, ChangeKind.REVERT, number=2)).snapshots == lineage.snapshots[:2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": ChangeKind.CREATE, "name": "a"},
        {"kind": ChangeKind.DELETE, "number": 9},
        {"kind": ChangeKind.REVERT, "number": 9},
        {"kind": ChangeKind.GROW, "size_bytes": 99},
        {"kind": ChangeKind.SHRINK, "size_bytes": 99},
        {"kind": ChangeKind.SHRINK, "size_bytes": 101, "before": 4, "after": 4},
        {"kind": ChangeKind.SHRINK, "size_bytes": 0, "before": 4, "after": 4},
        {"kind": ChangeKind.LEVEL, "before": 0},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    lineage = two_branches()
    with pytest.raises(ConfigError):
        lineage.apply(change(lineage, **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "snapshots",
    [
        (Snapshot(number=2, name="b"), Snapshot(number=1, name="a")),
        (Snapshot(number=0, name="a"),),
        (Snapshot(number=1, name="a"), Snapshot(number=2, name="a")),
        (Snapshot(number=1, name="a", parent=1),),
        (Snapshot(number=2, name="a", parent=1),),
    ],
)
def test_what_is_no_tree_is_no_lineage(snapshots: tuple[Snapshot, ...]) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        Lineage(size_bytes=1, snapshots=snapshots)


def test_who_missed_a_revert_that_changed_no_snapshot_goes_back_too() -> None:
    """Else a member that is one change behind would be taken for equal, and hold what was written since."""
    here = Lineage(size_bytes=100)
    here = here.apply(change(here, ChangeKind.CREATE, name="a"))
    goal = here.apply(change(here, ChangeKind.REVERT, number=1))
    steps = list(here.steps_to(goal))
    assert [(step.kind, step.number) for step in steps] == [(ChangeKind.REVERT, 1)]
    assert here.apply(steps[0]).apply(here.level_with(goal)) == goal


def test_a_revert_that_took_a_snapshot_is_not_taken_for_a_delete() -> None:
    here = two_branches()
    here = here.apply(change(here, ChangeKind.CREATE, name="d"))
    goal = here.apply(change(here, ChangeKind.REVERT, number=1))
    assert [step.kind for step in here.steps_to(goal)] == [ChangeKind.DELETE, ChangeKind.REVERT]


def test_what_lost_its_parent_in_a_history_that_did_not_count_is_made_anew() -> None:
    shared = Lineage(size_bytes=100)
    for name in "ab":
        shared = shared.apply(change(shared, ChangeKind.CREATE, name=name))
    here = shared.apply(change(shared, ChangeKind.DELETE, number=1))
    goal = shared.apply(change(shared, ChangeKind.GROW, size_bytes=100))
    for step in list(here.steps_to(goal)):
        here = here.apply(step)
    assert here.apply(here.level_with(goal)) == attrs.evolve(
        goal, snapshots=tuple(attrs.evolve(s, whole=False) for s in goal.snapshots)
    )
    assert [s.parent for s in here.snapshots] == [NOTHING, 1]


def test_who_grew_in_a_history_that_did_not_count_becomes_smaller() -> None:
    """Snapshots of that history go first; those that it lacks are of the right size."""
    shared = Lineage(size_bytes=100)
    here = shared.apply(change(shared, ChangeKind.GROW, size_bytes=200))
    here = here.apply(change(here, ChangeKind.CREATE, name="a", created="its own"))
    goal = shared.apply(change(shared, ChangeKind.CREATE, name="a", created="theirs"))
    steps = list(here.steps_to(goal))
    assert [step.kind for step in steps][:3] == [ChangeKind.DELETE, ChangeKind.SHRINK, ChangeKind.CREATE]
    for step in steps:
        here = here.apply(step)
    assert here.size_bytes == 100
