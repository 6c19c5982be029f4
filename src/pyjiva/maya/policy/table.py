"""Every policy by its name in `cas.openebs.io/config`, and the names that are not taken, with reasons.  Pure.

docs/reference/policies.md is made of it.  Names, forms and meanings of Jiva's are those of its CASTemplates
(`maya pkg/install/v1alpha1/jiva_volume.go`).
"""

import enum
from collections.abc import Mapping
from typing import Any, Final

import attrs

from pyjiva.maya.policy import readers
from pyjiva.maya.policy.readers import Reader, Wrong
from pyjiva.maya.policy.volume_policy import FS_TYPES

__all__ = ["IN_VOLUME", "NOT_TAKEN", "POLICIES", "POOL", "WITNESS", "Form", "Policy", "Several"]

REPLICAS_MAX: Final = 6  # of 7 members, one may be a witness
BLOCK_SIZES: Final = ("512", "4096")
PARK_LIMIT_S_MAX: Final = 24 * 3600.0


class Form(enum.Enum):
    """Under which key of the entry its value stands."""

    VALUE = "value"
    ENABLED = "enabled"


@attrs.frozen
class Several:
    """What a policy becomes that stands for more than one field."""

    fields: Mapping[str, Any]


@attrs.frozen
class Policy:
    """One name."""

    name: str
    form: Form
    field: str
    """Of VolumePolicy; with a dot: of the record in it."""
    read: Reader
    may_be: str
    """For people: what the value may be."""
    default: str
    meaning: str
    environment: str = ""
    """The variable with Maya's default of it."""
    ours: bool = False
    """Whether Jiva did not have it."""
    on_one_machine: bool = False
    """Whether it means something without Kubernetes."""


def _witness(text: str, wrong: Wrong) -> Several:
    if text.lower() not in ("true", "false", IN_VOLUME):
        wrong(text, f"true, false or {IN_VOLUME}")
    return Several({"witness": text.lower() != "false", "witness_in_volume": text.lower() == IN_VOLUME})


def _enabled(text: str, wrong: Wrong) -> bool:
    if text.lower() not in ("true", "false"):
        wrong(text, "true or false")
    return text.lower() == "true"


def _lun(text: str, wrong: Wrong) -> None:
    if text != "0":
        wrong(text, "0: a volume is LUN 0 of a target of its own")


def _pool(text: str, _: Wrong) -> str:
    """`policies` looks it up: which pools there are is known there."""
    return text


def _park_limit(text: str, wrong: Wrong) -> float:
    seconds = readers.duration(text, wrong)
    if seconds > PARK_LIMIT_S_MAX:
        wrong(text, f"at most {PARK_LIMIT_S_MAX:.0f} seconds")
    return seconds


def _block_size(text: str, wrong: Wrong) -> int:
    found = readers.choice(*BLOCK_SIZES)(text, wrong)
    return int(found) if found in BLOCK_SIZES else 0


VALUE, ENABLED = Form.VALUE, Form.ENABLED
POOL: Final = "StoragePool"
WITNESS: Final = "Witness"
IN_VOLUME: Final = "volume"
"""What `Witness` may be besides true and false."""
_IMAGE: Final = "an image"
_RESOURCES: Final = "lines such as `memory: 1Gi`, `cpu: 500m`"
_TOLERATIONS: Final = "entries `t1:`, `t2:` … of `key`, `operator`, `value`, `effect`, `tolerationSeconds`"
_REQUIREMENTS: Final = "entries `t1:`, `t2:` … of `key`, `operator`, `values`"
_SELECTOR: Final = "lines `LABEL: VALUE`"

