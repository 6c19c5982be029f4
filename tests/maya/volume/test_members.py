"""`maya.volume.members`: whatever happens to nodes and wishes, copies are not lost by a step of ours."""

from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyjiva.maya.policy import VolumePolicy
from pyjiva.maya.volume import JivaVolume, JivaVolumeSpec, JivaVolumeStatus, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.members import MemberPlan, Pod, decide_members, seconds_of, timestamp
from pyjiva.maya.volume.placement import Node
from pyjiva.maya.volume.report import MemberReport, VolumeReport

NODES = 6
REPLACE_S = 60.0
POLICY = VolumePolicy(replace_after_s=REPLACE_S)
SPEC = JivaVolumeSpec("v", 1 << 20, "a" * 32, desired_replication_factor=3, policy=POLICY)
COUNTED = (ReplicaState.INITIAL, ReplicaState.JOINING, ReplicaState.MEMBER)


@attrs.define
class World:
    """A volume as its controller would behave, and nodes; the plan's wishes are carried out at once."""

    volume: JivaVolume
    ready: dict[str, bool] = attrs.field(factory=lambda: {f"n{number}": True for number in range(NODES)})
    now_s: float = 1_000_000.0
    members: dict[int, bool] = attrs.field(factory=dict)
    """Whom the volume counts → whether it is in sync."""
    adding: int | None = None
    plan: MemberPlan | None = None
    ever: set[int] = attrs.field(factory=set)

    def nodes(self) -> list[Node]:
        return [Node(name, ready=ready) for name, ready in self.ready.items()]

    def place(self, replica_id: int) -> ReplicaPlace | None:
        return next((each for each in self.volume.status.replicas if each.id == replica_id), None)

    def runs(self, replica_id: int) -> bool:
        place = self.place(replica_id)
        return place is not None and self.ready.get(place.node, False)

    def report(self) -> VolumeReport | None:
        if not self.members:
            return None
        here = [id_ for id_ in self.members if self.runs(id_)]
        good = [id_ for id_ in here if self.members[id_]]
        takes_io = len(here) > len(self.members) // 2 and good
        replicas = [
            MemberReport(id_, "", "in-sync" if id_ in good else "rebuilding" if id_ in here else "out", "")
            for id_ in self.members
        ]
        if self.adding is not None:
            replicas.append(MemberReport(self.adding, "", "rebuilding", ""))
        state = "parked" if not takes_io else "healthy" if len(good) == len(self.members) else "degraded"
        return VolumeReport(state, "", 1 << 20, 1, tuple(replicas), adding=self.adding)

    def pods(self) -> list[Pod]:
        return [
            Pod(f"p{place.id}", place.id, place.node, ready=True, running=True)
            for place in self.volume.status.replicas
            if place.node and self.ready.get(place.node)
        ]

    def step(self) -> None:
        """One look, and what it leads to."""
        report = self.report()
        status = self.volume.status
        if report is not None and not report.parked:
            status = attrs.evolve(status, born=True)
            self.volume = attrs.evolve(self.volume, status=status)
        before = {place.id: place for place in status.replicas}
        plan = decide_members(
            self.volume, now_s=self.now_s, report=report, pods=self.pods(), nodes=self.nodes(), load={}
        )
        self.check_step(before, plan, report)
        replicas = tuple(
            attrs.evolve(place, address=f"10.0.0.{place.id}:9502")
            for place in plan.replicas
            if place.state is not ReplicaState.REMOVING  # objects and data are gone at once
        )
        status = attrs.evolve(status, replicas=replicas, next_replica_id=plan.next_replica_id)
        self.volume = attrs.evolve(self.volume, status=status)
        if not status.born and replicas and all(self.runs(place.id) for place in replicas):
            self.members = {place.id: True for place in replicas}
        if plan.add is not None:
            assert self.adding is None
            self.adding = plan.add.id
        if plan.remove is not None:
            if plan.remove == self.adding:
                self.adding = None
            else:
                del self.members[plan.remove]
        self.plan = plan

    def check_step(
        self, before: dict[int, ReplicaPlace], plan: MemberPlan, report: VolumeReport | None
    ) -> None:
        wanted = self.volume.spec.desired_replication_factor
        for place in plan.replicas:
            old = before.get(place.id)
            if old is None:
                assert place.id not in self.ever, "an id was used twice"
                self.ever.add(place.id)
            elif old.started:
                assert place.node == old.node, "a replica that ran has moved"
            if place.state is ReplicaState.REMOVING:
                assert place.id not in self.members, "data of a member is removed"
        if plan.remove is not None and plan.remove in self.members:
            assert report is not None
            assert not report.parked
            others = [m for m in report.replicas if m.mode == "in-sync" and m.id != plan.remove]
            assert len(others) >= min(wanted, sum(m.mode == "in-sync" for m in report.replicas))
        moving = (ReplicaState.JOINING, ReplicaState.LEAVING)
        assert sum(place.state in moving for place in plan.replicas) <= 1
        nodes = [place.node for place in plan.replicas if place.node]
        assert len(nodes) == len(set(nodes)), "two members on one node"

    def work(self) -> None:
        """The volume rebuilds whom it reaches, and whom it adds becomes a member."""
        report = self.report()
        if report is None or report.parked:
            return
        for id_ in self.members:
            if self.runs(id_):
                self.members[id_] = True
        if self.adding is not None and self.runs(self.adding):
            self.members[self.adding] = True
            self.adding = None


