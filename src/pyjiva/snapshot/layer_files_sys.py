"""Opening the files of a layer, each of which has to be as long as the volume wants it.
Blocking calls only.

`may_be_longer`: growing that was cut leaves files that are longer than they should be, in a directory that
has had a snapshot; elsewhere that is damage.
"""

from pyjiva.errors import ConfigError
from pyjiva.snapshot.held_map_sys import HeldMap
from pyjiva.snapshot.layer_stack_sys import block_count
from pyjiva.sparse import DataFile, Directory, sums_size_bytes

__all__ = ["open_data", "open_map", "open_sums"]


def open_data(
    directory: Directory, name: str, names: set[str], size_bytes: int, *, may_be_longer: bool
) -> DataFile:
    """The data of a layer.  Raises ConfigError: it is missing, or damaged."""
    if name not in names:
        raise ConfigError(f"{name} is missing: move the directory away, the replica is rebuilt")
    file = directory.open(name)
    try:
        has_bytes = file.size_bytes()
        if has_bytes < size_bytes or (has_bytes > size_bytes and not may_be_longer):
            raise ConfigError(f"{name} has {has_bytes} bytes instead of {size_bytes}: it is damaged")
    except BaseException:
        file.close()
        raise
    return file


def open_sums(
    directory: Directory, name: str, names: set[str], size_bytes: int, *, may_be_longer: bool
) -> DataFile:
    """The checksums of a layer.  One that has none yet, or whose file a power cut took, knows none.

    Raises ConfigError: they are damaged.
    """
    wanted_bytes = sums_size_bytes(size_bytes)
    if name in names:
        sums = directory.open(name)
        present_bytes = sums.size_bytes()
    else:
        sums = directory.create(name)
        present_bytes = 0
    try:
        if present_bytes > wanted_bytes and not may_be_longer:
            raise ConfigError(f"{name} has {present_bytes} bytes instead of {wanted_bytes}: it is damaged")
        if present_bytes < wanted_bytes:
            sums.truncate(wanted_bytes)
            sums.sync_data()
            directory.sync()
    except BaseException:
        sums.close()
        raise
    return sums


def open_map(directory: Directory, name: str, names: set[str], size_bytes: int, *, unstable: bool) -> HeldMap:
    """The map of a layer's blocks.  Raises ConfigError: it is missing, or damaged."""
    if name not in names:
        raise ConfigError(f"{name} is missing: move the directory away, the replica is rebuilt")
    file = directory.open(name)
    blocks = block_count(size_bytes)
    try:
        if file.size_bytes() < blocks:
            raise ConfigError(f"{name} has {file.size_bytes()} bytes instead of {blocks}: it is damaged")
        return HeldMap.open(file, blocks, unstable=unstable)
    except BaseException:
        file.close()
        raise