POLICIES: Final[tuple[Policy, ...]] = (
    Policy("ReplicaCount", VALUE, "replica_count", readers.whole_number(1, REPLICAS_MAX),
        f"1 to {REPLICAS_MAX}", "3", "copies with data", "OPENEBS_IO_JIVA_REPLICA_COUNT",
        on_one_machine=True),
    Policy(WITNESS, ENABLED, "witness", _witness, f"true, false, {IN_VOLUME}", "false",
        "one member more that votes and holds no data: worth it where the number of copies is even. true: a "
        f"pod on a node of its own; {IN_VOLUME}: its vote is kept in the JivaVolume, so that two copies need "
        "no third node",
        ours=True, on_one_machine=True),
    Policy(POOL, VALUE, "pool_path", _pool, "`default`, the name of a pool that Maya was started with, or an "
        "absolute path", "`default`", "the folder on the nodes that replicas keep their data in",
        "OPENEBS_IO_JIVA_POOL_DIR", on_one_machine=True),
    Policy("FSType", VALUE, "fs_type", readers.read_fs_type, ", ".join(FS_TYPES), "ext4",
        "the file system that the volume is to have when it is mounted", on_one_machine=True),
    Policy("Lun", VALUE, "", _lun, "0", "0", "the logical unit's number", on_one_machine=True),
    Policy("BlockSize", VALUE, "block_size_bytes", _block_size, "512, 4096", "512",
        "bytes in a logical block", ours=True, on_one_machine=True),
    Policy("ParkLimit", VALUE, "park_limit_s", _park_limit, "seconds, or such as `90s`, `5m`",
        "the controller's", "how long I/O waits for copies before it fails", ours=True, on_one_machine=True),
    Policy("Chap", ENABLED, "chap", _enabled, "true, false", "true",
        "whether initiators prove themselves, with a secret that is made for the volume",
        ours=True, on_one_machine=True),
    Policy("RetainReplicaData", ENABLED, "retain_replica_data", _enabled, "true, false", "false",
        "whether replicas' data stays when the volume is deleted", on_one_machine=True),
    Policy("ReplaceAfter", VALUE, "replace_after_s", readers.duration,
        "seconds, or such as `90s`, `5m`, `2d`; 0: never", "5m",
        "a replica whose node is away for so long is made anew on another node", ours=True),
    Policy("DeployInOpenEBSNamespace", ENABLED, "deploy_in_openebs_namespace", _enabled, "true, false",
        "true", "whether pods are in Maya's namespace, or in the claim's"),
    Policy("ControllerImage", VALUE, "controller_image", readers.image, _IMAGE, "Maya's",
        "what the controller's pod runs", "OPENEBS_IO_JIVA_CONTROLLER_IMAGE"),
    Policy("ReplicaImage", VALUE, "replica_image", readers.image, _IMAGE, "Maya's",
        "what replicas' pods run", "OPENEBS_IO_JIVA_REPLICA_IMAGE"),
    Policy("VolumeMonitorImage", VALUE, "monitor_image", readers.image, _IMAGE, "Maya's",
        "what the exporter runs", "OPENEBS_IO_VOLUME_MONITOR_IMAGE"),
    Policy("ScrubImage", VALUE, "scrub_image", readers.image, _IMAGE, "Maya's",
        "what removes replicas' data when the volume is deleted", "OPENEBS_IO_HELPER_IMAGE"),
    Policy("VolumeMonitor", ENABLED, "volume_monitor", _enabled, "true, false", "true",
        "whether the controller's pod has the exporter, and the annotations for Prometheus"),
    Policy("ServiceAccountName", VALUE, "service_account", readers.object_name, "a name", "Maya's",
        "whom the pods run as", "OPENEBS_SERVICE_ACCOUNT"),
    Policy("PriorityClassName", VALUE, "priority_class", readers.object_name, "a name", "none",
        "the PriorityClass of the pods", ours=True),
    Policy("TargetTolerations", VALUE, "target_tolerations", readers.tolerations, _TOLERATIONS, "none",
        "taints on which the controller may run"),
    Policy("ReplicaTolerations", VALUE, "replica_tolerations", readers.tolerations, _TOLERATIONS, "none",
        "taints on which replicas may run"),
    Policy("EvictionTolerations", VALUE, "eviction_tolerations", readers.tolerations, _TOLERATIONS,
        "those of a sick node", "taints that do not move a replica away"),
    Policy("TargetResourceRequests", VALUE, "target_resources.requests", readers.resources, _RESOURCES,
        "none", "what the controller is promised"),
    Policy("TargetResourceLimits", VALUE, "target_resources.limits", readers.resources, _RESOURCES,
        "none", "what the controller may take"),
    Policy("ReplicaResourceRequests", VALUE, "replica_resources.requests", readers.resources, _RESOURCES,
        "none", "what a replica is promised"),
    Policy("ReplicaResourceLimits", VALUE, "replica_resources.limits", readers.resources, _RESOURCES,
        "none", "what a replica may take"),
    Policy("AuxResourceRequests", VALUE, "aux_resources.requests", readers.resources, _RESOURCES,
        "none", "what the exporter is promised"),
    Policy("AuxResourceLimits", VALUE, "aux_resources.limits", readers.resources, _RESOURCES,
        "none", "what the exporter may take"),
    Policy("ReplicaAntiAffinityTopoKey", VALUE, "anti_affinity_topology_key", readers.label_key,
        "a node label's key", "kubernetes.io/hostname",
        "no two replicas of the volume on nodes that have the same value of it"),
    Policy("TargetNodeSelector", VALUE, "target_node_selector", readers.selector, _SELECTOR, "none",
        "labels of the nodes that the controller may run on"),
    Policy("ReplicaNodeSelector", VALUE, "replica_node_selector", readers.selector, _SELECTOR, "none",
        "labels of the nodes that replicas may run on"),
    Policy("NodeAffinityRequiredSchedIgnoredExec", VALUE, "node_affinity_required", readers.requirements,
        _REQUIREMENTS, "none", "what replicas' nodes have to be; all of it (Jiva took it and did nothing)"),
    Policy("NodeAffinityPreferredSchedIgnoredExec", VALUE, "node_affinity_preferred", readers.requirements,
        _REQUIREMENTS, "none", "what replicas' nodes had better be (Jiva took it and did nothing)"),
)  # fmt: skip

