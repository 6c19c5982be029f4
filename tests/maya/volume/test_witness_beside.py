"""The reconciler and a witness whose vote is in the JivaVolume: two nodes are enough; no vote is undone."""

from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from pyjiva.maya.kube.resource import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JIVA_VOLUMES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
)
from pyjiva.maya.policy import VolumePolicy
from pyjiva.maya.volume import JivaVolume, JivaVolumeSpec, JivaVolumeStatus, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.adopt import adopt
from pyjiva.maya.volume.jiva_volume import witness_vote
from pyjiva.maya.volume.members import Pod, decide_members
from pyjiva.maya.volume.objects import VolumeObjects
from pyjiva.maya.volume.observed import pod_of
from pyjiva.maya.volume.placement import Node
from pyjiva.maya.volume.report import MemberReport, VolumeReport
from pyjiva.maya.volume.witness_objects import rights, witness_beside, witness_id_in
from pyjiva.maya.witness import JivaVolumeVotes, VoteOf
from pyjiva.maya.witness.kept import blank
from pyjiva.testing.kube import Call, FakeCluster, Moment, no_fault
from pyjiva.vote import Vote
from tests.maya.kube_world import NAMESPACE, SETTINGS, KubeWorld, open_world
from tests.maya.volume.test_operator import conditions, is_whole, members, whole

POLICY = VolumePolicy(witness=True, witness_in_volume=True)
TWO: dict[str, Any] = {"desired_replication_factor": 2, "policy": POLICY}
COUNTED = (ReplicaState.INITIAL, ReplicaState.JOINING, ReplicaState.MEMBER)
OURS = (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS)


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def votes(world: KubeWorld, replica_id: int = 3) -> JivaVolumeVotes:
    whose = VoteOf(NAMESPACE, "v", world.volume().uid, replica_id)
    return JivaVolumeVotes(FakeCluster(world.store, "pyjiva-witness"), whose)


async def promise(world: KubeWorld, epoch: int, replica_id: int = 3) -> Vote:
    """What a witness' process does."""
    store = votes(world, replica_id)
    while True:
        before = await store.read()
        vote = Vote(epoch, "c" * 16, None, before.vote.writes + 1)
        if await store.replace(before, vote) is not None:
            return vote


def deployment(world: KubeWorld) -> dict[str, Any]:
    value = world.store.get(DEPLOYMENTS, NAMESPACE, "v-ctrl")
    assert value is not None
    return value


async def test_two_nodes_are_enough_for_two_copies_and_a_vote(autojump_clock: MockClock) -> None:
    async with open_world(nodes=2) as world:
        world.make_volume(**TWO)
        await whole(world)
        kinds = {kind.kind for kind in OURS}
        assert [each for each in world.objects() if each.split()[0] in kinds] == [
            "Role v-witness",
            "RoleBinding v-witness",
            "ServiceAccount v-witness",
        ]
        places = world.volume().status.replicas
        assert [(place.witness, place.in_volume, place.node != "") for place in places] == [
            *((False, False, True), (False, False, True), (True, True, False)),
        ]
        assert conditions(world)["InSync"] == ("True", "AllCopies")
        assert world.store.get(DEPLOYMENTS, NAMESPACE, "v-rep-3") is None
        assert (await votes(world).read()).vote == Vote()
        world.store.delete(JIVA_VOLUMES, NAMESPACE, "v")
        await world.until(lambda: not world.objects(), 200)


async def test_a_node_that_dies_leaves_a_copy_and_the_vote(autojump_clock: MockClock) -> None:
    async with open_world(nodes=2) as world:
        world.make_volume(**TWO)
        await whole(world)
        [pod] = [
            pod for pod in world.controllers._pods_of(_replica_set(world)) if pod["spec"].get("nodeName")
        ]
        world.controllers.kill_node(pod["spec"]["nodeName"])
        await world.until(lambda: conditions(world)["InSync"][0] == "False", 300)
        await world.until(lambda: conditions(world)["Ready"][0] == "True", 300)
        world.controllers.revive_node(pod["spec"]["nodeName"])
        await whole(world, within_s=400)


def _replica_set(world: KubeWorld) -> dict[str, Any]:
    return deployment(world)


async def test_what_a_witness_has_promised_is_not_undone_by_the_reconciler(
    autojump_clock: MockClock,
) -> None:
    """A promise between the reconciler's read and its write: the write is refused, and it looks again."""
    async with open_world(nodes=2, operator=False) as world:
        promised: list[int] = []

        async def race(call: Call, moment: Moment) -> None:
            saves = call.verb == "update" and call.subresource == "status" and moment is Moment.BEFORE
            vote = world.volume().status.witness
            if saves and vote is not None and len(promised) < 12:
                promised.append(vote.promised_epoch + 1)
                await promise(world, promised[-1])
            await no_fault(call, moment)

        world.nursery.start_soon(world.run_operator, race)
        world.make_volume(**TWO)
        await world.until(lambda: len(promised) >= 12 and is_whole(world), 400)
        world.change(desiredReplicationFactor=1)
        await world.until(lambda: members(world) == {1, 3} or members(world) == {2, 3}, 300)
        assert (await votes(world).read()).vote.promised_epoch == promised[-1]
        assert promised == sorted(promised)


