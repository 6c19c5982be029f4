"""The JivaVolume and the PersistentVolume of a claim.  Pure.

Source: external-storage openebs/pkg/provisioner/cas_provision.go, for what OpenEBS' users know.
"""

from collections.abc import Mapping
from typing import Any, Final

from pyjiva.maya.kube.quantity import format_quantity
from pyjiva.maya.policy.volume_policy import VolumePolicy
from pyjiva.maya.volume.jiva_volume import JivaVolume, JivaVolumeSpec, VolumeSource
from pyjiva.maya.volume.labels import (
    CLAIM,
    CLAIM_NAMESPACE,
    PERSISTENT_VOLUME,
    STORAGE_CLASS,
    chap_secret_name,
)
from pyjiva.maya.volume.observed import SELECTED_NODE

__all__ = ["new_volume", "persistent_volume", "volume_name"]

LABEL_CHARACTERS_MAX: Final = 63

Object = Mapping[str, Any]


def volume_name(claim: Object) -> str:
    """Of the PersistentVolume and the JivaVolume of a claim."""
    return f"pvc-{claim['metadata']['uid']}"


def new_volume(
    claim: Object,
    storage_class: Object,
    policy: VolumePolicy,
    size_bytes: int,
    source: VolumeSource | None,
    provisioner: str,
    namespace: str,
) -> JivaVolume:
    """The JivaVolume of a claim.  Its id is the claim's uid, so that making it twice makes it once."""
    metadata = claim["metadata"]
    facts = {
        CLAIM: metadata["name"],
        CLAIM_NAMESPACE: metadata["namespace"],
        STORAGE_CLASS: storage_class["metadata"]["name"],
    }
    annotations = dict(facts) | {"pv.kubernetes.io/provisioned-by": provisioner}
    if node := (metadata.get("annotations") or {}).get(SELECTED_NODE):
        annotations[SELECTED_NODE] = node
    name = volume_name(claim)
    return JivaVolume(
        namespace=namespace,
        name=name,
        spec=JivaVolumeSpec(
            pv=name,
            capacity_bytes=size_bytes,
            volume_id=metadata["uid"].replace("-", "").lower(),
            desired_replication_factor=policy.replica_count,
            access_type="block" if claim["spec"].get("volumeMode") == "Block" else "mount",
            policy=policy,
            source=source,
        ),
        labels={key: text for key, text in facts.items() if len(text) <= LABEL_CHARACTERS_MAX}
        | {PERSISTENT_VOLUME: name},
        annotations=annotations,
    )


def persistent_volume(
    volume: JivaVolume,
    claim: Object,
    storage_class: Object,
    provisioner: str,
    identity: str,
    finalizer: str,
) -> dict[str, Any]:
    """The PersistentVolume of a claim, over its volume.  It says the size that the claim asked for."""
    address = volume.status.iscsi
    assert address is not None
    spec, metadata = claim["spec"], claim["metadata"]
    mode = spec.get("volumeMode", "Filesystem")
    iscsi: dict[str, Any] = {
        "targetPortal": address.target_portal,
        "iqn": address.iqn,
        "lun": address.lun,
        "readOnly": False,
    }
    if mode != "Block":
        iscsi["fsType"] = volume.spec.policy.fs_type
    if volume.spec.policy.chap:
        iscsi["chapAuthSession"] = True
        iscsi["secretRef"] = {"name": chap_secret_name(volume.name), "namespace": volume.namespace}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume.name,
            "labels": {
                "openebs.io/cas-type": "jiva",
                **{key: volume.labels[key] for key in (STORAGE_CLASS,) if key in volume.labels},
            },
            "annotations": {
                "openEBSProvisionerIdentity": identity,
                "openebs.io/cas-type": "jiva",
                "pv.kubernetes.io/provisioned-by": provisioner,
            },
            "finalizers": [finalizer],
        },
        "spec": {
            "capacity": {"storage": format_quantity(volume.spec.capacity_bytes)},
            "accessModes": list(spec["accessModes"]),
            "volumeMode": mode,
            "storageClassName": spec["storageClassName"],
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy", "Delete"),
            "mountOptions": list(storage_class.get("mountOptions") or ()),
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "iscsi": iscsi,
        },
    }
