"""Witnesses, and replicas that are added and removed while the volume is up."""

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pyjiva.controller.roster import Mode, Phase
from pyjiva.controller.roster_event import (
    Accepted,
    AddReplica,
    Alive,
    Connect,
    Copied,
    Disconnect,
    Drop,
    Fenced,
    GiveUp,
    Joined,
    LinkDown,
    Reconciled,
    RemoveReplica,
    SaveParameters,
    Serve,
    StartRebuild,
    Tick,
)
from pyjiva.errors import LocalProtocolError
from pyjiva.membership import MembershipRecord
from tests.controller.roster_bench import Bench, Replica, kinds


def two_and_a_witness() -> Bench:
    """A new volume of the replicas 1 and 2 and the witness 3, active."""
    bench = Bench(Replica(1), Replica(2), Replica(3, witness=True), new_volume=True, witnesses=(3,))
    bench.up(1, 2, 3)
    assert bench.roster.phase is Phase.ACTIVE
    return bench


def test_a_witness_that_has_a_record_is_believed_when_all_disks_of_an_old_volume_are_blank() -> None:
    """Nobody said that the volume is new."""
    held = MembershipRecord(1, 1, "old", (1, 2, 3), (1, 2), False, witnesses=(3,))
    bench = Bench(Replica(1), Replica(2), Replica(3, held, witness=True), witnesses=(3,))
    bench.up(1, 2, 3)
    for at in (0, 100):
        bench.apply(Tick(at))
    assert bench.roster.phase is Phase.GATHERING
    assert "none of those that are there" in bench.roster.waiting_for


def configured(bench: Bench) -> tuple[int, ...]:
    assert bench.roster.committed is not None
    return bench.roster.committed.configured


def in_sync(bench: Bench) -> tuple[int, ...]:
    assert bench.roster.committed is not None
    return bench.roster.committed.in_sync


def with_newcomer(bench: Bench, **answer: Any) -> Bench:
    """Replica 4 is being added, and its link is up."""
    bench.replicas[4] = Replica(4, **answer)
    effects = bench.apply(AddReplica(4, "10.0.0.4:9502", answer.get("witness", False)))
    assert Connect(4, "10.0.0.4:9502") in effects
    bench.up(4)
    return bench


class TestWitness:
    def test_it_votes_and_is_never_in_sync(self) -> None:
        bench = two_and_a_witness()
        assert bench.roster.committed is not None
        assert bench.roster.committed.witnesses == (3,)
        assert in_sync(bench) == (1, 2)
        assert bench.roster.required() == {1, 2}

    def test_with_it_one_replica_of_two_goes_on(self) -> None:
        bench = two_and_a_witness()
        bench.down(2)
        assert in_sync(bench) == (1,)
        assert bench.roster.required() == {1}

    def test_without_it_and_one_replica_nothing_goes_on(self) -> None:
        bench = two_and_a_witness()
        bench.down(3)
        bench.down(2)
        assert bench.roster.required() == {1, 2}

    def test_who_was_left_behind_does_not_begin_with_the_witness(self) -> None:
        """The witness holds the record that tells who has everything."""
        bench = two_and_a_witness()
        bench.down(2)
        late = Bench(*(bench.replicas[i] for i in (1, 2, 3)), configured=(1, 2, 3), witnesses=(3,))
        late.up(2, 3)
        late.apply(Tick(0))
        late.apply(Tick(100))
        assert late.roster.phase is Phase.GATHERING
        assert late.roster.waiting_for == "a replica that holds every write: 1"

    def test_it_is_not_rebuilt(self) -> None:
        bench = two_and_a_witness()
        bench.down(3)
        effects = bench.up(3)
        assert StartRebuild not in kinds(effects)
        assert bench.roster.members[3].mode is Mode.OUT

    @pytest.mark.parametrize("is_witness", [True, False])
    def test_who_is_something_else_than_was_said_is_not_taken(self, is_witness: bool) -> None:
        bench = Bench(Replica(1, witness=is_witness), witnesses=() if is_witness else (1,))
        assert Drop in kinds(bench.up(1))
        assert bench.roster.members[1].report is None