async def test_a_lost_status_costs_the_vote_and_a_new_witness_takes_its_place(
    autojump_clock: MockClock,
) -> None:
    """As after a restore that left the status out.  What the old one had promised is not known: it is taken
    out by both copies, and never takes a blank vote for its own.
    """
    async with open_world(nodes=2) as world:
        world.make_volume(**TWO)
        await whole(world)
        await promise(world, 7)
        before = len(world.store.history)
        world.store.merge(JIVA_VOLUMES, NAMESPACE, "v", {"status": None}, subresource="status")
        await world.until(lambda: members(world) == {1, 2, 4}, 400)
        await whole(world, within_s=400)
        vote = world.volume().status.witness
        assert vote is not None
        assert vote.replica_id == 4
        since = [change.object for change in world.store.history[before:] if change.resource == JIVA_VOLUMES]
        numbers = {(each.get("status") or {}).get("witness", {}).get("replicaID") for each in since}
        assert numbers == {None, 4}
        assert witness_id_in(deployment(world)["spec"]["template"]["spec"]["containers"]) == 4


async def test_a_witness_comes_and_goes_with_the_policy(autojump_clock: MockClock) -> None:
    async with open_world(nodes=3) as world:
        world.make_volume(desired_replication_factor=2)
        await whole(world, copies=2)
        world.change(policy={"witness": True, "witnessInVolume": True})
        await world.until(lambda: members(world) == {1, 2, 3} and is_whole(world), 300)
        await promise(world, 5)
        world.change(policy={"witness": True, "witnessInVolume": False})
        await world.until(lambda: members(world) == {1, 2, 4}, 300)
        await whole(world)
        assert world.volume().status.replicas[2].node
        await world.until(lambda: not any(each.endswith("-witness") for each in world.objects()), 300)
        assert "serviceAccountName" not in deployment(world)["spec"]["template"]["spec"]
        world.change(policy={"witness": True, "witnessInVolume": True})
        await world.until(lambda: members(world) == {1, 2, 5} and is_whole(world), 300)
        assert (await votes(world, 5).read()).vote == Vote()


async def test_nothing_is_written_once_all_is_as_it_is_to_be(autojump_clock: MockClock) -> None:
    async with open_world(nodes=2) as world:
        world.make_volume(**TWO)
        await whole(world)
        await trio.sleep(60)
        before = world.store.version
        await trio.sleep(300)
        assert world.store.version == before


# --- pure parts

SPEC = JivaVolumeSpec("v", 1 << 30, "a" * 32, desired_replication_factor=2, policy=POLICY)
PLACES = (
    ReplicaPlace(1, ReplicaState.MEMBER, "n1", address="10.0.0.1:9502", started=True),
    ReplicaPlace(2, ReplicaState.MEMBER, "n2", address="10.0.0.2:9502", started=True),
    ReplicaPlace(3, ReplicaState.MEMBER, witness=True, address="127.0.0.1:9504", in_volume=True),
)
VOLUME = JivaVolume(
    "ns",
    "v",
    SPEC,
    JivaVolumeStatus(born=True, replicas=PLACES, next_replica_id=4, witness=witness_vote(blank("u", 3))),
    uid="u",
)


def controller_of(volume: JivaVolume) -> dict[str, Any]:
    spec: dict[str, Any] = VolumeObjects(volume, SETTINGS).controller()["spec"]["template"]["spec"]
    return spec


def test_the_token_is_mounted_in_the_witness_alone() -> None:
    spec = controller_of(VOLUME)
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "v-witness"
    mounts = {each["name"]: {mount["name"] for mount in each["volumeMounts"]} for each in spec["containers"]}
    [tokens] = [each["name"] for each in spec["volumes"] if "projected" in each]
    assert [name for name, mounted in mounts.items() if tokens in mounted] == ["witness"]
    assert mounts["witness"] == {tokens, "witness-key"}
    [key] = [each["secret"]["items"] for each in spec["volumes"] if each["name"] == "witness-key"]
    assert [item["key"] for item in key] == ["volume.key"]


def test_a_volume_without_such_a_witness_has_no_account() -> None:
    spec = controller_of(attrs.evolve(VOLUME, status=attrs.evolve(VOLUME.status, replicas=PLACES[:2])))
    assert "serviceAccountName" not in spec
    assert not [each for each in spec["volumes"] if "projected" in each]
    assert witness_id_in(spec["containers"]) is None


def test_an_account_that_a_policy_names_gets_the_role() -> None:
    policy = attrs.evolve(POLICY, service_account="ours")
    volume = attrs.evolve(VOLUME, spec=attrs.evolve(SPEC, policy=policy))
    assert controller_of(volume)["serviceAccountName"] == "ours"
    _, _, binding = rights(volume, SETTINGS)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "ours", "namespace": "ns"}]


