"""Whatever is lost on the way, the next controller begins from a replica that has everything.

A model beside the roster: which replica truly has every acknowledged write.  Records may be stored and their
answers lost; machines lose power without anybody noticing at once.  One replica that is in sync and whole
survives always; then so must every acknowledged write (DESIGN G1).
"""

import copy
import itertools
from collections.abc import Iterable, Iterator

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.controller.quorum import is_majority
from pyjiva.controller.roster import Mode, Phase
from pyjiva.controller.roster_event import (
    Accepted,
    AskAccept,
    Copied,
    Effect,
    Joined,
    Level,
    Levelled,
    LinkDown,
    Reconciled,
    RemoveReplica,
    Tick,
)
from pyjiva.membership import MembershipRecord
from tests.controller.roster_bench import IDS, Bench, Replica

ACTIONS = (
    "store",
    "answer",
    "write",
    "down",
    "up",
    "power",
    "copied",
    "joined",
    "remove",
    "mute",
)
Step = tuple[str, int]


@attrs.define
class Lives:
    """A roster, its replicas, and the truth about them."""

    bench: Bench
    whole: set[int]
    """Who has every acknowledged write."""
    steady: set[int]
    """Who was never without since it was taken in; a copy that is no member yet saves nobody."""
    dead: set[int] = attrs.field(factory=set)
    """Machines without power whose end nobody has noticed yet."""
    linked: set[int] = attrs.field(factory=set)
    asked: list[AskAccept] = attrs.field(factory=list)
    """On their way to replicas, in order."""
    stored: list[tuple[int, int]] = attrs.field(factory=list)
    """Replica and version: answers on their way back."""

    @classmethod
    def begin(cls, witness: bool) -> "Lives":
        replicas = [Replica(i, witness=witness and i == max(IDS)) for i in IDS]
        bench = Bench(*replicas, new_volume=True, witnesses=(max(IDS),) if witness else ())
        bench.up(*IDS)
        assert bench.roster.phase is Phase.ACTIVE
        bench.quiet = set(IDS)
        whole = {r.id for r in replicas if not r.witness}
        return cls(bench, whole, set(whole), linked=set(IDS))

    @property
    def taking(self) -> set[int]:
        """Who is sent every write."""
        modes = (Mode.IN_SYNC, Mode.JOINING)
        return {m.id for m in self.bench.roster.members.values() if m.mode in modes and m.id in self.linked}

    def survivors(self, without: int) -> set[int]:
        """Who is whole and in sync by the record that counts, whoever is asked which that is."""
        committed = self.bench.roster.committed
        assert committed is not None
        return self.steady & set(committed.in_sync) & set(self.counts().in_sync) - {without} - self.dead

    def counts(self) -> MembershipRecord:
        """The newest record that a majority of its replicas holds, and of those of the one before."""
        records = {r.record for r in self.bench.replicas.values() if r.record is not None}
        held = {
            each: [i for i, r in self.bench.replicas.items() if r.record is not None and r.record >= each]
            for each in records
        }
        sets = self.bench.roster.configurations()
        return max((r for r, ids in held.items() if is_majority(ids, sets)), default=min(records))

    def apply(self, effects: list[Effect]) -> None:
        self.asked += [e for e in effects if isinstance(e, AskAccept)]

    def down(self, i: int) -> None:
        self.linked.discard(i)
        self.asked = [e for e in self.asked if e.member != i]
        self.stored = [(member, version) for member, version in self.stored if member != i]
        self.dead.discard(i)
        self.apply(self.bench.apply(LinkDown(i, "gone")))

    def step(self, action: str, i: int) -> None:
        roster = self.bench.roster
        member = roster.members.get(i)
        if member is None:
            return
        match action:
            case "store":
                mine = [e for e in self.asked if e.member == i]
                if mine and i not in self.dead:
                    self.asked.remove(mine[0])
                    self.bench.replicas[i].accept(mine[0])
                    self.stored.append((i, mine[0].record.version))
            case "answer":
                answers = [each for each in self.stored if each[0] == i]
                if answers:
                    self.stored.remove(answers[0])
                    self.apply(self.bench.apply(Accepted(*answers[0])))
            case "write" if roster.required() <= self.taking - self.dead:
                self.whole &= self.taking - self.dead
            case "down" if i in self.linked:
                self.down(i)
            case "up" if i not in self.linked:
                self.linked.add(i)
                self.apply(self.bench.up(i))
            case "power" if self.survivors(without=i) and i not in self.dead and not member.witness:
                proposal = roster.proposal
                if proposal is not None and proposal.accepted:
                    return  # the others may be storing it at this moment
                self.whole.discard(i)
                self.bench.replicas[i].intact = False
                # One that arrived all the same would be the same as power lost just after the commit.
                self.stored = [each for each in self.stored if each[0] != i]
                if i in self.linked:
                    self.dead.add(i)
                    self.bench.mute.add(i)
            case "copied" if member.mode is Mode.REBUILDING and roster.readable() - self.dead:
                assert roster.readable() - self.dead <= self.whole
                self.whole.add(i)
                self.bench.replicas[i].intact = True
                self.apply(self.bench.apply(Copied(i)))
            case "joined" if member.mode is Mode.JOINING and not member.flushed and i not in self.dead:
                self.apply(self.bench.apply(Joined(i)))
            case "remove" if not roster.why_not_remove(i):
                self.apply(self.bench.apply(RemoveReplica(i)))
            case "mute":
                self.bench.mute ^= {i} - self.dead
        members = roster.members.values()
        self.steady = self.whole & (self.steady | {m.id for m in members if m.mode is Mode.IN_SYNC})

    def begin_anew(self) -> None:
        """Another controller finds all replicas."""
        replicas = [copy.copy(replica) for replica in self.bench.replicas.values()]
        witnesses = tuple(replica.id for replica in replicas if replica.witness)
        bench = Bench(*replicas, witnesses=witnesses)
        effects = bench.up(*IDS)
        for at in (0, 100):
            effects += bench.apply(Tick(at))
        if any(isinstance(e, Level) for e in effects):
            effects += bench.apply(Levelled())
        if bench.roster.phase is Phase.SETTLING:
            bench.apply(Reconciled())
        assert bench.roster.settling, bench.roster.waiting_for
        assert set(bench.roster.settling) <= self.whole, (bench.roster.settling, self.whole)
        assert bench.roster.phase is Phase.ACTIVE


