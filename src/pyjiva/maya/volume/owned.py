"""What all objects of a volume have in common: whose they are, and their labels.  Pure."""

from typing import Any

from pyjiva.maya.volume.jiva_volume import JivaVolume
from pyjiva.maya.volume.labels import common_labels
from pyjiva.maya.volume.settings import Settings

__all__ = ["kube_object", "owned_metadata"]


def owned_metadata(volume: JivaVolume, settings: Settings, name: str, **more: Any) -> dict[str, Any]:
    """Of an object that goes with the volume (owner reference)."""
    return {
        "name": name,
        "namespace": volume.namespace,
        "labels": common_labels(volume, settings.version),
        "ownerReferences": [
            {
                "apiVersion": "openebs.io/v1",
                "kind": "JivaVolume",
                "name": volume.name,
                "uid": volume.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
        **more,
    }


def kube_object(api_version: str, kind: str, metadata: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """In the order in which people write it."""
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}
