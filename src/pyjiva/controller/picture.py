"""How the parts of a volume look in its status.  Pure."""

from collections.abc import Sequence

from pyjiva.block import Space
from pyjiva.controller.dirty_map import DirtyMap
from pyjiva.controller.rebuild_totals import RebuildBook
from pyjiva.controller.repairs import RotCounts
from pyjiva.controller.resync import Resync
from pyjiva.controller.roster import Member, Mode, Phase, Roster
from pyjiva.controller.scrub import Scrub, ScrubStep
from pyjiva.controller.status import (
    WITNESS,
    MergeStatus,
    RebuildStatus,
    ReplicaStatus,
    ScrubStatus,
    VolumeState,
)

__all__ = ["picture_of_replica", "picture_of_scrub", "state_of"]


def picture_of_replica(
    member: Member,
    *,
    address: str,
    directory: str,
    resync: Resync | None,
    rebuilds: RebuildBook,
    rot: RotCounts,
    space: Space | None,
    lacks: DirtyMap | None,
    merge: MergeStatus | None,
    requests_in_flight: int,
    now_s: float,
) -> ReplicaStatus:
    """One replica.  `resync`: the copy to it that is under way; `lacks`: what it may lack."""
    mode = {Mode.ABSENT: Mode.OUT, Mode.JOINING: Mode.REBUILDING}.get(member.mode, member.mode)
    votes = member.witness and member.promised
    progress = None
    if mode is Mode.REBUILDING:
        progress = resync.fraction_done() if resync is not None else 1.0
    behind_bytes = None
    if mode is Mode.OUT and lacks is not None and not lacks.everything:
        behind_bytes = lacks.remaining_bytes(0)
    return ReplicaStatus(
        id=member.id,
        address=address,
        directory=directory,
        mode=WITNESS if votes else mode.value,
        progress=progress,
        rebuild=None if resync is None else _rebuild(resync, rebuilds.elapsed_s(member.id, now_s)),
        rot=rot,
        used_bytes=None if space is None else space.used_bytes,
        available_bytes=None if space is None else space.available_bytes,
        reason="" if mode is Mode.IN_SYNC or votes else member.reason,
        rebuilds=rebuilds.totals(member.id, now_s),
        requests_in_flight=requests_in_flight,
        behind_bytes=behind_bytes,
        merge=merge,
    )


def _rebuild(resync: Resync, elapsed_s: float) -> RebuildStatus:
    fraction = resync.fraction_done()
    return RebuildStatus(
        source=resync.source,
        compared_bytes=resync.compared_bytes,
        copied_bytes=resync.copied_bytes,
        sent_bytes=resync.sent_bytes,
        remaining_bytes=resync.remaining_bytes(),
        eta_s=elapsed_s * (1 - fraction) / fraction if fraction > 0 else None,
    )


def picture_of_scrub(scrub: Scrub | None) -> ScrubStatus | None:
    """The scrub under way, or the last one."""
    if scrub is None:
        return None
    return ScrubStatus(
        running=scrub.step is not ScrubStep.OVER,
        position_bytes=scrub.position,
        bad=scrub.bad,
        different=scrub.different,
    )


def state_of(
    roster: Roster, replicas: Sequence[ReplicaStatus], *, writes_open: bool
) -> tuple[VolumeState, str]:
    """How the volume is, and why it is not healthy."""
    if roster.phase is not Phase.ACTIVE:
        return VolumeState.PARKED, f"waiting for {roster.waiting_for}"
    troubled = [
        f"replica {r.id} is {r.mode}: {r.reason}"
        for r in replicas
        if r.mode not in (Mode.IN_SYNC.value, WITNESS)
    ]
    if not writes_open:
        return VolumeState.PARKED, "too few replicas in sync; " + "; ".join(troubled)
    if troubled:
        return VolumeState.DEGRADED, "; ".join(troubled)
    return VolumeState.HEALTHY, ""
