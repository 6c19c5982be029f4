"""What a backup is: its manifest, and the names under which things lie in a store.  Pure.

pyjiva-backup.json        Configuration
manifests/ID              Manifest: a backup is there exactly if this is
tables/ID                 its ChunkTable; written before the manifest, removed after it
chunks/AB/ABCD…           chunks, by their names in hexadecimal
unfinished/HASH           Checkpoint of a backup that is being made, or was interrupted
locks/ID                  Lock of a process that makes a backup or collects chunks
"""

import json
import re
import struct
from typing import Any, Final, Self

import attrs

from pyjiva.backup.configuration import NAME_BYTES
from pyjiva.backup.objects import DamagedError
from pyjiva.backup.table import ChunkTable
from pyjiva.errors import ConfigError

__all__ = [
    "CHUNKS",
    "ID_PATTERN",
    "LOCKS",
    "MANIFESTS",
    "TABLES",
    "UNFINISHED",
    "Checkpoint",
    "Manifest",
    "check_id",
    "chunk_key",
    "name_of_chunk_key",
]

MANIFESTS: Final = "manifests/"
TABLES: Final = "tables/"
CHUNKS: Final = "chunks/"
UNFINISHED: Final = "unfinished/"
LOCKS: Final = "locks/"
ID_PATTERN: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}", re.ASCII)
MANIFEST_BYTES_MAX: Final = 64 * 1024
FORMAT_VERSION: Final = 1
_CHUNK_KEY: Final = re.compile(r"chunks/([0-9a-f]{2})/(\1[0-9a-f]{62})", re.ASCII)
_POSITION: Final = struct.Struct("<Q")


@attrs.frozen(kw_only=True)
class Manifest:
    """One backup: of what it is, and the hash of its table."""

    id: str
    volume: str
    volume_id: str
    snapshot: str
    snapshot_created: str
    """As the volume says it; it tells two snapshots of one name apart."""
    size_bytes: int
    block_size_bytes: int
    chunk_bytes: int
    created: str
    """When the backup was begun, as RFC 3339 has it."""
    base: str
    """The backup from which it took over what had not changed; "": none, all was read."""
    table_hash: str
    chunks: int
    """How many it has; the rest of the volume is zeros."""
    read_bytes: int
    """Read from the volume when it was made; and:"""
    stored_bytes: int
    """put into the store, squeezed and sealed."""

    def encode(self) -> bytes:
        """The manifest as it lies in the store, before it is wrapped."""
        return json.dumps({"format": FORMAT_VERSION, **attrs.asdict(self)}, sort_keys=True).encode()

    @classmethod
    def decode(cls, content: bytes, what: str) -> Self:
        """What `encode` gave.  Raises DamagedError, which names `what`: it is anything else."""
        try:
            fields = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"{what}: not JSON") from error
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT_VERSION:
            raise DamagedError(f"{what}: not a manifest of format {FORMAT_VERSION}")
        if set(fields) != set(_TYPES) or any(type(fields[name]) is not t for name, t in _TYPES.items()):
            raise DamagedError(f"{what}: not the fields of a manifest")
        manifest = cls(**fields)
        why = manifest._impossible()
        if why:
            raise DamagedError(f"{what}: {why}")
        return manifest

    def _impossible(self) -> str:
        if ID_PATTERN.fullmatch(self.id) is None or (self.base and ID_PATTERN.fullmatch(self.base) is None):
            return "an id that is none"
        if min(self.size_bytes, self.block_size_bytes, self.chunk_bytes) < 1:
            return "a size below 1"
        if min(self.chunks, self.read_bytes, self.stored_bytes) < 0:
            return "a count below 0"
        return ""


_TYPES: Final[dict[str, type[Any]]] = {
    field.name: int if field.type in (int, "int") else str for field in attrs.fields(Manifest)
}


@attrs.frozen
class Checkpoint:
    """How far a backup had come: every chunk before `position` is in `table`, or zeros."""

    position: int
    table: ChunkTable

    def encode(self) -> bytes:
        """The checkpoint as it lies in the store, before it is wrapped."""
        return _POSITION.pack(self.position) + self.table.encode()

    @classmethod
    def decode(cls, content: bytes, what: str) -> Self:
        """What `encode` gave.  Raises DamagedError, which names `what`: it is anything else."""
        if len(content) < _POSITION.size:
            raise DamagedError(f"{what}: cut short")
        return cls(_POSITION.unpack_from(content)[0], ChunkTable.decode(content[_POSITION.size :], what))


def check_id(backup_id: str) -> str:
    """`backup_id`.  Raises ConfigError: it cannot be the id of a backup."""
    if ID_PATTERN.fullmatch(backup_id) is None:
        raise ConfigError(f"{backup_id!r} is not the id of a backup: `pyjiva backup ls` shows them")
    return backup_id


def chunk_key(name: bytes) -> str:
    """Where the chunk `name` lies."""
    assert len(name) == NAME_BYTES
    digits = name.hex()
    return f"{CHUNKS}{digits[:2]}/{digits}"


def name_of_chunk_key(key: str) -> bytes | None:
    """The name of the chunk at `key`; None: nothing of ours."""
    found = _CHUNK_KEY.fullmatch(key)
    return bytes.fromhex(found[2]) if found else None
