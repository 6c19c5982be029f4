"""What the control frames carry: JSON records, validated into types at this edge.  Pure.

The handshake, all before any other frame:

    controller                                   replica
    HELLO {versions, volume_id, nonce, …}  ─────▶
                                           ◀───── HelloAnswer {version, replica_id, nonce, proof}
    AUTHENTICATE {proof}                   ─────▶
                                           ◀───── ReplicaReport: who it is and what it holds
    PROMISE (epoch in the header)          ─────▶  from now on lower epochs are refused
                                           ◀───── PromiseAnswer: its record and its unstable writes
    ACCEPT MembershipRecord                ─────▶
                                           ◀───── OK: the record is durable

A proof is HMAC-SHA-256 with the volume's key over the role, the volume and both nonces: each side shows
that it knows the key, neither shows the key, and a recorded exchange is worth nothing.  JSON, because these
frames are rare and an operator may have to read them in a capture; the binary header carries all that is
hot.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs
import cattrs
import xxhash
from attrs.validators import ge, optional
from cattrs.preconf.json import make_converter

from pyjiva.errors import RemoteProtocolError
from pyjiva.lineage import ChangeKind, Lineage
from pyjiva.membership import MembershipRecord

__all__ = [
    "NONCE_BYTES",
    "PROTOCOL_VERSION",
    "Authenticate",
    "Hello",
    "HelloAnswer",
    "LineageAnswer",
    "LineageMark",
    "PingAnswer",
    "PromiseAnswer",
    "Refusal",
    "ReplicaReport",
    "controller_proof",
    "decode_message",
    "encode_message",
    "replica_proof",
]

PROTOCOL_VERSION: Final = 7
NONCE_BYTES: Final = 32
EXTENTS_MAX: Final = 65536


@attrs.frozen
class Hello:
    """The controller's first words."""

    versions: tuple[int, ...]
    volume_id: str
    controller_id: str
    nonce: str
    """NONCE_BYTES fresh random bytes, hexadecimal."""


@attrs.frozen
class HelloAnswer:
    """The replica's first words: it proves itself first, so that a controller never talks to a stranger."""

    version: int
    replica_id: int
    nonce: str
    proof: str


@attrs.frozen
class Authenticate:
    """The controller's proof."""

    proof: str


@attrs.frozen
class ReplicaReport:
    """What a replica says of itself once the controller has proved the key."""

    volume_id: str
    replica_id: int
    size_bytes: int
    block_size_bytes: int
    directory: str
    promised_epoch: int
    promised_to: str
    record: MembershipRecord | None
    """The newest membership record that it accepted; None on a blank replica."""
    intact: bool
    """False: its machine went down with writes not yet flushed, so acknowledged writes may be missing."""
    witness: bool
    """Whether it votes and holds no data."""


@attrs.frozen
class PromiseAnswer:
    """The state of a replica at the moment of its promise."""

    record: MembershipRecord | None
    intact: bool
    unstable: tuple[tuple[int, int], ...] | None
    """(offset, length) in bytes of writes that other replicas may not have; None: it cannot remember."""
    told_equal: bool
    """Whether its directory ever had what the others have; False: it is new, whatever a record says."""
    lineage: "LineageMark"
    """Which snapshots it has."""


@attrs.frozen
class LineageMark:
    """A lineage in short (`lineage.Lineage`): who has the same mark has the same snapshots."""

    generation: int = attrs.field(validator=ge(0))
    digest: str
    """Of all of it."""
    size_bytes: int = attrs.field(validator=ge(0))
    whole: bool
    """Whether no snapshot is still to be compared."""

    @classmethod
    def of(cls, lineage: Lineage) -> "LineageMark":
        """The mark of `lineage`."""
        # Whether each was compared is not a part of what it is.
        snapshots = tuple(attrs.evolve(snapshot, whole=True) for snapshot in lineage.snapshots)
        known = _converter.unstructure(attrs.evolve(lineage, snapshots=snapshots))
        content = json.dumps(known, sort_keys=True).encode()
        return cls(
            lineage.generation, xxhash.xxh3_128_hexdigest(content), lineage.size_bytes, lineage.is_whole
        )


