"""Requests to the data path that no host makes: a change of the snapshots, a piece of one that is filled.
Pure.
"""

from collections.abc import Callable

import attrs

from pyjiva.block import Buffer
from pyjiva.errors import StorageError
from pyjiva.lineage import Change

__all__ = ["ChangeRequest", "FillRequest"]


@attrs.define(eq=False)
class ChangeRequest:
    """Carried out by all members that take writes, while no other request is in flight anywhere.

    If no member can do it, it fails, and nothing has changed.  It is not parked: an operator who wants a
    snapshot now does not want it when the volume has come back.
    """

    change: Change
    length_bytes: int
    """Of the volume."""
    done: Callable[["ChangeRequest"], None]
    offset_bytes: int = 0
    error: StorageError | None = None


@attrs.define(eq=False)
class FillRequest:
    """Give a piece of the snapshot that is being filled to all members.  Waits as a write does.

    What the live volume holds of its own is not touched.  It may be done again, also after it failed.
    """

    number: int
    """Of the snapshot."""
    offset_bytes: int
    length_bytes: int
    data: Buffer
    done: Callable[["FillRequest"], None]
    error: StorageError | None = None