_CSTOR: Final = "a policy of cStor; this is jiva"
_CSTOR_POOL: Final = "a policy of cStor's pools; this is jiva, whose pools are folders: see StoragePool"
_LOCAL: Final = "a policy of openebs.io/local, which has a provisioner of its own"

#: Names that mean something elsewhere → why they are not taken, and what to write instead.
NOT_TAKEN: Final[dict[str, str]] = {
    "VolumeControllerImage": f"{_CSTOR}: ControllerImage",
    "VolumeTargetImage": f"{_CSTOR}: ControllerImage",
    "StoragePoolClaim": f"{_CSTOR}: StoragePool",
    "OpenebsBaseDir": f"{_CSTOR}: StoragePool",
    "TargetDir": _CSTOR,
    "RunNamespace": f"{_CSTOR}: DeployInOpenEBSNamespace",
    "PVCServiceAccountName": f"{_CSTOR}: ServiceAccountName",
    "ResyncInterval": _CSTOR,
    "QueueDepth": f"{_CSTOR}, whose target takes what initiators send",
    "Luworkers": f"{_CSTOR}, which has no worker threads to count",
    "ZvolWorkers": f"{_CSTOR}, which has no worker threads to count",
    **dict.fromkeys(
        (
            *("CstorPoolImage", "CstorPoolExporterImage", "CstorPoolMgmtImage", "HostPathType", "SparseDir"),
            *("PoolResourceRequests", "PoolResourceLimits", "Tolerations"),
        ),
        _CSTOR_POOL,
    ),
    **dict.fromkeys(
        (
            *("StorageType", "BlockDeviceSelectors", "NodeAffinityLabels", "NodeAffinityLabel"),
            *("XFSQuota", "EXT4Quota", "BlockDeviceTag"),
        ),
        _LOCAL,
    ),
    "BasePath": f"{_LOCAL}; of jiva: StoragePool",
}
