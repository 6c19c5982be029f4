"""What reconciling a volume may do, one step at a time.  Pure.

Every step may be done twice, and the process may end after any of them: the next look finds out how far it
came.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from pyjiva.maya.kube.resource import Resource
from pyjiva.maya.volume.jiva_volume import JivaVolumeStatus

__all__ = [
    "AddFinalizer",
    "AddMember",
    "Apply",
    "Delete",
    "DropFinalizer",
    "Grow",
    "MakeSecrets",
    "RemoveMember",
    "SaveStatus",
    "Step",
    "Tell",
]


@attrs.frozen
class AddFinalizer:
    """From now on the volume stays until all of it is gone."""


@attrs.frozen
class DropFinalizer:
    """Nothing of it is left."""


@attrs.frozen
class SaveStatus:
    """Write the status, if the JivaVolume is still what was looked at."""

    status: JivaVolumeStatus


@attrs.frozen
class MakeSecrets:
    """Draw the volume's secrets and keep them, unless there are some."""

    chap: bool
    with_source: bool
    """Whether it is to have its source's token."""


@attrs.frozen
class Apply:
    """Let an object be so."""

    resource: Resource
    object: Mapping[str, Any]


@attrs.frozen
class Delete:
    """Delete an object."""

    resource: Resource
    name: str


@attrs.frozen
class AddMember:
    """Have the volume take a replica in."""

    replica_id: int
    address: str
    witness: bool


@attrs.frozen
class RemoveMember:
    """Have the volume go on without a replica."""

    replica_id: int


@attrs.frozen
class Grow:
    """Have the volume made larger."""

    size_bytes: int


@attrs.frozen
class Tell:
    """An Event on the JivaVolume, for people."""

    warning: bool
    reason: str
    message: str


Step = (
    AddFinalizer
    | DropFinalizer
    | SaveStatus
    | MakeSecrets
    | Apply
    | Delete
    | AddMember
    | RemoveMember
    | Grow
    | Tell
)
