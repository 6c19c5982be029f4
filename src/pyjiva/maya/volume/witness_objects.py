"""What a witness beside the controller needs: its container, and the right to keep its vote.  Pure.

    ServiceAccount V-witness   whom the controller's pod runs as, unless a policy names an account
    Role V-witness             read this one JivaVolume, and write its status
    RoleBinding V-witness      that account has that role

The account's token is mounted in the witness' container alone: the controller, whose ports strangers reach,
has none.  Why the witness is there: docs/decisions/0020-witness-in-the-jivavolume.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyjiva.maya.kube.resource import JIVA_VOLUMES
from pyjiva.maya.volume.jiva_volume import JivaVolume, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.labels import secrets_name, witness_name
from pyjiva.maya.volume.owned import kube_object, owned_metadata
from pyjiva.maya.volume.pods import container, secret_volume
from pyjiva.maya.volume.settings import Settings

__all__ = [
    "CONTAINER",
    "WITNESS_ADDRESS",
    "rights",
    "service_account_of",
    "witness_beside",
    "witness_container",
    "witness_id_in",
    "witness_volumes",
]

CONTAINER: Final = "witness"
WITNESS_ADDRESS: Final = "127.0.0.1:9504"
"""The same in every controller's pod: whoever asks there asks the witness beside it."""
ACCOUNT_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_S: Final = 3607  # as kubelets do for tokens that they mount by themselves: an hour, and a mark
_NUMBER: Final = "--replica-id"


def witness_beside(volume: JivaVolume) -> ReplicaPlace | None:
    """The one whose process is to run beside the controller."""
    places = [
        place
        for place in volume.status.replicas
        if place.in_volume and place.state is not ReplicaState.REMOVING
    ]
    return max(places, key=lambda place: place.id, default=None)


def witness_id_in(containers: Sequence[Mapping[str, Any]]) -> int | None:
    """The number of the witness among a pod's containers; None: there is none."""
    for each in containers:
        command = list(each.get("command") or ())
        if each.get("name") == CONTAINER and _NUMBER in command:
            return int(command[command.index(_NUMBER) + 1])
    return None


def service_account_of(volume: JivaVolume) -> str:
    """Whom a controller's pod with a witness runs as."""
    return volume.spec.policy.service_account or witness_name(volume.name)


def rights(volume: JivaVolume, settings: Settings) -> list[dict[str, Any]]:
    """The account, the role and the binding."""
    name, group = witness_name(volume.name), JIVA_VOLUMES.group
    plural, one = JIVA_VOLUMES.plural, [volume.name]
    metadata = owned_metadata(volume, settings, name)
    return [
        kube_object("v1", "ServiceAccount", metadata, automountServiceAccountToken=False),
        kube_object(
            "rbac.authorization.k8s.io/v1",
            "Role",
            metadata,
            rules=[
                {"apiGroups": [group], "resources": [plural], "resourceNames": one, "verbs": ["get"]},
                {
                    "apiGroups": [group],
                    "resources": [f"{plural}/status"],
                    "resourceNames": one,
                    "verbs": ["update"],
                },
            ],
        ),
        kube_object(
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            metadata,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            subjects=[
                {
                    "kind": "ServiceAccount",
                    "name": service_account_of(volume),
                    "namespace": volume.namespace,
                }
            ],
        ),
    ]


def witness_container(volume: JivaVolume, place: ReplicaPlace, settings: Settings) -> dict[str, Any]:
    """It has no probe: a pod whose witness cannot ask the API server serves I/O all the same."""
    return container(
        CONTAINER,
        volume.spec.policy.controller_image or settings.image,
        [
            *("pyjiva-maya", "witness", "--volume", volume.name, "--namespace", volume.namespace),
            *("--uid", volume.uid, "--volume-id", volume.spec.volume_id),
            *(_NUMBER, str(place.id), "--data", WITNESS_ADDRESS),
            *("--key-file", "/run/secrets/pyjiva/volume.key"),
        ],
        settings,
        resources=volume.spec.policy.aux_resources,
        mounts={"witness-key": "/run/secrets/pyjiva:ro", "account": f"{ACCOUNT_FOLDER}:ro"},
        ports={},
    )


def witness_volumes(volume: JivaVolume) -> list[dict[str, Any]]:
    """What it mounts: the volume's key, and what a pod that may speak to Kubernetes is given."""
    return [
        secret_volume("witness-key", secrets_name(volume.name), ["volume.key"]),
        {
            "name": "account",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_S}},
                    {
                        "configMap": {
                            "name": "kube-root-ca.crt",
                            "items": [{"key": "ca.crt", "path": "ca.crt"}],
                        }
                    },
                    {
                        "downwardAPI": {
                            "items": [
                                {
                                    "path": "namespace",
                                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                }
                            ]
                        }
                    },
                ],
            },
        },
    ]