def test_the_role_is_for_one_object() -> None:
    _, role, _ = rights(VOLUME, SETTINGS)
    assert role["rules"] == [
        {"apiGroups": ["openebs.io"], "resources": ["jivavolumes"], "resourceNames": ["v"], "verbs": ["get"]},
        {
            "apiGroups": ["openebs.io"],
            "resources": ["jivavolumes/status"],
            "resourceNames": ["v"],
            "verbs": ["update"],
        },
    ]


@pytest.mark.parametrize(("copies", "needed"), [(2, 1), (4, 2), (6, 3)])
def test_as_many_copies_may_be_drained_as_the_vote_makes_up_for(copies: int, needed: int) -> None:
    places = [*(attrs.evolve(PLACES[0], id=10 + number) for number in range(copies)), PLACES[2]]
    budget = VolumeObjects(VOLUME, SETTINGS).disruption_budget(places)
    assert budget["kind"] == DISRUPTION_BUDGETS.kind
    assert budget["spec"]["minAvailable"] == needed


@pytest.mark.parametrize("running", [True, False])
def test_a_controllers_pod_says_which_witness_runs_in_it(running: bool) -> None:
    state = {"running": {}} if running else {"waiting": {"reason": "ContainerCreating"}}
    pod = {
        "metadata": {"name": "p", "labels": {}},
        "spec": controller_of(VOLUME),
        "status": {"containerStatuses": [{"name": "witness", "state": state}]},
    }
    assert pod_of(pod).witness_id == (3 if running else None)


def test_the_number_of_a_lost_status_is_read_from_the_pod_that_runs() -> None:
    objects = VolumeObjects(VOLUME, SETTINGS)
    found = {
        ("Deployment", "v-ctrl"): objects.controller(),
        ("Deployment", "v-rep-1"): objects.replica(PLACES[0], "n1", 1 << 30),
    }
    status = adopt(attrs.evolve(VOLUME, status=JivaVolumeStatus()), found, [Node("n1")])
    assert [(place.id, place.in_volume) for place in status.replicas] == [(1, False), (3, True)]
    assert status.next_replica_id == 4
    assert status.witness is None


def report(*modes: str) -> VolumeReport:
    replicas = tuple(MemberReport(number, "", mode, "") for number, mode in enumerate(modes, 1))
    return VolumeReport("healthy", "", 1 << 30, 1, replicas)


@given(
    states=st.lists(st.sampled_from(list(ReplicaState)), min_size=1, max_size=3),
    policy=st.sampled_from([POLICY, VolumePolicy(), VolumePolicy(witness=True)]),
    vote=st.sampled_from([None, 3, 4, 5]),
    counted=st.sets(st.sampled_from([3, 4, 5])),
    beside=st.sampled_from([None, 3, 4, 5]),
    born=st.booleans(),
)
def test_a_number_is_given_once_and_one_witness_is_beside(
    states: list[ReplicaState],
    policy: VolumePolicy,
    vote: int | None,
    counted: set[int],
    beside: int | None,
    born: bool,
) -> None:
    """Over all that can be of witnesses: ids only grow, none is joined or added without its process, and what
    is taken out was lost or is not wanted.
    """
    places = tuple(
        ReplicaPlace(3 + number, state, witness=True, address="127.0.0.1:9504", in_volume=True)
        for number, state in enumerate(states)
    )
    held = None if vote is None else witness_vote(blank("u", vote))
    status = attrs.evolve(
        VOLUME.status,
        born=born,
        replicas=(*PLACES[:2], *places),
        next_replica_id=3 + len(places),
        witness=held,
    )
    volume = attrs.evolve(VOLUME, status=status, spec=attrs.evolve(SPEC, policy=policy))
    said = [MemberReport(number, "", "in-sync", "") for number in (1, 2)]
    said += [MemberReport(number, "", "witness", "") for number in counted if number < 3 + len(places)]
    plan = decide_members(
        volume,
        now_s=0.0,
        report=VolumeReport("healthy", "", 1 << 30, 1, tuple(said)),
        pods=[Pod("c", None, "n1", running=True, witness_id=beside)],
        nodes=[Node("n1"), Node("n2"), Node("n3")],
        load={},
    )
    before = {place.id: place for place in status.replicas}
    for place in plan.replicas:
        if place.id not in before:
            assert place.id >= status.next_replica_id
        elif place.state is ReplicaState.LEAVING and before[place.id].state is not ReplicaState.LEAVING:
            unwanted = not (policy.witness and policy.witness_in_volume)
            several = (
                sum(
                    each.state in (ReplicaState.INITIAL, ReplicaState.JOINING, ReplicaState.MEMBER)
                    for each in places
                )
                > 1
            )
            assert place.in_volume
            assert unwanted or several or vote != place.id
        if place.in_volume:
            assert not place.node
    new = [place for place in plan.replicas if place.in_volume and place.id not in before]
    assert len(new) <= 1
    if plan.add is not None and plan.add.in_volume:
        assert plan.add.id == beside
    chosen = witness_beside(attrs.evolve(volume, status=attrs.evolve(status, replicas=plan.replicas)))
    assert chosen is None or chosen.state is not ReplicaState.REMOVING
