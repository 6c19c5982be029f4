"""What is decided about one volume: a record in which every policy has a value.  Pure.

The record is copied into the JivaVolume when it is made, so a StorageClass that is changed later changes no
volume; what may be changed on a volume is changed there.  Its JSON is what `spec.policy` of a JivaVolume is:
the fields' names in camel case.
"""

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["FS_TYPES", "HOSTNAME", "LabelRequirement", "Resources", "Toleration", "VolumePolicy"]

HOSTNAME: Final = "kubernetes.io/hostname"
FS_TYPES: Final = ("ext4", "ext3", "ext2", "xfs", "btrfs")


@attrs.frozen
class Toleration:
    """As in a pod's spec; "" where it says nothing."""

    key: str = ""
    operator: str = ""
    """Equal or Exists; "": Equal."""
    value: str = ""
    effect: str = ""
    """NoSchedule, PreferNoSchedule, NoExecute; "": all."""
    toleration_seconds: int | None = None


@attrs.frozen
class LabelRequirement:
    """A requirement on a node's label, as in a node selector term."""

    key: str
    operator: str
    """In, NotIn, Exists, DoesNotExist, Gt, Lt."""
    values: tuple[str, ...] = ()


@attrs.frozen
class Resources:
    """As in a container's spec: quantities by resource."""

    requests: Mapping[str, str] = attrs.field(factory=dict)
    limits: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class VolumePolicy:
    """Every policy of one volume.  Names of Jiva's policies are in `policies`, which makes these."""

    replica_count: int = 3
    """Copies with data."""
    witness: bool = False
    """One more member that votes and holds no data."""
    witness_in_volume: bool = False
    """Whether that one keeps its vote in the JivaVolume and runs beside the controller; else it is a pod on a
    node of its own.
    """
    deploy_in_openebs_namespace: bool = True
    """Pods in Maya's namespace; False: in the claim's."""
    controller_image: str = ""
    replica_image: str = ""
    monitor_image: str = ""
    scrub_image: str = ""
    """Of the job that removes a replica's data.  "" for all four: what Maya was started with."""
    pool_path: str = "/var/openebs"
    """Folder on the nodes under which replicas keep their data (StoragePool)."""
    volume_monitor: bool = True
    """Whether the controller's pod has the exporter, and the annotations for Prometheus."""
    service_account: str = ""
    priority_class: str = ""
    target_tolerations: tuple[Toleration, ...] = ()
    replica_tolerations: tuple[Toleration, ...] = ()
    eviction_tolerations: tuple[Toleration, ...] | None = None
    """None: those that keep a replica on a node that is sick (`objects`)."""
    target_resources: Resources = attrs.field(factory=Resources)
    replica_resources: Resources = attrs.field(factory=Resources)
    aux_resources: Resources = attrs.field(factory=Resources)
    """Of the exporter."""
    anti_affinity_topology_key: str = HOSTNAME
    """No two replicas on nodes that have the same value of this label."""
    target_node_selector: Mapping[str, str] = attrs.field(factory=dict)
    replica_node_selector: Mapping[str, str] = attrs.field(factory=dict)
    node_affinity_required: tuple[LabelRequirement, ...] = ()
    node_affinity_preferred: tuple[LabelRequirement, ...] = ()
    """Of replicas."""
    replica_anti_affinity_group: str = ""
    """Volumes of one group have their replicas on different nodes; "": of none."""
    target_affinity: Mapping[str, str] = attrs.field(factory=dict)
    """Of pods in the claim's namespace: the controller's pod has to run on the node of one of them; empty:
    anywhere.
    """
    fs_type: str = "ext4"
    retain_replica_data: bool = False
    """Whether replicas' data stays on the nodes when the volume is deleted."""
    chap: bool = True
    """Whether initiators have to prove themselves, with a secret made for the volume."""
    block_size_bytes: int = 512
    park_limit_s: float | None = None
    """None: the controller's default."""
    replace_after_s: float = 300.0
    """A replica whose node is away for so long is made anew on another node; 0: never."""
