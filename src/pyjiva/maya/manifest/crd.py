"""The CustomResourceDefinitions of JivaVolume and JivaSnapshot, made of their records.  Pure.

The API server then refuses what no record could be made of, and by rules in CEL what a volume cannot do: to
shrink, to become another volume.  Names, short names and the first columns are those of Jiva's operator
(`jiva-operator pkg/apis/openebs/v1/jivavolume_types.go`).
"""

from typing import Any, Final

import attrs

from pyjiva.maya.kube.resource import JIVA_SNAPSHOTS, JIVA_VOLUMES, Resource
from pyjiva.maya.manifest.record_schema import Extra, Schema, record_schema
from pyjiva.maya.policy.volume_policy import FS_TYPES
from pyjiva.maya.volume.jiva_volume import JivaVolumeSpec, JivaVolumeStatus, json_name

__all__ = ["custom_resource_definitions"]

REPLICAS_MAX: Final = 6  # of 7 members, one may be a witness
NAME_CHARACTERS_MAX: Final = 54  # with -ctrl-svc a label of DNS, 63 at most
QUANTITY_CHARACTERS_MAX: Final = 32  # bounds what a rule in CEL may cost

_NEVER: Final = {"rule": "self == oldSelf", "message": "cannot be changed"}
_QUANTITY: Final[Schema] = {
    "type": "string",
    "maxLength": QUANTITY_CHARACTERS_MAX,
    "pattern": r"^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$",
}
_REPLICAS: Final[Schema] = {"minimum": 1, "maximum": REPLICAS_MAX}
_NAME: Final[Schema] = {"minLength": 1, "maxLength": 253}
_AMOUNTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    },
}
_EFFECTS: Final = ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]
_OPERATORS: Final = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]


def _list_by(key: str) -> Schema:
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


_EXTRA: Final[Extra] = {
    "JivaVolumeSpec.pv": _NAME,
    "JivaVolumeSpec.capacity_bytes": {
        "description": "Its size, such as 10Gi. May grow, never shrink.",
        **_QUANTITY,
        "x-kubernetes-validations": [
            {
                "rule": "quantity(self).compareTo(quantity(oldSelf)) >= 0",
                "message": "a volume cannot shrink",
            },
            {"rule": "quantity(self).isGreaterThan(quantity('0'))", "message": "a volume has a size"},
        ],
    },
    "JivaVolumeSpec.volume_id": {"pattern": "^[0-9a-f]{32}$", "x-kubernetes-validations": [_NEVER]},
    "JivaVolumeSpec.desired_replication_factor": _REPLICAS,
    "JivaVolumeSpec.access_type": {
        "enum": ["mount", "block"],
        "default": "mount",
        "x-kubernetes-validations": [_NEVER],
    },
    "JivaVolumeSpec.policy": {"default": {}},
    "JivaVolumeSpec.source": {"x-kubernetes-validations": [_NEVER]},
    "JivaVolumeSpec": {
        # A rule at the field is not asked when the field comes or goes.
        "x-kubernetes-validations": [
            {
                "rule": "has(self.source) == has(oldSelf.source)",
                "message": "source cannot be added or removed",
            }
        ]
    },
    "VolumeSource.volume": _NAME,
    "VolumeSource.snapshot": {"minLength": 1, "maxLength": 128},
    "VolumePolicy.replica_count": _REPLICAS,
    "VolumePolicy.block_size_bytes": {
        "enum": [512, 4096],
        "default": 512,
        "x-kubernetes-validations": [_NEVER],
    },
    "VolumePolicy.pool_path": {"pattern": "^/", "maxLength": 4096},
    "VolumePolicy.fs_type": {"enum": [*FS_TYPES]},
    "VolumePolicy.park_limit_s": {"minimum": 0},
    "VolumePolicy.replace_after_s": {"minimum": 0},
    "Toleration.operator": {"enum": ["", "Equal", "Exists"]},
    "Toleration.effect": {"enum": _EFFECTS},
    "LabelRequirement.operator": {"enum": _OPERATORS},
    "Resources.requests": _AMOUNTS,
    "Resources.limits": _AMOUNTS,
    "JivaVolumeStatus.capacity_bytes": {**_QUANTITY, "description": "As it is now; absent: not known yet."},
    "JivaVolumeStatus.status": {"enum": ["RW", "RO", "Unknown"]},
    "JivaVolumeStatus.conditions": _list_by("type"),
    "JivaVolumeStatus.replicas": _list_by("id"),
    "Condition.status": {"enum": ["True", "False", "Unknown"]},
    "_SnapshotSpec.volume_name": {**_NAME, "x-kubernetes-validations": [_NEVER]},
    "_SnapshotSpec.snapshot_name": {
        "pattern": "^[A-Za-z0-9._-]{1,128}$",
        "x-kubernetes-validations": [_NEVER],
    },
    "_SnapshotStatus.phase": {"enum": ["Pending", "Ready", "Error", "Deleting"]},
    "_SnapshotStatus.restore_size": _QUANTITY,
}


