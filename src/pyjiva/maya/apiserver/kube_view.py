"""Volumes and snapshots of Kubernetes as the API tells of them, and the objects that ask for new ones.  Pure.

Names of claims and StorageClasses may be longer than a label's value: they stand in annotations, and as
labels too where they fit.  A JivaSnapshot's object is named VOLUME.SNAPSHOT where the snapshot's name can
be part of an object's name, else VOLUME.HASH; what counts is its spec.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver.backend import (
    CasPhase,
    CloneSource,
    NewVolume,
    ReplicaView,
    SnapshotView,
    VolumeView,
)
from pyjiva.maya.apiserver.cas_volume import NAME
from pyjiva.maya.kube.quantity import parse_quantity
from pyjiva.maya.kube.resource import JIVA_SNAPSHOTS, JIVA_VOLUMES
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.volume.jiva_volume import (
    Condition,
    JivaVolume,
    JivaVolumeSpec,
    Phase,
    ReplicaPlace,
    VolumeSource,
)
from pyjiva.maya.volume.labels import (
    CLAIM,
    CLAIM_NAMESPACE,
    PERSISTENT_VOLUME,
    STORAGE_CLASS,
    claim_namespace,
)

__all__ = [
    "is_filled_from",
    "new_jiva_volume",
    "snapshot_object",
    "snapshot_object_name",
    "snapshot_view",
    "view_of",
]

LABEL_CHARACTERS_MAX: Final = 63
READY: Final = "Ready"
IN_SYNC: Final = "InSync"
_OURS: Final = (CLAIM, CLAIM_NAMESPACE, PERSISTENT_VOLUME, STORAGE_CLASS)


def new_jiva_volume(
    wanted: NewVolume, policy: VolumePolicy, *, namespace: str, volume_id: str, access_type: str
) -> JivaVolume:
    """What is to be created, in `namespace`."""
    facts = {
        CLAIM: wanted.claim,
        CLAIM_NAMESPACE: wanted.namespace,
        STORAGE_CLASS: wanted.storage_class,
    }
    said = {key: text for key, text in facts.items() if text}
    labels = {key: text for key, text in said.items() if len(text) <= LABEL_CHARACTERS_MAX}
    source = wanted.source
    return JivaVolume(
        namespace=namespace,
        name=wanted.name,
        spec=JivaVolumeSpec(
            pv=wanted.name,
            capacity_bytes=wanted.capacity_bytes,
            volume_id=volume_id,
            desired_replication_factor=policy.replica_count,
            access_type=access_type,
            policy=policy,
            source=None if source is None else VolumeSource(source.volume, source.snapshot),
        ),
        labels={**wanted.labels, **labels, PERSISTENT_VOLUME: wanted.name},
        annotations=said,
    )


def is_filled_from(volume: JivaVolume, source: str, snapshot: str = "") -> bool:
    """Whether it is not complete without that volume, or without that snapshot of it."""
    wanted = volume.spec.source
    return (
        wanted is not None
        and wanted.volume == source
        and snapshot in ("", wanted.snapshot)
        and not volume.status.filled
        and not volume.deleting
    )


def view_of(volume: JivaVolume, controller_node: str) -> VolumeView:
    """As it is."""
    phase, reason, message = _condition(volume)
    status, source = volume.status, volume.spec.source
    return VolumeView(
        name=volume.name,
        namespace=claim_namespace(volume),
        volume_id=volume.spec.volume_id,
        capacity_bytes=status.capacity_bytes or volume.size_bytes,
        iqn=volume.iqn,
        policy=volume.spec.policy,
        portals=() if status.iscsi is None else (status.iscsi.target_portal,),
        lun=0 if status.iscsi is None else status.iscsi.lun,
        storage_class=_said(volume, STORAGE_CLASS),
        claim=_said(volume, CLAIM),
        labels={key: text for key, text in volume.labels.items() if key not in _OURS},
        source=None if source is None else CloneSource(source.volume, source.snapshot),
        phase=phase,
        reason=reason,
        message=message,
        controller_runs=status.status != "Unknown",
        controller_node=controller_node,
        replicas=tuple(map(_replica, status.replicas)),
    )


def _said(volume: JivaVolume, key: str) -> str:
    return volume.annotations.get(key) or volume.labels.get(key, "")


def _replica(place: ReplicaPlace) -> ReplicaView:
    return ReplicaView(place.id, place.address, place.node, place.mode, place.reason, place.witness)


def _condition(volume: JivaVolume) -> tuple[CasPhase, str, str]:
    found = {condition.type: condition for condition in volume.status.conditions}
    if volume.deleting:
        return CasPhase.PENDING, "Deleting", "it is being deleted"
    if volume.status.phase is Phase.READY:
        in_sync = found.get(IN_SYNC)
        if in_sync is None or in_sync.status == "True":
            return CasPhase.AVAILABLE, "", ""
        return CasPhase.AVAILABLE, in_sync.reason, in_sync.message
    ready = found.get(READY, Condition(READY, "False", "NotLookedAt", "Maya has not looked at it yet"))
    phase = CasPhase.FAILED if volume.status.phase is Phase.FAILED else CasPhase.PENDING
    return phase, ready.reason, ready.message


# Snapshots


def snapshot_object_name(volume: str, snapshot: str) -> str:
    """Of its JivaSnapshot.  Volumes' names have no dot, so no two are the same."""
    if NAME.fullmatch(snapshot):
        return f"{volume}.{snapshot}"
    return (
        f"{volume}.{hashlib.sha256(snapshot.encode()).hexdigest()}"  # 64: longer than any of the first kind
    )


def snapshot_object(volume: JivaVolume, snapshot: str) -> dict[str, Any]:
    """The JivaSnapshot that asks for one.  It goes with its volume."""
    owner = {
        "apiVersion": JIVA_VOLUMES.api_version,
        "kind": JIVA_VOLUMES.kind,
        "name": volume.name,
        "uid": volume.uid,
    }
    return {
        "apiVersion": JIVA_SNAPSHOTS.api_version,
        "kind": JIVA_SNAPSHOTS.kind,
        "metadata": {
            "name": snapshot_object_name(volume.name, snapshot),
            "namespace": volume.namespace,
            "labels": {PERSISTENT_VOLUME: volume.name},
            "ownerReferences": [owner],
        },
        "spec": {"volumeName": volume.name, "snapshotName": snapshot},
    }


def snapshot_view(value: Mapping[str, Any], namespace: str) -> SnapshotView:
    """Of a JivaSnapshot; `namespace`: the claim's.  Raises ConfigError: it is not understood."""
    try:
        spec, status = value["spec"], value.get("status") or {}
        size = status.get("restoreSize") or ""
        return SnapshotView(
            name=str(spec["snapshotName"]),
            volume=str(spec["volumeName"]),
            namespace=namespace,
            created=str(status.get("creationTime") or ""),
            size_bytes=parse_quantity(size) if size else 0,
            ready=status.get("readyToUse") is True,
            message=str(status.get("message") or ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"JivaSnapshot is not understood: {error!r}") from error
