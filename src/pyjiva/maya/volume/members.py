"""Which replicas a volume has, is to have, and how it gets from one to the other.  Pure.

Each replica goes through `ReplicaState`, and every step leaves the volume with at least the copies that it
had, as long as there are nodes for them:

    Initial ──────────────▶ Member ◀─▶ Leaving ──▶ Removing ──▶ (gone)
       │                        ▲                      ▲
       ▼ (too late for that)    │                      │
    Joining ─(added, in sync)───┘                      │
       └────(not needed any more, and not added yet)───┘

- *Initial* ones are there before the volume is born; who is born with them, all are members.
- *Joining* ones get a place, run, and are then added by the volume (`POST /v1/replicas/ID`): members once it
  counts them, and it counts them when they have everything.
- A member *leaves* because fewer are wanted, or because it was replaced: its node is away for longer than
  `replace_after_s`, and enough others are members and in sync.
- What leaves stays, if it is in sync and others are not any more that were when it was chosen.  Else it is
  taken out by the volume (`DELETE /v1/replicas/ID`); then it is *removed* with its data.

Only one is joining or leaving at a time, as the volume does it too.  Nothing joins or leaves before the
volume is born, or while it takes no I/O: then there is nobody to decide who has what.

A witness whose vote is in the JivaVolume has no node: it runs beside the controller.  It is lost when its
vote is, as in a JivaVolume that was restored without its status; then it is taken out first, by the copies,
which are both needed for that, and another one joins.

Invariants: an id is never used twice; a replica that has run never changes its node; the number of members
in sync is never lowered below what is wanted by a step of ours.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import attrs

from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.volume.jiva_volume import JivaVolume, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.placement import Node, choose_node
from pyjiva.maya.volume.report import VolumeReport

__all__ = ["MemberPlan", "Pod", "decide_members", "seconds_of", "timestamp"]

UNSCHEDULABLE_S: Final = 10.0  # a pod that does not fit somewhere for so long is tried elsewhere

Kind = tuple[bool, bool]
"""Of a member: whether it is a witness, and whether its vote is in the JivaVolume."""
DATA: Final[Kind] = (False, False)
POD_WITNESS: Final[Kind] = (True, False)
BESIDE: Final[Kind] = (True, True)

_COUNTED: Final = (ReplicaState.INITIAL, ReplicaState.JOINING, ReplicaState.MEMBER)


@attrs.frozen
class Pod:
    """What of a volume's Pod matters here."""

    name: str
    replica_id: int | None
    """None: the controller's."""
    node: str = ""
    ready: bool = False
    running: bool = False
    """Whether its container runs, ready or not."""
    unschedulable_since_s: float | None = None
    """POSIX time since when the scheduler finds no room for it."""
    fenced: bool = False
    """Whether the container ended since another controller has the volume."""
    deleting: bool = False
    message: str = ""
    """Why it does not run, for people."""
    witness_id: int | None = None
    """Of the witness that runs beside the controller."""


@attrs.frozen
class MemberPlan:
    """What is to be."""

    replicas: tuple[ReplicaPlace, ...]
    next_replica_id: int
    add: ReplicaPlace | None = None
    """To be added by the volume now."""
    remove: int | None = None
    """To be taken out, or its adding called off, by the volume now."""
    no_place: str = ""
    """Why a replica has no node."""
    again_after_s: float | None = None
    """When to look again, though nothing happens."""


def decide_members(
    volume: JivaVolume,
    *,
    now_s: float,
    report: VolumeReport | None,
    pods: Sequence[Pod],
    nodes: Sequence[Node],
    load: Mapping[str, int],
    of_its_group: Sequence[str] = (),
    preferred_node: str = "",
) -> MemberPlan:
    """The next step, from what is.

    `now_s`: POSIX time.  `report`: None: the volume does not answer.  `load`: replicas of all volumes, by
    node.  `of_its_group`: nodes with replicas of volumes that it is to be apart from.
    """
    decision = _Decision(
        volume,
        now_s,
        report,
        {pod.replica_id: pod for pod in pods if pod.replica_id},
        {pod.witness_id for pod in pods if pod.witness_id},
        nodes,
    )
    decision.look()
    decision.count()
    decision.place(load, of_its_group, preferred_node)
    return decision.plan()