@attrs.frozen
class _SnapshotSpec:
    """What is wanted."""

    volume_name: str
    """Name of the JivaVolume, which is that of its PersistentVolume."""
    snapshot_name: str
    """Name of the snapshot on the volume: up to 128 letters, digits and ._-"""


@attrs.frozen
class _SnapshotStatus:
    """What is."""

    phase: str = "Pending"
    message: str = ""
    """Why it is not ready."""
    ready_to_use: bool = False
    """Whether a volume can be made of it."""
    restore_size: str = ""
    """What such a volume must have at least."""
    creation_time: str = ""
    """RFC 3339: when the snapshot was made on the volume."""


@attrs.frozen
class _Column:
    """One that kubectl shows."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False

    def to_json(self) -> dict[str, Any]:
        """As `additionalPrinterColumns` has it."""
        made: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        return {**made, "priority": 1} if self.wide else made


_AGE: Final = _Column("Age", ".metadata.creationTimestamp", "date")
_VOLUME_COLUMNS: Final = (
    _Column("ReplicaCount", ".status.replicaCount", "integer"),
    _Column("Phase", ".status.phase"),
    _Column("Status", ".status.status"),
    _Column("Capacity", ".spec.capacity"),
    _AGE,
    _Column("Replicas", ".spec.desiredReplicationFactor", "integer", wide=True),
    _Column("Portal", ".status.iscsi.targetPortal", wide=True),
    _Column("IQN", ".status.iscsi.iqn", wide=True),
)
_SNAPSHOT_COLUMNS: Final = (
    _Column("Volume", ".spec.volumeName"),
    _Column("Phase", ".status.phase"),
    _Column("ReadyToUse", ".status.readyToUse", "boolean"),
    _Column("RestoreSize", ".status.restoreSize"),
    _AGE,
    _Column("Message", ".status.message", wide=True),
)
_NAME_RULES: Final = [
    {
        "rule": f"self.metadata.name.size() <= {NAME_CHARACTERS_MAX}",
        "message": f"a volume's name has at most {NAME_CHARACTERS_MAX} characters: its Services' are longer",
    },
    {
        "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "message": "a volume's name is one of a Service: small letters, digits and -, a letter first",
    },
]


def custom_resource_definitions() -> list[dict[str, Any]]:
    """Both, as objects."""
    return [
        _definition(
            JIVA_VOLUMES,
            "jv",
            "A replicated volume that is offered over iSCSI.",
            (JivaVolumeSpec, JivaVolumeStatus),
            _VOLUME_COLUMNS,
            _NAME_RULES,
        ),
        _definition(
            JIVA_SNAPSHOTS,
            "jivasnap",
            "What a JivaVolume held at one moment.",
            (_SnapshotSpec, _SnapshotStatus),
            _SNAPSHOT_COLUMNS,
            [],
        ),
    ]


def _definition(
    resource: Resource,
    short_name: str,
    text: str,
    records: tuple[type, type],
    columns: tuple[_Column, ...],
    rules: list[dict[str, str]],
) -> dict[str, Any]:
    spec, status = (record_schema(each, name_of=json_name, extra=_EXTRA) for each in records)
    schema: Schema = {
        "description": text,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "required": ["spec"],
    }
    if rules:
        schema["x-kubernetes-validations"] = rules
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            "labels": {"app.kubernetes.io/part-of": "openebs"},
            # With the definition all volumes would go.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [short_name],
                "categories": ["openebs"],
            },
            "versions": [
                {
                    "name": resource.api_version.rpartition("/")[2],
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.to_json() for column in columns],
                }
            ],
        },
    }
