"""DIR/NAME of `pyjiva up`: what the volume is, its key, its ports, and a lock.  Blocking calls only.

    DIR/NAME/volume.json    VolumeDescription, replaced whole
    DIR/NAME/volume.key     the key that controller and replicas prove to each other, mode 0600
    DIR/NAME/replica-K/     one replica's directory: the replica daemon's business

`volume.key` is written first and `volume.json` last: a directory without `volume.json` holds no volume yet.
"""

import json
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pyjiva.errors import ConfigError
from pyjiva.sparse import Directory, open_directory, read_file, replace_file

__all__ = ["VolumeDescription", "VolumeDirectory"]

FORMAT_VERSION: Final = 1
KEY_BYTES: Final = 32
REPLICAS_MAX: Final = 7
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)  # a DNS label, RFC 1123
DESCRIPTION_FILE: Final = "volume.json"
KEY_FILE: Final = "volume.key"
_OURS: Final = re.compile(r"volume\.(json|key)(\.tmp)?|replica-\d+|lost\+found", re.ASCII)


@attrs.frozen
class VolumeDescription:
    """What a volume is.  Raises ConfigError: it cannot be."""

    name: str
    volume_id: str
    size_bytes: int
    block_size_bytes: int
    data_ports: tuple[int, ...]
    """Of replica 1, 2, …: kept, so that they are the same at the next start."""
    health_ports: tuple[int, ...]
    born: bool = False
    """Whether it ever took I/O: from then on blank replicas are not served."""

    def __attrs_post_init__(self) -> None:
        if type(self.born) is not bool or type(self.volume_id) is not str or type(self.size_bytes) is not int:
            raise ConfigError("a volume has an id, a size and a past")
        check_request(self.name, self.size_bytes, self.block_size_bytes, len(self.data_ports))
        if len(self.health_ports) != len(self.data_ports):
            raise ConfigError("as many health ports as data ports")


def check_request(name: str, size_bytes: int, block_size_bytes: int, replicas: int) -> None:
    """Raise ConfigError if there can be no such volume."""
    if NAME.fullmatch(name) is None:
        raise ConfigError(f"name {name!r}: 1 to 63 lower-case letters, digits and inner dashes")
    if block_size_bytes not in (512, 4096):
        raise ConfigError(f"block size {block_size_bytes}: 512 or 4096")
    if size_bytes < 1 or size_bytes % block_size_bytes:
        raise ConfigError(f"size {size_bytes}: must be a multiple of the block size {block_size_bytes}")
    if not 1 <= replicas <= REPLICAS_MAX:
        raise ConfigError(f"{replicas} replicas: a volume has 1 to {REPLICAS_MAX}")


@attrs.define(eq=False)
class VolumeDirectory:
    """An open DIR/NAME, ours alone until `close`."""

    path: Path
    description: VolumeDescription
    _directory: Directory

    @classmethod
    def open_or_create(
        cls, data: Path, name: str, *, size_bytes: int, block_size_bytes: int, replicas: int
    ) -> "VolumeDirectory":
        """The volume `name` under `data`, made if it does not exist.

        Raises ConfigError, in one line and with nothing changed: it exists and is another one, is damaged
        or is in use.  Raises StorageError: it cannot be written or read.
        """
        check_request(name, size_bytes, block_size_bytes, replicas)
        path = data / name
        directory = open_directory(path)
        try:
            names = directory.names()
            _check_names(path, names)
            if DESCRIPTION_FILE in names:
                description = _read(path, directory)
                _check_same(path, description, size_bytes, block_size_bytes, replicas)
            else:
                ports = (0,) * replicas
                volume_id = secrets.token_hex(16)
                description = VolumeDescription(name, volume_id, size_bytes, block_size_bytes, ports, ports)
                replace_file(directory, KEY_FILE, secrets.token_hex(KEY_BYTES).encode() + b"\n")
                _write(directory, description)
        except BaseException:
            directory.close()
            raise
        return cls(path, description, directory)

    @property
    def key_file(self) -> Path:
        """Where the key is."""
        return self.path / KEY_FILE

    def replica_directory(self, replica_id: int) -> Path:
        """Where replica `replica_id` keeps its data."""
        return self.path / f"replica-{replica_id}"

    def change(self, **changes: Any) -> None:
        """Make a change of the description durable.  Raises StorageError: it cannot be written."""
        description = attrs.evolve(self.description, **changes)
        if description != self.description:
            _write(self._directory, description)
            self.description = description

    def close(self) -> None:
        """Let others have it."""
        self._directory.close()


def _check_names(path: Path, names: Sequence[str]) -> None:
    foreign = [name for name in names if _OURS.fullmatch(name) is None]
    if foreign:
        raise ConfigError(f"{path}: holds something else ({foreign[0]}); choose another directory or name")
    if DESCRIPTION_FILE not in names and any(name.startswith("replica-") for name in names):
        raise ConfigError(
            f"{path}: has replicas but no {DESCRIPTION_FILE}; put that back, or move the directory away"
        )
    if DESCRIPTION_FILE in names and KEY_FILE not in names:
        raise ConfigError(f"{path}: {KEY_FILE} is missing; put it back, the processes know each other by it")


def _read(path: Path, directory: Directory) -> VolumeDescription:
    try:
        fields = json.loads(read_file(directory, DESCRIPTION_FILE))
        version = fields.pop("format")
        data_ports, health_ports = tuple(fields.pop("data_ports")), tuple(fields.pop("health_ports"))
        description = VolumeDescription(**fields, data_ports=data_ports, health_ports=health_ports)
    except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
        raise ConfigError(
            f"{path / DESCRIPTION_FILE}: damaged; put a good copy back, or move {path} away"
        ) from error
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path / DESCRIPTION_FILE}: format {version}, this pyjiva knows {FORMAT_VERSION}")
    return description


def _check_same(
    path: Path, description: VolumeDescription, size_bytes: int, block_size_bytes: int, replicas: int
) -> None:
    for what, there, asked in (
        ("bytes", description.size_bytes, size_bytes),
        ("bytes in a block", description.block_size_bytes, block_size_bytes),
        ("replicas", len(description.data_ports), replicas),
    ):
        if there != asked:
            raise ConfigError(f"{path}: holds a volume with {there} {what}, asked for were {asked}")


def _write(directory: Directory, description: VolumeDescription) -> None:
    fields = {"format": FORMAT_VERSION, **attrs.asdict(description)}
    replace_file(directory, DESCRIPTION_FILE, json.dumps(fields, indent=2).encode() + b"\n")
