"""The JivaSnapshot: what a volume held at one moment, and what is to be done about one.  Pure.

It lies in the namespace of its JivaVolume, or in that of the claim which the volume was made for: from any
other it could be used to read a stranger's data, so there it is refused.

    (new) ──▶ Pending ──▶ Ready ──▶ Deleting ──▶ (gone)
                 └──────▶ Error ───────▲

*Ready* is for good: a snapshot that is gone from the volume afterwards is an *Error*, and is not made again
with what the volume holds by then.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.volume_api import SnapshotReport

__all__ = [
    "SNAPSHOT_FINALIZER",
    "CreateSnapshot",
    "DeleteSnapshot",
    "JivaSnapshot",
    "KeepSnapshot",
    "SnapshotGone",
    "SnapshotStatus",
    "SnapshotStep",
    "decide_snapshot",
]

SNAPSHOT_FINALIZER: Final = "openebs.io/jiva-snapshot"
PENDING: Final = "Pending"
READY: Final = "Ready"
ERROR: Final = "Error"
DELETING: Final = "Deleting"


@attrs.frozen
class SnapshotStatus:
    """Its status, as the definition in `manifest.crd` has it."""

    phase: str = PENDING
    message: str = ""
    ready_to_use: bool = False
    restore_size: str = ""
    creation_time: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is empty is left out."""
        values = {
            "phase": self.phase,
            "message": self.message,
            "readyToUse": self.ready_to_use,
            "restoreSize": self.restore_size,
            "creationTime": self.creation_time,
        }
        return {key: value for key, value in values.items() if value != ""}


@attrs.frozen
class JivaSnapshot:
    """One JivaSnapshot."""

    namespace: str
    name: str
    uid: str
    volume_name: str
    snapshot_name: str
    status: SnapshotStatus
    finalizers: tuple[str, ...]
    deleting: bool

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "JivaSnapshot":
        """From the object.  Raises ConfigError: it is none that the definition lets through."""
        metadata, status = value["metadata"], value.get("status") or {}
        try:
            return cls(
                namespace=metadata["namespace"],
                name=metadata["name"],
                uid=metadata["uid"],
                volume_name=value["spec"]["volumeName"],
                snapshot_name=value["spec"]["snapshotName"],
                status=SnapshotStatus(
                    phase=status.get("phase", PENDING),
                    message=status.get("message", ""),
                    ready_to_use=status.get("readyToUse", False),
                    restore_size=status.get("restoreSize", ""),
                    creation_time=status.get("creationTime", ""),
                ),
                finalizers=tuple(metadata.get("finalizers") or ()),
                deleting="deletionTimestamp" in metadata,
            )
        except KeyError as error:
            name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
            raise ConfigError(f"JivaSnapshot {name} has no {error}") from error


@attrs.frozen
class KeepSnapshot:
    """Nothing but this status."""

    status: SnapshotStatus
    again: bool = False
    """Whether to look again soon, though nothing changes."""


@attrs.frozen
class CreateSnapshot:
    """Have the volume make it, then look again."""


@attrs.frozen
class DeleteSnapshot:
    """Have the volume let it go, then drop the finalizer."""


@attrs.frozen
class SnapshotGone:
    """Drop the finalizer: there is nothing on any volume."""


SnapshotStep = KeepSnapshot | CreateSnapshot | DeleteSnapshot | SnapshotGone


def decide_snapshot(
    snapshot: JivaSnapshot,
    volume: JivaVolume | None,
    there: Sequence[SnapshotReport] | None,
    clones_being_filled: Sequence[str],
) -> SnapshotStep:
    """What is to be done now.

    `volume`: None: there is none of that name that it may be of.  `there`: the volume's snapshots; None: it
    does not answer.  `clones_being_filled`: volumes that still read it.
    """
    if snapshot.deleting:
        return _let_go(snapshot, volume, there, clones_being_filled)
    old = snapshot.status
    if volume is None or volume.deleting:
        text = f"there is no volume {snapshot.volume_name} that {snapshot.namespace} may use"
        return KeepSnapshot(attrs.evolve(old, phase=ERROR, ready_to_use=False, message=text))
    if there is None:
        waits = "its volume does not answer now"
        return KeepSnapshot(attrs.evolve(old, message=waits), again=True)
    found = next((each for each in there if each.name == snapshot.snapshot_name), None)
    if found is not None:
        size_bytes = volume.status.capacity_bytes or volume.size_bytes
        return KeepSnapshot(
            SnapshotStatus(
                READY,
                ready_to_use=True,
                restore_size=old.restore_size or format_quantity(size_bytes),
                creation_time=old.creation_time or found.created,
            )
        )
    if old.creation_time:
        gone = f"{snapshot.snapshot_name} is not on the volume any more"
        return KeepSnapshot(attrs.evolve(old, phase=ERROR, ready_to_use=False, message=gone))
    return CreateSnapshot()


def _let_go(
    snapshot: JivaSnapshot,
    volume: JivaVolume | None,
    there: Sequence[SnapshotReport] | None,
    clones_being_filled: Sequence[str],
) -> SnapshotStep:
    if volume is None or volume.deleting:
        return SnapshotGone()
    if clones_being_filled:
        text = f"still read by clones: {', '.join(clones_being_filled)}"
        return KeepSnapshot(attrs.evolve(snapshot.status, phase=DELETING, message=text), again=True)
    if there is None:
        text = "its volume does not answer now"
        return KeepSnapshot(attrs.evolve(snapshot.status, phase=DELETING, message=text), again=True)
    if any(each.name == snapshot.snapshot_name for each in there):
        return DeleteSnapshot()
    return SnapshotGone()
