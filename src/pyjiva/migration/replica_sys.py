"""A pyjiva replica's directory that no process serves, opened as it is.  Blocking calls only."""

from pathlib import Path

from pyjiva.errors import ConfigError
from pyjiva.snapshot import Store
from pyjiva.snapshot.boot_sys import read_boot_id
from pyjiva.snapshot.state import STATE_FILE, decode_state
from pyjiva.sparse import open_directory, read_file

__all__ = ["open_replica"]


def open_replica(path: Path) -> Store:
    """The pyjiva replica in `path`, owned by this process until it is closed.

    Opening does what every start of `pyjiva-replica` does first: it ends what a crash left to be done.
    Raises ConfigError: it is none, holds no data, or is served at this moment.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: is no directory")
    directory = open_directory(path)
    try:
        if STATE_FILE not in directory.names():
            raise ConfigError(
                f"{path}: is no pyjiva replica; see pyjiva import for those of Longhorn and Jiva"
            )
        state = decode_state(read_file(directory, STATE_FILE))
        if state.witness:
            raise ConfigError(f"{path}: is a witness, which holds no data")
    except BaseException:
        directory.close()
        raise
    return Store.open_in(directory, state, boot_id=read_boot_id())