@attrs.define
class _Decision:
    volume: JivaVolume
    now_s: float
    report: VolumeReport | None
    pods: Mapping[int | None, Pod]
    beside: Collection[int]
    """Witnesses that run beside a controller."""
    nodes: Sequence[Node]
    places: dict[int, ReplicaPlace] = attrs.field(init=False)
    next_id: int = attrs.field(init=False)
    no_place: str = ""
    again_after_s: float | None = None

    def __attrs_post_init__(self) -> None:
        self.places = {place.id: place for place in self.volume.status.replicas}
        self.next_id = self.volume.status.next_replica_id

    @property
    def policy(self) -> VolumePolicy:
        return self.volume.spec.policy

    @property
    def decidable(self) -> bool:
        """Whether replicas may join and leave now."""
        return self.volume.status.born and self.report is not None and not self.report.parked

    # --- what is

    def look(self) -> None:
        """Write down what is seen of each replica."""
        for place in list(self.places.values()):
            self.places[place.id] = self._seen(place)

    def _seen(self, place: ReplicaPlace) -> ReplicaPlace:
        pod = self.pods.get(place.id)
        said = self.report.member(place.id) if self.report is not None else None
        away = place.node != "" and not any(node.name == place.node and node.ready for node in self.nodes)
        seen = attrs.evolve(
            place,
            mode=said.mode if said is not None else "",
            reason=said.reason if said is not None else (pod.message if pod is not None else ""),
            away_since=(place.away_since or timestamp(self.now_s)) if away else "",
            started=place.started
            or place.id in self.beside
            or (pod is not None and pod.running and pod.node == place.node),
        )
        return attrs.evolve(seen, state=self._state_of(seen, counted=said is not None))

    def _state_of(self, place: ReplicaPlace, *, counted: bool) -> ReplicaState:
        match place.state:
            case ReplicaState.INITIAL:
                return ReplicaState.MEMBER if self.volume.status.born and counted else place.state
            case ReplicaState.JOINING:
                return ReplicaState.MEMBER if counted else place.state
            case ReplicaState.LEAVING:
                gone = self.report is not None and not counted and self.report.adding != place.id
                return ReplicaState.REMOVING if gone else place.state
            case _:
                return place.state

    # --- how many

    def count(self) -> None:
        """Let as many be wanted as are asked for."""
        self._keep_who_is_needed_after_all()
        self._join_who_came_too_late()
        for kind in (DATA, POD_WITNESS, BESIDE):
            kept = [each for each in self.places.values() if self._counts(each, kind)]
            number = self._wanted(kind)
            if not self.volume.status.born:
                self._begin(kept, number, kind)
            elif self.decidable and not self._under_way():
                self._change(kept, number, kind)

    def _wanted(self, kind: Kind) -> int:
        if kind == DATA:
            return self.volume.spec.desired_replication_factor
        return int(self.policy.witness and kind == (True, self.policy.witness_in_volume))

    def _keep_who_is_needed_after_all(self) -> None:
        """What was to leave may have everything now, and those that were to stay may not."""
        for place in list(self.places.values()):
            if place.state is not ReplicaState.LEAVING or not _good(place) or place.witness:
                continue
            removing = self.report is not None and self.report.removing == place.id
            others_good = sum(_good(each) for each in self.places.values() if self._counts(each, DATA))
            if not removing and others_good < self.volume.spec.desired_replication_factor:
                self.places[place.id] = attrs.evolve(place, state=ReplicaState.MEMBER)

    def _join_who_came_too_late(self) -> None:
        """The volume was formed already when more were wished for: they have to join like all others."""
        for place in list(self.places.values()):
            if place.state is ReplicaState.INITIAL and self.decidable and not self._under_way():
                self.places[place.id] = attrs.evolve(place, state=ReplicaState.JOINING)

    def _counts(self, place: ReplicaPlace, kind: Kind) -> bool:
        return _kind(place) == kind and place.state in _COUNTED

    def _under_way(self) -> bool:
        return any(
            each.state in (ReplicaState.JOINING, ReplicaState.LEAVING) for each in self.places.values()
        )

    def _begin(self, kept: Sequence[ReplicaPlace], number: int, kind: Kind) -> None:
        for _ in range(number - len(kept)):
            self._new(ReplicaState.INITIAL, kind)
        if self.report is not None or any(place.started for place in kept):
            return  # the volume may count all of them already, though it has taken no I/O that we know of
        for place in kept[number:]:
            self.places[place.id] = attrs.evolve(place, state=ReplicaState.REMOVING)

    def _change(self, kept: Sequence[ReplicaPlace], number: int, kind: Kind) -> None:
        lost = [each for each in kept if self._is_lost(each)]
        if kind == BESIDE and lost:  # there is room for one vote
            self.places[lost[0].id] = attrs.evolve(lost[0], state=ReplicaState.LEAVING)
        elif len(kept) - len(lost) < number:
            self._new(ReplicaState.JOINING, kind)
        elif len(kept) > number:
            # The lost ones first, then those that have least; of equals the youngest.
            leaving = max(kept, key=lambda each: (each in lost, each.mode == "out", not _good(each), each.id))
            self.places[leaving.id] = attrs.evolve(leaving, state=ReplicaState.LEAVING)

    def _is_lost(self, place: ReplicaPlace) -> bool:
        """Whether its node is away for so long that it is to be made anew; of a witness without one, whether
        its vote is gone.
        """
        if place.in_volume:
            vote = self.volume.status.witness
            return vote is None or vote.replica_id != place.id
        after_s = self.policy.replace_after_s
        if not place.away_since or not after_s:
            return False
        left_s = seconds_of(place.away_since) + after_s - self.now_s
        if left_s > 0:
            self._again_after(left_s)
        return left_s <= 0

    def _new(self, state: ReplicaState, kind: Kind) -> None:
        witness, in_volume = kind
        self.places[self.next_id] = ReplicaPlace(self.next_id, state, witness=witness, in_volume=in_volume)
        self.next_id += 1

    # --- where

    def place(self, load: Mapping[str, int], of_its_group: Sequence[str], preferred: str) -> None:
        """Give a node to each that needs one, and call off what is not needed any more."""
        load = dict(load)
        self._call_off()
        for place in list(self.places.values()):
            if place.state not in _COUNTED or place.started or place.in_volume:
                continue
            place = self._move_if_it_does_not_fit(place)
            if not place.node:
                place = self._choose(place, load, of_its_group, preferred)
            self.places[place.id] = place
            if place.node:
                load[place.node] = load.get(place.node, 0) + 1

    def _call_off(self) -> None:
        """A replica that joins is not needed when a node came back, or fewer are wanted."""
        for place in list(self.places.values()):
            if place.state is not ReplicaState.JOINING:
                continue
            kind = _kind(place)
            others = [
                each
                for each in self.places.values()
                if self._counts(each, kind) and each.id != place.id and not self._is_lost(each)
            ]
            if len(others) >= self._wanted(kind):
                self.places[place.id] = attrs.evolve(place, state=ReplicaState.LEAVING)

    def _move_if_it_does_not_fit(self, place: ReplicaPlace) -> ReplicaPlace:
        pod = self.pods.get(place.id)
        since_s = pod.unschedulable_since_s if pod is not None else None
        if since_s is None or not place.node:
            return place
        left_s = since_s + UNSCHEDULABLE_S - self.now_s
        if left_s > 0:
            self._again_after(left_s)
            return place
        return attrs.evolve(place, node="", refused=(*place.refused, place.node), away_since="")

    def _choose(
        self, place: ReplicaPlace, load: Mapping[str, int], of_its_group: Sequence[str], preferred: str
    ) -> ReplicaPlace:
        taken = {*of_its_group, *(each.node for each in self.places.values() if each.node)}
        found = choose_node(
            self.volume.name,
            self.policy,
            self.nodes,
            taken=taken,
            load=load,
            preferred=preferred if not place.witness else "",
            refused=place.refused,
        )
        if isinstance(found, Node):
            return attrs.evolve(place, node=found.name)
        self.no_place = f"replica {place.id}: {found}"
        # All have refused: begin anew, as what filled them may have gone.
        return attrs.evolve(place, refused=()) if place.refused else place

    # --- what the volume is to do

    def plan(self) -> MemberPlan:
        """All of it."""
        add, remove = None, None
        if self.decidable and self.report is not None:
            for place in self.places.values():
                if place.state is ReplicaState.LEAVING and self._is_with(place, self.report):
                    remove = place.id
                elif place.state is ReplicaState.JOINING and not self.report.busy and self._runs(place):
                    add = place
        return MemberPlan(
            tuple(sorted(self.places.values(), key=lambda each: each.id)),
            self.next_id,
            add=None if remove is not None else add,
            remove=remove,
            no_place=self.no_place,
            again_after_s=self.again_after_s,
        )

    @staticmethod
    def _is_with(place: ReplicaPlace, report: VolumeReport) -> bool:
        counted = report.member(place.id) is not None and report.removing is None
        return counted or report.adding == place.id

    def _runs(self, place: ReplicaPlace) -> bool:
        if place.in_volume:
            return place.id in self.beside and bool(place.address)
        pod = self.pods.get(place.id)
        return pod is not None and pod.running and bool(place.address)

    def _again_after(self, seconds: float) -> None:
        self.again_after_s = min(seconds, self.again_after_s if self.again_after_s is not None else seconds)


def _kind(place: ReplicaPlace) -> Kind:
    return place.witness, place.in_volume


def _good(place: ReplicaPlace) -> bool:
    return place.mode in ("in-sync", "witness")


def timestamp(now_s: float) -> str:
    """POSIX seconds as Kubernetes writes times (RFC 3339, UTC, whole seconds)."""
    return datetime.datetime.fromtimestamp(int(now_s), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """POSIX seconds of what Kubernetes wrote.  Raises ValueError: it is no time."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
