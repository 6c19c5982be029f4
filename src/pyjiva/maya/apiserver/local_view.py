"""How a volume of one machine is, from its record, its process and what its API says.  Pure."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.maya.apiserver.backend import CasPhase, ReplicaView, VolumeView
from pyjiva.maya.apiserver.local_record import LocalRecord, LocalState
from pyjiva.maya.volume.jiva_volume import IQN_PREFIX

__all__ = ["ProcessView", "view_of"]

BROKEN_STARTS: Final = 3
"""After so many starts without a ready volume it is called failed: the first ones meet what still ends."""


@attrs.frozen
class ProcessView:
    """What is known of the process that runs a volume."""

    ready: bool = False
    """It has said that the volume takes I/O, and runs."""
    failed_starts: int = 0
    """Since it was ready, or since the beginning."""
    last_words: str = ""
    """How it ended the last time."""


def view_of(
    record: LocalRecord, process: ProcessView, status: Mapping[str, Any] | None, *, host: str, node: str
) -> VolumeView:
    """`status`: what `/v1/volume` answers, None if it does not."""
    phase, reason, message = _condition(record, process, status)
    copies = record.policy.replica_count
    replicas = [] if status is None else [_replica(each, node, copies) for each in status["replicas"]]
    return VolumeView(
        name=record.name,
        namespace=record.namespace,
        volume_id=record.uid,
        capacity_bytes=record.capacity_bytes if status is None else int(status["size_bytes"]),
        iqn=IQN_PREFIX + record.name,
        policy=record.policy,
        portals=(f"[{host}]:{record.portal_port}" if ":" in host else f"{host}:{record.portal_port}",),
        storage_class=record.storage_class,
        claim=record.claim,
        labels=record.labels,
        source=record.source,
        phase=phase,
        reason=reason,
        message=message,
        controller_runs=status is not None,
        controller_node=node,
        replicas=tuple(replicas),
    )


def _condition(
    record: LocalRecord, process: ProcessView, status: Mapping[str, Any] | None
) -> tuple[CasPhase, str, str]:
    if record.state is LocalState.DELETING:
        return CasPhase.PENDING, "Deleting", "it is being deleted"
    if status is None:
        if process.failed_starts >= BROKEN_STARTS:
            return CasPhase.FAILED, "CannotStart", f"it is tried again and again: {process.last_words}"
        if process.ready:
            return CasPhase.PENDING, "NotAnswering", "its API does not answer"
        return CasPhase.PENDING, "Starting", process.last_words or "its processes are being started"
    if status["state"] == "parked":
        return CasPhase.PENDING, "Parked", f"I/O waits: {status['reason']}"
    if status["state"] == "degraded":
        return CasPhase.AVAILABLE, "Degraded", str(status["reason"])
    return CasPhase.AVAILABLE, "", ""


def _replica(status: Mapping[str, Any], node: str, copies: int) -> ReplicaView:
    return ReplicaView(
        id=int(status["id"]),
        address=str(status["address"]),
        node=node,
        mode=str(status["mode"]),
        reason=str(status["reason"]),
        witness=int(status["id"]) > copies,  # `pyjiva up` numbers it behind the replicas
    )
