"""DIR of Maya on one machine: records, secrets, logs and volumes' data.  Blocking calls only.

    DIR/records/NAME.json         LocalRecord, replaced whole
    DIR/secrets/NAME.token        what the volume's API asks for, mode 0600
    DIR/secrets/NAME.chap         what initiators prove, mode 0600: a name and a secret
    DIR/logs/NAME.log, .log.1     what its processes log
    POOL/NAME/                    what `pyjiva up` keeps; DIR/volumes is the pool named default
    POOL/gone.UID                 data on its way out
    POOL/retained.UID/NAME/       data of a volume that is gone, kept as its policy said

A volume exists as long as its record does: that is written after its secrets and before its first process,
and removed after everything else.  Names with a dot are no volumes' names.  The locks are flock(2) on the
folders.
"""

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from pyjiva.errors import ConfigError, StorageError, StorageFailure
from pyjiva.maya.apiserver.backend import PoolView, Refused
from pyjiva.maya.apiserver.local_record import LOOPBACK, Files, LocalRecord
from pyjiva.sparse import Directory, open_directory, read_file, replace_file
from pyjiva.supervisor import HeldPorts
from pyjiva.transport.bearer import Token
from pyjiva.transport.token_file_sys import read_token
from pyjiva.units import MIB

__all__ = ["DEFAULT_POOL_FOLDER", "LocalStore"]

DEFAULT_POOL_FOLDER: Final = "volumes"
RECORD: Final = ".json"
TOKEN: Final = ".token"
CHAP: Final = ".chap"
SECRET_BYTES: Final = 16
LOG_BYTES_MAX: Final = 4 * MIB
PORTAL_PORTS: Final = range(3270, 4270)  # 3260 and the next ones are for volumes that somebody starts by hand
API_PORTS: Final = range(10000, 11000)  # `pyjiva up` gives its replicas those from 9502 on
_CHUNK_BYTES: Final = MIB


