"""A status that is lost, read back from what runs.  Pure.

A JivaVolume that was restored from a backup often comes without its status.  Without this its replicas would
be given nodes anew and be blank there, and the volume would be taken for one that is not born yet.  What is
needed stands in the objects too: a replica's id and node in its Deployment, and whether the volume is born in
the controller's ConfigMap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from pyjiva.maya.policy.volume_policy import HOSTNAME
from pyjiva.maya.volume.jiva_volume import JivaVolume, JivaVolumeStatus, ReplicaPlace, ReplicaState
from pyjiva.maya.volume.labels import REPLICA_ID, controller_name
from pyjiva.maya.volume.objects import NEW_VOLUME
from pyjiva.maya.volume.placement import Node
from pyjiva.maya.volume.witness_objects import witness_id_in

__all__ = ["adopt"]


def adopt(
    volume: JivaVolume, objects: Mapping[tuple[str, str], Mapping[str, Any]], nodes: Sequence[Node]
) -> JivaVolumeStatus:
    """The volume's status, with what its objects know if it has no replicas."""
    status = volume.status
    if status.replicas:
        return status
    names = {node.hostname: node.name for node in nodes}
    places = []
    for (kind, _), value in sorted(objects.items()):
        number = (value["metadata"].get("labels") or {}).get(REPLICA_ID)
        if kind != "Deployment" or number is None:
            continue
        spec = value["spec"]["template"]["spec"]
        hostname = (spec.get("nodeSelector") or {}).get(HOSTNAME, "")
        places.append(
            ReplicaPlace(
                int(number),
                ReplicaState.INITIAL,
                node=names.get(hostname, hostname),
                witness=any("--witness" in each.get("command", ()) for each in spec["containers"]),
                started=True,
            )
        )
    if not places:
        return status
    controller = objects.get(("Deployment", controller_name(volume.name)), {})
    template = controller.get("spec", {}).get("template", {}).get("spec", {})
    beside = witness_id_in(template.get("containers") or ())
    if beside is not None:  # it has its number still; what it has promised is lost
        places.append(ReplicaPlace(beside, ReplicaState.INITIAL, witness=True, in_volume=True, started=True))
    configuration = objects.get(("ConfigMap", controller_name(volume.name)))
    born = configuration is not None and NEW_VOLUME not in (configuration.get("data") or {})
    return attrs.evolve(
        status,
        replicas=tuple(sorted(places, key=lambda place: place.id)),
        next_replica_id=max(status.next_replica_id, *(place.id + 1 for place in places)),
        born=status.born or born,
        filled=status.filled or born,
    )
