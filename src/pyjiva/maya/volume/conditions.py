"""What a JivaVolume's status says in words: phase, conditions, and what is told as an Event.  Pure."""

from collections.abc import Iterator
from typing import Final

import attrs

from pyjiva.maya.volume.jiva_volume import (
    Condition,
    JivaVolume,
    JivaVolumeStatus,
    Phase,
    ReplicaPlace,
    ReplicaState,
)
from pyjiva.maya.volume.members import timestamp
from pyjiva.maya.volume.observed import Observed
from pyjiva.maya.volume.report import IN_SYNC
from pyjiva.maya.volume.step import Tell

__all__ = ["FILLED", "IN_SYNC_CONDITION", "PLACED", "READY", "judge"]

READY: Final = "Ready"
"""Whether host I/O is answered."""
IN_SYNC_CONDITION: Final = "InSync"
"""Whether all copies that are wanted are there."""
PLACED: Final = "Placed"
"""Whether each replica has a node."""
FILLED: Final = "Filled"
"""Of a clone: whether all of its source has arrived."""


def judge(
    observed: Observed, volume: JivaVolume, obstacle: str, lost: str
) -> tuple[JivaVolumeStatus, list[Tell]]:
    """The status of `volume`, with what is told of its changes.

    `obstacle`: what is waited for, that the volume itself does not know of.  `lost`: what only a person can
    bring back.
    """
    found = list(_conditions(observed, volume, obstacle, lost))
    before = {each.type: each for each in volume.status.conditions}
    now = timestamp(observed.now_s)
    conditions, tells = [], []
    for condition in found:
        old = before.get(condition.type)
        same = old is not None and (old.status, old.reason) == (condition.status, condition.reason)
        since = old.last_transition_time if same and old is not None else now
        conditions.append(attrs.evolve(condition, last_transition_time=since))
        if not same and condition.status != "Unknown":  # why it is not known is another one's to say
            bad = condition.status == "False" and volume.status.born
            tells.append(Tell(bad, condition.reason, condition.message or condition.reason))
    report = observed.report
    members = [place for place in volume.status.replicas if not place.witness]
    status = attrs.evolve(
        volume.status,
        phase=_phase(observed, volume, lost),
        status="Unknown" if report is None else "RO" if report.parked else "RW",
        observed_generation=volume.generation,
        replica_count=sum(place.mode == IN_SYNC for place in members),
        conditions=tuple(conditions),
    )
    return status, tells


def _phase(observed: Observed, volume: JivaVolume, lost: str) -> Phase:
    report = observed.report
    if volume.deleting:
        return Phase.DELETING
    if lost:
        return Phase.FAILED
    if report is None:
        return Phase.UNKNOWN if volume.status.born else Phase.PENDING
    return Phase.SYNCING if report.parked else Phase.READY


def _conditions(observed: Observed, volume: JivaVolume, obstacle: str, lost: str) -> Iterator[Condition]:
    yield _ready(observed, volume, obstacle, lost)
    if volume.deleting:
        return
    yield _in_sync(observed, volume)
    yield Condition(PLACED, *(("False", "NoNode", obstacle) if obstacle else ("True", "Placed")))
    if volume.spec.source is not None:
        yield _filled(observed, volume)


def _ready(observed: Observed, volume: JivaVolume, obstacle: str, lost: str) -> Condition:
    report = observed.report
    if volume.deleting:
        return Condition(READY, "False", "Deleting", obstacle)
    if lost:
        return Condition(
            READY,
            "False",
            "SecretLost",
            f"{lost}: put the Secret back from a backup; replicas take no other key, so none is made anew",
        )
    if report is None:
        reason = "NotAnswering" if volume.status.born else "Starting"
        return Condition(READY, "False", reason, observed.silence or obstacle)
    if report.parked:
        return Condition(READY, "False", "Parked", report.reason)
    return Condition(READY, "True", "TakesIO", "host I/O is answered")


def _in_sync(observed: Observed, volume: JivaVolume) -> Condition:
    if observed.report is None:
        return Condition(IN_SYNC_CONDITION, "Unknown", "NotAnswering", observed.silence)
    wanted = volume.spec.desired_replication_factor
    counted = [place for place in volume.status.replicas if place.state is ReplicaState.MEMBER]
    good = sum(place.mode == IN_SYNC for place in counted)
    worries = [_worry(place) for place in counted if place.mode not in (IN_SYNC, "witness")]
    joining = [place.id for place in volume.status.replicas if place.state is ReplicaState.JOINING]
    if joining:
        worries.append(f"replica {joining[0]} is being made")
    if good >= wanted and not worries:
        return Condition(IN_SYNC_CONDITION, "True", "AllCopies", f"{good} copies are in sync")
    text = "; ".join([f"{good} of {wanted} copies are in sync", *worries])
    return Condition(IN_SYNC_CONDITION, "False", "Degraded", text)


def _worry(place: ReplicaPlace) -> str:
    where = f"replica {place.id} on {place.node}"
    if place.in_volume:
        where = f"witness {place.id} in the JivaVolume"
    away = f", whose node is away since {place.away_since}" if place.away_since else ""
    return f"{where}{away}: {place.reason or place.mode or 'not counted yet'}"


def _filled(observed: Observed, volume: JivaVolume) -> Condition:
    source = volume.spec.source
    assert source is not None
    if volume.status.filled:
        return Condition(FILLED, "True", "Filled", f"all of {source.volume}@{source.snapshot} is here")
    if observed.source is None or not observed.source.host:
        return Condition(FILLED, "False", "NoSource", f"JivaVolume {source.volume} is not there")
    if not observed.source.snapshot_ready:
        return Condition(FILLED, "False", "SnapshotNotReady", f"{source.snapshot} of {source.volume}")
    share = (observed.report.filled if observed.report is not None else None) or 0.0
    return Condition(FILLED, "False", "Filling", f"{share:.0%} of {source.volume}@{source.snapshot} is here")
