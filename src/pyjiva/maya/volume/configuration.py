"""The controller's configuration file (docs/reference/configuration.md), from a JivaVolume.  Pure."""

import json
from typing import Any, Final

from pyjiva.maya.volume.jiva_volume import ISCSI_PORT, JivaVolume, ReplicaState
from pyjiva.maya.volume.settings import Settings

__all__ = ["controller_toml"]

SECRETS: Final = "/run/secrets/pyjiva"


def controller_toml(volume: JivaVolume, settings: Settings, portal_host: str, fill_from: str) -> str:
    """What `pyjiva-controller --config` reads.

    `portal_host`: what discovery tells initiators, the Service's address.  `fill_from`: URL of a snapshot;
    "": the volume begins empty, or has everything.
    """
    spec, host = volume.spec, settings.listen_host
    # The volume itself knows who belongs to it; these are whom it asks first.
    members = [
        place
        for place in volume.status.replicas
        if place.address and place.state in (ReplicaState.INITIAL, ReplicaState.MEMBER, ReplicaState.LEAVING)
    ]
    values: dict[str, Any] = {
        "volume": volume.name,
        "volume-id": spec.volume_id,
        "size": volume.status.capacity_bytes or volume.size_bytes,
        "block-size": spec.policy.block_size_bytes,
        "replica": [f"{place.id}={place.address}" for place in members if not place.witness],
        "witness": [f"{place.id}={place.address}" for place in members if place.witness],
        "key-file": f"{SECRETS}/volume.key",
        "portal": [f"{host}:{ISCSI_PORT}"],
        "advertise": [
            f"[{portal_host}]:{ISCSI_PORT}" if ":" in portal_host else f"{portal_host}:{ISCSI_PORT}"
        ],
        "api": f"{host}:9501",
        "api-token-file": f"{SECRETS}/api.token",
    }
    if spec.policy.chap:
        values["chap-file"] = f"{SECRETS}/chap"
    if spec.policy.park_limit_s is not None:
        values["park-limit"] = spec.policy.park_limit_s
    if settings.min_copies is not None:
        values["min-copies"] = settings.min_copies
    if fill_from:
        values["fill-from"] = fill_from
        values["fill-token-file"] = f"{SECRETS}/source.token"
    # JSON's strings, numbers and lists are TOML's too.
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value != [])