@attrs.define(eq=False)
class LocalStore:
    """An open DIR, ours alone until `close`."""

    data: Path
    _locks: list[Directory] = attrs.field(init=False)
    _records: Directory = attrs.field(init=False)
    _secrets: Directory = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Raises ConfigError: it is no folder, or another process has it."""
        self.data = self.data.absolute()
        self._locks = [open_directory(self.data)]
        try:
            for name in ("records", "secrets"):
                self._locks.append(open_directory(self.data / name))
            (self.data / "secrets").chmod(0o700)
            (self.data / "logs").mkdir(exist_ok=True)
            (self.data / DEFAULT_POOL_FOLDER).mkdir(exist_ok=True)
        except BaseException:
            self.close()
            raise
        _, self._records, self._secrets = self._locks

    def close(self) -> None:
        """Let others have it."""
        while self._locks:
            self._locks.pop().close()

    # Records

    def records(self) -> tuple[list[LocalRecord], dict[str, str]]:
        """All that can be read, and why the others, by name, cannot."""
        found, damaged = [], {}
        for file in self._records.names():
            name = file.removesuffix(RECORD)
            if name == file:  # what a power cut left
                continue
            try:
                found.append(LocalRecord.from_json(read_file(self._records, file)))
            except (ConfigError, StorageError) as error:
                damaged[name] = f"{self.data / 'records' / file}: {error}; put a good copy back, or remove it"
        return found, damaged

    def save(self, record: LocalRecord) -> None:
        """Make it durable.  Raises StorageError."""
        self._replace(self._records, record.name + RECORD, record.to_json())

    def forget(self, name: str) -> None:
        """Secrets first, the record last: from then on there is no such volume."""
        for file in (name + TOKEN, name + CHAP):
            self._remove(self._secrets, file)
        for suffix in (".log", ".log.1"):
            (self.data / "logs" / (name + suffix)).unlink(missing_ok=True)
        self._remove(self._records, name + RECORD)

    # Secrets

    def make_secrets(self, name: str) -> Token:
        """Those that are missing; the token of the volume's API."""
        there = self._secrets.names()
        for file, content in (
            (name + TOKEN, secrets.token_hex(SECRET_BYTES)),
            (name + CHAP, f"{name} {secrets.token_hex(SECRET_BYTES)}"),
        ):
            if file not in there:
                self._replace(self._secrets, file, content.encode() + b"\n")
        return read_token(self.data / "secrets" / (name + TOKEN))

    def remove_other_secrets(self, names: Collection[str]) -> None:
        """Those of volumes that were not made after all."""
        for file in self._secrets.names():
            if file.partition(".")[0] not in names:
                self._remove(self._secrets, file)

    def files(self, record: LocalRecord) -> Files:
        """For its command line."""
        folder = self.data / "secrets"
        source = "" if record.source is None else str(folder / (record.source.volume + TOKEN))
        return Files(str(folder / (record.name + TOKEN)), str(folder / (record.name + CHAP)), source)

    # Data

    def check_free(self, pool: str, name: str) -> None:
        """Raises Refused: there is something already where a new volume's data is to be."""
        if (path := Path(pool) / name).exists():
            raise Refused(f"{path} is there already, and of no volume that Maya knows: move it away")

    def remove_data(self, record: LocalRecord) -> None:
        """Let all of it go; may be done again.  Raises StorageError; ConfigError: a process still has it."""
        there, gone = self._data_path(record), Path(record.policy.pool_path) / f"gone.{record.uid}"
        if there.exists():
            self._check_unused(there)
            self._rename(there, gone)
        self._remove_tree(gone)

    def retain_data(self, record: LocalRecord) -> Path:
        """Keep it where no volume of the same name finds it; may be done again.  Raises as `remove_data`."""
        there = self._data_path(record)
        kept = Path(record.policy.pool_path) / f"retained.{record.uid}" / record.name
        if there.exists():
            self._check_unused(there)
            kept.parent.mkdir(exist_ok=True)
            self._rename(there, kept)
        return kept

    @staticmethod
    def _check_unused(path: Path) -> None:
        """A `pyjiva up` whose Maya was killed ends by itself, a moment later."""
        open_directory(path).close()

    def pools(self, pools: Mapping[str, str], node: str) -> list[PoolView]:
        """With what is left there."""
        return [_pool(name, path, node) for name, path in sorted(pools.items())]

    # Ports and logs

    def free_ports(self, host: str, taken: Iterable[int]) -> tuple[int, int]:
        """For a portal and an API: neither of another volume nor of anybody else now.  Raises ConfigError."""
        others = set(taken)
        with HeldPorts() as held:
            portal = _first_free(held, host, [port for port in PORTAL_PORTS if port not in others])
            return portal, _first_free(held, LOOPBACK, [port for port in API_PORTS if port not in others])

    def log_path(self, name: str) -> Path:
        """What its processes write their log to."""
        return self.data / "logs" / f"{name}.log"

    def trim_log(self, name: str) -> None:
        """Begin anew when it is long; the writers append, so they go on at its new end."""
        log = self.log_path(name)
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)

    def last_words(self, name: str) -> str:
        """The last line of its log that says what is wrong, else the last one."""
        try:
            with self.log_path(name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        said = [line.removeprefix("pyjiva: ") for line in lines if line.startswith("pyjiva: ")]
        return (said or lines or [""])[-1]

    # Steps that change something: each is whole after a power cut, or has not happened

    def _replace(self, directory: Directory, name: str, content: bytes) -> None:
        replace_file(directory, name, content)

    def _remove(self, directory: Directory, name: str) -> None:
        if name in directory.names():
            directory.remove(name)
            directory.sync()

    def _rename(self, old: Path, new: Path) -> None:
        try:
            old.rename(new)
            for folder in {old.parent, new.parent, new.parent.parent}:
                _sync(folder)
        except OSError as error:
            raise StorageError(StorageFailure.WRITE_ERROR, f"{old}: cannot be moved: {error}") from error

    def _remove_tree(self, path: Path) -> None:
        try:
            if path.exists():
                shutil.rmtree(path)
                _sync(path.parent)
        except OSError as error:
            raise StorageError(StorageFailure.WRITE_ERROR, f"{path}: cannot be removed: {error}") from error

    @staticmethod
    def _data_path(record: LocalRecord) -> Path:
        return Path(record.policy.pool_path) / record.name


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_free(held: HeldPorts, host: str, ports: list[int]) -> int:
    for port in ports:
        if held.try_hold(host, port):
            return port
    raise ConfigError(f"no free port on {host} for another volume")


def _pool(name: str, path: str, node: str) -> PoolView:
    try:
        found = os.statvfs(path)
    except OSError:  # made when the first volume is
        return PoolView(name, path, node)
    return PoolView(name, path, node, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
