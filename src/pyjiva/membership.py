"""The membership record: which replicas a volume has, and which of them hold every acknowledged write.
Pure.

A replica keeps the newest one that it accepted beside its data (`snapshot`), and the controller and the
replicas exchange them on the wire (`replication`); so it stands below both.  Records of one volume are
ordered by (epoch, version): a newer epoch is a newer controller, a newer version is a later decision of the
same one (DESIGN §5).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import attrs

__all__ = ["PARAMETERS_BYTES_MAX", "REPLICAS_MAX", "REPLICA_ID_MAX", "MembershipRecord"]

REPLICAS_MAX: Final = 7  # of one volume, witnesses included
REPLICA_ID_MAX: Final = 2**32 - 1
ADDRESS_CHARACTERS_MAX: Final = 300  # a DNS name of 253, a port, and room
PARAMETERS_BYTES_MAX: Final = 32 * 1024  # in base64 it fits a control message between controller and replica


@attrs.frozen(order=True)
class MembershipRecord:
    """One decision about a volume's members.  `<` and its like look at (epoch, version) alone.

    Raises ValueError: the fields contradict each other; so no record that breaks these rules exists.
    """

    epoch: int
    version: int
    controller_id: str = attrs.field(order=False)
    configured: tuple[int, ...] = attrs.field(order=False)
    """Ids of the volume's replicas: a majority is a majority of these."""
    in_sync: tuple[int, ...] = attrs.field(order=False)
    """Those that hold every acknowledged write; at least one, else the volume would be lost."""
    clean: bool = attrs.field(order=False)
    """Whether the in-sync members were known to be identical and on stable storage."""
    parameters: bytes = attrs.field(default=b"", order=False)
    """What the logical unit keeps (`block.ParameterStore`): it is as durable as the record."""
    witnesses: tuple[int, ...] = attrs.field(default=(), order=False)
    """Those of the configured that hold no data: they vote."""
    addresses: tuple[str, ...] = attrs.field(default=(), order=False)
    """HOST:PORT of each configured, in their order; "" is one that was not known.  Empty: none was."""

    def __attrs_post_init__(self) -> None:
        if not (_is_count(self.epoch) and _is_count(self.version)):
            raise ValueError("epoch and version are counts from 0")
        if type(self.controller_id) is not str or type(self.clean) is not bool:
            raise ValueError("controller_id is a string and clean a boolean")
        if type(self.parameters) is not bytes or len(self.parameters) > PARAMETERS_BYTES_MAX:
            raise ValueError(f"parameters are at most {PARAMETERS_BYTES_MAX} bytes")
        for ids in (self.configured, self.in_sync):
            if type(ids) is not tuple or not all(_is_count(i) and i <= REPLICA_ID_MAX for i in ids):
                raise ValueError("configured and in_sync list replica ids")
            if not ids or len(set(ids)) != len(ids):
                raise ValueError("configured and in_sync name at least one replica, and none twice")
        if len(self.configured) > REPLICAS_MAX:
            raise ValueError(f"a volume has at most {REPLICAS_MAX} replicas")
        if not set(self.in_sync) <= set(self.configured):
            raise ValueError("a replica that is not configured cannot be in sync")
        self._check_witnesses_and_addresses()

    def _check_witnesses_and_addresses(self) -> None:
        if type(self.witnesses) is not tuple or not all(_is_count(i) for i in self.witnesses):
            raise ValueError("witnesses list replica ids")
        if not set(self.witnesses) <= set(self.configured) - set(self.in_sync):
            raise ValueError("witnesses are configured, and hold no data")
        if len(set(self.witnesses)) != len(self.witnesses):
            raise ValueError("no witness is named twice")
        if type(self.addresses) is not tuple or not all(type(text) is str for text in self.addresses):
            raise ValueError("addresses are strings")
        if any(len(text) > ADDRESS_CHARACTERS_MAX for text in self.addresses):
            raise ValueError(f"an address has at most {ADDRESS_CHARACTERS_MAX} characters")
        if self.addresses and len(self.addresses) != len(self.configured):
            raise ValueError("addresses are those of the configured")

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON's types."""
        fields: dict[str, Any] = {
            "epoch": self.epoch,
            "version": self.version,
            "controller_id": self.controller_id,
            "configured": list(self.configured),
            "in_sync": list(self.in_sync),
            "clean": self.clean,
        }
        if self.parameters:
            fields["parameters"] = base64.b64encode(self.parameters).decode("ascii")
        if self.witnesses:
            fields["witnesses"] = list(self.witnesses)
        if self.addresses:
            fields["addresses"] = list(self.addresses)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "MembershipRecord":
        """What `to_dict` gave.  Raises ValueError: it is anything else."""
        if not isinstance(fields, Mapping) or set(fields) | _OPTIONAL != _FIELDS:
            raise ValueError(f"a membership record has the fields {', '.join(sorted(_FIELDS))}")
        lists = {name: fields.get(name, []) for name in ("configured", "in_sync", "witnesses", "addresses")}
        if not all(isinstance(value, list) for value in lists.values()):
            raise ValueError("configured, in_sync, witnesses and addresses are lists")
        if any(name in fields and not lists[name] for name in ("witnesses", "addresses")):
            raise ValueError("witnesses and addresses are left out when there are none")
        return cls(
            epoch=fields["epoch"],
            version=fields["version"],
            controller_id=fields["controller_id"],
            clean=fields["clean"],
            parameters=_parameters(fields["parameters"]) if "parameters" in fields else b"",
            **{name: tuple(value) for name, value in lists.items()},
        )


def _parameters(text: object) -> bytes:
    if not isinstance(text, str) or not text:
        raise ValueError("parameters are a string, left out when it is empty")
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"parameters are not base64: {error}") from error
    if base64.b64encode(decoded).decode("ascii") != text:
        raise ValueError("parameters are base64 in another than its only form")
    return decoded


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # a bool is not a count


_OPTIONAL: Final = frozenset({"parameters", "witnesses", "addresses"})  # left out when they are empty
_FIELDS: Final = frozenset(field.name for field in attrs.fields(MembershipRecord))
