"""What was found in a replica's directory, before anything is concluded from it; and the names that can be
there.  Pure.
"""

from collections.abc import Mapping
from typing import Final

import attrs

from pyjiva.extent import Extent
from pyjiva.snapshot.chain import CHAIN_FILE
from pyjiva.snapshot.metadata import META_SUFFIX
from pyjiva.snapshot.state import STATE_FILE
from pyjiva.units import STORED_BLOCK_BYTES

__all__ = [
    "BLOCK_BYTES",
    "FLUSH_FAILED_FILE",
    "KEPT_PREFIX",
    "MARKER",
    "SLOT_FILE",
    "STAMP_FILE",
    "SUM_BYTES",
    "TEMPORARY_SUFFIX",
    "UNDO_FILE",
    "DataFacts",
    "FileFacts",
    "Listing",
    "MapFacts",
    "is_small",
]

# As in `sparse` and in modules of `snapshot` that make system calls; a test holds them equal.
BLOCK_BYTES: Final = STORED_BLOCK_BYTES
SUM_BYTES: Final = 8
TEMPORARY_SUFFIX: Final = ".tmp"
MARKER: Final = "pyjiva.creating"
FLUSH_FAILED_FILE: Final = "pyjiva.flush-failed"
UNDO_FILE: Final = "atomic.undo"
STAMP_FILE: Final = "pyjiva-stamp"
SLOT_FILE: Final = "pyjiva-slot"

KEPT_PREFIX: Final = "pyjiva-repair-"
"""What the names of the files that a repair has replaced begin with."""


@attrs.frozen
class FileFacts:
    """One name in the directory."""

    size_bytes: int = 0
    allocated_bytes: int = 0
    """What of it is not holes."""
    content: bytes | None = None
    """All of it, of the small files (`is_small`) that can be read."""
    error: str = ""
    """Why it cannot be read; "" if it can."""


@attrs.frozen
class Listing:
    """All names in the directory."""

    files: Mapping[str, FileFacts]
    undo: Extent | None = None
    """Where opening the directory would put the old content back that an atomic write replaced."""
    under_way: tuple[Extent, ...] = ()
    """Where the process before may have been killed while it wrote in place, in this boot."""

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def __getitem__(self, name: str) -> FileFacts:
        return self.files[name]


@attrs.frozen
class MapFacts:
    """What the map of a layer has."""

    held_blocks: int = 0
    """Blocks that it says are held, stable or not."""
    bad_blocks: int = 0
    """Bytes that no pyjiva has written."""
    first_bad_block: int = 0
    error: str = ""
    """Why a part of it cannot be read; "" if all can."""


@attrs.frozen
class DataFacts:
    """What was found in those blocks of a layer that count."""

    good_blocks: int = 0
    """They are what was written."""
    unknown_blocks: int = 0
    """They have data and no checksum: nobody can say."""
    bad: tuple[Extent, ...] = ()
    """They are not what was written."""
    unreadable: tuple[Extent, ...] = ()
    """The disk does not give them."""


def is_small(name: str) -> bool:
    """Whether a file with this name holds metadata that is read whole."""
    return name in (STATE_FILE, CHAIN_FILE) or name.endswith(META_SUFFIX)
