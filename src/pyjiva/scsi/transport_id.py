"""iSCSI TransportIDs: how persistent reservations name initiator ports (SPC-4 §7.6.4.6).  Pure."""

import re
import struct
from typing import Final

import attrs

from pyjiva.scsi.sense import Sense, invalid_field_in_parameter_list

__all__ = ["TransportId", "decode_transport_ids", "encode_transport_id"]

_HEADER: Final = struct.Struct(">BxH")  # format code and protocol identifier, additional length
_ISCSI: Final = 0x05
_INITIATOR_DEVICE: Final = 0x00  # format code 00b: a name
_INITIATOR_PORT: Final = 0x40  # format code 01b: a name and an ISID
_ADDITIONAL_BYTES_MIN: Final = 20
_NAME_BYTES_MAX: Final = 223  # RFC 7143 §4.2.7.1
_SEPARATOR: Final = ",i,0x"
_ISID: Final = re.compile(r"[0-9a-f]{1,12}")


@attrs.frozen
class TransportId:
    """One port of an initiator, or all of them."""

    name: str
    isid: str | None
    """Twelve hexadecimal digits; None: every port of the initiator."""

    @property
    def port(self) -> str:
        """As a Nexus calls it; only with an ISID."""
        assert self.isid is not None
        return f"{self.name}{_SEPARATOR}{self.isid}"

    def matches(self, port: str) -> bool:
        """Whether a nexus' initiator port is meant."""
        name, _, isid = port.rpartition(_SEPARATOR)
        return name == self.name and self.isid in (None, isid)


def encode_transport_id(port: str) -> bytes:
    """The TransportID of a nexus' initiator port, format 01b."""
    text = port.encode() + b"\0"
    size = max(len(text) + 3 & ~3, _ADDITIONAL_BYTES_MIN)
    return _HEADER.pack(_INITIATOR_PORT | _ISCSI, size) + text.ljust(size, b"\0")


def decode_transport_ids(data: bytes, start: int) -> tuple[TransportId, ...] | Sense:
    """The TransportIDs that fill `data` from `start` to its end; or why the command fails."""
    found = []
    position = start
    while position < len(data):
        if len(data) - position < _HEADER.size:
            return invalid_field_in_parameter_list(position)
        kind, size = _HEADER.unpack_from(data, position)
        text = data[position + _HEADER.size : position + _HEADER.size + size]
        if kind not in (_INITIATOR_DEVICE | _ISCSI, _INITIATOR_PORT | _ISCSI):
            return invalid_field_in_parameter_list(position)
        if size < _ADDITIONAL_BYTES_MIN or size & 3 or len(text) < size:
            return invalid_field_in_parameter_list(position + 2)
        transport_id = _decode(text.partition(b"\0")[0], has_isid=kind & _INITIATOR_PORT != 0)
        if transport_id is None:
            return invalid_field_in_parameter_list(position + _HEADER.size)
        found.append(transport_id)
        position += _HEADER.size + size
    return tuple(found)


def _decode(text: bytes, *, has_isid: bool) -> TransportId | None:
    try:
        name = text.decode()
    except UnicodeDecodeError:
        return None
    isid = None
    if has_isid:
        name, _, digits = name.rpartition(_SEPARATOR)
        isid = digits.lower()
        if _ISID.fullmatch(isid) is None:
            return None
        isid = isid.zfill(12)
    if not name.isprintable() or not 0 < len(name.encode()) <= _NAME_BYTES_MAX:
        return None
    return TransportId(name, isid)
