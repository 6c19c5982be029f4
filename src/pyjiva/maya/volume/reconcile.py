"""From what is to what is wanted: the steps that one look at a JivaVolume leads to.  Pure.

`reconcile` is level-triggered: it asks what is, never what happened, so it can be called at any time, twice,
or after years.  The shell carries the steps out in order and stops at the first that fails; then it looks
again.  What must not be forgotten is saved before anything is made of it: replicas' ids and nodes before
their objects, `born` before the controller is told to take blank replicas for a loss.  So the status is
judged from what was seen, never from what is about to be done, and of one look's steps SaveStatus is the
first, once at most, but for what it makes be forgotten and nobody may miss (DataLeft).

The life of a volume:

    finalizer ▸ ids, nodes ▸ secrets, Services ▸ replicas, controller ▸ born ▸ (replicas come, go; it grows)
    deleted ▸ controller stops ▸ replicas stop ▸ data is scrubbed ▸ finalizer goes, and what it owns after it

What changes how a pod runs, such as a new version's image, starts it again.  That is done to one replica
after the other, each when all are in sync, and to the controller at last; what does not work is changed at
once.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from pyjiva.maya.kube.resource import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JOBS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from pyjiva.maya.volume.adopt import adopt
from pyjiva.maya.volume.conditions import judge
from pyjiva.maya.volume.jiva_volume import (
    FINALIZER,
    ISCSI_PORT,
    IscsiAddress,
    JivaVolume,
    JivaVolumeStatus,
    ReplicaPlace,
    ReplicaState,
    WitnessVote,
    witness_vote,
)
from pyjiva.maya.volume.labels import (
    controller_name,
    disruption_budget_name,
    replica_name,
    scrub_name,
    secrets_name,
    service_name,
    witness_name,
)
from pyjiva.maya.volume.members import MemberPlan, decide_members
from pyjiva.maya.volume.objects import API_PORT, CAPACITY, DATA_PORT, VolumeObjects
from pyjiva.maya.volume.observed import SELECTED_NODE, Observed, cluster_ip_of, job_state
from pyjiva.maya.volume.report import IN_SYNC
from pyjiva.maya.volume.settings import Settings
from pyjiva.maya.volume.step import (
    AddFinalizer,
    AddMember,
    Apply,
    Delete,
    DropFinalizer,
    Grow,
    MakeSecrets,
    RemoveMember,
    SaveStatus,
    Step,
    Tell,
)
from pyjiva.maya.volume.witness_objects import WITNESS_ADDRESS, rights, witness_beside, witness_id_in
from pyjiva.maya.witness.kept import blank

__all__ = ["Plan", "reconcile"]

#: How soon to look again when nothing happens, since a volume does not tell by itself what it becomes.
SOON_S: Final = 1.0
LATER_S: Final = 5.0
AT_LAST_S: Final = 30.0


@attrs.frozen
class Plan:
    """What one look leads to."""

    steps: tuple[Step, ...]
    again_after_s: float

    @property
    def is_conditional(self) -> bool:
        """Whether nothing is done if the JivaVolume is not what was looked at: the first step says so."""
        return isinstance(self.steps[0], AddFinalizer | DropFinalizer | SaveStatus) if self.steps else True


def reconcile(observed: Observed, settings: Settings) -> Plan:
    """The steps, in order."""
    if observed.volume.deleting:
        return _Ending(observed, settings).plan()
    return _Running(observed, settings).plan()


@attrs.define
class _Work:
    observed: Observed
    settings: Settings
    volume: JivaVolume = attrs.field(init=False)
    steps: list[Step] = attrs.field(factory=list, init=False)
    farewells: list[Tell] = attrs.field(factory=list, init=False)
    """What nobody finds out any more once the status is saved."""

    def __attrs_post_init__(self) -> None:
        self.volume = self.observed.volume

    @property
    def objects(self) -> VolumeObjects:
        """Of the volume as it is about to be saved."""
        return VolumeObjects(self.volume, self.settings)

    def save(self, status: JivaVolumeStatus) -> list[Step]:
        """Nothing if it is so already."""
        return [SaveStatus(status)] if status != self.observed.volume.status else []

    def apply(self, resource: Resource, wanted: Mapping[str, Any]) -> None:
        """Unless it is so already."""
        there = self.observed.object(resource.kind, wanted["metadata"]["name"])
        if there is None or not is_part_of(wanted, there) or _has_more_data(there, wanted):
            self.steps.append(Apply(resource, wanted))

    def delete(self, resource: Resource, name: str) -> bool:
        """Whether it is gone."""
        there = self.observed.object(resource.kind, name)
        if there is not None and "deletionTimestamp" not in there["metadata"]:
            self.steps.append(Delete(resource, name))
        return there is None

    def live_pods(self, replica_id: int | None) -> bool:
        """Whether a process of it may still run: on a node that is away it may, until the node is gone."""
        return any(
            not pod.node or self.observed.node(pod.node) is not None
            for pod in self.observed.pods_of(replica_id)
        )

    def scrub(self, place: ReplicaPlace) -> bool:
        """Remove the replica's data from its node; whether that is done, or cannot ever be."""
        name = scrub_name(self.volume.name, place.id)
        job = self.observed.object(JOBS.kind, name)
        if self.volume.spec.policy.retain_replica_data or not place.node or not place.started:
            return self.delete(JOBS, name)
        node = self.observed.node(place.node)
        if node is None:
            if job is None:
                where = f"{self.objects.data_path(place.id)} on {place.node}"
                text = f"replica {place.id}: that node is gone; its data may be left: {where}"
                self.farewells.append(Tell(True, "DataLeft", text))
            return self.delete(JOBS, name)
        if job is None:
            self.steps.append(Apply(JOBS, self.objects.scrub(place, node.hostname)))
            return False
        if job_state(job) == "Failed":  # its node was sick, perhaps: try again
            self.delete(JOBS, name)
            return False
        return job_state(job) == "Complete"


