"""Which snapshots a volume has, on what each stands, and how that changes.  Pure.

This is what all replicas of a volume must agree on; in which files one of them keeps it is its own business
(`snapshot.chain`): a deleted snapshot may still lie on one disk and be merged already on another.

A volume's *generation* counts the changes.  A snapshot's *number* is the generation that it was made in, so
no number is used twice, while a name may be.  Replicas of equal generation have equal lineages; one that is
behind is brought up by `steps_to`, which looks at both and not at a log: it may have missed any number of
changes, and been cut off in the middle of being brought up.

    live volume ── stands on ──▶ snapshot ──▶ its parent ──▶ … ──▶ 0: nothing, all zeros
"""

import enum
import re
from collections.abc import Iterator, Mapping
from typing import Final, assert_never

import attrs

from pyjiva.errors import ConfigError

__all__ = ["NOTHING", "SNAPSHOT_NAME", "Change", "ChangeKind", "Lineage", "Snapshot"]

SNAPSHOT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
"""Longhorn's names, and short enough for a file's name."""

NOTHING: Final = 0
"""What the oldest snapshot stands on, where a number is asked for."""


@attrs.frozen(kw_only=True)
class Snapshot:
    """One point in a volume's past."""

    number: int
    name: str
    parent: int = NOTHING
    created: str = ""
    """RFC 3339."""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    user_created: bool = True
    filling: bool = False
    """Whether it is the origin of a clone or a restore, and still to be given what the source has."""
    whole: bool = attrs.field(default=True, eq=False)
    """False, on one replica: it was made to bring this replica up, and is still to be compared."""


class ChangeKind(enum.Enum):
    """What a change does."""

    CREATE = "create"
    """Keep what the live volume holds as a snapshot."""
    DELETE = "delete"
    """Let a snapshot go: what stood on it stands on its parent, and no content changes."""
    REVERT = "revert"
    """Let the live volume hold what the snapshot holds; to NOTHING, while bringing up: all zeros."""
    GROW = "grow"
    """Add zeros at the end."""
    SHRINK = "shrink"
    """Bringing up: give up what the replica has beyond the volume's size.  It grew in a history that did not
    count; no volume becomes smaller.
    """
    FILLED = "filled"
    """A snapshot that was being filled has all that its source has."""
    WHOLE = "whole"
    """Bringing up: a snapshot was compared, and is what it should be."""
    LEVEL = "level"
    """Bringing up: the replica has all that belongs to the generation."""


@attrs.frozen(kw_only=True)
class Change:
    """One change of a lineage, as it goes to the replicas."""

    kind: ChangeKind
    before: int
    """The generation that it is a change of; bringing up: the replica's, whatever it has meanwhile."""
    after: int
    """The generation that it leads to; bringing up: the same, but for LEVEL."""
    number: int = NOTHING
    """Of the snapshot that is meant, or made."""
    name: str = ""
    """CREATE."""
    created: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    user_created: bool = True
    whole: bool = True
    """CREATE: whether it needs no comparing."""
    filling: bool = False
    """CREATE: see Snapshot."""
    keep_newer: bool = False
    """REVERT: whether the snapshots that were made since stay."""
    size_bytes: int = 0
    """GROW, SHRINK."""
    last_revert: int = 0
    """LEVEL: see Lineage."""


