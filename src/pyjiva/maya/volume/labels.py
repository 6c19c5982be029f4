"""Names and labels of a volume's objects, as OpenEBS' users know them.  Pure.

Source: maya pkg/install/v1alpha1/jiva_volume.go.
"""

from typing import Final

from pyjiva.maya.volume.jiva_volume import JivaVolume

__all__ = [
    "CLAIM",
    "CLAIM_NAMESPACE",
    "CONTROLLER",
    "GROUP",
    "PERSISTENT_VOLUME",
    "REPLICA",
    "REPLICA_ID",
    "STORAGE_CLASS",
    "chap_secret_name",
    "claim_namespace",
    "common_labels",
    "controller_name",
    "disruption_budget_name",
    "replica_name",
    "scrub_name",
    "secrets_name",
    "service_name",
    "witness_name",
]

PERSISTENT_VOLUME: Final = "openebs.io/persistent-volume"
CLAIM: Final = "openebs.io/persistent-volume-claim"
CLAIM_NAMESPACE: Final = "openebs.io/namespace"
STORAGE_CLASS: Final = "openebs.io/storageclass"
GROUP: Final = "openebs.io/replica-anti-affinity"
"""Of volumes whose replicas keep apart from each other's."""
CONTROLLER: Final = ("openebs.io/controller", "jiva-controller")
REPLICA: Final = ("openebs.io/replica", "jiva-replica")
REPLICA_ID: Final = "openebs.io/replica-id"


def service_name(volume: str) -> str:
    """Of the Service that initiators and Maya reach the controller by."""
    return f"{volume}-ctrl-svc"


def controller_name(volume: str) -> str:
    """Of the controller's Deployment and ConfigMap."""
    return f"{volume}-ctrl"


def replica_name(volume: str, replica_id: int) -> str:
    """Of a replica's Deployment and Service."""
    return f"{volume}-rep-{replica_id}"


def secrets_name(volume: str) -> str:
    """Of the Secret that the daemons have."""
    return f"{volume}-secrets"


def chap_secret_name(volume: str) -> str:
    """Of the Secret that kubelets log in with."""
    return f"{volume}-chap"


def witness_name(volume: str) -> str:
    """Of what a witness beside the controller needs."""
    return f"{volume}-witness"


def disruption_budget_name(volume: str) -> str:
    """Of the PodDisruptionBudget."""
    return f"{volume}-pdb"


def scrub_name(volume: str, replica_id: int) -> str:
    """Of the Job that removes a replica's data."""
    return f"sjr-{volume}-{replica_id}"


def claim_namespace(volume: JivaVolume) -> str:
    """Of the claim that it was made for; else its own."""
    return volume.annotations.get(CLAIM_NAMESPACE) or volume.labels.get(CLAIM_NAMESPACE) or volume.namespace


def common_labels(volume: JivaVolume, version: str) -> dict[str, str]:
    """On every object."""
    labels = {
        "openebs.io/cas-type": "jiva",
        "openebs.io/storage-engine-type": "jiva",
        PERSISTENT_VOLUME: volume.name,
    }
    if claim := volume.labels.get(CLAIM):
        labels[CLAIM] = claim
    if version:
        labels["openebs.io/version"] = version
    return labels