class TestAdding:
    def test_it_is_copied_to_and_then_belongs_to_the_volume_at_once(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        assert StartRebuild in kinds(bench.effects)
        assert configured(bench) == (1, 2, 3)
        bench.apply(Copied(4))
        assert bench.roster.required() == {1, 2, 4}, "before anybody hears that it is in sync"
        bench.apply(Joined(4))
        assert (configured(bench), in_sync(bench)) == ((1, 2, 3, 4), (1, 2, 4))
        assert bench.roster.members[4].mode is Mode.IN_SYNC
        assert bench.roster.adding is None

    def test_its_vote_does_not_count_before(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        bench.down(2, 3)
        assert not bench.roster.is_majority({1, 4})

    def test_its_address_is_kept_in_the_record(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        bench.apply(Copied(4))
        bench.apply(Joined(4))
        assert bench.roster.committed is not None
        assert bench.roster.committed.addresses == ("", "", "", "10.0.0.4:9502")

    def test_a_witness_belongs_to_it_when_it_has_promised(self) -> None:
        bench = Bench(Replica(1), Replica(2), new_volume=True, configured=(1, 2))
        bench.up(1, 2)
        with_newcomer(bench, witness=True)
        assert bench.roster.committed is not None
        assert bench.roster.committed.witnesses == (4,)
        bench.down(2)
        assert in_sync(bench) == (1,)

    def test_majorities_of_both_sets_must_accept(self) -> None:
        """Of one replica and its newcomer both."""
        bench = Bench(Replica(1), new_volume=True, configured=(1,))
        bench.up(1)
        with_newcomer(bench)
        bench.quiet = {4}
        bench.apply(Copied(4))
        bench.apply(Joined(4))
        assert configured(bench) == (1,)
        assert bench.roster.required() == {1, 4}

    def test_it_can_be_called_off(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        assert Disconnect in kinds(bench.apply(RemoveReplica(4)))
        assert 4 not in bench.roster.members
        assert bench.apply(Copied(4)) == [], "what was under way"

    def test_a_newcomer_that_is_lost_begins_again(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        bench.apply(Copied(4))
        bench.down(4)
        assert bench.roster.members[4].mode is Mode.OUT
        assert StartRebuild in kinds(bench.up(4))

    def test_one_that_has_promised_another_controller_more_does_not_end_this_one(self) -> None:
        """It has no vote: the others would have said so too, if it meant anything."""
        bench = two_and_a_witness()
        bench.replicas[4] = Replica(4)
        bench.replicas[4].promised = (9, "somebody")
        bench.apply(AddReplica(4, "10.0.0.4:9502", witness=False))
        [drop] = [e for e in bench.up(4) if isinstance(e, Drop)]
        assert "promised epoch 9" in drop.reason
        bench.down(4)
        assert bench.roster.phase is Phase.ACTIVE

    def test_one_that_promises_another_controller_while_it_is_copied_to_is_lost(self) -> None:
        bench = with_newcomer(two_and_a_witness())
        assert Drop in kinds(bench.apply(Fenced(4, 9)))
        bench.down(4)
        assert bench.roster.phase is Phase.ACTIVE
        assert bench.roster.members[4].mode is Mode.OUT

    @pytest.mark.parametrize(
        ("member", "reason"), [(1, "is there already"), (4, "is there already"), (5, "one at a time")]
    )
    def test_what_cannot_be_is_refused_with_its_reason(self, member: int, reason: str) -> None:
        bench = with_newcomer(two_and_a_witness())
        assert reason in bench.roster.why_not_add(member)
        with pytest.raises(LocalProtocolError, match=reason):
            bench.apply(AddReplica(member, "", witness=False))

    @pytest.mark.parametrize("member", [0, 2**32])
    def test_numbers_that_no_record_takes_are_refused(self, member: int) -> None:
        assert "numbers go from 1" in two_and_a_witness().roster.why_not_add(member)

    def test_not_before_it_serves(self) -> None:
        bench = Bench(Replica(1), Replica(2), Replica(3))
        assert "the volume waits for" in bench.roster.why_not_add(4)
        assert "the volume waits for" in bench.roster.why_not_remove(3)

    def test_seven_are_enough(self) -> None:
        ids = tuple(range(1, 8))
        bench = Bench(*map(Replica, ids), new_volume=True, configured=ids)
        bench.up(*ids)
        assert "at most 7" in bench.roster.why_not_add(8)


class TestRemoving:
    @pytest.mark.parametrize("member", [1, 2, 3])
    def test_it_belongs_to_the_volume_until_that_is_committed(self, member: int) -> None:
        bench = two_and_a_witness()
        bench.quiet = {1, 2, 3}
        bench.apply(RemoveReplica(member))
        assert bench.roster.required() == {1, 2}
        assert member in bench.roster.members
        bench.quiet = set()
        bench.down(member)
        for other in {1, 2, 3} - {member}:
            bench.apply(LinkDown(other, "gone"))
            bench.up(other)
        assert member not in bench.roster.members
        assert configured(bench) == tuple(i for i in (1, 2, 3) if i != member)

    def test_the_last_that_has_everything_stays_until_another_one_was_heard(self) -> None:
        """Its removal was accepted while replica 2 was in sync too."""
        ids = (1, 2, 3, 4, 5)
        bench = Bench(*map(Replica, ids), new_volume=True, configured=ids)
        bench.up(*ids)
        bench.down(3, 4, 5)
        bench.up(3, 4, 5)
        assert in_sync(bench) == (1, 2)
        bench.mute = {1}
        bench.quiet = {3, 4, 5}
        bench.apply(SaveParameters(b"a record is on its way"))
        bench.apply(RemoveReplica(1))
        bench.down(2)
        bench.quiet = set()
        for other in (3, 4, 5):
            bench.down(other)
            bench.up(other)
        assert 1 in configured(bench)
        bench.apply(Alive(1))
        assert in_sync(bench) == (1,), "2 may be given up now"
        assert configured(bench) == ids
        bench.up(2)
        bench.apply(Copied(2))
        bench.apply(Joined(2))
        assert configured(bench) == (2, 3, 4, 5), "as soon as 2 has everything again"

    def test_it_is_disconnected(self) -> None:
        bench = two_and_a_witness()
        assert Disconnect(2, "it was removed from the volume") in bench.apply(RemoveReplica(2))
        assert (configured(bench), in_sync(bench)) == ((1, 3), (1,))

    def test_one_that_is_lost_can_be_removed(self) -> None:
        bench = two_and_a_witness()
        bench.down(2)
        bench.apply(RemoveReplica(2))
        assert configured(bench) == (1, 3)

    @pytest.mark.parametrize(("member", "reason"), [(9, "no replica 9"), (1, "the last one in sync")])
    def test_what_cannot_be_is_refused_with_its_reason(self, member: int, reason: str) -> None:
        bench = two_and_a_witness()
        bench.down(2)
        assert reason in bench.roster.why_not_remove(member)

    def test_one_at_a_time(self) -> None:
        bench = two_and_a_witness()
        bench.quiet = {1, 2, 3}
        bench.apply(RemoveReplica(3))
        assert "one at a time" in bench.roster.why_not_remove(2)
        assert "one at a time" in bench.roster.why_not_add(4)


def test_a_record_from_before_a_loss_admits_nobody_who_joins_again() -> None:
    """Campaign seed 78: a record that was on its way all the time named a member that was lost meanwhile."""
    bench = Bench(*map(Replica, range(1, 6)), new_volume=True, configured=(1, 2, 3, 4, 5))
    bench.up(1, 2, 3, 4, 5)
    bench.quiet = {1, 2, 3, 4, 5}
    bench.down(5)
    assert bench.roster.proposal is not None, "without 5, with 1"
    bench.down(1)
    bench.up(1)
    bench.replicas[1].intact = False
    bench.down(1)
    bench.up(1)
    bench.apply(Copied(1))
    version = bench.roster.proposal.record.version
    for i in (2, 3, 4):
        bench.apply(Accepted(i, version))
    assert in_sync(bench) == (1, 2, 3, 4)
    assert bench.roster.members[1].mode is Mode.JOINING, "it has not flushed what was copied"
    assert bench.roster.proposal is not None, "without 1: it is needed until then, and comes back after it"
    bench.quiet = set()
    for i in (2, 3, 4):
        bench.apply(Accepted(i, version + 1))
    bench.apply(Joined(1))
    assert str(bench.roster.members[1].mode) == str(Mode.IN_SYNC)


class TestTheNextController:
    def test_the_record_says_who_belongs_to_the_volume(self) -> None:
        """Told of three, one of which was removed and one was added: the record has its address."""
        held = MembershipRecord(
            3, 2, "old", (1, 2, 4), (1, 2, 4), clean=True, addresses=("a:1", "b:1", "d:1")
        )
        bench = Bench(Replica(1, held), Replica(2), Replica(3), Replica(4, held))
        bench.replicas[2].promised = (3, "old")
        bench.replicas[3].record = MembershipRecord(1, 1, "old", (1, 2, 3), (1, 2, 3), clean=True)
        assert Connect(4, "d:1") in bench.up(1)
        assert bench.roster.phase is Phase.GATHERING
        bench.up(3)
        assert bench.roster.phase is Phase.GATHERING, "1 and 3 are no majority of 1, 2 and 4"
        bench.up(4)
        bench.apply(Tick(0))
        effects = bench.apply(Tick(10))
        assert Serve in kinds(effects)
        assert Disconnect in kinds(bench.effects)
        assert (configured(bench), in_sync(bench)) == ((1, 2, 4), (1, 4))

    def test_an_unknown_address_is_asked_for(self) -> None:
        held = MembershipRecord(3, 2, "old", (1, 4), (1, 4), clean=True)
        bench = Bench(Replica(1, held), configured=(1,))
        bench.up(1)
        bench.apply(Tick(0))
        assert (
            bench.roster.waiting_for
            == ("a majority of the replicas: no answer from 4 (give the address of 4)")
            or bench.roster.waiting_for == "the replicas to be reached"
        )

    def test_blank_replicas_beside_a_removed_one_are_not_the_volume(self) -> None:
        bench = Bench(Replica(1), Replica(2), Replica(3), new_volume=False)
        assert GiveUp in kinds(bench.up(1, 2, 3))


@attrs.define
class Fleet:
    """Replicas that outlive controllers, for random changes of the set."""

    replicas: dict[int, Replica]

    def majorities_that_can_serve(self) -> list[set[int]]:
        """Every set of replicas from which a new controller would begin."""
        ids = sorted(self.replicas)
        found = []
        for size in range(1, len(ids) + 1):
            for chosen in itertools.combinations(ids, size):
                copies = [
                    Replica(i, self.replicas[i].record, witness=self.replicas[i].witness) for i in chosen
                ]
                for copy in copies:
                    copy.promised = self.replicas[copy.id].promised
                newest = max((c.record for c in copies if c.record is not None), default=None)
                if newest is None:
                    continue
                bench = Bench(*copies, configured=tuple(ids), witnesses=newest.witnesses)
                bench.up(*chosen)  # one that was removed may be the only one to know it
                bench.apply(Tick(0))
                bench.apply(Tick(100))
                if bench.roster.phase is Phase.SETTLING:
                    bench.apply(Reconciled())
                if bench.roster.phase in (Phase.ACTIVE, Phase.COMMITTING):
                    found.append(set(chosen) & set(newest.configured))
        return found


def bring_over(bench: Bench, i: int) -> None:
    """End the rebuild of `i`, if one was begun."""
    if i in bench.roster.members and bench.roster.members[i].mode is Mode.REBUILDING:
        bench.apply(Copied(i))
        bench.apply(Joined(i))


@settings(max_examples=60, deadline=None)
@example(steps=[("remove", 1, False), ("remove", 2, True)])  # only 2 knows that 3 is all there is
@example(steps=[("down", 1, True), ("remove", 1, True), ("up", 1, False)])
@example(steps=[("remove", 1, False), ("remove", 2, False), ("down", 3, False), ("add", 1, False)])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "remove", "down", "up"]), st.integers(1, 5), st.booleans()),
        max_size=12,
    )
)
def test_whatever_changed_no_two_parts_of_the_fleet_can_both_serve(
    steps: list[tuple[str, int, bool]],
) -> None:
    """Any two sets of replicas that would each do for a new controller have a replica in common."""
    bench = Bench(Replica(1), Replica(2), Replica(3), new_volume=True)
    bench.up(1, 2, 3)
    for verb, i, partly in steps:
        bench.quiet = {1, 3} if partly else set()
        match verb:
            case "add" if not bench.roster.why_not_add(i):
                bench.replicas[i] = Replica(i)
                bench.apply(AddReplica(i, "", witness=False))
                bench.up(i)
                bring_over(bench, i)
            case "remove" if not bench.roster.why_not_remove(i):
                bench.apply(RemoveReplica(i))
            case "down" if i in bench.roster.members and bench.roster.members[i].report is not None:
                bench.down(i)
            case "up" if i in bench.roster.members and bench.roster.members[i].report is None:
                bench.up(i)
                bring_over(bench, i)
    serving = Fleet(bench.replicas).majorities_that_can_serve()
    assert serving, "all of them together can"
    for one, other in itertools.combinations(serving, 2):
        assert one & other, f"{one} and {other} would both serve"
