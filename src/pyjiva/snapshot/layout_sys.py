"""Creating and recognising a replica's directory, so that a power cut at any step leaves either "not yet
created, create it again" or a whole one.

A new directory is filled in this order, each step stable before the next: a marker, the head and the files
that describe it, `pyjiva.json` (from here on the directory is whole), and the marker is taken away.  The
marker tells the remains of a creation that was cut, which may be thrown away, from a directory that Jiva or
Longhorn wrote, whose files have the same names and which is never touched.
"""

from typing import Final

from pyjiva.errors import ConfigError
from pyjiva.snapshot.chain import Chain, head_alone
from pyjiva.snapshot.layers_sys import Layers, read_chain
from pyjiva.snapshot.metadata import FIRST_HEAD, META_SUFFIX, VOLUME_META, DiskMeta, VolumeMeta
from pyjiva.snapshot.stamp_sys import Stamp
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, decode_state, encode_state
from pyjiva.sparse import TEMPORARY_SUFFIX, Directory, read_file, replace_file
from pyjiva.units import format_size

__all__ = ["open_layout"]

MARKER: Final = "pyjiva.creating"
_CREATED: Final = (FIRST_HEAD, FIRST_HEAD + META_SUFFIX, VOLUME_META)
_NOT_OURS_TO_SEE: Final = frozenset({"lost+found"})  # the directory may be the root of a file system


def open_layout(directory: Directory, identity: ReplicaState, *, boot_id: str) -> tuple[ReplicaState, Layers]:
    """The state and the layers of the replica in `directory`, which is created if it is empty.

    `identity` is the state of a new replica; of an old one, its ids and sizes must be those.  Raises
    ConfigError: it is not that replica, or damaged; nothing was changed.

    Whatever names it shows are stable first: a process that was killed may have replaced a file and not come
    to sync the directory, and what is read here, a promise or a change of the snapshots, is answered for.
    """
    stamp = Stamp.of(directory)
    try:
        directory.sync()
        names = [name for name in directory.names() if name not in _NOT_OURS_TO_SEE]
        if STATE_FILE not in names:
            _check_empty(directory, names)
            _create(directory, names, identity)
        elif MARKER in names:
            directory.remove(MARKER)
            directory.sync()
        return _open(directory, identity, boot_id, stamp)
    except BaseException as error:
        stamp.close()
        if isinstance(error, ConfigError):
            raise ConfigError(f"{directory.path}: {error}") from error
        raise


def _check_empty(directory: Directory, names: list[str]) -> None:
    """Refuse to create a replica among files that are not the remains of our own cut creation."""
    remains = {MARKER + TEMPORARY_SUFFIX}
    if MARKER in names:
        finals = (*_CREATED, MARKER, STATE_FILE)
        remains = {*finals, *(name + TEMPORARY_SUFFIX for name in finals)}
    foreign = [name for name in names if name not in remains]
    if foreign:
        raise ConfigError(
            f"holds files that are not a pyjiva replica ({', '.join(foreign[:3])}"
            f"{', …' if len(foreign) > 3 else ''}); give an empty directory"
        )


def _create(directory: Directory, names: list[str], identity: ReplicaState) -> None:
    if MARKER not in names:
        replace_file(directory, MARKER, b"This replica is being created.\n")
    for name in names:
        if name not in (MARKER, MARKER + TEMPORARY_SUFFIX):
            directory.remove(name)
    head = directory.create(FIRST_HEAD)
    try:
        head.truncate(identity.size_bytes)
        head.sync_data()
    finally:
        head.close()
    volume = VolumeMeta(size_bytes=identity.size_bytes, head=FIRST_HEAD)
    replace_file(directory, FIRST_HEAD + META_SUFFIX, DiskMeta(name=FIRST_HEAD).encode())
    replace_file(directory, VOLUME_META, volume.encode())
    replace_file(directory, STATE_FILE, encode_state(identity))
    directory.remove(MARKER)
    directory.sync()


def _open(
    directory: Directory, identity: ReplicaState, boot_id: str, stamp: Stamp
) -> tuple[ReplicaState, Layers]:
    state = decode_state(read_file(directory, STATE_FILE))
    _check_identity(state, identity)
    chain = read_chain(directory, directory.names())
    recorded = chain is not None
    if chain is None:
        chain = _chain_of_one(directory, state)
    layers = Layers.open(
        directory,
        chain,
        state.size_bytes,
        boot_id=boot_id,
        recorded=recorded,
        unstable=bool(state.written_boot_id),
        stamp=stamp,
    )
    return state, layers


def _chain_of_one(directory: Directory, state: ReplicaState) -> Chain:
    """The chain of a directory that has had no snapshot: Jiva's files say that there is a head alone."""
    metas = [name for name in directory.names() if name == VOLUME_META or name.endswith(META_SUFFIX)]
    return head_alone({name: read_file(directory, name) for name in metas}, state.size_bytes)


def _check_identity(state: ReplicaState, identity: ReplicaState) -> None:
    if state.volume_id != identity.volume_id:
        raise ConfigError(
            f"belongs to volume {state.volume_name} ({state.volume_id}), not to "
            f"{identity.volume_name} ({identity.volume_id}); give another directory"
        )
    if state.replica_id != identity.replica_id:
        raise ConfigError(f"is replica {state.replica_id}, not {identity.replica_id}; give another directory")
    if state.witness != identity.witness:
        kind = "a witness, not a replica with data" if state.witness else "a replica with data, not a witness"
        raise ConfigError(f"is {kind}; give another directory")
    if state.size_bytes < identity.size_bytes:  # it may have been made larger since
        raise ConfigError(
            f"holds a volume of {_size(state)}, not {_size(identity)}; give the size that it began with, "
            f"and make it larger with pyjiva expand"
        )
    if state.block_size_bytes != identity.block_size_bytes:
        raise ConfigError(
            f"holds a volume with blocks of {state.block_size_bytes} bytes, not {identity.block_size_bytes}; "
            f"give the block size that it has"
        )


def _size(state: ReplicaState) -> str:
    return f"{format_size(state.size_bytes)} ({state.size_bytes} bytes)"