@attrs.define
class _Running(_Work):
    """Of a volume that is wanted."""

    rolling: bool = attrs.field(default=False, init=False)
    """Whether a replica is started again by this look."""

    def plan(self) -> Plan:
        first: list[Step] = [] if FINALIZER in self.volume.finalizers else [AddFinalizer()]
        status = adopt(self.volume, self.observed.objects, self.observed.nodes)
        self.volume = attrs.evolve(self.volume, status=status)
        members = self._decide()
        self.volume = attrs.evolve(self.volume, status=self._as_seen(members))
        self._removed()
        removals, self.steps = self.steps, []
        lost = "" if self._secrets_are_there_or_may_be_made() else "its secrets are gone"
        status, tells = judge(self.observed, self.volume, members.no_place, lost)
        self.volume = attrs.evolve(self.volume, status=status)
        if self._has_secrets():
            self._services()
            self._replicas()
            self._controller()
            if members.add is not None:
                add = members.add
                self.steps.append(AddMember(add.id, add.address, add.witness))
            if members.remove is not None:
                self.steps.append(RemoveMember(members.remove))
            self._grow()
        steps = (*first, *self.farewells, *self.save(status), *self.steps, *removals, *tells)
        return Plan(steps, self._again_after(members))

    # --- what is seen

    def _decide(self) -> MemberPlan:
        seen = self.observed
        return decide_members(
            self.volume,
            now_s=seen.now_s,
            report=seen.report,
            pods=[pod for pod in seen.pods if not pod.deleting],
            nodes=seen.nodes,
            load=seen.load,
            of_its_group=seen.of_its_group,
            preferred_node=self.volume.annotations.get(SELECTED_NODE, ""),
        )

    def _as_seen(self, members: MemberPlan) -> JivaVolumeStatus:
        report, status = self.observed.report, self.volume.status
        host = cluster_ip_of(self.observed.object(SERVICES.kind, service_name(self.volume.name)))
        takes_io = report is not None and not report.parked
        return attrs.evolve(
            status,
            replicas=tuple(self._with_address(place) for place in members.replicas),
            next_replica_id=members.next_replica_id,
            born=status.born or takes_io,
            capacity_bytes=report.size_bytes if report is not None else status.capacity_bytes,
            filled=status.filled or (report is not None and (report.filled or 0.0) >= 1.0),
            iscsi=IscsiAddress(_at(host, ISCSI_PORT), self.volume.iqn) if host else status.iscsi,
            witness=self._vote(members),
        )

    def _vote(self, members: MemberPlan) -> WitnessVote | None:
        """As it is; blank for a witness that gets its number now.  Nothing else here touches it."""
        known = {place.id for place in self.observed.volume.status.replicas}
        adopted = {place.id for place in self.volume.status.replicas}
        for place in members.replicas:
            if place.in_volume and place.id not in known | adopted:
                return witness_vote(blank(self.volume.uid, place.id))
        return self.volume.status.witness

    def _with_address(self, place: ReplicaPlace) -> ReplicaPlace:
        if place.in_volume:
            return attrs.evolve(place, address=WITNESS_ADDRESS)
        name = replica_name(self.volume.name, place.id)
        host = cluster_ip_of(self.observed.object(SERVICES.kind, name))
        return attrs.evolve(place, address=_at(host, DATA_PORT)) if host else place

    # --- what there is to be

    def _secrets_are_there_or_may_be_made(self) -> bool:
        there = self.observed.object("Secret", secrets_name(self.volume.name)) is not None
        return there or not self.volume.status.born

    def _has_secrets(self) -> bool:
        """Replicas that have a key take no other: what is lost is not made again."""
        if self.observed.object("Secret", secrets_name(self.volume.name)) is not None:
            return True
        source = self.volume.spec.source
        if not self.volume.status.born and (source is None or self._source_host()):
            self.steps.append(MakeSecrets(self.volume.spec.policy.chap, source is not None))
        return False

    def _source_host(self) -> str:
        source = self.observed.source
        return source.host if source is not None and source.snapshot_ready else ""

    def _places(self) -> Iterator[ReplicaPlace]:
        for place in self.volume.status.replicas:
            if place.state is not ReplicaState.REMOVING:
                yield place

    def _services(self) -> None:
        self.apply(SERVICES, self.objects.controller_service())
        for place in self._places():
            if not place.in_volume:
                self.apply(SERVICES, self.objects.replica_service(place.id))

    def _replicas(self) -> None:
        for place in self._places():
            node = self.observed.node(place.node) if place.node else None
            if node is None:  # not placed yet, or gone for good: what is there stays as it is
                continue
            there = self.observed.object(DEPLOYMENTS.kind, replica_name(self.volume.name, place.id))
            began_with = ((there or {}).get("metadata", {}).get("annotations") or {}).get(CAPACITY)
            size_bytes = int(began_with) if began_with else self.volume.status.capacity_bytes
            wanted = self.objects.replica(place, node.hostname, size_bytes or self.volume.size_bytes)
            before = len(self.steps)
            if there is None or self._may_start_again(place):
                self.apply(DEPLOYMENTS, wanted)
            self.rolling = self.rolling or (there is not None and len(self.steps) > before)

    def _may_start_again(self, place: ReplicaPlace) -> bool:
        """Whether the volume can do without it for a moment."""
        if self.rolling:
            return False
        return place.mode not in (IN_SYNC, "witness") or self._is_settled()

    def _is_settled(self) -> bool:
        """Whether everybody has everything, and no pod is about to be started again."""
        report = self.observed.report
        return (
            report is not None
            and report.state == "healthy"
            and all(
                _runs_as_wanted(value)
                for (kind, _), value in self.observed.objects.items()
                if kind == DEPLOYMENTS.kind
            )
        )

    def _controller(self) -> None:
        places = [place for place in self._places() if place.state is not ReplicaState.JOINING]
        host = self.volume.status.iscsi
        if host is None or not all(place.address for place in places):
            return
        fill_from = self._fill_from()
        if fill_from is None:
            return
        portal_host = host.target_portal.rpartition(":")[0].strip("[]")
        self.apply(CONFIG_MAPS, self.objects.configuration(portal_host, fill_from))
        self._witness_rights()
        report = self.observed.report
        if report is None or report.parked or (self._is_settled() and not self.rolling):
            self.apply(DEPLOYMENTS, self.objects.controller())
        self.apply(DISRUPTION_BUDGETS, self.objects.disruption_budget(places))
        for pod in self.observed.pods_of(None):
            if pod.fenced and not pod.deleting:
                # It has been told to keep out for good; only another pod may take the volume.
                self.steps.append(Delete(PODS, pod.name))

    def _witness_rights(self) -> None:
        """Before the pod that needs them; gone with the witness."""
        if witness_beside(self.volume) is not None:
            for resource, wanted in zip(
                (SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS), rights(self.volume, self.settings), strict=True
            ):
                self.apply(resource, wanted)
            return
        controller = self.observed.object(DEPLOYMENTS.kind, controller_name(self.volume.name)) or {}
        template = controller.get("spec", {}).get("template", {}).get("spec", {})
        containers = template.get("containers") or ()
        if witness_id_in(containers) is None:  # else its pod runs as that account still
            for resource in (ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS):
                self.delete(resource, witness_name(self.volume.name))

    def _fill_from(self) -> str | None:
        """Where the volume has its content from; "": from nowhere (any more); None: that is not there yet."""
        source = self.volume.spec.source
        if source is None or self.volume.status.filled:
            return ""
        host = self._source_host()
        return f"http://{_at(host, API_PORT)}/v1/snapshots/{source.snapshot}" if host else None

    def _grow(self) -> None:
        report = self.observed.report
        if report is not None and not report.parked and report.size_bytes < self.volume.size_bytes:
            self.steps.append(Grow(self.volume.size_bytes))

    def _removed(self) -> None:
        """Take away what is left of replicas that the volume does not count any more."""
        for place in self.volume.status.replicas:
            if place.state is not ReplicaState.REMOVING:
                continue
            name = replica_name(self.volume.name, place.id)
            gone = [self.delete(DEPLOYMENTS, name), self.delete(SERVICES, name)]
            if not all(gone) or self.live_pods(place.id) or not self.scrub(place):
                continue
            kept = tuple(each for each in self.volume.status.replicas if each.id != place.id)
            self.volume = attrs.evolve(self.volume, status=attrs.evolve(self.volume.status, replicas=kept))
            self.delete(JOBS, scrub_name(self.volume.name, place.id))

    def _again_after(self, members: MemberPlan) -> float:
        status, report = self.volume.status, self.observed.report
        settled = all(place.state is ReplicaState.MEMBER for place in status.replicas)
        if report is None or report.parked or not settled or not status.born:
            wait_s = SOON_S if not status.born else LATER_S / 2
        elif report.state != "healthy" or (self.volume.spec.source is not None and not status.filled):
            wait_s = LATER_S
        else:
            wait_s = AT_LAST_S
        return min(wait_s, members.again_after_s if members.again_after_s is not None else wait_s)


