"""What a process leaves to the next one when a flush has failed.  Blocking calls only.

Linux reports a failed write-back once, and takes the pages for clean then: they show what was written and the
disk does not have it.  The process refuses everything from then on; the next one must not believe its
own flushes before all that may be like this is written again.
"""

import contextlib
from collections.abc import Iterable
from typing import Final

from pyjiva.errors import StorageError
from pyjiva.extent import Extent
from pyjiva.snapshot.chain import HEAD
from pyjiva.snapshot.layers_sys import Layers
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, encode_state
from pyjiva.sparse import Directory, replace_file
from pyjiva.units import MIB

__all__ = ["FLUSH_FAILED_FILE", "flush_has_failed", "note_failed_flush", "recover"]

FLUSH_FAILED_FILE: Final = "pyjiva.flush-failed"


def note_failed_flush(directory: Directory) -> None:
    """A flush failed, and the state file could not be replaced either: leave a name, which needs no sync for
    the next process of this boot to see it.
    """
    with contextlib.suppress(StorageError):
        directory.create(FLUSH_FAILED_FILE).close()


def flush_has_failed(directory: Directory) -> bool:
    """Whether there is such a name."""
    return FLUSH_FAILED_FILE in directory.names()


def recover(directory: Directory, state: ReplicaState, layers: Layers, extents: Iterable[Extent]) -> None:
    """Make durable what `state` says of the failure; and make dirty, for the next sync to bring them to the
    disk, all pages of the maps, and in `extents` those of the head and of the layers that are written to.

    Raises StorageError: the disk is still bad.
    """
    replace_file(directory, STATE_FILE, encode_state(state))
    if flush_has_failed(directory):
        directory.remove(FLUSH_FAILED_FILE)
    for layer in layers.open_layers.values():
        if layer.held is not None:
            layer.held.rewrite()
    marked = list(extents)
    unsettled = (layer.name for layer in layers.chain.layers if layer.unsettled)
    for file in (layers.open_layers[name].file for name in (HEAD, *unsettled)):
        for extent in marked:
            for part in file.allocated(extent):
                for piece in part.split(MIB):
                    data = file.data.read(piece.offset_bytes, piece.length_bytes)
                    file.data.write(piece.offset_bytes, (data,))
