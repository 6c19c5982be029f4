"""`volume.meta` and the `.meta` of each layer, with the names and fields of Jiva and Longhorn.  Pure.

A directory holds one sparse file per layer, `volume-head-NNN.img` on top of `volume-snap-<name>.img`, each
with its `.meta` that names the parent, and `volume.meta` that names the head.  The fields are those of Go's
`replica.Info` and `replica.disk` (longhorn-engine `pkg/replica/replica.go`, jiva `replica/replica.go`);
fields that we do not know (Error, Checkpoint, RevisionCounter, UUID, CloneStatus, BackingFileName, …) are
kept and written back.  These files carry no checksum in either system, so what we must trust stands in
`pyjiva.json` (`snapshot.state`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs

from pyjiva.errors import ConfigError

__all__ = [
    "FIRST_HEAD",
    "META_SUFFIX",
    "SECTOR_BYTES",
    "VOLUME_META",
    "DiskMeta",
    "VolumeMeta",
    "layer_names",
]

VOLUME_META: Final = "volume.meta"
META_SUFFIX: Final = ".meta"
FIRST_HEAD: Final = "volume-head-000.img"
SECTOR_BYTES: Final = 4096  # the granule of Jiva's and Longhorn's replicas, whatever the initiator's block is

_FILE_NAME: Final = re.compile(r"^[^/\0]{1,250}$")  # NAME_MAX is 255, and ".meta" is added to it
_Meta = TypeVar("_Meta", "VolumeMeta", "DiskMeta")


def _json(name: str, default: Any = attrs.NOTHING) -> Any:
    """A field that JSON calls `name`."""
    return attrs.field(default=default, metadata={"json": name})


@attrs.frozen(kw_only=True)
class VolumeMeta:
    """`volume.meta`."""

    size_bytes: int = _json("Size")
    head: str = _json("Head")
    """File name of the layer that takes the writes."""
    dirty: bool = _json("Dirty", default=False)
    rebuilding: bool = _json("Rebuilding", default=False)
    parent: str = _json("Parent", default="")
    """File name of the layer below the head; "" when there is none."""
    sector_size_bytes: int = _json("SectorSize", default=SECTOR_BYTES)
    backing_file_path: str = _json("BackingFilePath", default="")
    other: Mapping[str, Any] = attrs.field(factory=dict)
    """Fields of other versions, kept as they are."""

    def encode(self) -> bytes:
        """The content of the file."""
        return _encode(self)

    @classmethod
    def decode(cls, content: bytes) -> "VolumeMeta":
        """What the file says.  Raises ConfigError: not that."""
        meta = _decode(cls, VOLUME_META, content)
        if meta.size_bytes <= 0 or meta.sector_size_bytes <= 0:
            raise ConfigError(f"{VOLUME_META} is damaged: Size {meta.size_bytes}")
        _check_names(VOLUME_META, meta.head, meta.parent)
        return meta


@attrs.frozen(kw_only=True)
class DiskMeta:
    """The `.meta` of one layer."""

    name: str = _json("Name")
    parent: str = _json("Parent", default="")
    removed: bool = _json("Removed", default=False)
    """A deleted snapshot whose data the layers above still need."""
    user_created: bool = _json("UserCreated", default=False)
    created: str = _json("Created", default="")
    """RFC 3339."""
    labels: Mapping[str, str] | None = _json("Labels", default=None)
    other: Mapping[str, Any] = attrs.field(factory=dict)

    def encode(self) -> bytes:
        """The content of the file."""
        return _encode(self)

    @classmethod
    def decode(cls, layer: str, content: bytes, *, any_name: bool = False) -> "DiskMeta":
        """What the `.meta` of `layer` says.  Raises ConfigError: not that.

        `any_name`: as Jiva and Longhorn do, go by the file's name, whatever name stands in it.
        """
        meta = _decode(cls, layer + META_SUFFIX, content)
        if any_name:
            meta = attrs.evolve(meta, name=layer)
        _check_names(layer + META_SUFFIX, meta.name, meta.parent)
        if meta.name != layer:
            raise ConfigError(f"{layer}{META_SUFFIX} is damaged: it describes {meta.name}")
        if not all(isinstance(value, str) for value in (meta.labels or {}).values()):
            raise ConfigError(f"{layer}{META_SUFFIX} is damaged: Labels")
        return meta


def layer_names(volume: VolumeMeta, disks: Mapping[str, DiskMeta]) -> tuple[str, ...]:
    """The chain from the head down, by the parents that `disks` (file name → its .meta) name.

    Raises ConfigError: a layer is missing, or the parents go round in a circle.
    """
    chain: list[str] = []
    name = volume.head
    while name:
        if name in chain:
            raise ConfigError(f"the layers go round in a circle at {name}")
        disk = disks.get(name)
        if disk is None:
            raise ConfigError(f"{name}{META_SUFFIX} is missing")
        chain.append(name)
        name = disk.parent
    return tuple(chain)


_TYPES: Final[dict[Any, type | tuple[type, ...]]] = {
    int: int,
    str: str,
    bool: bool,
    Mapping[str, str] | None: (dict, type(None)),
}


def _encode(meta: VolumeMeta | DiskMeta) -> bytes:
    fields = dict(meta.other)
    for field in attrs.fields(type(meta)):
        if "json" in field.metadata:
            fields[field.metadata["json"]] = getattr(meta, field.name)
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _decode(kind: type[_Meta], file_name: str, content: bytes) -> _Meta:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file_name} is damaged: not JSON") from error
    if not isinstance(fields, dict):
        raise ConfigError(f"{file_name} is damaged: not an object")
    known: dict[str, Any] = {}
    for field in attrs.fields(kind):
        name = field.metadata.get("json")
        if name is None or (name not in fields and field.default is not attrs.NOTHING):
            continue
        if name not in fields:
            raise ConfigError(f"{file_name} is damaged: no field {name}")
        value = fields.pop(name)
        is_number_for_bool = field.type is int and isinstance(value, bool)
        if not isinstance(value, _TYPES[field.type]) or is_number_for_bool:
            raise ConfigError(f"{file_name} is damaged: field {name}")
        known[field.name] = value
    return kind(**known, other=fields)


def _check_names(file_name: str, name: str, parent: str) -> None:
    """Names come from a file and are opened: they must not lead out of the directory."""
    for value in (name, parent) if parent else (name,):
        if not _FILE_NAME.match(value) or value in (".", "..") or value.startswith("-"):
            raise ConfigError(f"{file_name} is damaged: {value!r} is not a layer's name")