@settings(max_examples=400, deadline=None)
@example(  # 9945: the one that stays loses its power before anybody has stored that
    steps=[
        *[("remove", 2), ("mute", 2), ("down", 3), ("down", 1), ("down", 2), ("power", 1)],
        *[("mute", 2), ("up", 1), ("up", 2), ("up", 3)],
        *[(verb, i) for verb in ("store", "answer") * 2 for i in IDS],
    ],
    witness=True,
)
@example(  # and after it has stored it, before anybody hears of that
    steps=[("down", 2), ("store", 1), ("power", 1)], witness=True
)
@given(
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), st.sampled_from(IDS)), max_size=40),
    witness=st.booleans(),
)
def test_the_next_controller_begins_from_a_replica_that_is_whole(steps: list[Step], witness: bool) -> None:
    lives = Lives.begin(witness)
    for action, i in steps:
        lives.step(action, i)
        if lives.bench.roster.phase is not Phase.ACTIVE:
            break
    lives.begin_anew()


@attrs.frozen
class Birth:
    """What became of a new volume's first controller, and whom the next one finds."""

    data: tuple[int, ...]
    voters: tuple[int, ...]
    """Replicas with data and witnesses."""
    stored: set[int]
    """Who had stored the first record when its controller died."""
    wrote: bool
    """Whether it had served before: then every replica with data has what was answered."""
    lost: set[int]
    """Whose machine lost its power since, with that."""
    replaced: set[int]
    """In whose place a blank disk is."""
    found: set[int]

    def settled(self) -> set[int]:
        """From whom the next controller begins."""
        witnesses = tuple(i for i in self.voters if i not in self.data)
        first = MembershipRecord(1, 1, "old", self.voters, self.data, False, witnesses=witnesses)
        bench = Bench(
            *(Replica(i, witness=i in witnesses) for i in self.voters),
            new_volume=True,
            configured=self.voters,
            witnesses=witnesses,
        )
        for i in set(self.voters) - self.replaced:
            bench.replicas[i].promised = (1, "old")
        for i in self.stored - self.replaced:
            bench.replicas[i].record = first
        for i in self.lost:
            bench.replicas[i].intact = False
        bench.up(*sorted(self.found))
        for at in (0, 100):
            bench.apply(Tick(at))
        if bench.roster.phase is Phase.SETTLING:
            bench.apply(Reconciled())
        return set(bench.roster.settling)


def subsets(of: Iterable[int]) -> Iterator[set[int]]:
    ids = tuple(of)
    for length in range(len(ids) + 1):
        yield from map(set, itertools.combinations(ids, length))


def births(witnesses: int) -> Iterator[Birth]:
    """All that can have become of two replicas and so many witnesses.

    It serves when all replicas with data have stored the record.  The disk of one at most is replaced, and
    only after all had stored it: see `Why it holds` in docs/explanation/replication.md.
    """
    data, voters = (1, 2), tuple(range(1, 3 + witnesses))
    for stored, found in itertools.product(subsets(voters), subsets(voters)):
        serves = is_majority(stored, [voters]) and stored.issuperset(data)
        for wrote in (False, True) if serves else (False,):
            losses: list[set[int]] = [set(), {1}, {2}] if wrote else [set()]
            for lost in losses:
                yield Birth(data, voters, stored, wrote, lost, set(), found)
            for replaced in losses[1:] if stored == set(voters) else ():
                yield Birth(data, voters, stored, wrote, set(), replaced, found)


@pytest.mark.parametrize("witnesses", [0, 1, 2, 3])
def test_a_volume_whose_first_controller_died_begins_from_replicas_that_are_whole(witnesses: int) -> None:
    """However far that one came; with all there it begins, whoever had stored its record."""
    for birth in births(witnesses):
        settled = birth.settled()
        assert settled.isdisjoint(birth.lost | birth.replaced), birth
        if birth.found == set(birth.voters):
            assert settled, birth


def test_a_new_volume_begins_though_its_witness_alone_stored_the_first_record() -> None:
    """Both replicas are there and never stored one, so nothing was answered."""
    both = Birth((1, 2), (1, 2, 3), {3}, False, set(), set(), {1, 2, 3})
    assert both.settled() == {1, 2}
    assert attrs.evolve(both, found={2, 3}).settled() == set(), "the other one may have stored it"
