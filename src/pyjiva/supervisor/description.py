"""What a volume of `pyjiva up` is, and how `volume.json` says it.  Pure.

A JSON object: `format` (FORMAT_VERSION), then the fields of VolumeDescription under their own names.
"""

import json
import re
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.units import format_size

__all__ = ["VolumeDescription", "VolumeRequest"]

FORMAT_VERSION: Final = 1
REPLICAS_MAX: Final = 7
BLOCK_SIZES_BYTES: Final = (512, 4096)
SIZE_BYTES_MAX: Final = 2**63 - 4096  # off_t, in whole blocks
PORT_MAX: Final = 65535
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)  # a DNS label, RFC 1123 §2.1
VOLUME_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@attrs.frozen
class VolumeRequest:
    """The volume that the operator asks for.  Raises ConfigError: there can be no such."""

    name: str
    size_bytes: int
    block_size_bytes: int
    replicas: int
    witness: bool = False
    """Whether one more process votes and holds no data; its number follows the last replica's."""

    @property
    def members(self) -> int:
        """How many processes there are beside the controller."""
        return self.replicas + self.witness

    def __attrs_post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise ConfigError(f"name {self.name!r}: 1 to 63 lower-case letters, digits and inner dashes")
        if self.block_size_bytes not in BLOCK_SIZES_BYTES:
            raise ConfigError(f"block size {self.block_size_bytes}: 512 or 4096")
        if self.size_bytes < 1 or self.size_bytes % self.block_size_bytes:
            blocks = f"a multiple of the block size, {self.block_size_bytes} bytes"
            raise ConfigError(f"size of {self.size_bytes} bytes: must be {blocks}, and not 0")
        if self.size_bytes > SIZE_BYTES_MAX:
            raise ConfigError(f"size of {format_size(self.size_bytes)}: no file can be so large")
        if not 1 <= self.replicas <= REPLICAS_MAX:
            raise ConfigError(f"{self.replicas} replicas: a volume has 1 to {REPLICAS_MAX}")
        if self.members > REPLICAS_MAX:
            raise ConfigError(f"{self.replicas} replicas and a witness: together at most {REPLICAS_MAX}")


@attrs.frozen
class VolumeDescription:
    """What a volume is, once it was made.  Raises ConfigError: none can be like this."""

    name: str
    volume_id: str
    size_bytes: int
    block_size_bytes: int
    replicas: int
    data_ports: tuple[int, ...]
    """Of replica 1, 2, …: kept, so that they are the same at the next start; 0 before the first."""
    health_ports: tuple[int, ...]
    born: bool
    """Whether it ever took I/O: from then on blank replicas are not served."""
    witness: bool = False
    """See VolumeRequest."""

    def __attrs_post_init__(self) -> None:
        ports = (*self.data_ports, *self.health_ports)
        numbers = (self.size_bytes, self.block_size_bytes, self.replicas, *ports)
        if any(type(number) is not int for number in numbers) or not all(
            type(flag) is bool for flag in (self.born, self.witness)
        ):
            raise ConfigError("a number, or whether it is born, is something else")
        if VOLUME_ID.fullmatch(self.volume_id) is None:
            raise ConfigError("the volume's id is not 32 hexadecimal digits")
        if any(not 0 <= port <= PORT_MAX for port in ports):
            raise ConfigError(f"ports end at {PORT_MAX}")
        if not len(self.data_ports) == len(self.health_ports) == self.request.members:
            raise ConfigError("every replica has a data port and a health port")

    @property
    def request(self) -> VolumeRequest:
        """What was asked for when it was made."""
        return VolumeRequest(self.name, self.size_bytes, self.block_size_bytes, self.replicas, self.witness)

    @classmethod
    def new(cls, request: VolumeRequest, volume_id: str) -> "VolumeDescription":
        """Of a volume that does not exist yet."""
        ports = (0,) * request.members
        fields = attrs.asdict(request)
        return cls(volume_id=volume_id, data_ports=ports, health_ports=ports, born=False, **fields)

    @classmethod
    def from_json(cls, text: bytes) -> "VolumeDescription":
        """Raises ConfigError: damaged, or of another format."""
        try:
            fields: dict[str, Any] = json.loads(text)
            version = fields.pop("format")
            if version != FORMAT_VERSION:
                raise ConfigError(f"format {version!r}, this pyjiva knows {FORMAT_VERSION}")
            fields |= {name: tuple(fields[name]) for name in ("data_ports", "health_ports")}
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError("damaged") from error

    def to_json(self) -> bytes:
        """What `from_json` reads."""
        fields = {"format": FORMAT_VERSION, **attrs.asdict(self)}
        return json.dumps(fields, indent=2).encode() + b"\n"

    def difference(self, request: VolumeRequest) -> str:
        """How `request` asks for another volume than this one, in words; empty: it asks for this one."""
        for what, there, asked in (
            ("name", self.name, request.name),
            ("size", _exact_size(self.size_bytes), _exact_size(request.size_bytes)),
            ("block size", str(self.block_size_bytes), str(request.block_size_bytes)),
            ("number of replicas", str(self.replicas), str(request.replicas)),
            ("number of witnesses", str(int(self.witness)), str(int(request.witness))),
        ):
            if there != asked:
                return f"the volume there has the {what} {there}, asked for was {asked}"
        return ""


def _exact_size(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} ({size_bytes} bytes)"
