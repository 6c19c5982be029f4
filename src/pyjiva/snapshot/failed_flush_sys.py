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
from pyjiva.snapshot.state import STATE_FILE, ReplicaState, encode_state
from pyjiva.sparse import CheckedFile, Directory, replace_file
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


def recover(directory: Directory, state: ReplicaState, head: CheckedFile, extents: Iterable[Extent]) -> None:
    """Make durable what `state` says of the failure, and the pages in `extents` dirty, for the next sync
    to bring them to the disk.  Raises StorageError: the disk is still bad.
    """
    replace_file(directory, STATE_FILE, encode_state(state))
    if flush_has_failed(directory):
        directory.remove(FLUSH_FAILED_FILE)
    for extent in extents:
        for part in head.allocated(extent):
            for piece in part.split(MIB):
                data = head.data.read(piece.offset_bytes, piece.length_bytes)
                head.data.write(piece.offset_bytes, (data,))