@attrs.frozen(kw_only=True)
class Lineage:
    """A volume's past.  Raises ValueError: it is no tree whose parents are older than their children."""

    size_bytes: int
    generation: int = 0
    standing_on: int = NOTHING
    """What the live volume stands on."""
    last_revert: int = 0
    """The generation that the last revert led to.  Who has missed it holds other bytes, also if its snapshots
    are the same: those of a volume that goes back to the newest one are.
    """
    snapshots: tuple[Snapshot, ...] = ()
    """By number."""

    def __attrs_post_init__(self) -> None:
        numbers = [snapshot.number for snapshot in self.snapshots]
        if numbers != sorted(set(numbers)) or (numbers and not 0 < numbers[0] <= numbers[-1]):
            raise ValueError("snapshots come in the order of their numbers, from 1")
        if len({snapshot.name for snapshot in self.snapshots}) != len(numbers):
            raise ValueError("two snapshots have the same name")
        known = {NOTHING, *numbers}
        if self.standing_on not in known:
            raise ValueError(f"the volume stands on snapshot {self.standing_on}, which is not there")
        for snapshot in self.snapshots:
            if snapshot.parent not in known or snapshot.parent >= snapshot.number:
                raise ValueError(f"snapshot {snapshot.number} stands on {snapshot.parent}")

    @property
    def is_whole(self) -> bool:
        """Whether no snapshot is still to be compared."""
        return all(snapshot.whole for snapshot in self.snapshots)

    @property
    def filling(self) -> Snapshot | None:
        """The snapshot that is being filled, if there is one."""
        return next((snapshot for snapshot in self.snapshots if snapshot.filling), None)

    def named(self, name: str) -> Snapshot:
        """The snapshot `name`.  Raises ConfigError: there is none."""
        for snapshot in self.snapshots:
            if snapshot.name == name:
                return snapshot
        raise ConfigError(f"there is no snapshot {name!r}")

    def numbered(self, number: int) -> Snapshot:
        """The snapshot `number`.  Raises ConfigError: there is none."""
        for snapshot in self.snapshots:
            if snapshot.number == number:
                return snapshot
        raise ConfigError(f"there is no snapshot of number {number}")

    def path(self, number: int) -> tuple[int, ...]:
        """`number` and all that it stands on, the youngest first."""
        parents = {snapshot.number: snapshot.parent for snapshot in self.snapshots}
        path = []
        while number != NOTHING:
            path.append(number)
            number = parents[number]
        return tuple(path)

    def apply(self, change: Change) -> "Lineage":
        """The lineage after `change`.  Raises ConfigError: it cannot be, and nothing has changed."""
        if change.before != self.generation:
            raise ConfigError(f"a change of generation {change.before}: this is {self.generation}")
        changed = attrs.evolve(self, generation=change.after)
        match change.kind:
            case ChangeKind.CREATE:
                return changed._with(change)
            case ChangeKind.DELETE:
                return changed._without({self.numbered(change.number).number})
            case ChangeKind.REVERT:
                if change.before != change.after:
                    changed = attrs.evolve(changed, last_revert=change.after)
                return changed._reverted(change.number, keep_newer=change.keep_newer)
            case ChangeKind.GROW:
                if change.size_bytes < self.size_bytes:
                    raise ConfigError(f"{change.size_bytes} bytes: a volume can only grow")
                return attrs.evolve(changed, size_bytes=change.size_bytes)
            case ChangeKind.SHRINK:
                if change.before != change.after or not 0 < change.size_bytes <= self.size_bytes:
                    raise ConfigError(
                        f"{change.size_bytes} bytes: only a replica that is behind gets smaller"
                    )
                return attrs.evolve(changed, size_bytes=change.size_bytes)
            case ChangeKind.FILLED:
                return changed._with_fields(change.number, filling=False, whole=True)
            case ChangeKind.WHOLE:
                return changed._with_fields(change.number, whole=True)
            case ChangeKind.LEVEL:
                return attrs.evolve(changed, last_revert=change.last_revert)
            case _:
                assert_never(change.kind)

    def _with_fields(self, number: int, **fields: bool) -> "Lineage":
        new = attrs.evolve(self.numbered(number), **fields)  # type: ignore[arg-type]
        return attrs.evolve(self, snapshots=tuple(new if s.number == number else s for s in self.snapshots))

    def _with(self, change: Change) -> "Lineage":
        if any(snapshot.name == change.name for snapshot in self.snapshots):
            raise ConfigError(f"there is a snapshot {change.name!r} already")
        made = Snapshot(
            number=change.number,
            name=change.name,
            parent=self.standing_on,
            created=change.created,
            labels=change.labels,
            user_created=change.user_created,
            filling=change.filling,
            whole=change.whole,
        )
        # Bringing up, one may be missing in the middle.
        snapshots = sorted((*self.snapshots, made), key=lambda snapshot: snapshot.number)
        return attrs.evolve(self, standing_on=made.number, snapshots=tuple(snapshots))

    def _without(self, numbers: set[int]) -> "Lineage":
        parents = {s.number: s.parent for s in self.snapshots}

        def standing(number: int) -> int:
            while number in numbers:
                number = parents[number]
            return number

        rest = (s for s in self.snapshots if s.number not in numbers)
        return attrs.evolve(
            self,
            standing_on=standing(self.standing_on),
            snapshots=tuple(attrs.evolve(s, parent=standing(s.parent)) for s in rest),
        )

    def _reverted(self, number: int, *, keep_newer: bool) -> "Lineage":
        if number != NOTHING:
            self.numbered(number)
        gone: set[int] = set()
        stays = set(self.path(number))
        for above in self.path(self.standing_on):
            others = (s for s in self.snapshots if s.number not in gone and s.parent == above)
            if keep_newer or above in stays or next(others, None) is not None:
                break
            gone.add(above)
        rest = tuple(s for s in self.snapshots if s.number not in gone)
        return attrs.evolve(self, standing_on=number, snapshots=rest)

    def steps_to(self, goal: "Lineage") -> Iterator[Change]:
        """What brings a replica with this lineage to `goal`; its live content is compared afterwards.

        Snapshots that the goal does not have go first; then it gets the goal's size, which is smaller where
        it grew in a history that did not count.  Snapshots that the goal has more are made in their order,
        each of whatever the live volume holds; where the live volume does not stand on what a snapshot stands
        on, it is first reverted to that, and no older one goes for it.  One that it is still filling stays so
        until it was compared.
        """
        here = self

        def step(kind: ChangeKind, **fields: object) -> Change:
            nonlocal here
            change = Change(kind=kind, before=self.generation, after=self.generation, **fields)  # type: ignore[arg-type]
            here = here.apply(change)
            return change

        wanted = {snapshot.number: snapshot for snapshot in goal.snapshots}
        for snapshot in self.snapshots:
            # One of the same number that is not the same is from a history that did not count.
            if not _same(snapshot, wanted.get(snapshot.number)):
                yield step(ChangeKind.DELETE, number=snapshot.number)
        for snapshot in goal.snapshots:
            # One that stands elsewhere has lost what was below it, in such a history: it is made anew too.
            present = next((s for s in here.snapshots if s.number == snapshot.number), None)
            if present is not None and present.parent != snapshot.parent:
                yield step(ChangeKind.DELETE, number=snapshot.number)
        if goal.size_bytes > self.size_bytes:
            yield step(ChangeKind.GROW, size_bytes=goal.size_bytes)
        elif goal.size_bytes < self.size_bytes:
            yield step(ChangeKind.SHRINK, size_bytes=goal.size_bytes)
        there = {snapshot.number for snapshot in here.snapshots}
        for snapshot in goal.snapshots:
            if snapshot.number in there:
                continue
            if here.standing_on != snapshot.parent:
                yield step(ChangeKind.REVERT, number=snapshot.parent, keep_newer=True)
            yield step(
                ChangeKind.CREATE,
                number=snapshot.number,
                name=snapshot.name,
                created=snapshot.created,
                labels=snapshot.labels,
                user_created=snapshot.user_created,
                filling=snapshot.filling,
                whole=False,
            )
        if here.standing_on != goal.standing_on or self.last_revert != goal.last_revert:
            yield step(ChangeKind.REVERT, number=goal.standing_on, keep_newer=True)

    def level_with(self, goal: "Lineage") -> Change:
        """What ends bringing up, when all that `steps_to` gave is done and all is compared."""
        return Change(
            kind=ChangeKind.LEVEL,
            before=self.generation,
            after=goal.generation,
            last_revert=goal.last_revert,
        )


def _same(one: Snapshot, other: Snapshot | None) -> bool:
    """Whether they are the same snapshot, whatever each stands on now."""
    return other is not None and (one.number, one.name, one.created) == (
        other.number,
        other.name,
        other.created,
    )
