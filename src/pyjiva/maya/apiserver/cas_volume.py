"""CASVolume and CASVolumeList: volumes as OpenEBS' clients read and ask for them.  Pure.

Keys are those of `maya pkg/apis/openebs.io/v1alpha1/cas_volume.go`; each annotation stands there twice,
under both of its prefixes (`pkg/install/v1alpha1/jiva_volume.go`).  The comma-joined strings are for
clients that read them: in one order, that of `status.replicas`, which is ours and says more.  A witness is
in `status.replicas` alone, as it has no data.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from pyjiva.errors import ConfigError
from pyjiva.maya.apiserver.backend import (
    CasPhase,
    CloneSource,
    NewVolume,
    ReplicaView,
    VolumeName,
    VolumeView,
)
from pyjiva.maya.apiserver.body import CAPACITY_CHARACTERS_MAX, Fields, capacity
from pyjiva.maya.kube.quantity import QUANTITY, format_quantity
from pyjiva.transport.openapi import Schema, object_schema

__all__ = [
    "API_VERSION",
    "CAS_VOLUME_LIST_SCHEMA",
    "CAS_VOLUME_SCHEMA",
    "NAME",
    "NAMESPACE_SCHEMA",
    "NEW_VOLUME_SCHEMA",
    "list_json",
    "new_volume",
    "take_type",
    "volume_json",
]

API_VERSION: Final = "v1alpha1"
JIVA: Final = "jiva"
NAME: Final = re.compile(
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)  # a DNS label: names of Services hold it
PREFIXES: Final = ("vsm.openebs.io/", "openebs.io/")
LABEL_CLASS: Final = "openebs.io/storageclass"
LABEL_CLAIM: Final = "openebs.io/persistentvolumeclaim"
LABEL_NAMESPACE: Final = "openebs.io/namespace"
ACCESS_MODE: Final = "ReadWriteOnce"
ACCESS_MODES: Final = (ACCESS_MODE, "ReadWriteOncePod", "RWO", "RWOP")
RUNNING: Final = "running"
NOT_READY: Final = "notready"


def new_volume(body: Fields, namespace: str) -> NewVolume:
    """What a body asks for; `namespace`: what the request says outside of it.

    Raises ConfigError: it is none, or asks for what there is not.
    """
    take_type(body, "CASVolume")
    metadata, spec, clone = body.fields("metadata"), body.fields("spec"), body.fields("cloneSpec")
    body.empty("status")
    name = metadata.text("name")
    if NAME.fullmatch(name) is None:
        raise ConfigError(f"metadata.name {name!r}: 1 to 63 lower-case letters, digits and inner dashes")
    labels = metadata.texts("labels")
    spaces = {
        each for each in (namespace, metadata.text("namespace"), labels.get(LABEL_NAMESPACE, "")) if each
    }
    if len(spaces) > 1:
        raise ConfigError(f"namespace: the request names several, {' and '.join(sorted(spaces))}")
    metadata.empty("creationTimestamp", "uid", "generateName")
    wanted = NewVolume(
        name=name,
        namespace=_namespace(next(iter(spaces), "")),
        capacity_bytes=capacity(spec.text("capacity"), "spec.capacity"),
        storage_class=labels.pop(LABEL_CLASS, ""),
        claim=labels.pop(LABEL_CLAIM, ""),
        annotations=metadata.texts("annotations"),
        labels={key: value for key, value in labels.items() if key != LABEL_NAMESPACE},
        source=_source(clone),
    )
    spec.only("casType", JIVA)
    spec.only("accessMode", *ACCESS_MODES)
    spec.empty("iqn", "targetPortal", "targetIP", "targetPort", "replicas", "lun", "fsType")
    for fields in (body, metadata, spec, clone):
        fields.end()
    return wanted


def take_type(body: Fields, kind: str) -> None:
    """Raises ConfigError: it is something else."""
    body.only("kind", kind)
    body.only("apiVersion", API_VERSION, f"openebs.io/{API_VERSION}")


def _namespace(text: str) -> str:
    if text and NAME.fullmatch(text) is None:
        raise ConfigError(f"namespace {text!r}: 1 to 63 lower-case letters, digits and inner dashes")
    return text


def _source(clone: Fields) -> CloneSource | None:
    is_clone = clone.flag("isClone")
    volume, snapshot = clone.text("sourceVolume"), clone.text("snapshotName")
    clone.text("sourceTargetIP")  # where the source is, Maya knows better
    if not is_clone and (volume or snapshot):
        raise ConfigError("cloneSpec.isClone: true is expected, where a source is named")
    if is_clone and (not NAME.fullmatch(volume) or not snapshot):
        raise ConfigError("cloneSpec: a clone needs sourceVolume and snapshotName")
    return CloneSource(volume, snapshot) if is_clone else None


def volume_json(view: VolumeView) -> dict[str, Any]:
    """One CASVolume."""
    host, port = _split(view.portals[0]) if view.portals else ("", "")
    labels = {**view.labels, LABEL_NAMESPACE: view.namespace}
    labels |= {LABEL_CLASS: view.storage_class} if view.storage_class else {}
    labels |= {LABEL_CLAIM: view.claim} if view.claim else {}
    source = view.source
    return {
        "kind": "CASVolume",
        "apiVersion": API_VERSION,
        "metadata": {
            "name": view.name,
            "namespace": view.namespace,
            "uid": view.volume_id,
            "labels": labels,
            "annotations": {
                prefix + key: text for key, text in _annotations(view, host).items() for prefix in PREFIXES
            },
        },
        "spec": {
            "capacity": format_quantity(view.capacity_bytes),
            "iqn": view.iqn,
            "targetPortal": view.portals[0] if view.portals else "",
            "targetIP": host,
            "targetPort": port,
            "replicas": str(view.policy.replica_count),
            "casType": JIVA,
            "fsType": view.policy.fs_type,
            "lun": view.lun,
            "accessMode": ACCESS_MODE,
        },
        "cloneSpec": {
            "isClone": source is not None,
            "sourceVolume": source.volume if source else "",
            "sourceTargetIP": "",
            "snapshotName": source.snapshot if source else "",
        },
        "status": {
            "Phase": view.phase.value,
            "Message": view.message,
            "Reason": view.reason,
            "replicas": [_replica_json(each) for each in view.replicas],
            "portals": list(view.portals),
            "chap": view.policy.chap,
        },
    }


def list_json(views: Sequence[VolumeView]) -> dict[str, Any]:
    """A CASVolumeList."""
    return {
        "kind": "CASVolumeList",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": [volume_json(view) for view in views],
    }


def deleted_json(volume: VolumeName) -> dict[str, Any]:
    """What a DELETE answers: a CASVolume with nothing but the name."""
    return {"kind": "CASVolume", "apiVersion": API_VERSION, "metadata": {"name": volume.name}}


def _annotations(view: VolumeView, host: str) -> dict[str, str]:
    controller = RUNNING if view.controller_runs else NOT_READY
    copies = view.copies
    return {
        "controller-ips": host,
        "cluster-ips": host,
        "controller-node-name": view.controller_node,
        "controller-status": controller,
        "iqn": view.iqn,
        "replica-count": str(view.policy.replica_count),
        "replica-ips": ",".join(_split(each.address)[0] if each.address else "" for each in copies),
        "replica-status": ",".join(RUNNING if each.runs else NOT_READY for each in copies),
        "targetportals": ",".join(view.portals),
        "volume-size": format_quantity(view.capacity_bytes),
    }


def _replica_json(replica: ReplicaView) -> dict[str, Any]:
    return {
        "id": replica.id,
        "address": replica.address,
        "node": replica.node,
        "mode": replica.mode,
        "reason": replica.reason,
        "witness": replica.witness,
    }


def _split(portal: str) -> tuple[str, str]:
    host, _, port = portal.rpartition(":")
    return host.strip("[]"), port


_TEXT: Final[Schema] = {"type": "string"}
_TEXTS: Final[Schema] = {"type": "object", "additionalProperties": _TEXT}
_FLAG: Final[Schema] = {"type": "boolean"}
_QUANTITY: Final[Schema] = {
    "type": "string",
    "pattern": f"^{QUANTITY.pattern}$",
    "examples": ["10Gi", "5G", "4096"],
    "maxLength": CAPACITY_CHARACTERS_MAX,
}
_NAME: Final[Schema] = {"type": "string", "pattern": f"^{NAME.pattern}$"}
NAMESPACE_SCHEMA: Final[Schema] = {"type": "string", "pattern": f"^({NAME.pattern})?$"}
_CLONE: Final = object_schema(
    {"isClone": _FLAG, "sourceVolume": _TEXT, "sourceTargetIP": _TEXT, "snapshotName": _TEXT}
)
_REPLICA: Final = object_schema(
    {
        "id": {"type": "integer"},
        "address": {"type": "string", "description": "HOST:PORT; empty: none yet"},
        "node": _TEXT,
        "mode": {"enum": ["in-sync", "rebuilding", "out", "witness", ""]},
        "reason": _TEXT,
        "witness": _FLAG,
    }
)
CAS_VOLUME_SCHEMA: Final = object_schema(
    {
        "kind": {"const": "CASVolume"},
        "apiVersion": {"const": API_VERSION},
        "metadata": object_schema(
            {"name": _TEXT, "namespace": _TEXT, "uid": _TEXT, "labels": _TEXTS, "annotations": _TEXTS}
        ),
        "spec": object_schema(
            {
                "capacity": _QUANTITY,
                **dict.fromkeys(("iqn", "targetPortal", "targetIP", "targetPort", "replicas"), _TEXT),
                "casType": {"const": JIVA},
                "fsType": _TEXT,
                "lun": {"type": "integer"},
                "accessMode": {"const": ACCESS_MODE},
            }
        ),
        "cloneSpec": _CLONE,
        "status": object_schema(
            {
                "Phase": {"enum": [phase.value for phase in CasPhase]},
                "Message": _TEXT,
                "Reason": _TEXT,
                "replicas": {"type": "array", "items": _REPLICA},
                "portals": {"type": "array", "items": _TEXT},
                "chap": _FLAG,
            }
        ),
    }
)
CAS_VOLUME_LIST_SCHEMA: Final = object_schema(
    {
        "kind": {"const": "CASVolumeList"},
        "apiVersion": {"const": API_VERSION},
        "metadata": object_schema({}),
        "items": {"type": "array", "items": CAS_VOLUME_SCHEMA},
    }
)
DELETED_SCHEMA: Final = object_schema(
    {
        "kind": {"const": "CASVolume"},
        "apiVersion": {"const": API_VERSION},
        "metadata": object_schema({"name": _TEXT}),
    }
)
#: What a request may say; all else is refused.
NEW_VOLUME_SCHEMA: Final[Schema] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["CASVolume", ""]},
        "apiVersion": {"enum": [API_VERSION, f"openebs.io/{API_VERSION}", ""]},
        "metadata": {
            "type": "object",
            "properties": {
                "name": _NAME,
                "namespace": NAMESPACE_SCHEMA,
                "labels": _TEXTS,
                "annotations": _TEXTS,
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        "spec": {
            "type": "object",
            "properties": {
                "capacity": _QUANTITY,
                "casType": {"enum": [JIVA, ""]},
                "accessMode": {"enum": [*ACCESS_MODES, ""]},
            },
            "required": ["capacity"],
            "additionalProperties": False,
        },
        "cloneSpec": _CLONE | {"required": []},
    },
    "required": ["metadata", "spec"],
    "additionalProperties": False,
}
