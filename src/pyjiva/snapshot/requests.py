"""Requests of our own, beside those of a block device, that a replica's device takes.  Pure."""

import enum
from collections.abc import Callable, Sequence

import attrs

from pyjiva.block import Buffer
from pyjiva.errors import StorageError
from pyjiva.extent import Extent

__all__ = ["Hash", "Past", "PastVerb", "Spoil"]


@attrs.define(eq=False)
class Hash:
    """The xxh3-128 digest of a range; the caller keeps writes away from it meanwhile.

    With `verify` the blocks are read from the disk and compared with their checksums first.
    """

    offset_bytes: int
    length_bytes: int
    verify: bool
    done: Callable[["Hash"], None]
    digest: bytes = b""
    error: StorageError | None = None


@attrs.define(eq=False)
class Spoil:
    """See `Store.spoil`."""

    offset_bytes: int
    length_bytes: int
    done: Callable[["Spoil"], None]
    error: StorageError | None = None


class PastVerb(enum.Enum):
    """What is done to the volume as it was."""

    READ = "read"
    MAP = "map"
    HASH = "hash"
    WRITE = "write"
    ZERO = "zero"
    SPOIL = "spoil"
    CHANGED = "changed"


@attrs.define(eq=False)
class Past:
    """Look at, or make good, a range of the volume as it was when a snapshot was made."""

    verb: PastVerb
    number: int
    """Of the snapshot; with CHANGED also `lineage.NOTHING`, for the live volume."""
    offset_bytes: int
    length_bytes: int
    done: Callable[["Past"], None]
    data: Sequence[Buffer] = ()
    """WRITE: what to write; READ: the answer."""
    since: int = 0
    """CHANGED: the number of an older snapshot; `lineage.NOTHING`: an empty volume."""
    digest: bytes = b""
    """HASH: the answer."""
    extents: Sequence[Extent] = ()
    """MAP, CHANGED: the answer."""
    error: StorageError | None = None
