"""A roster with replicas that answer at once."""

from typing import Any

from pyjiva.controller.roster import Phase, Roster
from pyjiva.controller.roster_event import (
    Accepted,
    Alive,
    AskAccept,
    AskAlive,
    AskPromise,
    Effect,
    Event,
    Fenced,
    LinkDown,
    LinkUp,
    Promised,
)
from pyjiva.membership import MembershipRecord
from pyjiva.replication import LineageMark, PromiseAnswer, ReplicaReport

__all__ = ["IDS", "Bench", "Replica", "kinds", "record", "three"]

IDS = (1, 2, 3)


def record(epoch: int, *in_sync: int, version: int = 1, clean: bool = False) -> MembershipRecord:
    return MembershipRecord(epoch, version, "old", IDS, in_sync, clean)


class Replica:
    """What a replica would answer, without a network."""

    def __init__(self, id_: int, held: MembershipRecord | None = None, **answer: Any) -> None:
        self.id = id_
        self.witness = answer.get("witness", False)
        self._record = held
        self.told_equal = held is not None
        self.promised = (held.epoch, "old") if held else (0, "")
        self.intact = answer.get("intact", True)
        self.unstable: tuple[tuple[int, int], ...] | None = answer.get("unstable", ())
        self.lineage: LineageMark = answer.get("lineage", LineageMark(0, "", 4096, whole=True))

    @property
    def record(self) -> MembershipRecord | None:
        """What it has accepted; one that a test gives it, it has with all that it says."""
        return self._record

    @record.setter
    def record(self, held: MembershipRecord) -> None:
        self._record, self.told_equal = held, True

    def accept(self, asked: AskAccept) -> None:
        """As the daemon does."""
        told = self.id in asked.record.in_sync and (asked.equal or asked.took_part)
        self._record, self.told_equal = asked.record, self.told_equal or told

    def report(self) -> ReplicaReport:
        epoch, to = self.promised
        return ReplicaReport("v", self.id, 4096, 512, "", epoch, to, self.record, self.intact, self.witness)

    def promise(self, roster: Roster, epoch: int) -> Event:
        if (epoch, roster.controller_id) != self.promised and epoch <= self.promised[0]:
            return Fenced(self.id, self.promised[0])
        self.promised = (epoch, roster.controller_id)
        return Promised(
            self.id,
            epoch,
            PromiseAnswer(self.record, self.intact, self.unstable, self.told_equal, self.lineage),
        )


class Bench:
    """A roster and replicas that answer at once, unless told to keep quiet."""

    def __init__(
        self,
        *replicas: Replica,
        new_volume: bool = False,
        wait_out_s: float = 0.0,
        configured: tuple[int, ...] = IDS,
        witnesses: tuple[int, ...] = (),
    ) -> None:
        self.replicas = {r.id: r for r in replicas}
        self.roster = Roster(
            "me", configured, new_volume, wait_out_s=wait_out_s, witnesses=frozenset(witnesses)
        )
        self.quiet: set[int] = set()
        """Who accepts no record."""
        self.mute: set[int] = set()
        """Who gives no sign of life."""
        self.effects: list[Effect] = []

    def apply(self, event: Event) -> list[Effect]:
        """Apply `event` and all answers to what it asks; returns every effect."""
        queue, seen = [event], []
        while queue:
            effects = self.roster.apply(queue.pop(0))
            self.roster.self_check()
            seen += effects
            for effect in effects:
                if isinstance(effect, AskPromise):
                    queue.append(self.replicas[effect.member].promise(self.roster, effect.epoch))
                if isinstance(effect, AskAlive) and effect.member not in self.mute:
                    queue.append(Alive(effect.member))
                if isinstance(effect, AskAccept) and effect.member not in self.quiet:
                    self.replicas[effect.member].accept(effect)
                    queue.append(Accepted(effect.member, effect.record.version))
        self.effects += seen
        return seen

    def up(self, *ids: int) -> list[Effect]:
        return [e for i in ids for e in self.apply(LinkUp(i, self.replicas[i].report()))]

    def down(self, *ids: int) -> list[Effect]:
        return [e for i in ids for e in self.apply(LinkDown(i, "gone"))]

    def active(self) -> "Bench":
        """With all three in sync."""
        for replica in self.replicas.values():
            replica.record, replica.promised = record(1, 1, 2, 3, clean=True), (1, "old")
        self.up(1, 2, 3)
        assert self.roster.phase is Phase.ACTIVE
        return self


def three(**answer: Any) -> Bench:
    return Bench(*(Replica(i, **answer) for i in IDS))


def kinds(effects: list[Effect]) -> set[type[Any]]:
    return {type(e) for e in effects}