@attrs.define
class _Ending(_Work):
    """Of a volume that somebody has deleted."""

    def plan(self) -> Plan:
        if FINALIZER not in self.volume.finalizers:
            return Plan((), AT_LAST_S)  # others have finalizers of their own
        why = self._end()
        if why:
            status, tells = judge(self.observed, self.volume, why, "")
            steps = (*self.farewells, *self.save(status), *self.steps, *tells)
        else:
            steps = (*self.farewells, *self.steps, DropFinalizer())
        return Plan(steps, SOON_S if why else AT_LAST_S)

    def _end(self) -> str:
        """Why it is not at its end, for people; "": it is."""
        if self.observed.clones_being_filled:
            return f"still read by its clones: {', '.join(self.observed.clones_being_filled)}"
        # First the controller, so that it ends cleanly.
        if not self.delete(DEPLOYMENTS, controller_name(self.volume.name)) or self.live_pods(None):
            return "its controller ends"
        self.delete(DISRUPTION_BUDGETS, disruption_budget_name(self.volume.name))
        places = self.volume.status.replicas
        gone = [self.delete(DEPLOYMENTS, replica_name(self.volume.name, place.id)) for place in places]
        waiting = [place for place in places if self.live_pods(place.id)]
        if not all(gone) or waiting:
            return "its replicas end"
        left = [place for place in places if not self.scrub(place)]
        if left:
            names = ", ".join(f"{place.id} on {place.node}" for place in left)
            return f"data of replicas is removed: {names}"
        return ""


def is_part_of(wanted: Any, there: Any) -> bool:
    """Whether `there` has all that `wanted` says; it may have more, such as what the API server fills in."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            key in there and is_part_of(value, there[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(wanted) == len(there)
            and all(is_part_of(left, right) for left, right in zip(wanted, there, strict=True))
        )
    return bool(wanted == there)


def _runs_as_wanted(deployment: Mapping[str, Any]) -> bool:
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration") == deployment["metadata"].get("generation")
    return bool(seen and status.get("updatedReplicas") == 1 and status.get("readyReplicas") == 1)


def _has_more_data(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Of a ConfigMap: whether it has keys that it is to have no more."""
    return bool(set(there.get("data") or ()) - set(wanted.get("data") or ())) and "data" in wanted


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
