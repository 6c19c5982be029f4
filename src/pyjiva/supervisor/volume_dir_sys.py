"""DIR/NAME of `pyjiva up`: what the volume is, its key, its ports, and a lock.  Blocking calls only.

    DIR/NAME/volume.json    VolumeDescription, replaced whole
    DIR/NAME/volume.key     the key that controller and replicas prove to each other, mode 0600
    DIR/NAME/replica-K/     one replica's directory: the replica daemon's business

`volume.key` is written first and `volume.json` last: a directory without `volume.json` holds no volume yet.
The lock is flock(2) on the directory.
"""

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pyjiva.errors import ConfigError
from pyjiva.sparse import Directory, open_directory, read_file, replace_file
from pyjiva.supervisor.description import VolumeDescription, VolumeRequest

__all__ = ["VolumeDirectory"]

KEY_BYTES: Final = 32
DESCRIPTION_FILE: Final = "volume.json"
KEY_FILE: Final = "volume.key"
_OURS: Final = re.compile(r"volume\.(json|key)(\.tmp)?|replica-[1-7]|lost\+found", re.ASCII)


@attrs.define(eq=False)
class VolumeDirectory:
    """An open DIR/NAME, ours alone until `close`; a context manager."""

    path: Path
    description: VolumeDescription
    _directory: Directory

    @staticmethod
    def exists(data: Path, name: str) -> bool:
        """Whether there is anything at the volume's place under `data`."""
        return (data / name).exists()

    @classmethod
    def open_or_create(cls, data: Path, request: VolumeRequest) -> "VolumeDirectory":
        """The volume under `data` that `request` asks for, made if it does not exist.

        Raises ConfigError, in one line and with nothing changed: there is another one, or something else,
        it is damaged or in use.  Raises StorageError: it cannot be written or read.
        """
        path = data / request.name
        directory = open_directory(path)
        try:
            names = directory.names()
            _check_names(path, names)
            if DESCRIPTION_FILE in names:
                description = _read(path, directory)
                difference = description.difference(request)
                if difference:
                    raise ConfigError(f"{path}: {difference}")
            else:
                description = VolumeDescription.new(request, secrets.token_hex(16))
                replace_file(directory, KEY_FILE, secrets.token_hex(KEY_BYTES).encode() + b"\n")
                replace_file(directory, DESCRIPTION_FILE, description.to_json())
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
            replace_file(self._directory, DESCRIPTION_FILE, description.to_json())
            self.description = description

    def close(self) -> None:
        """Let others have it."""
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_names(path: Path, names: Sequence[str]) -> None:
    foreign = [name for name in names if _OURS.fullmatch(name) is None]
    if foreign:
        raise ConfigError(f"{path}: holds something else ({foreign[0]!r}); choose another directory or name")
    if DESCRIPTION_FILE not in names and any(name.startswith("replica-") for name in names):
        raise ConfigError(
            f"{path}: has replicas but no {DESCRIPTION_FILE}; put that back, or move the directory away"
        )
    if DESCRIPTION_FILE in names and KEY_FILE not in names:
        raise ConfigError(f"{path}: {KEY_FILE} is missing; put it back, the processes know each other by it")


def _read(path: Path, directory: Directory) -> VolumeDescription:
    try:
        return VolumeDescription.from_json(read_file(directory, DESCRIPTION_FILE))
    except ConfigError as error:
        remedy = f"put a good copy back, or move {path} away"
        raise ConfigError(f"{path / DESCRIPTION_FILE}: {error}; {remedy}") from error
