"""What a replica must never forget, beside its data: `pyjiva.json`.  Pure.

The file is one JSON object: `format` (this module's version), `state` (the fields of ReplicaState) and
`checksum` (xxh3-64 of the other two in canonical JSON), so that a damaged file is told from an old one.  It
is replaced whole (`sparse.replace_file`).
"""

import json
from typing import Any, Final

import attrs
import xxhash

from pyjiva.errors import ConfigError
from pyjiva.membership import MembershipRecord
from pyjiva.units import MIB

__all__ = [
    "FLUSH_FAILED",
    "FORMAT_VERSION",
    "REGION_BYTES",
    "REPAIRED",
    "STATE_FILE",
    "ReplicaState",
    "decode_state",
    "encode_state",
]

STATE_FILE: Final = "pyjiva.json"
FORMAT_VERSION: Final = 1
BLOCK_SIZES_BYTES: Final = (512, 4096)
REGION_BYTES: Final = 64 * MIB
FLUSH_FAILED: Final = "flush-failed"
"""A `written_boot_id` that no boot has: a flush failed, so acknowledged writes are gone on any boot."""
REPAIRED: Final = "repaired"
"""A `written_boot_id` that no boot has either: `pyjiva repair` mended damage, and more may be gone."""


@attrs.frozen
class ReplicaState:
    """Who the replica is, what it has promised, and whether all it wrote is stable.

    Raises ValueError: a field is impossible.
    """

    volume_id: str
    replica_id: int
    volume_name: str
    size_bytes: int
    block_size_bytes: int
    """Bytes of a logical block as initiators see it."""
    promised_epoch: int = 0
    """The highest epoch it has promised; 0 before the first."""
    promised_to: str = ""
    """The controller that it promised it to."""
    record: MembershipRecord | None = None
    """The newest membership record that it has accepted."""
    written_boot_id: str = ""
    """"" when everything written is on stable storage; else the boot during which writes were made that may
    not be.
    """
    written_regions: str = ""
    """Where: a bit map of regions of REGION_BYTES as a hexadecimal number, region 0 its lowest bit.  The
    checksums of their blocks may not be stable either.
    """
    witness: bool = False
    """Whether it votes and holds no data."""
    told_equal: bool = False
    """Whether a controller ever said that this directory has what the other copies have.  A record that names
    the replica says so of the directory that it had then, which may have been replaced since.
    """

    def __attrs_post_init__(self) -> None:
        texts = (
            self.volume_id,
            self.volume_name,
            self.promised_to,
            self.written_boot_id,
            self.written_regions,
        )
        if not all(type(text) is str for text in texts) or not self.volume_id:
            raise ValueError("ids, names, written_boot_id and written_regions are strings")
        if type(self.witness) is not bool or type(self.told_equal) is not bool:
            raise ValueError("witness and told_equal are booleans")
        if self.written_regions.strip("0123456789abcdef"):
            raise ValueError("written_regions is a hexadecimal number")
        counts = (self.replica_id, self.size_bytes, self.block_size_bytes, self.promised_epoch)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("replica_id, sizes and promised_epoch are counts from 0")
        if self.block_size_bytes not in BLOCK_SIZES_BYTES:
            raise ValueError("the block size is 512 or 4096 bytes")
        if self.size_bytes == 0 or self.size_bytes % self.block_size_bytes:
            raise ValueError(f"the size is a multiple of {self.block_size_bytes} bytes, and not 0")
        if self.record is not None and type(self.record) is not MembershipRecord:
            raise ValueError("record is a membership record or absent")


_STATE_FIELDS: Final = frozenset(field.name for field in attrs.fields(ReplicaState))
_LATER_FIELDS: Final = frozenset(
    {"written_regions", "witness", "told_equal"}
)  # absent in what older versions wrote


def encode_state(state: ReplicaState) -> bytes:
    """`state` as the content of its file."""
    fields = attrs.asdict(state, recurse=False)
    fields["record"] = None if state.record is None else state.record.to_dict()
    content = {"format": FORMAT_VERSION, "state": fields}
    content["checksum"] = _checksum(content)
    return json.dumps(content, indent=2).encode() + b"\n"


def decode_state(content: bytes) -> ReplicaState:
    """What `encode_state` wrote.  Raises ConfigError: it is damaged or of another version."""
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _damaged("not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged("not an object")
    version = fields.get("format")
    if type(version) is not int:
        raise _damaged("no format version")
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{STATE_FILE} has format {version}, this pyjiva reads {FORMAT_VERSION}: take the newer one"
        )
    checksum = fields.pop("checksum", None)
    if checksum != _checksum(fields):
        raise _damaged("its checksum does not match")
    state = fields.get("state")
    if not isinstance(state, dict) or not _STATE_FIELDS - _LATER_FIELDS <= set(state) <= _STATE_FIELDS:
        raise _damaged("not the fields of a replica's state")
    try:
        record = state.pop("record")
        state.setdefault("told_equal", record is not None)
        return ReplicaState(**state, record=None if record is None else MembershipRecord.from_dict(record))
    except ValueError as error:
        raise _damaged(str(error)) from error


def _checksum(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(canonical.encode())


def _damaged(why: str) -> ConfigError:
    return ConfigError(f"{STATE_FILE} is damaged ({why}): move the directory away, the replica is rebuilt")