@attrs.frozen
class LineageAnswer:
    """What a replica says of its snapshots."""

    lineage: Lineage
    live_bytes: int
    """What was written since the newest snapshot that the live volume stands on takes on its disk."""
    snapshot_bytes: Mapping[str, int]
    """The same of each snapshot, by name."""
    removed_bytes: int
    """What deleted snapshots still take, of which a part is given back."""


@attrs.frozen
class PingAnswer:
    """A sign of life that includes the disk."""

    oldest_operation_s: float
    """Age of the oldest disk operation that has not come back."""
    used_bytes: int | None = attrs.field(validator=optional(ge(0)))
    """What the replica takes on its disk; None: not known."""
    available_bytes: int | None = attrs.field(validator=optional(ge(0)))
    """What its file system has left."""
    merged_bytes: int | None = attrs.field(validator=optional(ge(0)))
    """Copied to give back the space of deleted snapshots; None: nothing is to be given back."""
    to_merge_bytes: int | None = attrs.field(validator=optional(ge(0)))
    """What is left of that, at most."""


@attrs.frozen
class Refusal:
    """Why an answer's status is not OK, in words."""

    reason: str


_T = TypeVar("_T")
_ENUMS: Final = (ChangeKind,)
_converter: Final = make_converter(forbid_extra_keys=True, detailed_validation=False)


def _exactly(value: Any, kind: type[_T]) -> _T:
    """JSON's own type or nothing: cattrs by itself would take "7" or true for a number."""
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{kind.__name__} expected")
    if type(value) is str:
        value.encode()  # JSON can spell half a surrogate pair, which no hash, log or page takes
    return kind(value)  # type: ignore[call-arg]


for _kind in (int, float, str, bool):
    _converter.register_structure_hook(_kind, _exactly)
for _enum in _ENUMS:
    _converter.register_structure_hook(_enum, lambda value, kind: kind(_exactly(value, str)))
_converter.register_structure_hook(MembershipRecord, lambda value, _: MembershipRecord.from_dict(value))
_converter.register_unstructure_hook(MembershipRecord, MembershipRecord.to_dict)


def encode_message(message: object) -> bytes:
    """`message`, one of this module's records or a MembershipRecord, as a payload."""
    return json.dumps(_converter.unstructure(message), separators=(",", ":")).encode()


def decode_message(payload: bytes | memoryview, kind: type[_T]) -> _T:
    """The record of class `kind` that `payload` holds.

    Raises RemoteProtocolError: it holds something else.
    """
    try:
        raw: Any = json.loads(bytes(payload))
        _check_shape(raw)
        return _converter.structure(raw, kind)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
        cattrs.BaseValidationError,
    ) as error:
        raise RemoteProtocolError(f"not a {kind.__name__}: {type(error).__name__}") from None
    except cattrs.errors.ForbiddenExtraKeysError as error:
        raise RemoteProtocolError(f"not a {kind.__name__}: {error}") from None


def _check_shape(raw: Any) -> None:
    """A message is an object, and its lists are not too long."""
    if not isinstance(raw, dict):
        raise TypeError("not an object")
    for value in raw.values():
        if isinstance(value, list) and len(value) > EXTENTS_MAX:
            raise ValueError("list too long")


def replica_proof(key: bytes, hello: Hello, replica_id: int, replica_nonce: str) -> str:
    """What the replica shows for `key` in its HelloAnswer."""
    return _proof(key, "replica", hello, replica_id, replica_nonce)


def controller_proof(key: bytes, hello: Hello, replica_id: int, replica_nonce: str) -> str:
    """What the controller shows for `key` in its Authenticate."""
    return _proof(key, "controller", hello, replica_id, replica_nonce)


def _proof(key: bytes, role: str, hello: Hello, replica_id: int, replica_nonce: str) -> str:
    # JSON keeps the fields apart, so that no two different exchanges give the same bytes.
    exchange = [role, hello.volume_id, hello.controller_id, hello.nonce, replica_id, replica_nonce]
    return hmac.new(key, json.dumps(exchange).encode(), "sha256").hexdigest()