class Life(RuleBasedStateMachine):
    """Wishes and failures in any order."""

    @initialize(wanted=st.integers(1, 4))
    def begin(self, wanted: int) -> None:
        spec = attrs.evolve(SPEC, desired_replication_factor=wanted)
        self.world = World(JivaVolume("ns", "v", spec))

    @rule()
    def look(self) -> None:
        self.world.step()

    @rule()
    def rebuild(self) -> None:
        self.world.work()

    @rule(node=st.sampled_from([f"n{number}" for number in range(NODES)]))
    def fail(self, node: str) -> None:
        self.world.ready[node] = False
        for id_ in self.world.members:
            place = self.world.place(id_)
            if place is not None and place.node == node:
                self.world.members[id_] = False

    @rule(node=st.sampled_from([f"n{number}" for number in range(NODES)]))
    def come_back(self, node: str) -> None:
        self.world.ready[node] = True

    @rule(seconds=st.sampled_from([1.0, REPLACE_S / 2, REPLACE_S, 10 * REPLACE_S]))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds

    @rule(wanted=st.integers(1, 4))
    def wish(self, wanted: int) -> None:
        spec = attrs.evolve(self.world.volume.spec, desired_replication_factor=wanted)
        self.world.volume = attrs.evolve(self.world.volume, spec=spec)

    @invariant()
    def there_is_always_a_copy(self) -> None:
        if hasattr(self, "world") and self.world.volume.status.born:
            assert self.world.members

    def teardown(self) -> None:
        """When all nodes are back for long, everybody who is wanted is there, and nobody else."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.ready = dict.fromkeys(world.ready, True)
        for id_ in world.members:
            world.members[id_] = True  # the last state of each survives
        for _ in range(60):
            world.work()
            world.step()
            world.now_s += 1
        wanted = world.volume.spec.desired_replication_factor
        assert sorted(world.members.values()) == [True] * wanted
        states = [place.state for place in world.volume.status.replicas]
        assert states == [ReplicaState.MEMBER] * wanted
        assert {place.id for place in world.volume.status.replicas} == set(world.members)


Life.TestCase.settings = settings(deadline=None, max_examples=150, stateful_step_count=60)
TestLife = Life.TestCase


def born(**more: Any) -> World:
    """A volume with three members on n… and everything in sync."""
    world = World(JivaVolume("ns", "v", attrs.evolve(SPEC, **more)))
    for _ in range(4):
        world.step()
    assert [place.state for place in world.volume.status.replicas] == [ReplicaState.MEMBER] * 3
    return world


def test_a_wish_before_birth_removes_nobody_whom_the_volume_may_count() -> None:
    """Three had run, two died before Maya heard of the volume, and one copy was wished for."""
    world = World(JivaVolume("ns", "v", SPEC))
    world.step()
    assert world.members.keys() == {1, 2, 3}
    for place in world.volume.status.replicas[1:]:
        world.ready[place.node] = False
    world.volume = attrs.evolve(world.volume, spec=attrs.evolve(SPEC, desired_replication_factor=1))
    world.step()
    assert states(world) == dict.fromkeys((1, 2, 3), "Initial")


def test_a_wish_before_anything_runs_is_granted_at_once() -> None:
    world = World(JivaVolume("ns", "v", SPEC))
    world.ready = dict.fromkeys(world.ready, False)
    world.step()
    world.volume = attrs.evolve(world.volume, spec=attrs.evolve(SPEC, desired_replication_factor=1))
    world.step()
    assert states(world) == {1: "Initial"}


def test_who_is_wished_for_when_the_volume_is_formed_already_joins() -> None:
    world = World(JivaVolume("ns", "v", attrs.evolve(SPEC, desired_replication_factor=1)))
    world.step()
    assert world.members.keys() == {1}
    only = world.volume.status.replicas[0].node
    world.ready[only] = False
    world.volume = attrs.evolve(world.volume, spec=attrs.evolve(SPEC, desired_replication_factor=2))
    world.step()
    assert states(world) == dict.fromkeys((1, 2), "Initial")
    world.ready[only] = True
    for _ in range(4):
        world.step()
        world.work()
    assert states(world) == dict.fromkeys((1, 2), "Member")


def states(world: World) -> dict[int, str]:
    return {place.id: place.state.value for place in world.volume.status.replicas}


def test_a_node_that_is_away_for_long_is_replaced_and_the_lost_replica_taken_out_after() -> None:
    world = born()
    lost = world.volume.status.replicas[1]
    world.ready[lost.node] = False
    world.step()
    assert world.volume.status.replicas[1].away_since == timestamp(world.now_s)
    world.now_s += REPLACE_S - 1
    world.step()
    assert states(world) == dict.fromkeys((1, 2, 3), "Member")
    assert world.plan is not None
    assert world.plan.again_after_s == pytest.approx(1.0)
    world.now_s += 1
    world.step()
    assert states(world) == {1: "Member", 2: "Member", 3: "Member", 4: "Joining"}
    world.step()
    world.work()
    assert world.members.keys() == {1, 2, 3, 4}
    world.step()
    assert states(world)[2] == "Leaving"
    world.step()
    world.step()
    assert states(world) == dict.fromkeys((1, 3, 4), "Member")


def test_a_node_that_comes_back_in_time_calls_the_new_replica_off() -> None:
    world = born()
    lost = world.volume.status.replicas[0]
    world.ready[lost.node] = False
    world.step()
    world.now_s += REPLACE_S
    world.step()
    world.step()
    assert world.adding == 4
    world.ready[lost.node] = True
    world.step()
    world.step()
    assert world.adding is None
    world.step()
    assert states(world) == dict.fromkeys((1, 2, 3), "Member")


def test_nothing_is_replaced_if_that_is_not_wanted() -> None:
    world = born(policy=attrs.evolve(POLICY, replace_after_s=0.0))
    world.ready[world.volume.status.replicas[0].node] = False
    world.step()
    world.now_s += 1e9
    world.step()
    assert states(world) == dict.fromkeys((1, 2, 3), "Member")


def test_nobody_joins_or_leaves_while_the_volume_is_parked_or_silent() -> None:
    world = born()
    for place in world.volume.status.replicas[:2]:
        world.ready[place.node] = False
    for _ in range(3):
        world.step()
        world.now_s += REPLACE_S
    assert states(world) == dict.fromkeys((1, 2, 3), "Member")


def test_when_no_node_is_left_it_says_why() -> None:
    world = born()
    for node in world.ready:
        if all(place.node != node for place in world.volume.status.replicas):
            world.ready[node] = False
    world.ready[world.volume.status.replicas[0].node] = False
    world.step()
    world.now_s += REPLACE_S
    world.step()
    assert world.plan is not None
    assert world.plan.no_place.startswith("replica 4: no node fits: ")
    assert "has a member of the volume" in world.plan.no_place


def test_a_pod_that_finds_no_room_is_tried_elsewhere_until_it_has_run() -> None:
    world = World(JivaVolume("ns", "v", SPEC))
    world.step()
    first = world.volume.status.replicas[0]
    pod = Pod("p", 1, unschedulable_since_s=world.now_s)

    def look(after_s: float, volume: JivaVolume) -> tuple[ReplicaPlace, MemberPlan]:
        plan = decide_members(
            volume, now_s=world.now_s + after_s, report=None, pods=[pod], nodes=world.nodes(), load={}
        )
        return plan.replicas[0], plan

    waits, plan = look(9.0, world.volume)
    assert waits.node == first.node
    assert plan.again_after_s == pytest.approx(1.0)
    moved, _ = look(10.0, world.volume)
    assert moved.node not in ("", first.node)
    assert moved.refused == (first.node,)
    ran = attrs.evolve(first, started=True)
    status = attrs.evolve(world.volume.status, replicas=(ran, *world.volume.status.replicas[1:]))
    stays, _ = look(1000.0, attrs.evolve(world.volume, status=status))
    assert stays.node == first.node


def test_a_witness_is_one_more_that_counts_for_itself() -> None:
    policy = attrs.evolve(POLICY, witness=True)
    volume = JivaVolume("ns", "v", attrs.evolve(SPEC, desired_replication_factor=2, policy=policy))
    nodes = [Node(f"n{number}") for number in range(3)]
    plan = decide_members(volume, now_s=0.0, report=None, pods=[], nodes=nodes, load={})
    assert [(place.id, place.witness) for place in plan.replicas] == [(1, False), (2, False), (3, True)]
    assert {place.node for place in plan.replicas} == {"n0", "n1", "n2"}


def test_times_are_written_as_kubernetes_does_and_read_again() -> None:
    assert timestamp(0.9) == "1970-01-01T00:00:00Z"
    assert seconds_of("1970-01-01T00:01:00Z") == 60.0
    assert seconds_of("1970-01-01T00:01:00.5Z") == 60.5


def test_a_status_without_replicas_begins() -> None:
    volume = JivaVolume("ns", "v", SPEC, JivaVolumeStatus(next_replica_id=7))
    plan = decide_members(volume, now_s=0.0, report=None, pods=[], nodes=[], load={})
    assert [place.id for place in plan.replicas] == [7, 8, 9]
    assert plan.no_place == "replica 9: no node fits: there is none"
